"""Which of several faults a symptom is of, and what is felt of one of them alone. Pure.

Faults that overlap blur each other, so a number is given to one fault only where it can be:

- a symptom that names a component of one struck fault, and of no other, is of that one;
- a fault that strikes when all before it are healed and nothing was felt for `QUIET_NS` stands
  apart: what follows is its own, until the next strikes;
- everything else could be of several, and is null with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos import measures
from chaos.calm import clip
from chaos.timeline import Event, Measure, Moment, Readings, Span, Windows

#: Without a symptom, an outage or a stall for so long, a fault of before is no longer felt.
QUIET_NS = 500_000_000
#: An outage or a stall is dated from the last good sign before it; so long before a fault strikes,
#: it may be that fault's own.
OWN_NS = 200_000_000


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault that struck.

    Attributes:
        text: The fault.
        truth: Every name that would localise it rightly.
        event: When it took effect.
        heal: When it was gone.
        label: What its own measures carry; empty where none are asked for.
    """

    text: str
    truth: tuple[str, ...]
    event: Moment
    heal: Moment
    label: str = ""


@dataclass(frozen=True, slots=True)
class Felt:
    """What was felt in a storm of several faults.

    Attributes:
        struck: In order of time.
        events: Of all probes, ascending.
        spans: Outages and stalls of all probes.
    """

    struck: tuple[Struck, ...]
    events: tuple[Event, ...]
    spans: tuple[Span, ...]

    def echo(self, at: int) -> str:
        """Why an earlier fault may still be felt when one strikes; empty when none is."""
        now = self.struck[at].event.earliest_ns
        for one in self.struck[:at]:
            if one.heal.latest_ns > now - QUIET_NS:
                when = "was in force" if one.heal.latest_ns > now else "had just been healed"
                return f"{one.text} {when}"
        if not at:
            return ""
        begins = now - QUIET_NS
        for event in self.events:
            if event.detector and begins <= event.at_ns < now:
                ago = (now - event.at_ns) / 1e6
                return (
                    f"{event.detector} on {event.element or event.node} spoke {ago:.0f} ms before"
                )
        for span in self.spans:
            own = span.end_ns >= now and span.start_ns >= now - OWN_NS
            if span.start_ns < now and span.end_ns > begins and not own:
                return f"{span.name} of {span.element} was not over for {QUIET_NS / 1e6:g} ms"
        return ""

    def of(self, event: Event) -> tuple[int, ...]:
        """Which faults a symptom could be of."""
        soonest = event.at_ns + event.error_ns
        known = [at for at, one in enumerate(self.struck) if one.event.earliest_ns <= soonest]
        named = [at for at in known if event.blames and event.blames in self.struck[at].truth]
        if named:
            return tuple(named)
        apart = [at for at in known if not self.echo(at)]
        return tuple(at for at in known if at >= max(apart, default=0))


def detection(felt: Felt, made: Iterable[Measure], windows: Windows) -> tuple[Measure, ...]:
    """`detection_…_ms` of the storm: null where the symptom may be of a fault that struck later.

    They count from the instant at which the first fault took effect.
    """
    first = measures.symptoms(felt.events, windows)
    soonest = min(first.values(), key=lambda event: event.at_ns, default=None)
    begun = felt.struck[0].event.latest_ns if felt.struck else 0
    at_once = {at for at, one in enumerate(felt.struck) if one.event.earliest_ns <= begun}
    told = []
    for one in made:
        name = one.name.removeprefix("detection_").removesuffix("_ms")
        event = soonest if name == "first" else first.get(name)
        if one.value is not None and event is not None and not set(felt.of(event)) <= at_once:
            one = _untold(one.name, felt, felt.of(event), event)
        told.append(one)
    return tuple(told)


def truth(felt: Felt, event: Event | None) -> tuple[str, ...]:
    """Names that are right when a symptom names one: those of the faults struck by then."""
    return tuple(
        name
        for one in felt.struck
        if event is None or one.event.earliest_ns <= event.at_ns + event.error_ns
        for name in one.truth
    )


def alone(felt: Felt, at: int, windows: Windows, detectors: Iterable[str]) -> tuple[Measure, ...]:
    """Detection and naming of one fault, under its label."""
    one = felt.struck[at]
    own = replace(windows, event=one.event, heal=one.heal)
    inside = measures.in_storm(felt.events, own)
    mine = [event for event in inside if felt.of(event) == (at,)]
    made = []
    plain = measures.detection(mine, own, detectors)
    for measure in plain:
        name = measure.name.removeprefix("detection_").removesuffix("_ms")
        blurred = _before(felt, at, inside, "" if name == "first" else name)
        if blurred is not None:
            measure = _untold(measure.name, felt, felt.of(blurred), blurred)
        made.append(measure)
    blaming = next((e for e in inside if e.detector and e.blames and at in felt.of(e)), None)
    naming = measures.localisation(mine, own, one.truth)
    if blaming is not None and felt.of(blaming) != (at,):
        naming = tuple(_untold(m.name, felt, felt.of(blaming), blaming) for m in naming)
    return tuple(replace(m, name=f"{one.label}_{m.name}") for m in (*made, *naming))


def _before(felt: Felt, at: int, inside: Sequence[Event], detector: str) -> Event | None:
    """The first symptom, if it could be of this fault and of another."""
    for event in inside:
        if event.detector and detector in ("", event.detector) and at in felt.of(event):
            return event if felt.of(event) != (at,) else None
    return None


def impact(
    felt: Felt, at: int, windows: Windows, probe: Any, readings: Readings, names: Iterable[str]
) -> tuple[Measure, ...]:
    """What one probe felt of one fault, under its label; null where others are felt as well.

    Args:
        felt: The storm.
        at: Which fault.
        windows: Of the trial.
        probe: It measures anew, over the time of this fault alone.
        readings: Of the trial, from calm on.
        names: Which of its measures tell of a fault.
    """
    one = felt.struck[at]
    why = felt.echo(at)
    after = [other for other in felt.struck[at + 1 :]]
    if not why:
        cut = next((o for o in after if o.event.earliest_ns < one.heal.latest_ns), None)
        why = f"{cut.text} struck before it was healed" if cut else ""
    if why:
        note = f"cannot be told apart: {why}"
        made = tuple(Measure(name, None, n=0, note=note) for name in names)
    else:
        end = min((o.event.earliest_ns for o in after), default=windows.end_ns)
        own = replace(windows, event=one.event, heal=one.heal, end_ns=end)
        wanted = set(names)
        clipped = clip(readings, windows.calm_ns[0], end)
        made = tuple(m for m in probe.measures(clipped, own) if m.name in wanted)
    return tuple(replace(m, name=f"{one.label}_{m.name}") for m in made)


def _untold(name: str, felt: Felt, could_be: Sequence[int], event: Event) -> Measure:
    """Null, and censored: there is a symptom, and whose it is cannot be told."""
    who = " or ".join(felt.struck[at].text for at in could_be)
    what = f"{event.detector} on {event.element or event.node}".removesuffix(" on ")
    note = f"cannot be told apart: {what} could be of {who}"
    return Measure(name, None, n=0, censored=True, note=note)


def struck_from(rows: Iterable[Mapping[str, Any]]) -> tuple[Struck, ...]:
    """Strikes of a trial's record that took effect, in order of time."""
    made = [
        Struck(
            row["text"],
            tuple(row["truth"]),
            Moment(*row["event_ns"]),
            Moment(*row["heal_ns"]),
            row["label"],
        )
        for row in rows
        if row.get("event_ns") is not None
    ]
    return tuple(sorted(made, key=lambda one: one.event.earliest_ns))
