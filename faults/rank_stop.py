"""A rank of the collective job that hangs, by SIGSTOP, and goes on when healed."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Place, ProcessSignal
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("rank_stop", area="job")
@dataclass(frozen=True, slots=True)
class RankStop:
    """Stop one rank's process for the time of the storm: a straggler at its worst.

    Reach: the process, all its threads. Its kernel still acknowledges what peers send until the
    socket buffers are full, so TCP sees no fault; only the job's own watch does.

    Needs: a collective job in the experiment; the right to signal its processes.

    Args:
        rank: Number of the rank, from 0.

    Try:
        rank_stop rank=0

    Examples:
        >>> RankStop(2).changes(Fabric("f", {}))[0].describe()
        '/rank2: SIGSTOP'
    """

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise SpecError(f"a rank is counted from 0, got {self.rank}")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One signal; the running job says on which node the rank is."""
        return (ProcessSignal(Place("", process=f"rank{self.rank}"), "STOP"),)
