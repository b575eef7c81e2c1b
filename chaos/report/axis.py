"""The axis of a timeline, and what can lie along it: ticks, bands, lanes, marks and bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.report.markup import Markup, tag
from chaos.report.wording import milliseconds, since

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Clock:
    """Times of one trial as ms since the fault."""

    zero_ns: int
    start_ns: int
    end_ns: int

    @classmethod
    def of(cls, windows: Data) -> Clock:
        """From the windows of a trial; a little air at both ends."""
        air = (windows["end_ns"] - windows["calm_ns"][0]) // 60
        start, end = windows["calm_ns"][0] - air, windows["end_ns"] + air
        return cls(windows["event"]["earliest_ns"], start, end)

    def ms(self, at_ns: float) -> float:
        """Milliseconds since the fault, to the microsecond."""
        return round((at_ns - self.zero_ns) / 1e6, 3)

    def inside(self, at_ns: int) -> bool:
        """Within what is shown."""
        return self.start_ns <= at_ns <= self.end_ns

    @property
    def first(self) -> float:
        """Left edge."""
        return self.ms(self.start_ns)

    @property
    def width(self) -> float:
        """From edge to edge."""
        return self.ms(self.end_ns) - self.first


def axis(clock: Clock) -> Markup:
    """Ticks at round times; the script draws them anew when it zooms."""
    step = nice(clock.width / 8)
    first = math.ceil(clock.first / step)
    at = [k * step for k in range(first, math.floor((clock.first + clock.width) / step) + 1)]
    return tag("div", (tick(ms) for ms in at), class_="plot axis")


def tick(ms: float) -> Markup:
    """One label of the axis."""
    return tag("span", "fault" if ms == 0 else since(ms), style=f"--t:{ms:g}")


def nice(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten.

    Examples:
        >>> nice(870), nice(0.03)
        (1000.0, 0.05)
    """
    power = 10 ** math.floor(math.log10(rough))
    return next(float(k * power) for k in (1, 2, 5, 10) if k * power >= rough * 0.999)


def in_force(actions: Sequence[Data], clock: Clock) -> list[tuple[float, float]]:
    """When anything was in force, as ms since the fault; stretches that overlap are one."""
    found = []
    for change in {a["change"] for a in actions}:
        mine = [a for a in actions if a["change"] == change]
        starts = [clock.ms(a["acknowledged_ns"]) for a in mine if a["kind"] == "do"]
        ends = [clock.ms(a["acknowledged_ns"]) for a in mine if a["kind"] == "undo"]
        found += [(a, min(b for b in ends if b >= a)) for a in starts if any(b >= a for b in ends)]
    merged: list[tuple[float, float]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def bands(windows: Data, actions: Sequence[Data], clock: Clock) -> Markup:
    """What stands behind all lanes: the fault's window, and the moments of fault and healing."""
    flaps = in_force(actions, clock)
    heal = clock.ms(windows["heal"]["latest_ns"])
    calm_end = clock.ms(windows["calm_ns"][1])
    what = "placebo" if windows["placebo"] else "fault"
    phases = (
        ("calm", clock.ms(windows["calm_ns"][0]), calm_end),
        ("aim", calm_end, 0.0),
        ("storm", 0.0, heal),
        ("after", heal, clock.ms(windows["end_ns"])),
    )
    return tag(
        "div",
        tag("i", class_=f"window {what}", style=f"--t:0;--u:{heal}"),
        (
            tag("i", class_="window fault", style=f"--t:{a};--u:{round(b - a, 3)}")
            for a, b in (flaps if len(flaps) > 1 else ())
        ),
        tag("i", class_=f"rule {what}", style="--t:0"),
        tag("i", class_="rule heal", style=f"--t:{heal}"),
        (
            tag(
                "span",
                tag("b", name),
                tag("em", f" {milliseconds(end - start)}"),
                class_=f"phase {name}",
                style=f"--t:{start};--u:{round(end - start, 3)}",
            )
            for name, start, end in phases
            if end - start > clock.width / 25
        ),
        tag("i", class_="cursor", hidden=True),
        class_="plot bands",
    )


def lane(name: Any, *inside: Any, kind: str = "", note: str = "") -> Markup:
    """One row: its name, and its plot."""
    return tag(
        "div",
        tag("h5", name, tag("small", note) if note else None),
        tag("div", *inside, class_="plot"),
        class_=f"lane {kind}".rstrip(),
    )


def mark(clock: Clock, at_ns: int, kind: str, tip: str, label: str = "") -> Markup:
    """A moment, explained when pointed at."""
    return tag("i", label, class_=f"mark {kind}", style=f"--t:{clock.ms(at_ns)}", title=tip)


def bar(start_ms: float, end_ms: float, kind: str, tip: str, label: str = "") -> Markup:
    """A stretch of time."""
    width = max(0.0, round(end_ms - start_ms, 3))
    inside = tag("b", label) if label else None
    style = f"--t:{start_ms};--u:{width}"
    return tag("i", inside, class_=f"bar {kind}", style=style, title=tip)
