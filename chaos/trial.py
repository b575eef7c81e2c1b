"""One trial: calm, storm, heal, after. It applies, observes and proves; judging is elsewhere.

calm     snapshot; traffic runs undisturbed; the path it takes is looked up and counted
storm    the injector brings the fault into force on an absolute schedule
heal     every change taken back and seen gone
after    the traffic recovers; the state is compared with the snapshot
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from chaos import budget, load, measures, snapshot
from chaos.aim import Aimed
from chaos.calm import Calm, alarms, be_calm, busy, clip
from chaos.change import Change
from chaos.driver import Holder
from chaos.errors import SpecError, near
from chaos.expose import expose, judged, of_impact
from chaos.ground import Ground
from chaos.hands import Proof as HandsProof
from chaos.plan import as_text
from chaos.record import Exposure, Proof, Trial
from chaos.registry import InForce
from chaos.timeline import Measure, Moment, Readings, Windows, now_ns
from chaos.units import Duration

LEAD_NS = 50_000_000
FLUSH_S = 0.35
SETTLE_S = 20.0
RESTARTS = 2


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
    calm, aims, exposure = await _stand(ground, rng, number, placebo=placebo)
    trial = Trial(number, placebo, seed, load=asdict(calm.load), disturbed=calm.disturbed)
    if calm.trouble:
        return replace(trial, trouble=calm.trouble)
    trial = replace(
        trial,
        exposure=exposure,
        element=", ".join(aimed.element for aimed in aims),
        truth=tuple(name for aimed in aims for name in aimed.truth),
        fault="; ".join(as_text(aimed.fault) for aimed in aims),
    )
    if exposure.exposed is False:
        ground.tell("exposure.checked", {"exposed": False, "sentence": exposure.sentence})
        return trial
    for aimed in aims:
        ground.tell("fault.aimed", {"element": aimed.element, "fault": as_text(aimed.fault)})

    storm = ground.experiment.phases.storm.draw(rng)
    usage = ground.driver.load()
    proof, event, heal = await _storm(ground, number, aims, storm, rng)
    ground.tell("phase.entered", {"name": "after", "trial": number, "placebo": placebo})
    await ground.observer.say({"cmd": "phase", "name": "after"})
    await asyncio.sleep(ground.experiment.phases.after.s)
    residue: tuple[str, ...] = ()
    if aims:
        residue = await snapshot.settled(ground.driver.snapshot, calm.before, SETTLE_S)
    await asyncio.sleep(FLUSH_S)
    windows = Windows(calm.window_ns, event, heal, now_ns() - int(FLUSH_S * 1e9), placebo)
    used = load.between(usage, ground.driver.load())
    trial = replace(
        trial,
        windows=windows,
        proof=replace(proof, residue=residue),
        load={**trial.load, "storm": asdict(used)},
        trouble=busy(ground, used, "storm"),
    )
    return _read(ground, trial)


async def _stand(
    ground: Ground, rng: random.Random, number: int, *, placebo: bool
) -> tuple[Calm, tuple[Aimed, ...], Exposure]:
    """Calm, and every probe's traffic on what is to be broken as far as that can be had.

    ECMP may have laid a job's connections around the element. Its probe is then started anew, twice
    at most: new connections have new ports, and so perhaps another path.
    """
    for attempt in range(RESTARTS + 1):
        calm = await be_calm(ground, rng, number, placebo=placebo)
        if calm.trouble:
            return calm, (), Exposure()
        aims, exposure = await expose(ground, calm.counted, placebo)
        avoiding = [
            label
            for label, crosses in exposure.others.items()
            if not crosses and judged(ground.experiment, label)
        ]
        if not avoiding or attempt == RESTARTS:
            break
        for label in avoiding:
            facts = {"label": label, "trial": number, "element": aims[0].element}
            ground.tell("probe.restarted", facts)
            await ground.observer.stop_probe(label)
            await ground.observer.start_probe(label)
    return calm, aims, exposure


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
    fabric, homes = ground.driver.fabric, ground.observer.homes
    placed = [place_processes(aimed.fault.changes(fabric), homes) for aimed in aims]
    _allow(ground, aims, placed)
    armed: list[tuple[Holder, tuple[InForce, ...]]] = []
    try:
        for at, (aimed, changes) in enumerate(zip(aims, placed, strict=True)):
            spans = aimed.fault.schedule(storm, rng)
            armed.append((await _arm(ground, f"{number}-{at}", changes), spans))
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
    faults = [as_text(aimed.fault) for aimed in aims]
    return _proof(faults, proofs, [s for _, spans in armed for s in spans]), event, heal


def _allow(ground: Ground, aims: Sequence[Aimed], placed: Sequence[Sequence[Change]]) -> None:
    """Return when what was aimed at, now that it is known, is within the limits.

    Raises:
        BlockedError: it is not; nothing was broken.
    """
    experiment, driver = ground.experiment, ground.driver
    budget.hold(
        "; ".join(as_text(aimed.fault) for aimed in aims),
        [change for changes in placed for change in changes],
        driver.fabric,
        experiment.limits,
        driver.fidelity,
        budget.ranks(experiment, driver.fabric),
    )


async def _arm(ground: Ground, name: str, changes: Sequence[Change]) -> Holder:
    return await ground.driver.arm(
        changes,
        journal=ground.driver.folder / f"journal-{ground.folder.name}-{name}.jsonl",
        max_life=ground.experiment.max_life,
        log_dir=ground.folder,
    )


async def _in_force(
    ground: Ground, hands: Holder, start_ns: int, spans: Sequence[InForce]
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


def place_processes(changes: Sequence[Change], homes: Mapping[str, str]) -> tuple[Change, ...]:
    """Changes whose process places name the node that the process was announced on.

    Raises:
        SpecError: no such process was announced; those that were are named.
    """
    placed: list[Change] = []
    for change in changes:
        process = change.place.process
        if process and process not in homes:
            raise SpecError(f"no process {process!r} to aim at; {near(process, homes)}")
        if process:
            change = replace(change, place=replace(change.place, node=homes[process]))
        placed.append(change)
    return tuple(placed)


def _too_late(proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Iterator[str]:
    """Actions so late that the fault was not the planned one: by a fifth of the shortest span.

    Lesser lateness does no harm: measures count from what the kernel acknowledged.
    """
    shortest = min((span.end_ns - span.start_ns for span in spans), default=0)
    for action in (a for done in proofs for a in done.actions):
        late = action.before_ns - action.planned_ns
        if late > shortest / 5:
            yield f"{action.kind} of change {action.change} came {late / 1e6:.3g} ms late"


def _proof(faults: Sequence[str], proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Proof:
    each = [
        {
            "fault": fault,
            "text": one.change.describe(),
            "place": str(one.change.place),
            "in_force": one.in_force,
            "seen": one.seen,
            "hit": one.hit,
            "taken_back": one.taken_back,
            "cure": one.leftover,
        }
        for fault, done in zip(faults, proofs, strict=True)
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


def _read(ground: Ground, trial: Trial) -> Trial:
    """Readings of every probe over this trial's time, and the measures made of them."""
    windows = trial.windows
    assert windows is not None
    trouble = list(trial.trouble)
    readings: list[Readings] = []
    numbers: list[Measure] = []
    detectors: set[str] = set()
    for label, probe in ground.observer.probes.items():
        try:
            whole = probe.read(ground.observer.since(label, windows.calm_ns[0]))
            got = clip(whole, windows.calm_ns[0], windows.end_ns)
            made = probe.measures(got, windows)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            trouble.append(f"probe {label}: its records cannot be read: {error!r}")
            continue
        avoided = trial.exposure.others.get(label) is False
        numbers += [_labelled(label, _unmet(m, trial) if avoided else m) for m in made]
        readings.append(got)
        trouble += [*ground.observer.trouble(label), *got.trouble]
        if not avoided and listens(probe, trial.truth):
            detectors |= set(getattr(probe, "detectors", ()))
    events = sorted((e for r in readings for e in r.events), key=lambda e: e.at_ns)
    trouble += alarms([e for e in events if e.at_ns < windows.event.earliest_ns])
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


def listens(probe: Any, truth: Sequence[str]) -> bool:
    """Whether a probe that was told to watch some nodes watches any that the fault touches."""
    nodes = set(getattr(probe, "nodes", ()) if not callable(getattr(probe, "nodes", ())) else ())
    touched = {name.partition(":")[0] for name in truth}
    touched |= {end.partition(":")[0] for name in truth for end in name.split("--")}
    return not nodes or not truth or bool(nodes & touched)


def _unmet(measure: Measure, trial: Trial) -> Measure:
    """A measure of traffic that avoided the fault: absent, unless it is of calm or of values."""
    if measure.value is None or not of_impact(measure.name):
        return measure
    note = f"not exposed: its traffic avoided {trial.element}"
    return Measure(measure.name, None, n=0, note=note)


def _labelled(label: str, measure: Measure) -> Measure:
    """A probe that occurs twice says which it is: `flow/b` prefixes its measures with `b_`."""
    _, slash, word = label.partition("/")
    return replace(measure, name=f"{word}_{measure.name}") if slash else measure
