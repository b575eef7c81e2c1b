"""A prefix that one router drops while its control plane is well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.change import Change, OwnRoute, at_node
from chaos.changes.route import checked_prefix
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("route_blackhole", area="switch")
@dataclass(frozen=True, slots=True)
class RouteBlackhole:
    """Drop one prefix in the kernel of one router, while its RIB says otherwise.

    What a line card does whose table was programmed wrongly: BGP goes on announcing the prefix, so
    nobody routes around it, and no session, link or unicast route changes.

    Reach: packets through that router (and its own) whose longest match is the prefix. A prefix
    that an interface of the router has itself is beaten by a longer one only: name a host's /32
    there. A switch chip that forwards past its kernel is not hit. A zebra that starts anew sweeps
    the route away.

    Needs: CAP_NET_ADMIN in the node.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        prefix: The network, such as `10.0.8.0/31`.
        how: `blackhole`: without a word. `unreachable`, `prohibit`: the sender is told by ICMP.

    Try:
        route_blackhole node=spine1 prefix=10.0.8.0/31
        route_blackhole node=leaf4 prefix=10.0.8.1/32 how=unreachable

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"spine1": Node("spine1")})
        >>> RouteBlackhole("spine1", "10.0.8.0/31").changes(fabric)[0].describe()
        'spine1: 10.0.8.0/31 routed blackhole, in the kernel only'
    """

    node: str
    prefix: str
    how: Literal["blackhole", "unreachable", "prohibit"] = "blackhole"

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One route of ours."""
        return (OwnRoute(at_node(fabric, self.node), self.prefix, self.how),)
