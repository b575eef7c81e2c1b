"""A prefix that one router sends out of another port than its control plane means."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, OwnRoute, Place, refuse_in_use
from chaos.changes.route import checked_prefix
from chaos.errors import SpecError, near
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("route_detour", area="switch")
@dataclass(frozen=True, slots=True)
class RouteDetour:
    """Send one prefix to a neighbour of the router's, whatever its RIB says.

    The next hop on that port is the one that the kernel's own routes use there; else the other
    address of a subnet of two; else a neighbour that told it is a router. Where the neighbour's way
    to the prefix leads back over this router, packets run in a circle (`forwarding_loop` makes both
    ends do it).

    Reach: as `route_blackhole`. ECMP is lost: every flow to the prefix takes that port. BGP still
    announces the way that is no longer taken.

    Needs: CAP_NET_ADMIN in the node.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        prefix: The network, such as `10.0.8.0/31`.
        via: One of its neighbours, or one of its ports.

    Try:
        route_detour node=leaf1 prefix=10.0.8.0/31 via=spine2
        route_detour node=spine1 prefix=10.0.8.0/31 via=eth2

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth2"), Port("spine2", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine2": Node("spine2")}, (cable,))
        >>> RouteDetour("leaf1", "10.0.8.0/31", "spine2").changes(fabric)[0].describe()
        'leaf1: 10.0.8.0/31 routed out of eth2, in the kernel only'
    """

    node: str
    prefix: str
    via: str

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One route of ours, out of the first port that leads there."""
        refuse_in_use("node", self.node)
        ports = {
            port: link.other(port)
            for link in fabric.links_of(self.node)
            for port in link.ports
            if port.node == self.node and len(link.ports) == 2
        }
        for port, other in ports.items():
            if self.via in (port.name, port.id, other.node):
                return (OwnRoute(Place.at(port), self.prefix, "leg"),)
        known = [*(port.name for port in ports), *(other.node for other in ports.values())]
        raise SpecError(
            f"{self.node} has no neighbour or port {self.via!r}; {near(self.via, known)}",
            field="via",
        )
