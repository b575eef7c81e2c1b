"""Numbers over trials as pictures: who noticed first, and how far each measure spread."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from chaos.report.axis import nice
from chaos.report.markup import Markup, tag, text
from chaos.report.wording import NOTHING, amount, bounds, measured, milliseconds, plural

Data = Mapping[str, Any]
LOWEST_MS = 0.1
#: First words of measures that belong to another group than their own.
GROUPS = {"heal": "flow", "calm": "flow", "carrier": "kernel", "route": "kernel"}
_LIMIT = re.compile(r"at (most|least) ([\d.e+-]+)")
_DETECTION = re.compile(r"detection_(.+)_ms")


def of_trials(record: Data, name: str) -> list[tuple[Data, Data]]:
    """Each trial that has this measure, with it."""
    return [(t, m) for t in record["trials"] for m in t["measures"] if m["name"] == name]


def counted(record: Data) -> list[Data]:
    """The trials with the fault that the judge counts: not those in doubt, while any is left."""
    real = [trial for trial in record["trials"] if not trial["placebo"]]
    return [trial for trial in real if trial["verdict"] == "pass"] or real


def detectors(record: Data) -> Markup | None:
    """Who noticed first: a row per detector on one logarithmic axis; the silent ones named."""
    names = dict.fromkeys(
        found[1]
        for trial in record["trials"]
        for m in trial["measures"]
        if (found := _DETECTION.fullmatch(m["name"])) and found[1] != "first"
    )
    alarms = false_alarms(record)
    numbers = {trial["number"] for trial in counted(record)}
    rows, silent = [], []
    for name in names:
        each = of_trials(record, f"detection_{name}_ms")
        real = [m for t, m in each if t["number"] in numbers]
        times = [m["value"] for m in real if m["value"] is not None]
        if times:
            rows.append((statistics.median(times), name, times, len(real)))
        else:
            silent.append(name)
    if not rows and not silent:
        return None
    top = _decade(max((max(times) for _, _, times, _ in rows), default=1000.0))
    drawn = [_detector(*row, alarms.get(row[1], 0), top) for row in sorted(rows)]
    quiet = [
        name if not alarms.get(name) else f"{name} (but {alarms[name]} false)" for name in silent
    ]
    return tag(
        "div",
        _table(drawn, top) if drawn else None,
        tag("p", tag("b", "Silent: "), ", ".join(quiet), class_="silent") if quiet else None,
        class_="detectors",
    )


def _table(drawn: Iterable[Markup], top: float) -> Markup:
    decades = [LOWEST_MS * 10**k for k in range(round(math.log10(top / LOWEST_MS)) + 1)]
    ticks = (tag("span", milliseconds(ms), style=f"left:{_log(ms, top):.2f}%") for ms in decades)
    head = ("detector", tag("div", ticks, class_="scale"), "median", "range", "noticed", "false")
    return tag(
        "table",
        tag("thead", tag("tr", (tag("th", one) for one in head))),
        tag("tbody", drawn),
        class_="noticed",
    )


def _detector(
    middle: float, name: str, times: Sequence[float], trials: int, alarms: int, top: float
) -> Markup:
    dots = (
        tag("i", class_="dot", style=f"left:{_log(ms, top):.2f}%", title=milliseconds(ms))
        for ms in times
    )
    low, high = min(times), max(times)
    spread = NOTHING if low == high else f"{milliseconds(low)} to {milliseconds(high)}"
    reach = tag("u", style=f"width:{_log(middle, top):.2f}%")
    return tag(
        "tr",
        tag("th", name, scope="row"),
        tag("td", tag("div", reach, dots, class_="strip log"), class_="chart"),
        tag("td", milliseconds(middle)),
        tag("td", spread, class_="dim"),
        tag("td", f"{len(times)} of {trials}"),
        tag("td", alarms, class_="bad" if alarms else "dim"),
    )


def false_alarms(record: Data) -> dict[str, int]:
    """Symptoms in placebo trials, from the sham's instant to the end, per detector."""
    windows = {t["number"]: t["windows"] for t in record["trials"] if t["placebo"] and t["windows"]}
    found: dict[str, int] = {}
    for event in record["events"]:
        window = windows.get(event["trial"])
        if window and event["detector"]:
            start, end = window["event"]["earliest_ns"], window["end_ns"]
            if start <= event["at_ns"] <= end:
                found[event["detector"]] = found.get(event["detector"], 0) + 1
    return found


