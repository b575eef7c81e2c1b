"""From the records of a RoCE stream to gaps, oddities, events and numbers; all pure.

Losses and outages are found as for any numbered stream (`flow_reading`, `flow_measures`). A packet
whose ICRC is wrong never reaches the application, so it counts as lost as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chaos.timeline import Event, Measure, Readings, Windows
from probes import flow_measures, flow_reading

Record = dict[str, Any]
#: Alarms of one kind that follow one another closer than this are one event.
QUIET_NS = 100_000_000
#: What the responder counts: record's word -> measure.
_MET = {
    "icrc": "packets that arrived with a wrong ICRC or IP checksum and were dropped, fault to end",
    "data": "packets with a right ICRC and wrong data (silent corruption), fault to end",
    "ce": "packets that arrived marked congestion experienced, fault to end",
    "dscp": "packets that arrived with a DSCP that was not sent, fault to end",
    "fecn": "packets that arrived with FECN set, fault to end",
    "becn": "data packets that arrived with BECN set, fault to end",
}
#: What the requester counts, beside NAKs of other codes.
_ANSWERS = {
    "ack": "acknowledgements that came back, fault to end",
    "nak": "NAKs that came back, of every code, fault to end",
    "rnr_nak": "receiver-not-ready NAKs that came back, fault to end",
    "cnp": "congestion notification packets that came back, fault to end",
}
_NOT_NAK = frozenset({"ack", "rnr_nak", "cnp", "icrc", "other"})
_DELAYS = {
    "roce_delay_median_ms": "one-way delay of packets that arrived from fault to heal, median",
    "roce_delay_p99_ms": "the same, 99th percentile",
    "roce_delay_added_ms": "median of that delay less the median in calm",
}
_RENAMED = {name: f"roce_{name.removeprefix('flow_')}" for name in flow_measures.SCHEMA}
SCHEMA: Mapping[str, str] = {
    **{_RENAMED[name]: text for name, text in flow_measures.SCHEMA.items()},
    **{f"roce_{kind}_packets": text for kind, text in {**_MET, **_ANSWERS}.items()},
    **_DELAYS,
}


def read(element: str, interval_ns: int, records: Mapping[str, list[Record]]) -> Readings:
    """Records of `sender` and `receiver` -> readings."""
    found = flow_reading.read([element], interval_ns, records)
    met = _times(records.get("receiver", ()), "odd")
    answered = _times(records.get("sender", ()), "answers")
    naks = sorted(at for kind, times in answered.items() if kind not in _NOT_NAK for at in times)
    alarms = (
        ("roce_nak", "roce.nak", naks),
        ("roce_icrc", "roce.icrc_wrong", met.get("icrc", [])),
        ("roce_cnp", "roce.cnp", answered.get("cnp", [])),
    )
    events = [_renamed(event) for event in found.events]
    for detector, name, times in alarms:
        events += [
            Event(at, "roce_flow", name, "", element, detector, "", {"packets": number})
            for at, number in _trains(times)
        ]
    delays = [
        (record["t"] + offset, delay)
        for record in records.get("receiver", ())
        if record["ev"] == "odd"
        for offset, delay in zip(record["at"], record["delays"], strict=True)
    ]
    return replace(
        found,
        probe="roce_flow",
        events=tuple(sorted(events, key=lambda event: event.at_ns)),
        trouble=tuple(f"roce_{text}" for text in found.trouble),
        extra={
            **found.extra,
            "met": met,
            "answered": {**answered, "nak": naks},
            "delays": delays,
        },
    )


def _renamed(event: Event) -> Event:
    name = event.name.replace("flow.", "roce.")
    detector = "roce_gap" if event.detector else ""
    return replace(event, source="roce_flow", name=name, detector=detector)


def _times(records: Iterable[Record], kind: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for record in records:
        if record["ev"] == kind:
            for what, offsets in record["met"].items():
                found.setdefault(what, []).extend(record["t"] + offset for offset in offsets)
    return found


def _trains(times: Sequence[int]) -> list[tuple[int, int]]:
    """First moment and length of each run of times that follow closely."""
    found: list[tuple[int, int]] = []
    last = None
    for at in times:
        if last is None or at - last > QUIET_NS:
            found.append((at, 1))
        else:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        last = at
    return found


def measure(readings: Readings, windows: Windows, validation_ns: int) -> tuple[Measure, ...]:
    """Every quantity of `SCHEMA`; None with a note where nothing was offered under the fault."""
    streamed = [
        replace(one, name=_RENAMED[one.name])
        for one in flow_measures.measure(readings, windows, validation_ns)
    ]
    if all(one.value is None for one in streamed):
        note = streamed[0].note
        rest = [name for name in SCHEMA if name not in _RENAMED.values()]
        return (*streamed, *(Measure(name, None, n=0, note=note) for name in rest))
    since, until = windows.event.earliest_ns, windows.end_ns
    counted = [
        Measure(f"roce_{kind}_packets", _within(readings.extra[where].get(kind, ()), since, until))
        for where, kinds in (("met", _MET), ("answered", _ANSWERS))
        for kind in kinds
    ]
    return (*streamed, *counted, *_delays(readings.extra["delays"], windows))


def _within(times: Iterable[int], since_ns: int, until_ns: int) -> int:
    return sum(since_ns <= at <= until_ns for at in times)


def _delays(delays: Sequence[tuple[int, int]], windows: Windows) -> list[Measure]:
    """Of packets that arrived in the storm; a clock's error goes into both, not the difference."""
    storm = sorted(
        delay for at, delay in delays if windows.event.earliest_ns <= at <= windows.heal.latest_ns
    )
    calm = sorted(
        delay for at, delay in delays if windows.calm_ns[0] <= at < windows.event.earliest_ns
    )
    if not storm or not calm:
        note = "nothing arrived from fault to heal" if calm else "nothing arrived in calm"
        return [Measure(name, None, n=0, note=note) for name in _DELAYS]
    median, p99 = _quantile(storm, 0.5), _quantile(storm, 0.99)
    values = (median, p99, median - _quantile(calm, 0.5))
    return [
        Measure(name, value / 1e6, n=len(storm))
        for name, value in zip(_DELAYS, values, strict=True)
    ]


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
