"""A rank of the collective job that dies, by SIGKILL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chaos.change import Change, Place, ProcessSignal
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("rank_kill", area="job")
@dataclass(frozen=True, slots=True)
class RankKill:
    """Kill one rank's process. Nothing takes that back: the job must restart or go on without it.

    Reach: the process only. Its kernel closes its sockets at once, so peers see resets within a
    round trip, unlike a host that loses power (`node_down`).

    Needs: a collective job in the experiment; the right to signal its processes.

    Args:
        rank: Number of the rank, from 0.

    Try:
        rank_kill rank=0

    Examples:
        >>> RankKill(2).changes(Fabric("f", {}))[0].describe()
        '/rank2: SIGKILL'
    """

    lasting: ClassVar[bool] = True  # whoever strikes that rank again in the same storm is left out

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise SpecError(f"a rank is counted from 0, got {self.rank}")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One signal; the running job says on which node the rank is."""
        return (ProcessSignal(Place("", process=f"rank{self.rank}"), "KILL"),)
