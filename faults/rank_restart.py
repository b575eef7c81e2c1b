"""A rank of the collective job that ends and is started again, as a supervisor does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chaos.change import Change, Place, ProcessRestart
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("rank_restart", area="job")
@dataclass(frozen=True, slots=True)
class RankRestart:
    """Kill one rank's process, and have it started again when the storm ends.

    The length of the storm is the time that a scheduler needs for a new process. What is measured
    is the job: how soon it notices, and how soon all ranks run again once the new one is there
    (`job_recovery_after_heal_ms`, `job_down_ms`, `job_lost_iterations_count`).

    Reach: the process only, as `rank_kill`. The new one is forked from a server that has torch
    loaded, so the seconds of an import are not in these numbers. There is no checkpoint to read:
    the job goes on with the iteration after the last one that any rank completed.

    Needs: a collective job in `mode: restart` (all wait for it) or `mode: regroup` (the others go
    on meanwhile); its processes' parent must listen for SIGUSR1. Refused in `mode: ride`.

    Args:
        rank: Number of the rank, from 0.

    Try:
        rank_restart rank=0

    Examples:
        >>> RankRestart(2).changes(Fabric("f", {}))[0].describe()
        '/rank2: SIGKILL, started again at the end'
    """

    job_modes: ClassVar[tuple[str, ...]] = ("restart", "regroup")

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise SpecError(f"a rank is counted from 0, got {self.rank}")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One process; the running job says on which node the rank is."""
        return (ProcessRestart(Place("", process=f"rank{self.rank}")),)
