"""One trial: calm, storm, heal, after. It applies, observes and proves; judging is elsewhere.

calm     snapshot; traffic runs undisturbed; the path it takes is looked up and counted
storm    the injector brings the fault into force on an absolute schedule
heal     every change taken back and seen gone
after    the traffic recovers; the state is compared with the snapshot
"""

from __future__ import annotations

import asyncio
import bisect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from chaos import load, measures, snapshot
from chaos.aim import Aimed, aim
from chaos.change import Change
from chaos.driver import Driver
from chaos.errors import FabricError
from chaos.experiment import Experiment
from chaos.fabric import Crossing, Port
from chaos.hands import Hands
from chaos.hands import Proof as HandsProof
from chaos.observe import Observer
from chaos.path import Tracer
from chaos.plan import as_text
from chaos.record import Exposure, Proof, Trial
from chaos.registry import InForce, Traffic
from chaos.timeline import Event, Measure, Moment, Readings, Windows, now_ns
from chaos.units import Duration

LEAD_NS = 50_000_000
FLUSH_S = 0.35
CALM_FOREIGN_PERCENT = 40.0
CALM_STOLEN_PERCENT = 10.0

Tell = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True)
class Ground:
    """What every trial of a run stands on.

    Attributes:
        experiment: What is promised and how it is tried.
        driver: Reaches the fabric.
        observer: The probes, running.
        tracer: Looks up paths and counters.
        folder: The run's folder: journals.
        tell: Told of phases, hits and aims as they come.
        calm_foreign_percent: More than this share of the machine used by others spoils calm.
    """

    experiment: Experiment
    driver: Driver
    observer: Observer
    tracer: Tracer
    folder: Path
    tell: Tell
    calm_foreign_percent: float = CALM_FOREIGN_PERCENT


async def run_trial(ground: Ground, number: int, seed: int, *, placebo: bool) -> Trial:
    """Run one trial to its end; whatever happens, what was broken is healed.

    Args:
        ground: What the run stands on.
        number: From 1.
        seed: Fixes phase, storm length and the fault's own randomness.
        placebo: Leave the fault out.

    Raises:
        RailbreakError: nothing can go on (an undo failed, the journal cannot be written).
    """
    rng = random.Random(seed)
    trial = Trial(number=number, placebo=placebo, seed=seed)
    ground.tell("phase.entered", {"name": "calm", "trial": number, "placebo": placebo})
    namespaces = ground.driver.namespaces()
    before = snapshot.take(namespaces)
    usage, started = load.read(namespaces.values()), now_ns()
    counted = ground.tracer.counters(ground.driver.fabric.links)
    await asyncio.sleep(ground.experiment.phases.calm.s + rng.uniform(0, 0.5))
    calm = (started, now_ns())
    calm_load = load.between(usage, load.read(namespaces.values()))
    trial = replace(trial, load={**asdict(calm_load)})

    aims, exposure = _exposure(ground, counted, placebo)
    trial = replace(
        trial,
        exposure=exposure,
        element=", ".join(aimed.element for aimed in aims),
        truth=tuple(name for aimed in aims for name in aimed.truth),
        fault="; ".join(as_text(aimed.fault) for aimed in aims),
    )
    if exposure.exposed is False:
        ground.tell("exposure.checked", {"exposed": False, "sentence": exposure.sentence})
        return replace(trial, trouble=_calm_trouble(ground, calm_load))
    for aimed in aims:
        ground.tell("fault.aimed", {"element": aimed.element, "fault": as_text(aimed.fault)})

    storm = ground.experiment.phases.storm.draw(rng)
    proof, event, heal = await _storm(ground, number, aims, storm, rng)
    ground.tell("phase.entered", {"name": "after", "trial": number, "placebo": placebo})
    await ground.observer.say({"cmd": "phase", "name": "after"})
    await asyncio.sleep(ground.experiment.phases.after.s)
    residue = await snapshot.settle(namespaces, before, deadline_s=20.0) if aims else ()
    await asyncio.sleep(FLUSH_S)
    windows = Windows(calm, event, heal, now_ns() - int(FLUSH_S * 1e9), placebo)
    proof = replace(proof, residue=tuple(residue))
    return _read(ground, replace(trial, windows=windows, proof=proof), calm_load)


