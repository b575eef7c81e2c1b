"""Equal paths of which one gets all."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Setting, at_node
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("hash_polarised", area="switch")
@dataclass(frozen=True, slots=True)
class HashPolarised:
    """Let a router choose among equal paths by addresses alone, so that ports count no more.

    All flows of one pair of hosts then share one leg, however many there are: what a switch does
    whose hash leaves the layer-4 ports out. For several routers, write the fault several times.

    Reach: IPv4 that the router's kernel routes over more than one leg. A pair of hosts with one
    flow is not hit. It takes effect with the next packet, and so does the heal: packets in flight
    may be overtaken.

    Needs: root in the node; a kernel whose multipath hash is set to more than addresses.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.

    Try:
        hash_polarised node=leaf1

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1")})
        >>> HashPolarised("leaf1").changes(fabric)[0].describe()
        'leaf1: net.ipv4.fib_multipath_hash_policy = 0'
    """

    node: str

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One setting; the fields of the hash stay as they are."""
        return (Setting(at_node(fabric, self.node), "net.ipv4.fib_multipath_hash_policy", "0"),)
