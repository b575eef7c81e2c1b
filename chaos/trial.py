"""One trial: calm, storm, heal, after. It applies, observes and proves; judging is elsewhere.

calm     snapshot; traffic runs undisturbed; the path it takes is looked up and counted
storm    the injector brings the fault into force on an absolute schedule
heal     every change taken back and seen gone
after    the traffic recovers; the state is compared with the snapshot
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from chaos import apart, collide, load, measures, snapshot
from chaos.aim import Aimed
from chaos.calm import Calm, alarms, be_calm, busy, clip
from chaos.errors import BlockedError, SpecError
from chaos.expose import Met, expose, judged, of_impact, overall
from chaos.ground import Ground
from chaos.record import Exposure, Trial
from chaos.storm import Fallen, Falling, weather
from chaos.strike import Strike, as_json, as_text
from chaos.strikes import Slot, Storm
from chaos.timeline import Event, Measure, Readings, Windows, now_ns
from chaos.watch import Watch

FLUSH_S = 0.35
SETTLE_S = 20.0
RESTARTS = 2


async def run_trial(ground: Ground, slot: Slot, storm: Storm) -> Trial:
    """Run one trial to its end; whatever happens, what was broken is healed.

    Args:
        ground: What the run stands on.
        slot: Its number, its seed (which fixes the phase too), and whether it is a placebo.
        storm: What falls in it, and for how long; nothing in a placebo.

    Raises:
        RailbreakError: nothing can go on (an undo failed, the journal cannot be written).
    """
    rng = random.Random(slot.seed)
    number, placebo = slot.number, slot.placebo
    calm, aims, exposure, met = await _stand(ground, rng, slot, storm)
    trial = Trial(
        number,
        placebo,
        slot.seed,
        load=asdict(calm.load),
        disturbed=calm.disturbed,
        storm_ns=storm.length.ns,
        strikes=tuple(_told(one) for one in storm.strikes),
        left_out=storm.left_out,
    )
    if calm.trouble:
        return replace(trial, trouble=calm.trouble)
    falling = _falling(storm, aims, met)
    falling, left_out = _separate(ground, falling)
    trial = replace(
        trial,
        exposure=exposure,
        element=", ".join(dict.fromkeys(one.aimed.element for one in falling)),
        truth=tuple(dict.fromkeys(name for one in falling for name in one.aimed.truth)),
        fault="; ".join(as_text(one.strike.fault) for one in falling),
        strikes=tuple(_told(one.strike, one) for one in falling),
        left_out=(*storm.left_out, *left_out),
    )
    if exposure.exposed is False:
        ground.tell("exposure.checked", {"exposed": False, "sentence": exposure.sentence})
        return trial
    for one in falling:
        facts = {"element": one.aimed.element, "fault": as_text(one.strike.fault)}
        ground.tell("fault.aimed", facts)

    watch = Watch(ground.experiment.abort, ground.observer, calm.window_ns)
    held = watch.look(calm.window_ns[0], measures=False)
    if held is not None:
        return replace(trial, trouble=(f"would abort before the fault: {held.told}",))
    usage = ground.driver.load()
    done = await weather(ground, number, falling, storm.length, watch)
    aborted = None if done.tripped is None else done.tripped.as_json(done.heal.latest_ns)
    if aborted is not None:
        ground.tell("storm.aborted", aborted)
    ground.tell("phase.entered", {"name": "after", "trial": number, "placebo": placebo})
    await ground.observer.say({"cmd": "phase", "name": "after"})
    await asyncio.sleep(ground.experiment.phases.after.s)
    residue: tuple[str, ...] = ()
    if falling:
        residue = await snapshot.settled(ground.driver.snapshot, calm.before, SETTLE_S)
    await asyncio.sleep(FLUSH_S)
    windows = Windows(calm.window_ns, done.event, done.heal, now_ns() - int(FLUSH_S * 1e9), placebo)
    used = load.between(usage, ground.driver.load())
    if falling:
        ends = [(one.exposed, one.sentence) for one in done.fallen]
        exposed, sentence = overall([one.strike for one in falling], ends, exposure)
        exposure = replace(exposure, exposed=exposed, sentence=sentence)
    trial = replace(
        trial,
        windows=windows,
        proof=replace(done.proof, residue=residue),
        exposure=exposure,
        strikes=tuple(
            _told(one.strike, one, fell) for one, fell in zip(falling, done.fallen, strict=True)
        ),
        aborted=aborted,
        load={**trial.load, "storm": asdict(used)},
        trouble=busy(ground, used, "storm"),
    )
    return _read(ground, trial)


def _falling(storm: Storm, aims: Sequence[Aimed], met: Sequence[Met]) -> tuple[Falling, ...]:
    """Strikes with every word settled."""
    return tuple(
        Falling(replace(strike, fault=aimed.fault), aimed, *seen)
        for strike, aimed, seen in zip(storm.strikes, aims, met, strict=False)
    )


def _separate(
    ground: Ground, falling: Sequence[Falling]
) -> tuple[tuple[Falling, ...], tuple[str, ...]]:
    """Those that can be told apart, now that it is known what they strike, and why others cannot.

    Raises:
        BlockedError: two that were written cannot; nothing was broken.
    """
    try:
        kept, left = collide.separate([one.strike for one in falling], ground.driver.fabric)
    except SpecError as error:
        raise BlockedError(error.reason) from None
    return tuple(falling[at] for at in kept), left


def _told(strike: Strike, one: Falling | None = None, fell: Fallen | None = None) -> dict[str, Any]:
    """A strike for the record."""
    told: dict[str, Any] = {**as_json(strike), "text": as_text(strike.fault)}
    aimed = one.aimed if one else None
    event = fell.event if fell else None
    return told | {
        "element": aimed.element if aimed else "",
        "truth": list(aimed.truth) if aimed else [],
        "exposed": fell.exposed if fell else (one.exposed if one else None),
        "sentence": fell.sentence if fell else (one.sentence if one else ""),
        "event_ns": None if event is None else [event.earliest_ns, event.latest_ns],
        "heal_ns": None if event is None or fell is None else [*asdict(fell.heal).values()],
    }


async def _stand(
    ground: Ground, rng: random.Random, slot: Slot, storm: Storm
) -> tuple[Calm, tuple[Aimed, ...], Exposure, tuple[Met, ...]]:
    """Calm, and every probe's traffic on what is to be broken as far as that can be had.

    ECMP may have laid a job's connections around the element. Its probe is then started anew, twice
    at most: new connections have new ports, and so perhaps another path.
    """
    for attempt in range(RESTARTS + 1):
        calm = await be_calm(ground, rng, slot.number, placebo=slot.placebo)
        if calm.trouble:
            return calm, (), Exposure(), ()
        aims, exposure, met = await expose(ground, calm.counted, storm.strikes)
        avoiding = [
            label
            for label, crosses in exposure.others.items()
            if not crosses and judged(ground.experiment, label)
        ]
        if not avoiding or attempt == RESTARTS:
            break
        for label in avoiding:
            facts = {"label": label, "trial": slot.number, "element": aims[0].element}
            ground.tell("probe.restarted", facts)
            await ground.observer.stop_probe(label)
            await ground.observer.start_probe(label)
    return calm, aims, exposure, met


def _read(ground: Ground, trial: Trial) -> Trial:
    """Readings of every probe over this trial's time, and the measures made of them."""
    windows = trial.windows
    assert windows is not None
    trouble = list(trial.trouble)
    heard: dict[str, Readings] = {}
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
        heard[label] = got
        trouble += [*ground.observer.trouble(label, windows.calm_ns[0]), *got.trouble]
        if not avoided and listens(probe, trial.truth):
            detectors |= set(getattr(probe, "detectors", ()))
    readings = tuple(heard.values())
    events = sorted((e for r in readings for e in r.events), key=lambda e: e.at_ns)
    trouble += alarms([e for e in events if e.at_ns < windows.event.earliest_ns])
    felt = apart.Felt(
        apart.struck_from(trial.strikes),
        tuple(events),
        tuple(span for r in readings for span in r.spans),
    )
    numbers += _noticed(felt, windows, detectors, trial.truth)
    for at, one in enumerate(felt.struck):
        if one.label:
            numbers += _alone(ground, felt, at, trial, heard, detectors)
    return replace(
        trial,
        measures=tuple(numbers),
        events=tuple(events),
        series=tuple(s for r in readings for s in r.series),
        spans=tuple(s for r in readings for s in r.spans),
        trouble=tuple(dict.fromkeys(trouble)),
        extra={r.probe: dict(r.extra) for r in readings},
    )


