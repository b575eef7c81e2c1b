"""A BGP session that is shut down while its link stays up."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import BgpNeighbour, Change, Place
from chaos.errors import SpecError
from chaos.fabric import Fabric, Port
from chaos.registry import fault


@fault("bgp_down", area="switch")
@dataclass(frozen=True, slots=True)
class BgpDown:
    """Shut one BGP session down administratively, as a change gone wrong does.

    The router tells its neighbour (CEASE), both withdraw what they learnt, and traffic moves away
    before any packet is lost where another leg is there. The link stays up, so nothing that watches
    links notices.

    Reach: routes of that one session. Traffic that has no other leg is lost until the undo.

    Needs: a router whose command line the driver reaches: FRR, or a switch of a known platform.

    Args:
        node: The router that shuts its end.
        neighbor: Address of the neighbour, or the interface of an unnumbered session.

    Try:
        bgp_down node=leaf1 neighbor=eth1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> nodes = {name: Node(name, runs="frr") for name in ("leaf1", "spine1")}
        >>> fabric = Fabric("f", nodes, (cable,))
        >>> [change.describe() for change in BgpDown("leaf1", "eth1").changes(fabric)]
        ['leaf1: BGP neighbor eth1 shut down']
    """

    node: str
    neighbor: str

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One session, at one end."""
        fabric.node(self.node)
        ports = [port.name for link in fabric.links_of(self.node) for port in link.ports]
        looks_like_port = "." not in self.neighbor and ":" not in self.neighbor
        if looks_like_port and Port(self.node, self.neighbor) not in {*fabric.walk()}:
            raise SpecError(
                f"{self.node} has no interface {self.neighbor!r} for an unnumbered session; "
                f"its ports: {', '.join(sorted(set(ports)))}; or give the neighbour's address",
                field="neighbor",
            )
        return (BgpNeighbour(Place(self.node), self.neighbor),)
