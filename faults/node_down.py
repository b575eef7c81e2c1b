"""A node that falls off the fabric: all its links go down at once."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, LinkState, Place, refuse_in_use
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("node_down", area="switch")
@dataclass(frozen=True, slots=True)
class NodeDown:
    """Take the carrier from every link of one node, at both ends.

    Killing a router's daemons is no such fault: its kernel goes on forwarding by the routes it has.

    Reach: every packet to, from and through the node. Its processes live on and may talk to each
    other; a job's rank on it hangs, it does not die (`rank_kill` does that).

    Needs: CAP_NET_ADMIN, and wires that can be reached: see `link_down`.

    Args:
        node: Name of the node, or `in-use …` for one that the measured traffic crosses.

    Try:
        node_down node=spine1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> [change.describe() for change in NodeDown("spine1").changes(fabric)]
        ['spine1:eth1~wire: no carrier', 'leaf1:eth1~wire: no carrier']
    """

    node: str

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """The node's own ends first, so that it is cut off at once."""
        refuse_in_use("node", self.node)
        links = [link for link in fabric.links_of(self.node) if len(link.ports) == 2]
        if not links:
            raise SpecError(f"node {self.node} has no links, so it cannot fall off the fabric")
        ports = [port for link in links for port in link.ports]
        own = [port for port in ports if port.node == self.node]
        others = [port for port in ports if port.node != self.node]
        return tuple(LinkState(Place.at(port, "wire")) for port in own + others)
