"""One experiment on one fabric, from the first calm to the record. Told to whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from chaos import budget, comparability, describe, plan, quarantine, strikes
from chaos import record as records
from chaos.driver import Driver
from chaos.errors import BlockedError, LeftoverError, RailbreakError, SpecError
from chaos.experiment import Experiment
from chaos.ground import CALM_FOREIGN_PERCENT, Ground
from chaos.judge import Verdict, judge_run, judge_trial, worst
from chaos.observe import Observer
from chaos.preflight import be_ready
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


@contextlib.contextmanager
def _log(folder: Path) -> Iterator[Any]:
    """The run's log: JSON lines, one event each."""
    with (folder / "log.jsonl").open("a", buffering=1) as file:
        yield structlog.wrap_logger(
            structlog.WriteLogger(file),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.add_log_level,
                structlog.processors.JSONRenderer(default=str),
            ],
        )


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
    with _log(folder) as log:

        def told(kind: str, facts: Mapping[str, Any]) -> None:
            if kind != "hits.counted":
                log.info(kind, **facts)
            tell(kind, facts)

        def heard(label: str, program: str, record: dict[str, Any]) -> None:
            tell("record.heard", {"label": label, "program": program, "record": record})

        planned = strikes.storms(experiment, driver.fabric) if storms is None else storms
        made = _begin(experiment, driver, planned, command)
        probing = observer or Observer(driver, experiment.probes, heard)
        tracer = driver.paths()
        ground = Ground(experiment, driver, probing, tracer, folder, told, calm_foreign_percent)
        trials: list[Trial] = []
        try:
            await be_ready(experiment, driver)
            told("phase.entered", {"name": "probes", "trial": 0})
            if not probing.started:
                await probing.start()
            noted = _tell_notes(driver, 0, told)
            for slot, storm in planned:
                await revive(probing)
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
            if observer is None:
                await probing.stop()
            tracer.close()
        made = finish(made, experiment, trials)
        _keep(folder, made, driver)
        told("run.judged", {"verdict": made.verdict})
        return made


def _begin(
    experiment: Experiment, driver: Driver, planned: strikes.Planned, command: Sequence[str]
) -> Record:
    """The record before the first trial."""
    return Record(
        experiment=describe.experiment(experiment),
        fabric=describe.fabric(driver),
        seed=experiment.seed,
        plan=(
            *plan.lines(experiment, driver.fabric, driver.name, planned, driver.engines()),
            *budget.lines(experiment, driver.fabric, driver.fidelity),
        ),
        comparability=comparability.block(driver.fidelity, command),
    )


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