async def _storm(
    ground: Ground, number: int, aims: Sequence[Aimed], storm: Duration, rng: random.Random
) -> tuple[Proof, Moment, Moment]:
    ground.tell("phase.entered", {"name": "storm", "trial": number, "placebo": not aims})
    await ground.observer.say({"cmd": "phase", "name": "storm"})
    if not aims:
        start = now_ns()
        await asyncio.sleep(storm.s)
        end = now_ns()
        return Proof(), Moment(start, start), Moment(end, end)
    armed: list[tuple[Hands, tuple[InForce, ...]]] = []
    try:
        for at, aimed in enumerate(aims):
            changes = place_processes(aimed.fault.changes(ground.driver.fabric), ground.driver)
            hands = await _arm(ground, f"{number}-{at}", changes)
            armed.append((hands, aimed.fault.schedule(storm, rng)))
        start_ns = now_ns() + LEAD_NS
        proofs = await asyncio.gather(
            *(_in_force(ground, hands, start_ns, spans) for hands, spans in armed)
        )
    finally:
        await asyncio.gather(*(hands.close() for hands, _ in armed))
    ground.tell("phase.entered", {"name": "heal", "trial": number})
    events = [done.event for done in proofs if done.event is not None]
    heals = [done.healed for done in proofs if done.healed is not None]
    never = Moment(start_ns, start_ns)
    event = min(events, key=lambda moment: moment.earliest_ns, default=never)
    heal = max(heals, key=lambda moment: moment.latest_ns, default=Moment(now_ns(), now_ns()))
    return _proof(proofs, [s for _, spans in armed for s in spans]), event, heal


async def _arm(ground: Ground, name: str, changes: Sequence[Change]) -> Hands:
    return await Hands.arm(
        changes,
        {change.place: ground.driver.resolve(change.place) for change in changes},
        journal=ground.driver.folder / f"journal-{ground.folder.name}-{name}.jsonl",
        max_life=ground.experiment.max_life,
        log_dir=ground.folder,
    )


async def _in_force(
    ground: Ground, hands: Hands, start_ns: int, spans: Sequence[InForce]
) -> HandsProof:
    await hands.start(start_ns, spans)
    waiting = asyncio.create_task(hands.wait())
    try:
        while not waiting.done():
            await asyncio.wait((waiting,), timeout=0.25)
            met = await hands.hits()
            ground.tell("hits.counted", {"hits": {i: asdict(h) for i, h in met.items()}})
        await waiting
    finally:
        waiting.cancel()
        done = await hands.heal()
    return done


def place_processes(changes: Sequence[Change], driver: Driver) -> tuple[Change, ...]:
    """Changes whose process places name the node that the process was announced on."""
    homes: Mapping[str, str] = getattr(driver, "process_nodes", {})
    return tuple(
        replace(c, place=replace(c.place, node=homes.get(c.place.process, c.place.node)))
        if c.place.process
        else c
        for c in changes
    )


