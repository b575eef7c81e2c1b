"""A router that stops announcing a prefix."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import BgpWithdraw, Change, Place, at_node
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("route_withdraw", area="switch")
@dataclass(frozen=True, slots=True)
class RouteWithdraw:
    """Let one router announce one prefix no longer, by its command line.

    An outbound prefix list of ours is named at its neighbours; sessions and links stay up. The undo
    takes the list out again, and the configuration is letter for letter what it was.

    Reach: routes to exactly that prefix, learnt from that router. Where another way is there,
    traffic takes it, after some 60 ms per BGP speaker; the router itself still forwards what
    arrives meanwhile.

    Needs: FRR whose command line the driver reaches; no outbound prefix or distribute list at the
    neighbours.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        prefix: The network, such as `10.0.8.0/31`, exactly as it is announced.
        neighbor: Only towards this neighbour or peer group of its configuration.

    Try:
        route_withdraw node=spine1 prefix=10.0.8.0/31
        route_withdraw node=spine1 prefix=10.0.8.0/31 neighbor=eth1

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"spine1": Node("spine1", runs="frr")})
        >>> RouteWithdraw("spine1", "10.0.8.0/31").changes(fabric)[0].describe()
        'spine1: 10.0.8.0/31 withdrawn from everybody'
    """

    node: str
    prefix: str
    neighbor: str = ""

    def __post_init__(self) -> None:
        BgpWithdraw(Place("any"), self.prefix, self.neighbor)  # refuses wrong words

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One withdrawal."""
        return (BgpWithdraw(at_node(fabric, self.node), self.prefix, self.neighbor),)
