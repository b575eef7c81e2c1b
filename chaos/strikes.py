"""What falls in the storm of one trial: which fault, from when to when, on what. Pure.

    faults (at, for, after) ┐
    arrivals (rate, seed)   ├──▶ Storm: Strike, Strike, …   ──▶ armed, in force, healed one by one
    trace (file, compress)  ┘

Everything is drawn from the trial's seed alone, before anything runs: `railbreak plan` shows every
strike, and the record holds them, so that a run can be replayed from either.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from chaos.change import BgpNeighbour, Change, LinkState, ProcessSignal, identity
from chaos.document import join
from chaos.errors import SpecError
from chaos.experiment import Experiment
from chaos.experiment_fit import meanings
from chaos.fabric import Fabric, Port
from chaos.registry import FAULTS, InForce, build
from chaos.units import Duration

#: What strikes an element again must leave this long after what struck it before: the first must be
#: seen gone.
APART_NS = 250_000_000
WRITTEN, ARRIVAL, TRACE = "written", "arrival", "trace"


@dataclass(frozen=True, slots=True)
class Slot:
    """One trial to be run.

    Attributes:
        number: From 1.
        placebo: The fault is left out.
        seed: Of this trial alone.
    """

    number: int
    placebo: bool
    seed: int


def slots(experiment: Experiment, seed: int | None = None) -> tuple[Slot, ...]:
    """Trials in the order in which they are run: placebos among them, placed by the seed.

    Examples:
        >>> e = Experiment("p", "pair", faults=(), trials=2)
        >>> [slot.placebo for slot in slots(e)]
        [True, True]
    """
    rng = random.Random(experiment.seed if seed is None else seed)
    kinds = [experiment.placebo] * experiment.trials + [True] * (experiment.placebos or 0)
    rng.shuffle(kinds)
    return tuple(Slot(at, kind, rng.getrandbits(31)) for at, kind in enumerate(kinds, 1))


def as_text(fault: Any) -> str:
    """A fault as one line: its name and the fields that are not at their default.

    Examples:
        >>> from faults.node_down import NodeDown
        >>> as_text(NodeDown(node="spine1"))
        'node_down(node=spine1)'
    """
    said = [
        f"{item.name}={getattr(fault, item.name)}"
        for item in fields(fault)
        if getattr(fault, item.name) != item.default
    ]
    return f"{fault.name}({', '.join(said)})"


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault in one storm.

    Attributes:
        fault: The fault; its words may still be `in-use`.
        at_ns: From when, since the start of the storm.
        until_ns: Until when.
        spans: When it is in force, within that.
        label: What its measures carry; empty for none.
        origin: `written`, `arrival` or `trace`.
    """

    fault: Any
    at_ns: int
    until_ns: int
    spans: tuple[InForce, ...]
    label: str = ""
    origin: str = WRITTEN

    @property
    def text(self) -> str:
        """When and what, as one line."""
        when = f"{self.at_ns / 1e6:g}–{self.until_ns / 1e6:g} ms"
        return f"{when} {self.label + ': ' if self.label else ''}{as_text(self.fault)}"


@dataclass(frozen=True, slots=True)
class Storm:
    """The storm of one trial.

    Attributes:
        length: How long.
        strikes: In order of time.
        left_out: Arrivals that found their element broken already, one sentence each.
    """

    length: Duration
    strikes: tuple[Strike, ...] = ()
    left_out: tuple[str, ...] = ()


Planned = tuple[tuple[Slot, Storm], ...]


def storms(experiment: Experiment, fabric: Fabric) -> Planned:
    """Every trial of a run with its storm. One in which nothing arrives is a placebo.

    Raises:
        SpecError: a fault does not fit its time, two on one element could not be told apart, or
            nothing arrives in any trial.
    """
    made = []
    for slot in slots(experiment):
        fallen = storm(experiment, fabric, slot)
        made.append((replace(slot, placebo=slot.placebo or not fallen.strikes), fallen))
    if not experiment.placebo and all(slot.placebo for slot, _ in made):
        mean = sum(a.expected(experiment.phases.storm.low.ns, fabric) for a in experiment.arrivals)
        raise experiment.wrong(
            f"nothing arrives in any of {experiment.trials} trials ({mean:.2g} expected in each); "
            "compress time more",
            "arrivals",
        )
    return tuple(made)


