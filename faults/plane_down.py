"""A plane that goes dark: all switches that reach each other without crossing a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.change import Change, refuse_in_use
from chaos.fabric import Fabric, Link
from chaos.registry import fault
from faults.link_down import LinkDown


@fault("plane_down", area="switch")
@dataclass(frozen=True, slots=True)
class PlaneDown:
    """Take every cable of one plane out of service, between switches and towards hosts.

    A plane is what `railbreak plan` calls one: switches that reach each other without crossing a
    host; a cable between two hosts is one of its own. Hosts with a port in another plane still
    reach each other there.

    Reach: as `link_down` of the same mode, at every cable of the plane. On a fabric of one plane
    that is the whole fabric, and the blast radius says so.

    Needs: CAP_NET_ADMIN, and wires that can be reached: see `link_down`.

    Args:
        link: One cable of the plane: id, node pair, or `in-use …`.
        mode: `carrier`, or `silent`: what either end sends vanishes.

    Try:
        plane_down link=leaf1--spine1

    Examples:
        >>> from chaos.fabric import Node, Port
        >>> pairs = (("host1", "eth1", "leaf1"), ("host1", "eth2", "leaf2"))
        >>> cables = tuple(Link(Port(h, p), Port(leaf, h)) for h, p, leaf in pairs)
        >>> roles = {"host1": "host", "leaf1": "leaf", "leaf2": "leaf"}
        >>> nodes = {name: Node(name, role=role) for name, role in roles.items()}
        >>> changes = PlaneDown("host1:eth2").changes(Fabric("f", nodes, cables))
        >>> [change.describe() for change in changes]
        ['host1:eth2~wire: no carrier', 'leaf2:host1~wire: no carrier']
    """

    link: str
    mode: Literal["carrier", "silent"] = "carrier"

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down` at each cable of the plane."""
        refuse_in_use("link", self.link)
        found = fabric.link(self.link)
        switches = _plane(fabric, found)
        return tuple(
            change
            for link in fabric.links
            if len(link.ports) == 2 and (link == found or switches & {*link.nodes})
            for change in LinkDown(link.id, self.mode).changes(fabric)
        )


def _plane(fabric: Fabric, link: Link) -> set[str]:
    """Switches that are reached from a cable without crossing a host."""
    todo = [name for name in link.nodes if fabric.node(name).role != "host"]
    for name in todo:
        for other in fabric.links_of(name):
            todo += [
                peer
                for peer in other.nodes
                if peer not in todo and fabric.node(peer).role != "host"
            ]
    return set(todo)