def _noticed(
    felt: apart.Felt, windows: Windows, detectors: set[str], truth: Sequence[str]
) -> list[Measure]:
    """Detection and naming of the storm."""
    made = measures.detection(felt.events, windows, detectors)
    if len(felt.struck) < 2:
        return [*made, *measures.localisation(felt.events, windows, truth)]
    inside = measures.in_storm(felt.events, windows)
    first: Event | None = next((e for e in inside if e.detector and e.blames), None)
    right = apart.truth(felt, first)
    return [
        *apart.detection(felt, made, windows),
        *measures.localisation(felt.events, windows, right),
    ]


def _alone(
    ground: Ground,
    felt: apart.Felt,
    at: int,
    trial: Trial,
    heard: Mapping[str, Readings],
    detectors: set[str],
) -> list[Measure]:
    """Every measure of one labelled fault, null where others are felt as well."""
    assert trial.windows is not None
    made = list(apart.alone(felt, at, trial.windows, detectors))
    for label, read in heard.items():
        probe = ground.observer.probes[label]
        names = [name for name in probe.schema if of_impact(name)]
        avoided = trial.exposure.others.get(label) is False
        found = apart.impact(felt, at, trial.windows, probe, read, names)
        word = label.partition("/")[2]
        for one in found:
            name = one.name.removeprefix(f"{felt.struck[at].label}_")
            name = f"{felt.struck[at].label}_{word}_{name}" if word else one.name
            made.append(replace(_unmet(one, trial) if avoided else one, name=name))
    return made


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
