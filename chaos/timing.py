"""When a fault is in force, and for how long: words of time in an experiment. Pure values."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from chaos.errors import SpecError, near
from chaos.fields import convert
from chaos.units import Duration

START = Duration(0)


@dataclass(frozen=True, slots=True)
class Range:
    """A length of time, fixed or drawn log-uniformly between two limits.

    Examples:
        >>> Range.parse("1.5 s").fixed
        True
        >>> Range.parse({"from": "900 ms", "to": "1.4 s"}).draw(random.Random(7)).ms < 1400
        True
    """

    low: Duration
    high: Duration

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise SpecError(f"from {self.low} is longer than to {self.high}", field="from")

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `1.5 s`, or a mapping of `from` and `to`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            one = convert(Duration, value)
            return cls(one, one)
        ends = []
        for key in value:
            if key not in ("from", "to"):
                raise SpecError(f"no field {key!r} in a range; it has from, to", field=key)
        for key in ("from", "to"):
            if key not in value:
                raise SpecError(f"a range needs from and to; {key} is missing")
            try:
                ends.append(convert(Duration, value[key]))
            except SpecError as error:
                raise SpecError(error.reason, field=key) from None
        return cls(*ends)

    @property
    def fixed(self) -> bool:
        """Nothing is drawn."""
        return self.low == self.high

    def draw(self, rng: random.Random) -> Duration:
        """One length; log-uniform, so that short and long outages are met equally often."""
        if self.fixed:
            return self.low
        low, high = math.log(max(self.low.ns, 1)), math.log(self.high.ns)
        return Duration(
            min(self.high.ns, max(self.low.ns, round(math.exp(rng.uniform(low, high)))))
        )

    def __str__(self) -> str:
        return str(self.low) if self.fixed else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Timing:
    """When in the storm one fault is in force.

    Attributes:
        at: Counted from the start of the storm; with `after`, from the end of that fault.
        length: How long; None: until the storm ends.
        after: The fault (its label, or its name) whose end `at` counts from.
        label: What follows the slash where a fault is written `link_down/far`; its measures carry
            it, as `far_detection_carrier_ms`.
    """

    at: Duration = START
    length: Duration | None = None
    after: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        if self.length is not None and self.length.ns == 0:
            raise SpecError("a fault that lasts no time breaks nothing", field="for")

    def room(self, shortest: Duration) -> Duration:
        """How long the fault may be in force, in the shortest storm.

        Raises:
            SpecError: it begins or ends too late for that.
        """
        if self.at >= shortest:
            raise SpecError(
                f"it begins {self.at} into the storm, and the shortest storm lasts {shortest}",
                field="at",
            )
        if self.length is None:
            return Duration(shortest.ns - self.at.ns)
        end = Duration(self.at.ns + self.length.ns)
        if end > shortest:
            raise SpecError(
                f"it ends {end} into the storm, and the shortest storm lasts {shortest}",
                field="for",
            )
        return self.length


def settle(names: Sequence[str], timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """The timings with every `after` replaced by what it comes to.

    Args:
        names: Of the faults, as `link_down`.
        timings: One per fault.

    Raises:
        SpecError: `after` names none, several, or one that lasts until the storm ends; `field` is
            the place in the list, as `[1].after`.

    Examples:
        >>> ms = 10**6
        >>> first = Timing(Duration(100 * ms), Duration(500 * ms))
        >>> settle(["a", "b"], [first, Timing(Duration(50 * ms), after="a")])[1].at
        Duration(ns=650000000)
    """
    done: list[Timing] = []
    for at, one in enumerate(timings):
        if not one.after:
            done.append(one)
            continue
        before = list(zip(names, done, strict=False))
        found = [t for name, t in before if one.after in (t.label, name, f"{name}/{t.label}")]
        place = f"[{at}].after"
        if not found:
            known = [t.label or name for name, t in before]
            told = near(one.after, known) if known else "it is the first"
            raise SpecError(f"no fault {one.after!r} before this one; {told}", field=place)
        if len(found) > 1:
            raise SpecError(
                f"{len(found)} faults before this one are called {one.after!r}; label one, such as "
                f"{one.after}/first",
                field=place,
            )
        (first,) = found
        if first.length is None:
            raise SpecError(
                f"{one.after} lasts until the storm ends; give it for, such as 500 ms", field=place
            )
        start = Duration(first.at.ns + first.length.ns + one.at.ns)
        done.append(Timing(start, one.length, "", one.label))
    return tuple(done)
