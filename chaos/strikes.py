"""What falls in the storm of one trial: which fault, from when to when, on what. Pure.

    faults (at, for, after) ┐
    arrivals (rate, seed)   ├──▶ Storm: Strike, Strike, …   ──▶ armed, in force, healed one by one
    trace (file, compress)  ┘

Everything is drawn from the trial's seed alone, before anything runs: `railbreak plan` shows every
strike, and the record holds them, so that a run can be replayed from either.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from chaos.collide import separate, together
from chaos.document import join
from chaos.errors import SpecError
from chaos.experiment import Experiment
from chaos.fabric import Fabric
from chaos.strike import ARRIVAL, TRACE, Strike, as_text, strike
from chaos.units import Duration


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
        length, ranks = experiment.phases.storm.low.ns, experiment.rank_places(fabric)
        mean = sum(one.expected(length, fabric, ranks) for one in experiment.arrivals)
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
    ranks = experiment.rank_places(fabric)
    for at, one in enumerate(experiment.arrivals):
        rng = random.Random(f"{slot.seed} arrivals[{at}]")
        try:
            arrived = one.draw(length.ns, fabric, rng, ranks)
        except SpecError as error:
            place = join(experiment.place(at, "arrivals"), error.field or "")
            raise experiment.wrong(error.reason, place) from None
        for drawn in arrived:
            fault = one.struck(drawn.element)
            yield strike(fault, drawn.at_ns, drawn.until_ns, rng, origin=ARRIVAL)


def groups(experiment: Experiment, fabric: Fabric) -> tuple[tuple[Any, ...], ...]:
    """Faults that are in force at one time in some trial; each such set once."""
    found: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for _, fallen in storms(experiment, fabric):
        for group in together(fallen.strikes):
            faults = tuple(fallen.strikes[at].fault for at in group)
            found.setdefault(tuple(map(as_text, faults)), faults)
    return tuple(found.values())
