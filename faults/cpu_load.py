"""Processors of a node that others keep busy."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Load, Place, at_node, tag_of
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("cpu_load", area="nic")
@dataclass(frozen=True, slots=True)
class CpuLoad:
    """Run so many busy processes at a node, as a neighbour does who computes on the job's cores.

    They spin, at a nice level, from the deed to the undo, and die with whoever started them. `hit`
    is the milliseconds of processor time that they really got.

    Reach: the processors of the *machine* that the node is on: nodes of the embedded fabric and of
    a lab share one, so all of them are slowed alike, and so are probes there. They are in nobody's
    control group: a job with a CPU quota or cores of its own is slowed less. A GPU is not slowed;
    the threads that feed it are.

    Needs: the right to start processes there; root for a nice level below 0.

    Args:
        node: Name of the node, or `in-use …` for one that the measured traffic crosses.
        processes: How many; as many as processors take half of each from what runs there.
        nice: -20 (takes most) to 19 (takes what nobody wants).

    Try:
        cpu_load node=host1 processes=2
        cpu_load node=host1 nice=10

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"host1": Node("host1")})
        >>> [one.describe() for one in CpuLoad("host1", 4, nice=5).changes(fabric)]
        ['host1: 4 processes, nice 5, busy']
    """

    node: str
    processes: int = 1
    nice: int = 0

    def __post_init__(self) -> None:
        self._load(Place("any"))  # refuses what no process can have

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One load; its processes are its own."""
        return (self._load(at_node(fabric, self.node)),)

    def _load(self, place: Place) -> Load:
        return Load(place, tag_of(place, self), processes=self.processes, nice=self.nice)
