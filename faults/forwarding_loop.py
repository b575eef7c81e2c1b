"""Two routers that send a prefix to each other."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, OwnRoute, Place, aimed
from chaos.changes.route import checked_prefix
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("forwarding_loop", area="switch")
@dataclass(frozen=True, slots=True)
class ForwardingLoop:
    """Let both ends of a link route one prefix to the other, until each packet's TTL is spent.

    Every packet that enters crosses the link some sixty times and is then dropped; the router that
    drops it says so to the sender by ICMP.

    Reach: as `route_blackhole`, at both ends. What enters the fabric elsewhere and does not come by
    is not hit. The link carries each packet many times, so what shares it may suffer as well.

    Needs: CAP_NET_ADMIN in both nodes; two routers.

    Args:
        link: A link between two routers, or `in-use …`.
        prefix: The network, such as `10.0.8.0/31`.

    Try:
        forwarding_loop link=leaf1--spine1 prefix=10.0.8.0/31

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth3"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> loop = ForwardingLoop("leaf1--spine1", "10.0.8.0/31")
        >>> [str(change.place) for change in loop.changes(fabric)]
        ['leaf1:eth1', 'spine1:eth3']
    """

    link: str
    prefix: str

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """A route at each end, towards the other."""
        link, ends = aimed(fabric, self.link, "both")
        if len(ends) < 2 or ends[0].node == ends[1].node:
            raise SpecError(f"link {link.id} does not join two routers", field="link")
        return tuple(OwnRoute(Place.at(port), self.prefix, "leg") for port in ends)
