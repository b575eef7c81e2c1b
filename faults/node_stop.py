"""A node that stops or stands still as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from chaos.change import Change, NodePower, at_node
from chaos.errors import SpecError, near
from chaos.fabric import Fabric
from chaos.registry import fault

HOW = ("stop", "pause")


@fault("node_stop", area="switch")
@dataclass(frozen=True, slots=True)
class NodeStop:
    """Stop or pause one node by whatever runs it; the undo starts it, or lets it go on.

    *stop* is a power cut: the processes end, the links lose their carrier at once. After the start
    its links are back, its addresses come from its own configuration. *pause* is a control plane
    that hangs: no process moves, while the kernel goes on forwarding and answering pings.

    Reach: *stop*: every packet to, from and through the node, and all its processes. *pause*: its
    processes only; sessions time out at its neighbours.

    Needs: a driver that runs nodes (containerlab). The embedded fabric has nothing to stop:
    `node_down` cuts a node off there.

    Args:
        node: Name of the node, or `in-use …` for one that the measured traffic crosses.
        how: `stop` or `pause`.

    Try:
        node_stop node=spine1
        node_stop node=spine1 how=pause

    Examples:
        >>> from chaos.fabric import Fabric, Node
        >>> fabric = Fabric("f", {"spine1": Node("spine1")})
        >>> [change.describe() for change in NodeStop("spine1", how="pause").changes(fabric)]
        ['spine1: paused']
    """

    node: str
    how: str = "stop"

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise SpecError(f"node_stop cannot {self.how!r}; {near(self.how, HOW)}", field="how")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """The node itself."""
        return (NodePower(at_node(fabric, self.node), cast(Literal["stop", "pause"], self.how)),)
