"""A rank of the collective job that is slower than the others."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.units import Duration, Percent
from faults.rank_stop import RankStop

PERIOD = Duration(50_000_000)
SHORTEST_NS = 5_000_000  # a process must be scheduled to stop, and be seen stopped once


@fault("straggler", area="job")
@dataclass(frozen=True, slots=True)
class Straggler:
    """Stop one rank for a share of every period, and let it run for the rest.

    It never dies and never hangs for long; every collective waits for it. This is what a throttled
    GPU, a noisy neighbour or a slow data loader looks like to the other ranks.

    Reach: the process, all its threads, its heartbeats too. Its kernel receives on, so TCP sees no
    fault. A GPU goes on with what was launched. A rank that waits anyway loses nothing by being
    stopped, so a job with slack hides a small share.

    Needs: a collective job in the experiment; the right to signal its processes.

    Args:
        rank: Number of the rank, from 0.
        share: Share of the time that it is stopped, above 0 and below 100 %.
        period: Time of one stop and one run; each lasts 5 ms at least; on a busy
            machine a rank needs longer to stop.

    Try:
        straggler rank=0 share=50%
        straggler rank=0 share=20% period=100ms

    Examples:
        >>> slow = Straggler(2, Percent(60), Duration.parse("20 ms"))
        >>> slow.changes(Fabric("f", {}))[0].describe()
        '/rank2: SIGSTOP'
        >>> spans = slow.schedule(Duration.parse("45 ms"), random.Random(1))
        >>> [(span.start_ns, span.end_ns) for span in spans]
        [(0, 12000000), (20000000, 32000000)]
    """

    rank: int
    share: Percent
    period: Duration = PERIOD

    def __post_init__(self) -> None:
        RankStop(self.rank)  # refuses a negative rank
        if min(self._stopped(), self.period.ns - self._stopped()) < SHORTEST_NS:
            raise SpecError(
                f"a stop and a run must each last 5 ms or more; {self.share} of {self.period} is "
                f"{self._stopped() / 1e6:g} ms",
                field="share",
            )

    def _stopped(self) -> int:
        return self.period.ns * self.share.millionths // 1_000_000

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """That of `rank_stop`."""
        return RankStop(self.rank).changes(fabric)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Whole stops from the start of the storm on."""
        stopped = self._stopped()
        starts = range(0, storm.ns - stopped + 1, self.period.ns)
        if not starts:
            raise SpecError(f"a stop of {stopped / 1e6:g} ms does not fit into a storm of {storm}")
        return tuple(InForce(at, at + stopped) for at in starts)
