"""One experiment on one fabric, from the first calm to the record. Told to whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import structlog

from chaos import budget, comparability, plan, quarantine, strikes
from chaos import record as records
from chaos.driver import Driver
from chaos.errors import BlockedError, CapabilityError, LeftoverError, RailbreakError, SpecError
from chaos.experiment import Experiment
from chaos.fabric import Fabric
from chaos.ground import CALM_FOREIGN_PERCENT, Ground
from chaos.judge import Verdict, judge_run, judge_trial, worst
from chaos.observe import Observer
from chaos.record import Finding, Record, Trial
from chaos.trial import run_trial

Tell = Callable[[str, Mapping[str, Any]], None]


def make_folder(parent: Path, name: str) -> Path:
    """A fresh folder for one run, named after experiment and wall clock.

    Raises:
        BlockedError: it cannot be made; nothing was touched.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = parent / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise BlockedError(f"run folder {folder} cannot be made: {error.strerror}") from None
        return folder
    raise BlockedError(f"too many runs named {name}-{stamp} in {parent}")


def logger_for(folder: Path) -> tuple[Any, Callable[[], None]]:
    """The run's log: JSON lines, one event each; and what closes it."""
    file = (folder / "log.jsonl").open("a", buffering=1)
    made = structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(default=str),
        ],
    )
    return made, file.close


async def run(
    experiment: Experiment,
    driver: Driver,
    folder: Path,
    *,
    tell: Tell = lambda kind, facts: None,
    command: Sequence[str] = tuple(sys.argv),
    calm_foreign_percent: float = CALM_FOREIGN_PERCENT,
    storms: strikes.Planned | None = None,
    observer: Observer | None = None,
) -> Record:
    """Run every trial of an experiment on a fabric that is up and ready.

    Args:
        experiment: What is promised and how it is tried.
        driver: A fabric that forwards.
        folder: The run's own folder; record, log and journals are left in it.
        tell: Told of what happens, as it happens (kind, facts).
        command: What repeats the run.
        calm_foreign_percent: Share of the machine that others may use in calm.
        storms: What falls in each trial, as a record told it; None: as the seed has it.
        observer: The experiment's probes, to go on after the run; started where they do not run.
            `tell` hears nothing of what they say.

    Raises:
        SpecError: the experiment does not fit the fabric.
        BlockedError: a probe did not start; nothing was broken.
        RailbreakError: from a fault that could not be brought into force or taken back; the record
            of the trials so far was written.
    """
    log, close_log = logger_for(folder)
    try:
        planned = strikes.storms(experiment, driver.fabric) if storms is None else storms
        told = (log, tell, command, calm_foreign_percent)
        return await _run(experiment, driver, folder, planned, *told, observer)
    finally:
        close_log()


async def _run(
    experiment: Experiment,
    driver: Driver,
    folder: Path,
    planned: strikes.Planned,
    log: Any,
    tell: Tell,
    command: Sequence[str],
    calm_foreign_percent: float,
    kept: Observer | None,
) -> Record:
    def told(kind: str, facts: Mapping[str, Any]) -> None:
        if kind != "hits.counted":
            log.info(kind, **facts)
        tell(kind, facts)

    def heard(label: str, program: str, record: dict[str, Any]) -> None:
        tell("record.heard", {"label": label, "program": program, "record": record})

    made = Record(
        experiment=describe(experiment),
        fabric=describe_fabric(driver),
        seed=experiment.seed,
        plan=(
            *plan.lines(experiment, driver.fabric, driver.name, planned, driver.engines()),
            *budget.lines(experiment, driver.fabric, driver.fidelity),
        ),
        comparability=comparability.block(driver.fidelity, command),
    )
    observer = kept or Observer(driver, experiment.probes, heard)
    tracer = driver.paths()
    ground = Ground(experiment, driver, observer, tracer, folder, told, calm_foreign_percent)
    trials: list[Trial] = []
    try:
        be_able(experiment, driver.fabric, type(driver))
        budget.be_within(experiment, driver.fabric, driver.fidelity)
        await asyncio.to_thread(be_free, experiment, driver)
        for probe in experiment.probes.values() if not driver.elsewhere else ():
            getattr(probe, "available", lambda: None)()
        await be_sound(driver)
        be_observable(experiment, driver)
        told("phase.entered", {"name": "probes", "trial": 0})
        if not observer.started:
            await observer.start()
        noted = _tell_notes(driver, 0, told)
        for slot, storm in planned:
            await revive(observer)
            trial = await run_trial(ground, slot, storm)
            trials.append(judge_trial(trial))
            noted = _tell_notes(driver, noted, told)
            _keep(folder, replace(made, trials=tuple(trials)), driver)
            told("trial.judged", {"number": slot.number, "verdict": trials[-1].verdict})
            be_whole(trials[-1])
            if trials[-1].aborted is not None:  # what went too far once is not tried again
                break
    except RailbreakError as error:
        log.error("run.broken_off", error=str(error))
        if isinstance(error, LeftoverError):
            await asyncio.to_thread(quarantine.look, driver.folder)
        _keep(folder, finish(made, experiment, trials), driver)
        raise
    finally:
        if kept is None:
            await observer.stop()
        tracer.close()
    made = finish(made, experiment, trials)
    _keep(folder, made, driver)
    told("run.judged", {"verdict": made.verdict})
    return made


