"""An ECMP member that is dead and still hashed to."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, OwnRoute, at_node
from chaos.changes.route import checked_prefix
from chaos.fabric import Fabric
from chaos.registry import fault
from faults.link_down import LinkDown


@fault("member_lost", area="switch")
@dataclass(frozen=True, slots=True)
class MemberLost:
    """Cut a link beyond a router that keeps hashing to the leg that led there.

    The legs that the router's kernel has for the prefix are pinned as they are; then the link goes
    down. BGP withdraws the leg, the RIB loses it, and the kernel hashes on: the share of the flows
    that it picks is lost until the heal, all others are well. What a chip does that misses an
    update of its ECMP group.

    Reach: flows to the prefix through that router which its hash sends over the lost leg. A link
    at the router itself is no case of it: its kernel takes a leg without carrier out by itself.

    Needs: as `link_down` of that mode, and CAP_NET_ADMIN in the node.

    Args:
        node: The router whose legs are kept.
        prefix: The network, such as `10.0.8.0/31`.
        link: The link that is cut, not at that router; `in-use …` for one that traffic crosses.
        mode: As for `link_down`.

    Try:
        member_lost node=leaf1 prefix=10.0.8.0/31 link=spine1--leaf4

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("spine1", "eth4"), Port("leaf4", "eth1"))
        >>> fabric = Fabric("f", {n: Node(n) for n in ("leaf1", "spine1", "leaf4")}, (cable,))
        >>> lost = MemberLost("leaf1", "10.0.8.0/31", "spine1--leaf4")
        >>> lost.changes(fabric)[0].describe()
        'leaf1: 10.0.8.0/31 routed by the legs that it has now, in the kernel only'
    """

    node: str
    prefix: str
    link: str
    mode: str = "carrier"

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)
        LinkDown(self.link, self.mode)  # refuses a wrong mode

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """The legs first, while they are whole."""
        pinned = OwnRoute(at_node(fabric, self.node), self.prefix, "as-is")
        return (pinned, *LinkDown(self.link, self.mode).changes(fabric))
