"""The timeline of one trial: lanes over one axis, its zero the instant the fault took effect.

Positions are CSS: every mark carries `--t` (ms since the fault), its container `--a` and `--w`
(first ms shown, width in ms). Zooming changes these two and the view boxes, nothing else; without
JavaScript, and on paper, the whole trial is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from chaos.report.axis import Clock, axis, bands, bar, lane, mark
from chaos.report.markup import Markup, tag, text
from chaos.report.struck import struck
from chaos.report.wording import amount, arrows, measured, milliseconds, since

Data = Mapping[str, Any]
MOST_POINTS, MOST_MARKS = 1500, 600
WORSE = ("lost", "removed", "failed", "stalled", "started", "down", "aborted", "gone", "named")
BETTER = ("back", "resumed", "restored", "resolved", "up", "made", "regrouped")


def timeline(trial: Data) -> Markup:
    """All lanes of a trial; a sentence where it did not get far enough to have any."""
    if trial["windows"] is None:
        return tag("p", "This trial did not reach its end; it has no timeline.", class_="absent")
    clock = Clock.of(trial["windows"])
    groups = (
        ("In force", struck(trial, clock)),
        ("Noticed", noticed(trial, clock)),
        ("Job", job(trial, clock)),
        ("Flow", flows(trial, clock)),
        ("Kernel", lanes(trial, clock, "kernel_events", KERNEL)),
        ("Routing", lanes(trial, clock, "routing", ROUTING)),
        ("Injector", injector(trial, clock)),
    )
    return tag(
        "div",
        tag("div", axis(clock), class_="lane ticks"),
        bands(trial["windows"], trial["proof"]["actions"], clock),
        *(tag("section", tag("h4", name), *made, class_="group") for name, made in groups if made),
        tag("div", axis(clock), class_="lane ticks below"),
        class_="timeline",
        style=f"--a:{clock.first};--w:{clock.width:g}",
        data_a=clock.first,
        data_w=f"{clock.width:g}",
        data_storm=clock.ms(trial["windows"]["heal"]["latest_ns"]),
    )


def noticed(trial: Data, clock: Clock) -> list[Markup]:
    """A waterfall: from the fault to each detector's first symptom, then to what was repaired."""
    made = []
    by_name = {m["name"]: m for m in trial["measures"]}
    seen = [
        (m["value"], m["name"].removeprefix("detection_").removesuffix("_ms"), m)
        for m in trial["measures"]
        if m["name"].startswith("detection_") and m["value"] is not None
    ]
    for value, name, measure in sorted(seen, key=lambda item: item[0]):
        if name != "first":
            tip = f"{name} noticed after {measured(measure)}: {measure['note']}"
            made.append(lane(name, bar(0, value, "saw", tip, since(value)), kind="fall"))
    for name, words in (
        ("flow_convergence_ms", "forwarding again"),
        ("job_recovery_ms", "job back"),
    ):
        found = by_name.get(name)
        if found and found["value"]:
            kind = "back censored" if found["censored"] else "back"
            tip = f"{name} {measured(found)}. {found['note']}"
            label = ("> " if found["censored"] else "") + since(found["value"])
            end = min(found["value"], clock.first + clock.width)
            made.append(lane(words, bar(0, end, kind, tip, label), kind="fall"))
    return made


def job(trial: Data, clock: Clock) -> list[Markup]:
    """Goodput per rank with its stalls; what the job said; when TCP tries again."""
    made = charts(trial, clock, "goodput", "job", spans="stall")
    made += lanes(trial, clock, "collective", JOB)
    rungs = (trial["extra"].get("collective") or {}).get("rto_ladder_ms") or []
    shown = [rung for rung in rungs if rung <= clock.ms(clock.end_ns)]
    if shown and not trial["placebo"]:
        marks = (
            tag(
                "i",
                tag("b", milliseconds(rung)) if later - rung > clock.width / 15 else None,
                class_="rung",
                style=f"--t:{rung}",
                title=f"a segment lost at the fault is sent again after {milliseconds(rung)}",
            )
            for rung, later in pairwise([*shown, math.inf])
        )
        made.append(lane("TCP tries again", *marks, kind="ladder"))
    return made


