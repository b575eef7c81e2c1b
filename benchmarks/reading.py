"""Samples, their summary, ratios and the table; pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Below this many samples the largest one or two would be called p99, so none is given.
P99_FROM = 100


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing a thing, and how long it took each time.

    Attributes:
        who: How it is called in the table.
        seconds: Every sample, in the order it was taken.
        ours: It is this project's; ratios are against it.
    """

    who: str
    seconds: Sequence[float]
    ours: bool = False

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float | None:
        """99th percentile by nearest rank; None below `P99_FROM` samples.

        Examples:
            >>> Contender("x", range(1, 201)).p99
            198
            >>> Contender("x", range(99)).p99 is None
            True
        """
        if len(self.seconds) < P99_FROM:
            return None
        return sorted(self.seconds)[math.ceil(0.99 * len(self.seconds)) - 1]


@dataclass(frozen=True, slots=True)
class Result:
    """One measured thing, done by several contenders in turn.

    Attributes:
        what: The thing.
        contenders: In table order; exactly one is ours.
        note: A sentence for below the table; may be empty.
    """

    what: str
    contenders: tuple[Contender, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if sum(one.ours for one in self.contenders) != 1:
            raise ValueError(f"{self.what}: exactly one contender must be ours")
        empty = [one.who for one in self.contenders if not one.seconds]
        if empty:
            raise ValueError(f"{self.what}: no samples of {', '.join(empty)}")

    @property
    def ours(self) -> Contender:
        """The one that ratios are against."""
        return next(one for one in self.contenders if one.ours)

    def ratio(self, one: Contender) -> float:
        """How many times our median a contender's median is."""
        return divide(one.median, self.ours.median)

    def tail_ratio(self, one: Contender) -> float | None:
        """The same for p99; None where either has none."""
        if one.p99 is None or self.ours.p99 is None:
            return None
        return divide(one.p99, self.ours.p99)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one benchmark came to.

    Attributes:
        name: Of the benchmark.
        results: What it measured.
        skipped: Sentences on what was left out and why.
    """

    name: str
    results: tuple[Result, ...]
    skipped: tuple[str, ...] = field(default=())


def divide(a: float, b: float) -> float:
    """A ratio; infinite where only the divisor is nothing.

    Examples:
        >>> divide(3, 2), divide(1, 0), divide(0, 0)
        (1.5, inf, 1.0)
    """
    if b == 0:
        return math.inf if a > 0 else 1.0
    return a / b


def show_time(seconds: float | None) -> str:
    """Three significant figures in the unit that fits.

    Examples:
        >>> [show_time(s) for s in (0.0000123, 0.00456, 1.5, None)]
        ['12.3 µs', '4.56 ms', '1.50 s', '–']
    """
    if seconds is None:
        return "–"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= scale:
            return f"{_figures(seconds / scale)} {unit}"
    return f"{_figures(seconds / 1e-6)} µs"


def _figures(value: float) -> str:
    for limit, places in ((9.995, 2), (99.95, 1)):
        if abs(value) < limit:
            return f"{value:.{places}f}"
    return f"{value:.0f}"


def show_ratio(ratio: float | None) -> str:
    """A ratio with two figures that mean something.

    Examples:
        >>> [show_ratio(r) for r in (0.512, 1.0, 3.21, 45.6, None)]
        ['0.51 ×', '1.0 ×', '3.2 ×', '46 ×', '–']
    """
    if ratio is None:
        return "–"
    places = 2 if ratio < 0.995 else 1 if ratio < 9.95 else 0
    return f"{ratio:.{places}f} ×"


_COLUMNS = ("what", "by", "n", "min", "median", "p99", "max", "median ÷ ours", "p99 ÷ ours")


def table(outcomes: Sequence[Outcome]) -> str:
    """One markdown table of everything measured, notes and what was left out below it."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|---" + "|--:" * (len(_COLUMNS) - 2) + "|"]
    for result in (result for outcome in outcomes for result in outcome.results):
        for at, one in enumerate(result.contenders):
            cells = (
                result.what if at == 0 else "",
                f"**{one.who}**" if one.ours else one.who,
                str(len(one.seconds)),
                show_time(min(one.seconds)),
                show_time(one.median),
                show_time(one.p99),
                show_time(max(one.seconds)),
                "1" if one.ours else show_ratio(result.ratio(one)),
                ("1" if one.p99 is not None else "–")
                if one.ours
                else show_ratio(result.tail_ratio(one)),
            )
            lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{r.what}: {r.note}" for o in outcomes for r in o.results if r.note]
    notes += [f"{o.name}: left out: {why}" for o in outcomes for why in o.skipped]
    return "\n".join((*lines, *(("", *(f"- {note}" for note in notes)) if notes else ())))


def to_json(outcomes: Sequence[Outcome], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, every sample with it."""
    return {
        "version": 1,
        "machine": dict(facts),
        "benchmarks": [
            {
                "name": outcome.name,
                "skipped": list(outcome.skipped),
                "results": [_result_json(result) for result in outcome.results],
            }
            for outcome in outcomes
        ],
    }


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "what": result.what,
        "note": result.note,
        "contenders": [
            {
                "who": one.who,
                "ours": one.ours,
                "n": len(one.seconds),
                "min_s": min(one.seconds),
                "median_s": one.median,
                "p99_s": one.p99,
                "max_s": max(one.seconds),
                "median_ratio": result.ratio(one),
                "p99_ratio": result.tail_ratio(one),
                "seconds": list(one.seconds),
            }
            for one in result.contenders
        ],
    }
