"""A rail that goes dark: the same NIC of every host at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.change import Change, refuse_in_use
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault
from faults.link_down import LinkDown


@fault("rail_down", area="switch")
@dataclass(frozen=True, slots=True)
class RailDown:
    """Take all cables between hosts and switches of one rail out of service.

    A rail is the cables with one label `rail`; where the cable that is named has none, those at the
    hosts' interface of the same name. A job with another rail left may go on over that one.

    Reach: as `link_down` of mode carrier, at every cable of the rail; what joins its switches to
    each other stays up (`plane_down` takes that too). Nobody's ports but those see it: where the
    job has one interface only, all its ranks are cut off at once.

    Needs: CAP_NET_ADMIN, and wires that can be reached: see `link_down`.

    Args:
        link: One cable of the rail: id, node pair, or `in-use …`.
        mode: `carrier`, or `silent`: what either end sends vanishes.

    Try:
        rail_down link=host1--leaf1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> pairs = (("host1", "eth1", "leaf1"), ("host1", "eth2", "leaf2"),
        ...          ("host2", "eth1", "leaf1"))
        >>> cables = tuple(Link(Port(h, p), Port(leaf, h)) for h, p, leaf in pairs)
        >>> roles = {"host1": "host", "host2": "host", "leaf1": "leaf", "leaf2": "leaf"}
        >>> nodes = {name: Node(name, role=role) for name, role in roles.items()}
        >>> changes = RailDown("host1:eth1").changes(Fabric("f", nodes, cables))
        >>> [change.describe() for change in changes][::2]
        ['host1:eth1~wire: no carrier', 'host2:eth1~wire: no carrier']
    """

    link: str
    mode: Literal["carrier", "silent"] = "carrier"

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down` at each cable of the rail."""
        refuse_in_use("link", self.link)
        wanted = fabric.rail(fabric.link(self.link))
        if not wanted:
            raise SpecError(
                f"link {fabric.link(self.link).id} has no label rail and ends at no host, so it is "
                "on no rail; name a cable of a host",
                field="link",
            )
        return tuple(
            change
            for link in fabric.links
            if wanted == fabric.rail(link) and len(link.ports) == 2
            for change in LinkDown(link.id, self.mode).changes(fabric)
        )