def storm(experiment: Experiment, fabric: Fabric, slot: Slot) -> Storm:
    """What falls in one trial.

    Raises:
        SpecError: as `storms`.
    """
    length = experiment.phases.storm.draw(random.Random(f"{slot.seed} storm"))
    if slot.placebo:
        return Storm(length)
    fallen = sorted(
        (
            *_written(experiment, length, slot),
            *_traced(experiment, length, slot),
            *_arrived(experiment, fabric, length, slot),
        ),
        key=lambda one: one.at_ns,
    )
    try:
        kept, left = separate(fallen, fabric)
    except SpecError as error:
        raise experiment.wrong(error.reason, "faults" if experiment.faults else "trace") from None
    return Storm(length, tuple(fallen[at] for at in kept), left)


def _written(experiment: Experiment, length: Duration, slot: Slot) -> Iterator[Strike]:
    for at, (fault, timing) in enumerate(zip(experiment.faults, experiment.timed, strict=True)):
        start = timing.at.ns
        until = length.ns if timing.length is None else start + timing.length.ns
        rng = random.Random(f"{slot.seed} faults[{at}]")
        yield strike(fault, start, until, rng, timing.label)


def _traced(experiment: Experiment, length: Duration, slot: Slot) -> Iterator[Strike]:
    trace = experiment.trace
    if trace is None:
        return
    for row in trace.rows:
        if row.until_ns > length.ns:
            raise trace.wrong(
                row,
                "end",
                f"a fault that ends within the storm of {length} expected, got an end "
                f"{row.until_ns / 1e9:.3g} s after it began; compress at least "
                f"{trace.compress * row.until_ns / length.ns:.3g} times",
            )
        rng = random.Random(f"{slot.seed} trace {row.line}")
        yield strike(row.fault, row.at_ns, row.until_ns, rng, origin=TRACE)


def _arrived(
    experiment: Experiment, fabric: Fabric, length: Duration, slot: Slot
) -> Iterator[Strike]:
    for at, one in enumerate(experiment.arrivals):
        rng = random.Random(f"{slot.seed} arrivals[{at}]")
        try:
            arrived = one.draw(length.ns, fabric, rng)
        except SpecError as error:
            place = join(experiment.place(at, "arrivals"), error.field or "")
            raise experiment.wrong(error.reason, place) from None
        for drawn in arrived:
            fault = one.struck(drawn.element)
            yield strike(fault, drawn.at_ns, drawn.until_ns, rng, origin=ARRIVAL)


def strike(
    fault: Any,
    at_ns: int,
    until_ns: int,
    rng: random.Random,
    label: str = "",
    origin: str = WRITTEN,
) -> Strike:
    """A fault with its own schedule laid into its time.

    Raises:
        SpecError: its schedule does not fit.
    """
    spans = fault.schedule(Duration(until_ns - at_ns), rng)
    moved = tuple(InForce(one.start_ns + at_ns, one.end_ns + at_ns) for one in spans)
    return Strike(fault, at_ns, until_ns, moved, label, origin)


