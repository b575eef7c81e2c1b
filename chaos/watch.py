"""Looks at abort conditions while a fault is in force, on what the probes say as they say it.

A watch that cannot read what it is to watch counts as a condition that holds: a fault is not left
in force unwatched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.abort import JOB_DEAD, Abort
from chaos.calm import clip
from chaos.objectives import quantity
from chaos.observe import Observer
from chaos.timeline import Moment, Windows, now_ns

MARGIN_NS = 1_500_000_000  # how old the newest record may be; older ones tell nothing of now
LOOK_S = 0.05  # how often live quantities are looked at
MEASURE_EVERY = 5  # measures are read from all records of the trial, so at every so many looks


@dataclass(frozen=True, slots=True)
class Tripped:
    """A condition that was seen to hold.

    Attributes:
        condition: Which.
        of: Label of the probe that told.
        value: What it told; None for `job_dead`, or where it could not be read.
        at_ns: When it was seen, CLOCK_MONOTONIC ns.
        told: What was seen, as a sentence.
    """

    condition: Abort
    of: str
    value: float | None
    at_ns: int
    told: str

    def as_json(self, healed_ns: int) -> dict[str, Any]:
        """For the record: why, when, and how long it took until everything was taken back."""
        to_healed_ms = max(0, healed_ns - self.at_ns) / 1e6
        return {
            "sentence": f"{self.told}; healed {to_healed_ms:.0f} ms after that was seen",
            "when": self.condition.when,
            "of": self.of,
            "value": self.value,
            "above": self.condition.above,
            "below": self.condition.below,
            "at_ns": self.at_ns,
            "healed_ns": healed_ns,
            "to_healed_ms": to_healed_ms,
        }


class Watch:
    """The conditions of one trial.

    Args:
        conditions: Each with the probes that it is asked of.
        observer: The probes, running.
        calm_ns: When the calm phase of this trial began and ended.
    """

    def __init__(
        self, conditions: Sequence[Abort], observer: Observer, calm_ns: tuple[int, int]
    ) -> None:
        self._observer, self._calm_ns = observer, calm_ns
        self._asked = [(one, of) for one in conditions for of in one.asked(observer.probes)]

    def look(self, since_ns: int, *, measures: bool = True) -> Tripped | None:
        """The first condition that holds of what was said since a time.

        Args:
            since_ns: Start of the storm, or of any other time to look at.
            measures: Also read measures, which takes longer.
        """
        for condition, of in self._asked:
            try:
                found = self._one(condition, of, since_ns, measures)
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
                why = f"{condition.sentence()}: cannot be watched, {of} cannot be read: {error!r}"
                return Tripped(condition, of, None, now_ns(), why)
            if found is not None:
                return found
        return None

    async def until(self, since_ns: int) -> Tripped:
        """Return once a condition holds; without conditions, never."""
        if not self._asked:
            await asyncio.Event().wait()
        looks = 0
        while True:
            looks += 1
            found = self.look(since_ns, measures=looks % MEASURE_EVERY == 0)
            if found is not None:
                return found
            await asyncio.sleep(LOOK_S)

    def _one(self, condition: Abort, of: str, since_ns: int, measures: bool) -> Tripped | None:
        if condition.when == JOB_DEAD:
            why = self._dead(of, since_ns)
            return Tripped(condition, of, None, now_ns(), why) if why else None
        probe = self._observer.probes[of]
        value: float | None = None
        if condition.when in getattr(probe, "watched", ()):
            first = max(since_ns, now_ns() - MARGIN_NS) - condition.over.ns
            records = self._observer.tail(of, first)
            told: Mapping[str, float] = getattr(probe, "watch")(  # noqa: B009 - an optional ability
                records, since_ns, condition.over.ns
            )
            value = told.get(condition.when)
        elif measures:
            value = self._measure(of, condition.when, since_ns)
        if value is None or not condition.holds(value):
            return None
        words = f"{condition.when} of {of} was {quantity(condition.when, value)}"
        return Tripped(condition, of, value, now_ns(), f"{words}, {condition.bound}")

    def _dead(self, of: str, since_ns: int) -> str:
        if self._observer.ended(of):
            return f"job_dead: a program of {of} ended"
        for records in self._observer.tail(of, since_ns).values():
            for one in records:
                if one.get("ev") == "fate" and one.get("fate") != "survived":
                    why = f" ({one['msg']})" if one.get("msg") else ""
                    return f"job_dead: {of} was {one.get('fate')}{why}"
        return ""

    def _measure(self, of: str, name: str, since_ns: int) -> float | None:
        now, begin = now_ns(), self._calm_ns[0]
        if now <= since_ns:
            return None
        probe = self._observer.probes[of]
        readings = clip(probe.read(self._observer.since(of, begin)), begin, now)
        windows = Windows(self._calm_ns, Moment(since_ns, since_ns), Moment(now, now), now)
        return next((m.value for m in probe.measures(readings, windows) if m.name == name), None)
