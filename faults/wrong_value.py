"""A rank of the collective job that contributes wrong data."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change, Place, ProcessSignal
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.units import Duration

EVERY = Duration(200_000_000)


@fault("wrong_value", area="job")
@dataclass(frozen=True, slots=True)
class WrongValue:
    """Have one rank put one wrong value into its next operation, once or again and again.

    Every byte arrives as it was sent, so no checksum, link or transport can notice: a GPU that
    computes wrongly, memory that flips a bit. The value is the first of the rank's contribution,
    one more than it should be; a sum carries it to every rank.

    Reach: ranks of the probe `collective`, which listen for it (SIGUSR1). Only its own comparison
    of values finds it (`job_wrong_values`). Ranks whose output does not hold the value stay right:
    all but rank 0 with all_to_all and reduce_scatter. With broadcast it waits until the rank is
    the root.

    Needs: a collective job in the experiment; the right to signal its processes.

    Args:
        rank: Number of the rank, from 0.
        count: How many operations are spoilt.
        every: Time from one to the next, at least 1 ms; the first is at the start of the storm.

    Try:
        wrong_value rank=0
        wrong_value rank=0 count=3 every=100ms

    Examples:
        >>> WrongValue(2).changes(Fabric("f", {}))[0].describe()
        '/rank2: SIGUSR1'
    """

    rank: int
    count: int = 1
    every: Duration = EVERY

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise SpecError(f"a rank is counted from 0, got {self.rank}")
        if self.count < 1:
            raise SpecError(f"count must be 1 or more, got {self.count}", field="count")
        if self.every.ns < 1_000_000:
            raise SpecError(f"every must be at least 1 ms, got {self.every}", field="every")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One signal; the running job says on which node the rank is."""
        return (ProcessSignal(Place("", process=f"rank{self.rank}"), "USR1"),)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """One signal after the other, from the start of the storm on."""
        length = self.every.ns
        if self.count * length > storm.ns:
            raise SpecError(
                f"{self.count} wrong values, {self.every} apart, do not fit into a storm of {storm}"
            )
        starts = range(0, self.count * length, length)
        return tuple(InForce(at, at + length // 2) for at in starts)