def separate(strikes: Sequence[Strike], fabric: Fabric) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Indices of the strikes that can be told apart, and why the others are left out.

    An arrival on what is broken already is left out: a link that is down cannot fail again.

    Raises:
        SpecError: two that are not drawn collide, whatever traffic makes of their words.
    """
    kept: list[int] = []
    left: list[str] = []
    in_order = sorted(range(len(strikes)), key=lambda at: (strikes[at].origin == ARRIVAL, at))
    for at in in_order:
        one = strikes[at]
        why = next((w for other in kept if (w := _always(strikes[other], one, fabric))), "")
        if why and one.origin != ARRIVAL:
            raise SpecError(why)
        if why:
            left.append(f"left out: {one.text}; {why}")
        else:
            kept.append(at)
    return tuple(sorted(kept)), tuple(left)


def groups(experiment: Experiment, fabric: Fabric) -> tuple[tuple[Any, ...], ...]:
    """Faults that are in force at one time in some trial; each such set once."""
    found: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for _, fallen in storms(experiment, fabric):
        for group in together(fallen.strikes):
            faults = tuple(fallen.strikes[at].fault for at in group)
            found.setdefault(tuple(map(as_text, faults)), faults)
    return tuple(found.values())


def together(strikes: Sequence[Strike]) -> tuple[tuple[int, ...], ...]:
    """Indices of strikes that are in force at one time, for each greatest such set.

    One that begins as another ends counts as together with it, since healing takes its time.
    """
    sets = {
        frozenset(
            at for at, other in enumerate(strikes) if other.at_ns <= one.at_ns <= other.until_ns
        )
        for one in strikes
    }
    greatest = [one for one in sets if not any(one < other for other in sets)]
    return tuple(sorted(tuple(sorted(one)) for one in greatest))


def overlap(one: Strike, other: Strike) -> bool:
    """Whether two are in force at one time, or so close that the first may not be gone."""
    return one.at_ns < other.until_ns + APART_NS and other.at_ns < one.until_ns + APART_NS


def collision(
    one: Strike, other: Strike, fabric: Fabric, mine: Sequence[Change], theirs: Sequence[Change]
) -> str:
    """Why two strikes could not be told apart; empty when they can.

    They overlap, and one undo would take back both, or both act on the state of one cable, one
    session or one process, so that neither's effect nor healing is its own.
    """
    if not overlap(one, other):
        return ""
    shared = set(_touched(mine, fabric)) & set(_touched(theirs, fabric))
    if not shared:
        return ""
    return (
        f"{as_text(one.fault)} and {as_text(other.fault)} cannot be told apart: both change "
        f"{min(shared)} within {APART_NS / 1e6:g} ms of each other; leave more time between them, "
        "or strike something else"
    )


def _touched(changes: Sequence[Change], fabric: Fabric) -> Iterator[str]:
    cables = {port: link.id for link in fabric.links for port in link.ports}
    for change in changes:
        place = change.place
        if isinstance(change, LinkState):
            port = Port(place.node, place.port)
            yield f"the state of {cables.get(port, port.id)}"
        elif isinstance(change, ProcessSignal):
            yield f"the process {place.process}"
        elif isinstance(change, BgpNeighbour):
            yield f"the session at {place}"
        else:
            yield f"{change.describe()} ({identity(change)})"


def _always(one: Strike, other: Strike, fabric: Fabric) -> str:
    """Why two strikes collide whatever traffic makes of their words; empty when they need not."""
    if not overlap(one, other):
        return ""
    pairs = _meant(one.fault, other.fault, fabric)
    why = ""
    for a, b in pairs:
        try:
            changes = a.changes(fabric), b.changes(fabric)
        except SpecError:
            continue  # a meaning that this fabric cannot have
        why = collision(replace(one, fault=a), replace(other, fault=b), fabric, *changes)
        if not why:
            return ""
    return why


def _meant(a: Any, b: Any, fabric: Fabric) -> Iterator[tuple[Any, Any]]:
    """What traffic could make of the words of two faults; equal words are settled alike."""
    same = [w for w in ("link", "node") if getattr(a, w, None) == getattr(b, w, None) is not None]
    if "link" in same and getattr(a, "end", None) == getattr(b, "end", None) is not None:
        same.append("end")
    for x, y in product(meanings(a, fabric), meanings(b, fabric)):
        if all(getattr(x, word) == getattr(y, word) for word in same):
            yield x, y


# ---- to and from a record -----------------------------------------------------------------------


def as_json(one: Strike) -> dict[str, Any]:
    """A strike as plain data, from which `from_json` makes it again."""
    return {
        "fault": one.fault.name,
        "fields": {
            item.name: _plain(getattr(one.fault, item.name))
            for item in fields(one.fault)
            if getattr(one.fault, item.name) != item.default
        },
        "label": one.label,
        "origin": one.origin,
        "at_ns": one.at_ns,
        "until_ns": one.until_ns,
        "spans": [[span.start_ns, span.end_ns] for span in one.spans],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.plain() if hasattr(value, "plain") else str(value)


def from_json(data: Mapping[str, Any]) -> Strike:
    """Read what `as_json` wrote.

    Raises:
        SpecError: a fault or field that this installation does not have.
    """
    fault = build(FAULTS, "fault", data["fault"], data["fields"])
    spans = tuple(InForce(start, end) for start, end in data["spans"])
    return Strike(fault, data["at_ns"], data["until_ns"], spans, data["label"], data["origin"])