def _decade(ms: float) -> float:
    return float(10 ** max(2, math.ceil(math.log10(max(ms, LOWEST_MS)) - 1e-9)))


def _log(ms: float, top: float) -> float:
    span = math.log10(top / LOWEST_MS)
    return 100 * math.log10(max(ms, LOWEST_MS) / LOWEST_MS) / span


def distributions(record: Data) -> Markup:
    """Every measure with data, grouped; then what was not measured, each with its reason."""
    limits = {f["objective"].partition(":")[0]: f["objective"] for f in record["findings"]}
    groups: dict[str, list[Markup]] = {}
    absent = []
    for measure in record["measures"]:
        name = measure["name"]
        if _DETECTION.fullmatch(name):
            continue
        if measure["value"] is None:
            absent.append(measure)
        else:
            group = GROUPS.get(name.partition("_")[0], name.partition("_")[0])
            groups.setdefault(group, []).append(_row(record, measure, limits.get(name, "")))
    return text(
        (
            tag("section", tag("h3", group), tag("table", rows, class_="spread"), class_="spreads")
            for group, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
        ),
        tag(
            "details",
            tag("summary", f"{plural(len(absent), 'measure')} without data"),
            tag("ul", (tag("li", tag("code", m["name"]), f" {m['note'] or ''}") for m in absent)),
            class_="absent",
        )
        if absent
        else None,
    )


def _row(record: Data, measure: Data, objective: str) -> Markup:
    name = measure["name"]
    shown = [(t, m) for t, m in of_trials(record, name) if m["value"] is not None]
    beyond = {m["value"] for _, m in shown if m["censored"]}
    limits = [(word, float(value)) for word, value in _LIMIT.findall(objective)]
    values = [m["value"] for _, m in shown] + [measure["value"]]
    near = [value for _, value in limits if value <= 4 * max(values, default=0)]
    kept = {trial["number"] for trial in counted(record)}
    out = {t["number"] for t in record["trials"] if not t["placebo"]} - kept
    low, high = min(0.0, *values), max([*values, *near, 0.0])
    high = nice(high) if high > 0 else (high if high > low else low + 1)
    return tag(
        "tr",
        tag("th", ([part, tag("wbr")] for part in re.split(r"(?<=_)", name)), scope="row"),
        tag("td", _strip(shown, out, measure, limits, low, high), class_="chart"),
        tag(
            "td",
            tag("b", measured(measure)),
            " ",
            tag("span", bounds(measure, beyond), class_="dim"),
        ),
        tag("td", f"n = {measure['n']}", class_="dim"),
    )


def _strip(
    shown: Sequence[tuple[Data, Data]],
    out: Collection[int],
    measure: Data,
    limits: Sequence[tuple[str, float]],
    low: float,
    high: float,
) -> Markup:
    def x(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    name = measure["name"]
    inside: list[Markup] = []
    if measure["low"] is not None and measure["high"] is not None and measure["n"] > 1:
        left, right = max(measure["low"], low), min(measure["high"], high)
        width = 100 * (right - left) / (high - low)
        inside.append(tag("u", style=f"left:{x(left)};width:{width:.2f}%", title=bounds(measure)))
    for word, value in limits:
        tip = f"objective: at {word} {amount(name, value)}"
        where = x(value) if low <= value <= high else "100%"
        kind = f"limit {word}" + ("" if low <= value <= high else " beyond")
        kind += " end" if not low <= value <= low + 0.75 * (high - low) else ""
        at = amount(name, value)
        inside.append(tag("s", class_=kind, style=f"left:{where}", title=tip, data_at=at))
    for trial, one in shown:
        doubtful = trial["number"] in out
        kind = " sham" if trial["placebo"] else (" out" if doubtful else "")
        kind += " censored" if one["censored"] else ""
        what = "placebo trial" if trial["placebo"] else "trial"
        doubt = "; in doubt, not counted" if doubtful else ""
        tip = f"{what} {trial['number']}{doubt}: {measured(one)} {one['note']}".strip()
        inside.append(tag("i", class_=f"dot{kind}", style=f"left:{x(one['value'])}", title=tip))
    ends = tag("small", amount(name, low)), tag("small", amount(name, high))
    return tag("div", tag("div", inside, class_="strip"), tag("div", ends, class_="ends"))
