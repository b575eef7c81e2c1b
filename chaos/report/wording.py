"""Numbers and names as the page prints them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from chaos.objectives import unit

VERDICTS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "blocked": "‖"}
NOTHING = "—"
_FINDING = re.compile(r"^(.*?): expected (.*?), got (.*)$", re.DOTALL)


def milliseconds(value: float) -> str:
    """A time in ms, in the unit that reads best.

    Examples:
        >>> milliseconds(0.3127), milliseconds(125.04), milliseconds(4980), milliseconds(0)
        ('0.313 ms', '125 ms', '4.98 s', '0 ms')
    """
    size = abs(value)
    if 0 < size < 0.1:
        return f"{digits(value * 1000)} µs"
    return f"{digits(value / 1000)} s" if size >= 1000 else f"{digits(value)} ms"


def digits(value: float) -> str:
    """Three significant digits, a true minus sign, and no exponent.

    Examples:
        >>> digits(0.08172), digits(46.149), digits(4.3001), digits(-4713)
        ('0.0817', '46.1', '4.3', '−4713')
    """
    places = 0 if value == int(value) else max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{min(places, 6)}f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return shown.replace("-", "−")


def amount(name: str, value: float | None) -> str:
    """A measure's value with its unit.

    Examples:
        >>> amount("job_recovery_ms", 4980), amount("flow_loss_percent", 0.0333)
        ('4.98 s', '0.0333 %')
        >>> amount("job_stall_ms", None)
        '—'
    """
    if value is None:
        return NOTHING
    if name.endswith("_ms"):
        return milliseconds(value)
    return f"{digits(value)} {unit(name)}".rstrip()


def measured(measure: Mapping[str, Any]) -> str:
    """The value of a measure, `> 4.98 s` when the truth lies beyond it."""
    if measure["value"] is None:
        return NOTHING
    beyond = "> " if measure.get("censored") else ""
    return beyond + amount(measure["name"], measure["value"])


def bounds(measure: Mapping[str, Any], beyond: Collection[float] = ()) -> str:
    """`123 ms to 131 ms`, or nothing where there are no bounds or they are the value.

    Args:
        measure: With `low` and `high`.
        beyond: Values that are censored: a bound that is one of them gets its `>`.
    """
    low, high = measure.get("low"), measure.get("high")
    if low is None or high is None or low == high:
        return ""
    more = "> " if high in beyond else ""
    return f"{amount(measure['name'], low)} to {more}{amount(measure['name'], high)}"


def since(ms: float) -> str:
    """A time relative to the fault.

    Examples:
        >>> since(-2400), since(0.31)
        ('−2.4 s', '+0.31 ms')
    """
    return ("−" if ms < 0 else "+") + milliseconds(abs(ms))


def arrows(sentence: str) -> str:
    """With arrows that a line is never broken in.

    Examples:
        >>> arrows("host1->leaf1 -> spine1")
        'host1→leaf1 → spine1'
    """
    return sentence.replace("->", "→")


def split(sentence: str) -> tuple[str, str, str]:
    """A finding's sentence as subject, expectation, and what was found.

    Examples:
        >>> split("job_stall_ms: expected at most 10 ms, got 12 ms")
        ('job_stall_ms', 'at most 10 ms', '12 ms')
        >>> split("the fault was in force but never acted")
        ('the fault was in force but never acted', '', '')
    """
    found = _FINDING.match(sentence)
    return (found[1], found[2], found[3]) if found else (sentence, "", "")


def yes_no(value: bool | None) -> str:
    """A proof as a sign.

    Examples:
        >>> yes_no(True), yes_no(False), yes_no(None)
        ('✓', '✕', '—')
    """
    return NOTHING if value is None else ("✓" if value else "✕")


def count(value: int | None) -> str:
    """A whole number with thin spaces between thousands; what could not be counted is a dash."""
    return NOTHING if value is None else f"{value:,}".replace(",", "\u202f")


def plural(number: int, one: str) -> str:
    """A number of things.

    Examples:
        >>> plural(1, "trial"), plural(3, "trial")
        ('1 trial', '3 trials')
    """
    return f"{number} {one}" + ("" if number == 1 else "s")