def flows(trial: Data, clock: Clock) -> list[Markup]:
    """Arrivals per flow, with their gaps, and the flows' events."""
    return charts(trial, clock, "arrived", "flow", spans="outage") + lanes(
        trial, clock, "flow", (("gaps", lambda event: True),)
    )


def charts(trial: Data, clock: Clock, prefix: str, kind: str, spans: str) -> list[Markup]:
    """One area per series whose name starts so; spans of the same element lie on it."""
    drawn = [s for s in trial["series"] if s["name"].startswith(prefix) and s["values"]]
    top = max((max(s["values"]) for s in drawn), default=0) * 1.08 or 1.0
    made = []
    for series in drawn:
        lying = [
            (clock.ms(s["start_ns"]), clock.ms(s["end_ns"]), s["name"])
            for s in trial["spans"]
            if s["element"] == series["element"]
            and (clock.inside(s["start_ns"]) or clock.inside(s["end_ns"]))
        ]
        stalls = [
            bar(
                start,
                end,
                f"{spans} {_label(start, end, later, clock)}".rstrip(),
                f"{name} of {series['element']}: {milliseconds(end - start)}, from {since(start)}",
                milliseconds(end - start),
            )
            for (start, end, name), later in zip(lying, _next_starts(lying, clock), strict=True)
        ]
        home = homes(trial).get(series["element"])
        note = f"{home} · " if home else ""
        note += f"to {amount(series['name'], max(series['values']))}"
        made.append(
            lane(arrows(series["element"]), area(series, clock, top), *stalls, kind=kind, note=note)
        )
    return made


def _next_starts(lying: Sequence[tuple[float, float, str]], clock: Clock) -> list[float]:
    """Where the room behind each stretch ends: at the next one, or at the edge."""
    edge = clock.first + clock.width
    return [min((s for s, _, _ in lying if s > start), default=edge) for start, *_ in lying]


def _label(start: float, end: float, later: float, clock: Clock) -> str:
    """Where a stretch has room for its length: behind it, `inner`, or nowhere (`tight`)."""
    room = clock.width / 14
    if later - end > room:
        return ""
    return "inner" if min(end, clock.first + clock.width) - start > room else "tight"


def homes(trial: Data) -> dict[str, str]:
    """On which node each rank ran, as far as the job told."""
    flows = (trial["extra"].get("collective") or {}).get("flows") or []
    return {f"rank{flow['rank']}": flow["source"] for flow in flows if flow.get("source")}