def _too_late(proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Iterator[str]:
    """Actions so late that the fault was not the planned one: by a fifth of the shortest span.

    Lesser lateness does no harm: measures count from what the kernel acknowledged.
    """
    shortest = min((span.end_ns - span.start_ns for span in spans), default=0)
    for action in (a for done in proofs for a in done.actions):
        late = action.before_ns - action.planned_ns
        if late > shortest / 5:
            yield f"{action.kind} of change {action.change} came {late / 1e6:.3g} ms late"


def _proof(proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Proof:
    each = [
        {
            "text": one.change.describe(),
            "place": str(one.change.place),
            "in_force": one.in_force,
            "seen": one.seen,
            "hit": one.hit,
            "taken_back": one.taken_back,
            "cure": one.leftover,
        }
        for done in proofs
        for one in done.changes
    ]
    hits = [one.hit for done in proofs for one in done.changes if one.hit is not None]
    seen = [one.seen for done in proofs for one in done.changes if one.seen is not None]
    return Proof(
        in_force=all(done.in_force for done in proofs),
        seen=sum(seen) if seen else None,
        hit=sum(hits) if hits else None,
        taken_back=all(done.taken_back for done in proofs),
        changes=tuple(each),
        actions=tuple(asdict(action) for done in proofs for action in done.actions),
        late=tuple(_too_late(proofs, spans)) + tuple(s for done in proofs for s in done.trouble),
    )


def _exposure(
    ground: Ground, counted: Mapping[Port, Any], placebo: bool
) -> tuple[tuple[Aimed, ...], Exposure]:
    """Aim the faults at what the traffic uses, and prove by counters that it is used."""
    try:
        paths, taken = trace(ground)
    except FabricError as error:
        return (), Exposure(False, f"calm was not calm: {error}")
    if placebo or not ground.experiment.faults:
        return (), Exposure(None, "nothing was to be exposed", taken)
    aims = tuple(aim(fault, ground.driver.fabric, paths) for fault in ground.experiment.faults)
    if all(aimed.element.startswith("rank") for aimed in aims):
        return aims, Exposure(None, f"{aims[0].element} belongs to the measured job", taken)
    crossed = [aimed.crossing for aimed in aims if aimed.crossing is not None]
    if not crossed:
        avoided = ", ".join(aimed.element for aimed in aims)
        crosses = "; ".join(taken) or "no link"
        sentence = f"not exposed: the traffic avoids {avoided}; it takes {crosses}"
        return aims, Exposure(False, sentence, taken)
    now = ground.tracer.counters([crossing.link for crossing in crossed])
    packets = {port.id: now[port].tx_packets - counted[port].tx_packets for port in now}
    crossing = crossed[0]
    sent = packets[crossing.link.port_of(crossing.source).id]
    least = max(10, int(50 * ground.experiment.phases.calm.s))
    if sent < least:
        sentence = (
            f"not exposed: the path leads over {crossing}, but only {sent} packets went that way "
            f"in calm (at least {least} expected)"
        )
        return aims, Exposure(False, sentence, taken, packets)
    return aims, Exposure(True, f"{sent} packets crossed {crossing} in calm", taken, packets)


def trace(ground: Ground) -> tuple[list[tuple[Crossing, ...]], tuple[str, ...]]:
    """Links that the exposed probe's streams cross, and the same as text."""
    label = ground.experiment.exposed or "none"
    probe = ground.observer.probes.get(label)
    if not isinstance(probe, Traffic):
        return [], ()
    streams = probe.streams(ground.driver.addresses(), ground.observer.records(label))
    paths, taken = [], []
    for stream in streams:
        path = ground.tracer.crossings(
            stream.source,
            stream.source_ip,
            stream.target_ip,
            stream.proto,
            stream.sport,
            stream.dport,
        )
        paths.append(path)
        hops = " -> ".join([stream.source, *(crossing.target for crossing in path)])
        taken.append(f"{stream}: {hops}")
    return paths, tuple(taken)


def _calm_trouble(ground: Ground, calm: load.Load) -> tuple[str, ...]:
    found = []
    if calm.foreign_percent > ground.calm_foreign_percent:
        found.append(
            f"calm was not calm: other processes used {calm.foreign_percent:.0f} % of this machine "
            f"(at most {ground.calm_foreign_percent:.0f} % expected)"
        )
    if calm.stolen_percent > CALM_STOLEN_PERCENT:
        found.append(
            f"calm was not calm: the hypervisor took {calm.stolen_percent:.0f} % of this machine "
            f"(at most {CALM_STOLEN_PERCENT:.0f} % expected)"
        )
    return tuple(found)


def _read(ground: Ground, trial: Trial, calm_load: load.Load) -> Trial:
    """Readings of every probe over this trial's time, and the measures made of them."""
    windows = trial.windows
    assert windows is not None
    trouble = list(_calm_trouble(ground, calm_load))
    readings: list[Readings] = []
    numbers: list[Measure] = []
    detectors: set[str] = set()
    for label, probe in ground.observer.probes.items():
        try:
            got = clip(probe.read(ground.observer.records(label)), windows)
            numbers += [_labelled(label, m) for m in probe.measures(got, windows)]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            trouble.append(f"probe {label}: its records cannot be read: {error!r}")
            continue
        readings.append(got)
        trouble += [*ground.observer.trouble(label), *got.trouble]
        detectors |= set(getattr(probe, "detectors", ()))
    events = sorted((e for r in readings for e in r.events), key=lambda e: e.at_ns)
    trouble += _calm_alarms(events, windows)
    numbers += measures.detection(events, windows, detectors)
    numbers += measures.localisation(events, windows, trial.truth)
    return replace(
        trial,
        measures=tuple(numbers),
        events=tuple(events),
        series=tuple(s for r in readings for s in r.series),
        spans=tuple(s for r in readings for s in r.spans),
        trouble=tuple(dict.fromkeys(trouble)),
        extra={r.probe: dict(r.extra) for r in readings},
    )


def clip(readings: Readings, windows: Windows) -> Readings:
    """Readings of a program's whole life -> those of one trial."""
    start, end = windows.calm_ns[0], windows.end_ns
    inside = [bisect_pair(series.at_ns, start, end) for series in readings.series]
    return replace(
        readings,
        events=tuple(e for e in readings.events if start <= e.at_ns <= end),
        series=tuple(
            replace(s, at_ns=s.at_ns[a:b], values=s.values[a:b])
            for s, (a, b) in zip(readings.series, inside, strict=True)
        ),
        spans=tuple(s for s in readings.spans if s.end_ns >= start and s.start_ns <= end),
    )


def bisect_pair(at_ns: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Positions of the first and behind the last time within [start, end]."""
    return bisect.bisect_left(at_ns, start), bisect.bisect_right(at_ns, end)


def _labelled(label: str, measure: Measure) -> Measure:
    """A probe that occurs twice says which it is: `flow/b` prefixes its measures with `b_`."""
    _, slash, word = label.partition("/")
    return replace(measure, name=f"{word}_{measure.name}") if slash else measure


def _calm_alarms(events: Sequence[Event], windows: Windows) -> list[str]:
    noisy = [e for e in events if e.detector and e.at_ns < windows.event.earliest_ns]
    who = sorted({f"{e.detector} on {e.element or e.node}" for e in noisy})
    if not who:
        return []
    return [f"calm was not calm: {', '.join(who[:5])} raised an alarm before the fault"]
