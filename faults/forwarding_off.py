"""A router that forwards no longer while its control plane is well."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Place, Setting, refuse_in_use
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("forwarding_off", area="switch")
@dataclass(frozen=True, slots=True)
class ForwardingOff:
    """Turn IP forwarding off at every port of one router, by its kernel's own setting.

    BGP, BFD and pings to the router itself go on, so every neighbour keeps sending it traffic,
    which it drops.

    Reach: packets of one family that pass through the router. What it sends itself, and what is
    for itself, passes. IPv4 over IPv6 next hops (BGP unnumbered) counts as IPv4. Hardware that
    forwards past the kernel is not hit.

    Needs: root in the node; a node that forwards.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        family: `4` or `6`.

    Try:
        forwarding_off node=spine1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> ForwardingOff("spine1").changes(fabric)[0].describe()
        'spine1: net.ipv4.conf.eth1.forwarding = 0'
    """

    node: str
    family: int = 4

    def __post_init__(self) -> None:
        if self.family not in (4, 6):
            raise SpecError(f"family must be 4 or 6, got {self.family}", field="family")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One setting per port: the router's own would rewrite others with it."""
        refuse_in_use("node", self.node)
        key = f"net.ipv{self.family}.conf.{{port}}.forwarding"
        ports = [
            port
            for link in fabric.links_of(self.node)
            for port in link.ports
            if port.node == self.node
        ]
        if not ports:
            raise SpecError(f"node {self.node} has no links, so it forwards nothing", field="node")
        return tuple(Setting(Place.at(port), key, "0") for port in ports)