def area(series: Data, clock: Clock, top: float) -> Markup:
    """Steps of a series as a filled shape; y runs from 100 (nothing) to 0 (`top`)."""
    points = [
        (clock.ms(at), round(100 - 100 * value / top, 1))
        for at, value in zip(series["at_ns"], series["values"], strict=True)
    ]
    points = thinned(points)
    line, last = [f"M{points[0][0]:g} {points[0][1]:g}"], points[0][1]
    for x, y in points[1:]:
        if y != last:
            line.append(f"H{x:g}V{y:g}")
            last = y
    step = points[-1][0] - points[-2][0] if len(points) > 1 else 0
    end = round(points[-1][0] + step, 3)
    line.append(f"H{end:g}")
    path = "".join(line)
    return tag(
        "svg",
        tag("path", d=f"{path}V100H{points[0][0]:g}Z", class_="area"),
        tag("path", d=path, class_="line"),
        viewBox=f"{clock.first} 0 {clock.width:g} 100",
        preserveAspectRatio="none",
        data_time=True,
    )


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`; of neighbours the lowest stays, so that no dip is lost."""
    each = math.ceil(len(points) / MOST_POINTS)
    return [max(points[at : at + each], key=lambda p: p[1]) for at in range(0, len(points), each)]


Wanted = Callable[[Data], bool]


def _begins(*words: str) -> Wanted:
    return lambda event: event["name"].partition(".")[0] in words


#: A death and a restart have a lane of their own: there they are not lost among what is said.
JOB: tuple[tuple[str, Wanted], ...] = (
    ("processes", _begins("process")),
    ("job says", lambda event: not event["name"].startswith("process")),
)
KERNEL: tuple[tuple[str, Wanted], ...] = (
    ("carrier", _begins("carrier", "link")),
    ("routes", _begins("route", "nexthop")),
    ("neighbours", _begins("neigh")),
)
ROUTING: tuple[tuple[str, Wanted], ...] = (
    ("BFD", _begins("bfd")),
    ("BGP", lambda event: not event["name"].startswith("bfd")),
)


def lanes(
    trial: Data, clock: Clock, source: str, rows: Iterable[tuple[str, Wanted]]
) -> list[Markup]:
    """Events of one source as marks, a lane per kind; lanes without any are left out."""
    events = [
        e
        for e in trial["events"]
        if e["source"].partition("/")[0] == source and clock.inside(e["at_ns"])
    ]
    made = []
    for name, wanted in rows:
        here = [event for event in events if wanted(event)]
        if here:
            note = f"{len(here)} events" if len(here) > 1 else "1 event"
            named = clock if name == "processes" else None
            made.append(lane(name, *marks(here, clock, named), kind="events", note=note))
    return made


def marks(events: Sequence[Data], clock: Clock, named: Clock | None = None) -> Iterable[Markup]:
    """One mark per event; where they are very many, one per neighbourhood, and it says so.

    With `named`, one has its element and its last word beside it, where there is room.
    """
    each = math.ceil(len(events) / MOST_MARKS)
    for at in range(0, len(events), each):
        near = events[at : at + each]
        tip = " · ".join(filter(None, (told(near[0], clock), more(len(near) - 1))))
        beside = events[at + each]["at_ns"] if at + each < len(events) else clock.end_ns
        roomy = (beside - near[0]["at_ns"]) / 1e6 > clock.width / 10
        label = tag("b", near[0]["element"], " ", near[0]["name"].partition(".")[2])
        shown = label if named and roomy else ""
        yield mark(clock, near[0]["at_ns"], flavour(near[0]), tip, shown)


def more(number: int) -> str:
    """What a mark leaves out."""
    return f"and {number} more" if number else ""


def told(event: Data, clock: Clock) -> str:
    """An event as one line."""
    facts = ", ".join(f"{key} {_fact(value)}" for key, value in event["facts"].items())
    detector = f"symptom for {event['detector']}" if event["detector"] else ""
    where = event["element"] or event["node"]
    parts = (since(clock.ms(event["at_ns"])), event["name"], where, detector, facts)
    return " · ".join(filter(None, parts))


def _fact(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def flavour(event: Data) -> str:
    """Bad news, good news, or neither, by the event's last word."""
    if event["name"] == "process.started":
        return "better"
    words = event["name"].partition(".")[2].split("_")
    if event["detector"] or any(word in WORSE for word in words):
        return "worse"
    return "better" if any(word in BETTER for word in words) else "plain"


def injector(trial: Data, clock: Clock) -> list[Markup]:
    """Every action of the injector: when the kernel was asked, and how late that was."""
    actions = [a for a in trial["proof"]["actions"] if clock.inside(a["before_ns"])]
    if not actions:
        return []
    changes = trial["proof"]["changes"]
    made = []
    for action in actions:
        late = (action["before_ns"] - action["planned_ns"]) / 1e6
        took = (action["acknowledged_ns"] - action["before_ns"]) / 1e6
        index = action["change"]
        what = changes[index]["text"] if index < len(changes) else f"change {index}"
        verb = "broken" if action["kind"] == "do" else "taken back"
        tip = (
            f"{since(clock.ms(action['before_ns']))} · {verb}: {what} · {milliseconds(late)} after "
            f"plan · acknowledged in {milliseconds(took)}"
        )
        kind = "worse" if action["kind"] == "do" else "better"
        made.append(mark(clock, action["before_ns"], kind, tip))
    return [lane("acts", text(*made), kind="events", note=f"{len(actions)} actions")]
