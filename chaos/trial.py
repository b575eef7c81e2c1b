"""One trial: calm, storm, heal, after. It applies, observes and proves; judging is elsewhere.

calm     snapshot; traffic runs undisturbed; the path it takes is looked up and counted
storm    the injector brings the fault into force on an absolute schedule
heal     every change taken back and seen gone
after    the traffic recovers; the state is compared with the snapshot
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from chaos import load, measures, snapshot
from chaos.aim import Aimed
from chaos.calm import Calm, alarms, be_calm, busy, clip
from chaos.expose import expose, judged, of_impact
from chaos.ground import Ground
from chaos.plan import as_text
from chaos.record import Exposure, Trial
from chaos.storm import weather
from chaos.timeline import Measure, Readings, Windows, now_ns
from chaos.watch import Watch

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
    watch = Watch(ground.experiment.abort, ground.observer, calm.window_ns)
    held = watch.look(calm.window_ns[0], measures=False)
    if held is not None:
        return replace(trial, trouble=(f"would abort before the fault: {held.told}",))
    usage = ground.driver.load()
    proof, event, heal, tripped = await weather(ground, number, aims, storm, rng, watch)
    aborted = None if tripped is None else tripped.as_json(heal.latest_ns)
    if aborted is not None:
        ground.tell("storm.aborted", aborted)
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
        aborted=aborted,
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
        trouble += [*ground.observer.trouble(label, windows.calm_ns[0]), *got.trouble]
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