def be_able(experiment: Experiment, fabric: Fabric, driver: type[Driver]) -> None:
    """Return when a driver can make every change of an experiment; nothing is touched.

    Raises:
        CapabilityError: it cannot; says which, why, and what to use instead.
    """
    for fault, _, reason in plan.matrix(experiment, fabric, driver, driver.engines()):
        if reason:
            raise CapabilityError(f"{fault}: {reason}")


def be_free(experiment: Experiment, driver: Driver) -> None:
    """Return when a fault could strike nodes that are not in quarantine.

    Where traffic settles what is struck, it is asked again before that is armed.

    Raises:
        BlockedError: whatever it means, it strikes one that is; says what was left there.
    """
    refused: dict[int, BlockedError | None] = {}
    for one in budget.meant(experiment, driver.fabric):
        try:
            quarantine.be_free(one.nodes, driver)
        except BlockedError as error:
            refused.setdefault(one.group, error)
        else:
            refused[one.group] = None
    for refusal in refused.values():
        if refusal is not None:
            raise refusal


def be_observable(experiment: Experiment, driver: Driver) -> None:
    """Return when a driver can run every program of an experiment's probes; nothing is touched.

    Raises:
        CapabilityError: it cannot; says which, why, and what to do instead.
    """
    for label, probe in experiment.probes.items():
        for program in probe.programs(driver.fabric, driver.addresses()):
            if reason := driver.bars(program):
                raise CapabilityError(f"probe {label}: {reason}")


async def be_sound(driver: Driver, looks: int = 20) -> None:
    """Return when routing daemons and kernels agree: a fabric at odds with itself is no yardstick.

    Raises:
        BlockedError: they still differ after `looks` looks, half a second apart; says how.
    """
    found: tuple[str, ...] = ()
    for look in range(looks):
        await asyncio.sleep(0.5 * bool(look))
        found = (await driver.audit()).findings
        if not found:
            return
    raise BlockedError(f"fabric {driver.instance} is not sound: {'; '.join(found[:3])}")


async def revive(observer: Observer) -> None:
    """Start anew the probes that the last trial killed: a dead job is no yardstick."""
    for label in observer.probes:
        over = _job_over(observer, label) or _lacks_a_rank(observer, label)
        if observer.ended(label) or over:
            await observer.stop_probe(label)
            await observer.start_probe(label)


def _job_over(observer: Observer, label: str) -> bool:
    said = [r for some in observer.records(label).values() for r in some]
    return any(r.get("ev") == "fate" and r.get("fate") != "survived" for r in said)


def _lacks_a_rank(observer: Observer, label: str) -> bool:
    """A rank died and did not come back: the next trial would be that of a smaller job."""
    lives: dict[str, bool] = {}
    for one in (r for some in observer.records(label).values() for r in some):
        if one.get("ev") == "process":
            lives[str(one["name"])] = True
        elif one.get("ev") == "exited":
            lives[f"rank{one['who']}"] = False
    return not all(lives.values())


