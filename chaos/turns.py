"""When, within its time, a fault is in force: stretches, and trains of them. Pure values."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Self

from chaos.errors import SpecError
from chaos.units import Duration, Hertz, Percent

NO_JITTER = Percent(0)
FASTEST_HZ = 100  # above it the other end of a link no longer sees every event


@dataclass(frozen=True, slots=True)
class InForce:
    """A stretch of the storm, relative to its start, during which the changes are in force."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Turns:
    """In force and not, again and again.

    Attributes:
        on: Time in force in each turn.
        off: Time not in force in each turn.
        count: Number of turns; 0 is as many as there is time for.
        jitter: Each time is longer or shorter by up to this share.
    """

    on: Duration
    off: Duration
    count: int = 0
    jitter: Percent = NO_JITTER

    @classmethod
    def of(
        cls,
        on: Duration | None,
        off: Duration | None,
        frequency: Hertz | None = None,
        count: int = 0,
        jitter: Percent = NO_JITTER,
        *,
        words: tuple[str, str] = ("down", "up"),
        fastest_hz: int = FASTEST_HZ,
    ) -> Self:
        """From both times, or from a frequency: half on and half off.

        Args:
            words: What the two times are called where these are fields, for refusals.
            fastest_hz: Turns per second at most.

        Raises:
            SpecError: with the field that is wrong.
        """
        down, up = words
        if (on is None) is not (off is None) or (on is None) is (frequency is None):
            raise SpecError(f"either {down} and {up}, or frequency expected", field=down)
        if frequency is not None:
            on = off = Duration(round(5e8 / frequency.value))
        assert on is not None
        assert off is not None
        if not on.ns or not off.ns or on.ns + off.ns < 1e9 / fastest_hz:
            raise SpecError(
                f"at most {fastest_hz} turns per second expected, each with time {down} and {up}, "
                f"got {down} {on} and {up} {off}",
                field="frequency" if frequency is not None else down,
            )
        if count < 0:
            raise SpecError(f"count must be 0 (as many as fit) or more, got {count}", field="count")
        if jitter.value >= 100:
            raise SpecError(f"jitter must be below 100 %, got {jitter}", field="jitter")
        return cls(on, off, count, jitter)

    def spans(self, time: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Turns from the start of that time on; only whole times in force, none after its end.

        Raises:
            SpecError: the number asked for, or a single one, does not fit.

        Examples:
            >>> fast = Turns(Duration(20), Duration(30), count=2)
            >>> fast.spans(Duration(100), random.Random(1))
            (InForce(start_ns=0, end_ns=20), InForce(start_ns=50, end_ns=70))
        """
        found: list[InForce] = []
        at = 0
        while not self.count or len(found) < self.count:
            ends = at + self._jittered(self.on, rng)
            if ends > time.ns:
                break
            found.append(InForce(at, ends))
            at = ends + self._jittered(self.off, rng)
        if len(found) < max(self.count, 1):
            many, turn = self.count or 1, Duration(self.on.ns + self.off.ns)
            whole = Duration(many * self.on.ns + (many - 1) * self.off.ns)
            raise SpecError(
                f"{many} turns of {turn} do not fit into {time}; {len(found)} do; they take {whole}"
                + (f", give or take {self.jitter}" if self.jitter.value else ""),
                field="count" if self.count else None,
            )
        return tuple(found)

    def _jittered(self, length: Duration, rng: random.Random) -> int:
        share = self.jitter.value / 100
        return max(1, round(length.ns * rng.uniform(1 - share, 1 + share)))
