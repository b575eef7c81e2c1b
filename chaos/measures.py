"""Measures that every trial has, and measures over trials with their bounds. Pure.

Detection is counted from the *event instant* (when the fault took effect), never from the command.
Over trials: the median with its distribution-free order-statistic interval; no mean, and no
percentile without the sample that carries it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from chaos.timeline import Event, Measure, Windows

CONFIDENCE = 0.95


def in_storm(events: Iterable[Event], windows: Windows) -> tuple[Event, ...]:
    """Events between the event instant and the healing, in order."""
    start, end = windows.event.earliest_ns, windows.heal.earliest_ns
    chosen = (e for e in events if start <= e.at_ns + e.error_ns and e.at_ns < end)
    return tuple(sorted(chosen, key=lambda e: e.at_ns))


def symptoms(events: Iterable[Event], windows: Windows) -> dict[str, Event]:
    """First symptom per detector during the storm.

    Examples:
        >>> from chaos.timeline import Moment
        >>> windows = Windows((0, 10), Moment(10, 12), Moment(90, 91), 100)
        >>> seen = [Event(5, "k", "x", detector="bfd"), Event(40, "k", "x", detector="bfd")]
        >>> symptoms(seen, windows)["bfd"].at_ns
        40
    """
    first: dict[str, Event] = {}
    for event in in_storm(events, windows):
        if event.detector and event.detector not in first:
            first[event.detector] = event
    return first


def detection(
    events: Sequence[Event], windows: Windows, detectors: Iterable[str]
) -> tuple[Measure, ...]:
    """`detection_<detector>_ms` for every detector that listened, and `detection_first_ms`.

    A detector that listened and saw nothing has value None and says so: not detected is not zero.
    """
    first = symptoms(events, windows)
    made = [
        _since(f"detection_{name}_ms", windows, first.get(name), "saw nothing before healing")
        for name in sorted(set(detectors) | set(first))
    ]
    soonest = min(first.values(), key=lambda event: event.at_ns, default=None)
    made.append(_since("detection_first_ms", windows, soonest, "no detector saw anything"))
    return tuple(made)


def localisation(
    events: Sequence[Event], windows: Windows, truth: Iterable[str]
) -> tuple[Measure, ...]:
    """`localisation_ms` to the first symptom that names a broken component, and whether rightly.

    `localisation_right_percent` is 100 or 0 in one trial; None when nobody named anything.
    """
    names = set(truth)
    blaming = next((e for e in in_storm(events, windows) if e.detector and e.blames), None)
    right = None if blaming is None or not names else 100.0 * (blaming.blames in names)
    note = "nobody named a component" if blaming is None else f"named {blaming.blames}"
    return (
        _since("localisation_ms", windows, blaming, "nobody named a component"),
        Measure("localisation_right_percent", right, right, right, note=note),
    )


def alarms(events: Iterable[Event], windows: Windows) -> tuple[Event, ...]:
    """In a placebo trial: every symptom between the sham instant and the end."""
    return tuple(
        event
        for event in events
        if event.detector and windows.event.earliest_ns <= event.at_ns <= windows.end_ns
    )


def _since(name: str, windows: Windows, event: Event | None, absent: str) -> Measure:
    if event is None:
        return Measure(name, None, n=0, note=absent)
    low = max(0.0, (event.at_ns - event.error_ns - windows.event.latest_ns) / 1e6)
    high = (event.at_ns + event.error_ns - windows.event.earliest_ns) / 1e6
    what = f"{event.detector} on {event.element or event.node}".rstrip(" on")
    return Measure(name, (low + high) / 2, low, high, note=what)


def median_interval(n: int, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (from 0) of the order statistics that hold the median; None when n is too small.

    Binomial(n, 1/2): the interval between the k-th smallest and k-th largest covers the median
    with at least `confidence`.

    Examples:
        >>> median_interval(10)
        (1, 8)
        >>> median_interval(5) is None
        True
    """
    best = None
    for k in range(n // 2):
        outside = 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n
        if outside > 1 - confidence:
            break
        best = (k, n - 1 - k)
    return best


def failure_bound(n: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of a failure rate after 0 failures in `n` trials, as a share.

    Examples:
        >>> round(100 * failure_bound(20), 1), round(100 * failure_bound(59), 2)
        (13.9, 4.95)
    """
    return float(1 - (1 - confidence) ** (1 / n)) if n else 1.0


def over_trials(trials: Sequence[Sequence[Measure]]) -> tuple[Measure, ...]:
    """Per name: median, bounds, number of trials that carry it, and whether it is censored.

    Censored values stay in: they sort last, and a median that falls on one is itself censored.
    """
    names = dict.fromkeys(measure.name for trial in trials for measure in trial)
    return tuple(_combined(name, trials) for name in names)


def _combined(name: str, trials: Sequence[Sequence[Measure]]) -> Measure:
    found = [m for trial in trials for m in trial if m.name == name]
    held = [m for m in found if m.value is not None]
    held.sort(key=lambda m: (m.censored, m.value))
    if not held:
        notes = sorted({m.note for m in found if m.note})
        return Measure(name, None, n=0, note="; ".join(notes[:3]))
    values = [m.value for m in held if m.value is not None]
    n, middle = len(values), len(values) // 2
    value = values[middle] if n % 2 else (values[middle - 1] + values[middle]) / 2
    ranks = median_interval(n)
    low, high = (values[ranks[0]], values[ranks[1]]) if ranks else (values[0], values[-1])
    how = "95 % order-statistic interval" if ranks else f"min and max of {n}"
    missing = len(found) - n
    note = f"{how}; max {values[-1]:.4g}" + (f"; absent in {missing}" if missing else "")
    return Measure(name, value, low, high, n, held[middle].censored, note)