def finish(made: Record, experiment: Experiment, trials: Sequence[Trial]) -> Record:
    """The record with every trial and the judgement over all of them."""
    findings, combined, verdict = judge_run(experiment.objectives, trials)
    planned = int(made.experiment["trials"]) + int(made.experiment["placebos"] or 0)
    if len(trials) < planned:
        sentence = f"broken off after {len(trials)} of {planned} trials"
        findings = (Finding(sentence, "completeness", Verdict.INCONCLUSIVE), *findings)
        verdict = worst((verdict, Verdict.INCONCLUSIVE))
    return replace(
        made, trials=tuple(trials), findings=findings, measures=combined, verdict=verdict.value
    )


def be_whole(trial: Trial) -> None:
    """Return when the trial left nothing in force: no further trial starts on a faulted fabric.

    Raises:
        LeftoverError: something is still in force; the message prints the cure.
    """
    if trial.proof.taken_back is False:
        left = [c for c in trial.proof.changes if not c["taken_back"]]
        cures = "\n".join(f"  {c['text']}: {c['cure'] or 'railbreak undo --all'}" for c in left)
        raise LeftoverError(f"trial {trial.number}: still in force after healing; cure:\n{cures}")


def rejudge(made: Record, experiment: Experiment) -> Record:
    """Judge a stored record again, by today's rules and objectives; nothing is run.

    Raises:
        SpecError: the experiment is not the one of the record.
    """
    if made.experiment.get("name") != experiment.name:
        raise SpecError(
            f"the record is of experiment {made.experiment.get('name')!r}, not {experiment.name!r}"
        )
    return finish(made, experiment, [judge_trial(trial) for trial in made.trials])


def _tell_notes(driver: Driver, told_of: int, tell: Tell) -> int:
    """Tell what the driver has noted since; how many notes there are now."""
    for sentence in driver.warnings[told_of:]:
        tell("fabric.noted", {"sentence": sentence})
    return len(driver.warnings)


def _keep(folder: Path, made: Record, driver: Driver) -> None:
    records.write(made, folder / "record.json")
    for journal in driver.folder.glob(f"journal-{folder.name}-*.jsonl"):
        with contextlib.suppress(OSError):
            shutil.copy2(journal, folder / journal.name)


def describe(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain data for the record."""
    return {
        "name": experiment.name,
        "promise": experiment.promise,
        "file": experiment.document.file if experiment.document else None,
        "fabric": experiment.fabric,
        "faults": [
            {
                "name": fault.name,
                "text": plan.as_text(fault),
                "at": str(timing.at),
                "for": None if timing.length is None else str(timing.length),
                "label": timing.label,
            }
            for fault, timing in zip(experiment.faults, experiment.timed, strict=True)
        ],
        "arrivals": [
            {
                "of": plan.as_text(one.of, "rank"),
                "over": one.over,
                "rate": str(one.rate),
                "compress": one.compress,
                "for": str(one.length),
                "population": one.population,
            }
            for one in experiment.arrivals
        ],
        "trace": experiment.trace
        and {"file": experiment.trace.file, "compress": experiment.trace.compress},
        "probes": {label: plan.as_text(p) for label, p in experiment.probes.items()},
        "exposed": experiment.exposed,
        "phases": {
            item.name: str(getattr(experiment.phases, item.name))
            for item in fields(experiment.phases)
        },
        "trials": experiment.trials,
        "placebos": experiment.placebos,
        "max_life": str(experiment.max_life),
        "limits": experiment.limits.as_json(),
        "abort": [one.sentence() for one in experiment.abort],
        "objectives": [
            {"sentence": one.sentence(), "expected": one.expected, "because": one.because}
            for one in experiment.objectives
        ],
    }


def describe_fabric(driver: Driver) -> dict[str, Any]:
    """The fabric as plain data for the record."""
    fabric = driver.fabric
    return {
        "name": fabric.name,
        "driver": driver.name,
        "fidelity": driver.fidelity,
        "instance": driver.instance,
        "nodes": {node.name: node.role for node in fabric.nodes.values()},
        "links": [link.id for link in fabric.links],
        "addresses": dict(driver.addresses()),
        "notes": driver.warnings,  # the list itself: what is noted later is written, too
    }
