"""`demo`, `run`: from an experiment to its record."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from dataclasses import replace
from errno import EISDIR
from os import strerror
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import typer

from chaos import budget, drivers
from chaos import record as records
from chaos.cli.app import app, err, option, out
from chaos.cli.fabrics import DriverName, pick
from chaos.cli.live import View
from chaos.cli.plans import ExperimentName, Limit, On, Placebos, Seed, Trials
from chaos.cli.results import Out, record_path, summary, write
from chaos.cli.runner import drive
from chaos.driver import Driver
from chaos.errors import SpecError
from chaos.experiment import Experiment, find, varied
from chaos.fabric import Fabric
from chaos.ground import CALM_FOREIGN_PERCENT
from chaos.judge import Verdict
from chaos.limits import Limits
from chaos.preflight import be_able
from chaos.record import Record
from chaos.replay import again, recorded
from chaos.report import junit
from chaos.run import make_folder
from chaos.run import run as run_experiment
from chaos.units import Percent

STATUS = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.INCONCLUSIVE: 2}


@app.command(rich_help_panel="Break")
def run(
    experiment: ExperimentName,
    trials: Trials = None,
    placebos: Placebos = None,
    seed: Seed = None,
    on: On = "",
    driver_name: DriverName = drivers.DEFAULT,
    limit: Limit = None,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the record here.")] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="Also write JUnit XML here.")
    ] = None,
    replay: Annotated[
        str,
        typer.Option(
            metavar="RUN", help="Strike as a run or record of it did: same faults, same instants."
        ),
    ] = "",
    calm_load: Annotated[
        str, typer.Option(help="Share of this machine that others may use before calm is not calm.")
    ] = f"{CALM_FOREIGN_PERCENT:g}%",
    runs: Out = Path("runs"),
) -> None:
    """Run an experiment: calm, storm, heal, after, as often as it says; then judge and report.

    Brings up the fabric that the experiment names and takes it down again, unless --on names one
    that is up or attached. With --driver containerlab the real Containerlab deploys it. What the
    driver cannot break, and what would reach beyond the limits (those of the experiment, --limit,
    and on real machines a default), is said before anything is touched. Exit status: 0 pass,
    1 fail, 2 inconclusive. Ctrl-C heals first. The seed alone repeats a run; --replay also keeps
    what traffic settled then.
    """
    chosen = varied(find(experiment), trials, placebos, seed, Limits.said(limit or []))
    share = option("--calm-load", Percent, calm_load).value
    kept = None
    if replay:
        if trials is not None or placebos is not None or seed is not None:
            raise SpecError("--replay has the trials and the seed of its record; leave them out")
        kept = records.read(record_path(replay, runs))
        chosen = again(chosen, kept)
    raise typer.Exit(_run(chosen, runs, on, json, junit_file, share, driver_name, kept))


@app.command(rich_help_panel="Start here")
def demo(runs: Out = Path("runs")) -> None:
    """The first minute: a fabric, a collective job, a broken link, a verdict and a page.

    Runs the shipped experiment remote_link_down with one trial and one placebo on a two-spine,
    four-leaf, eight-host fabric inside this machine.
    """
    chosen = varied(find("remote_link_down"), 1, 1, None)
    if importlib.util.find_spec("torch") is None:
        err.print(
            "torch is not installed: the demo runs without its collective job "
            "(pip install 'railbreak\\[job]')",
            style="yellow",
        )
        chosen = _without_job(chosen)
    raise typer.Exit(_run(chosen, runs, "", None, None, CALM_FOREIGN_PERCENT))


def _without_job(chosen: Experiment) -> Experiment:
    probes = {label: p for label, p in chosen.probes.items() if p.name != "collective"}
    kept = tuple(
        one for one in chosen.objectives if not str(getattr(one, "measure", "")).startswith("job_")
    )
    return replace(chosen, probes=probes, objectives=kept)


def _run(
    chosen: Experiment,
    runs: Path,
    on: str,
    json: Path | None,
    junit_file: Path | None,
    calm_load: float,
    driver_name: str = drivers.DEFAULT,
    replayed: Record | None = None,
) -> int:
    fabric = None if on else _reachable(chosen, driver_name)
    for word, path in (("--json", json), ("--junit", junit_file)):
        _writable(word, path)
    made, folder = drive(_measured(chosen, fabric, runs, on, calm_load, driver_name, replayed))
    written = write(made, folder)
    if json is not None:
        records.write(made, json)
    if junit_file is not None:
        junit_file.write_text(junit(records.to_json(made)))
    summary(made)
    out.print(f"report  {written}", style="dim")
    out.print(f"repeat  {shlex.join(['railbreak', *sys.argv[1:]])}", style="dim")
    return STATUS[Verdict(made.verdict)]


def _reachable(chosen: Experiment, driver_name: str) -> Fabric:
    """The experiment's own fabric, which the driver can break as asked, within the limits."""
    fabric = drivers.fabric(chosen.fabric, driver_name)
    _fits(chosen, fabric, drivers.named(driver_name))
    return fabric


def _fits(chosen: Experiment, fabric: Fabric, driver: type[Driver]) -> None:
    """Refuse what would be refused later, before anything is promised or made."""
    chosen.check(fabric)
    be_able(chosen, fabric, driver)
    budget.be_within(chosen, fabric, driver.fidelity)


def _writable(option: str, path: Path | None) -> None:
    """Refuse before the run what could not be written after it."""
    if path is None:
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        if path.exists():
            path.open("ab").close()
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SpecError(f"{option} {path} cannot be written: {error.strerror}") from None


async def _measured(
    chosen: Experiment,
    fabric: Fabric | None,
    runs: Path,
    on: str,
    calm_load: float,
    driver_name: str,
    replayed: Record | None,
) -> tuple[Record, Path]:
    """On the fabric that is up (`on`), or on one that is brought up and taken down again.

    The record, and the folder that was made for the run.
    """
    if fabric is None:
        standing = await drivers.attach(pick(on))
        _fits(chosen, standing.fabric, type(standing))
        folder = make_folder(runs, chosen.name)
        with View(chosen, out) as view:
            return await _trials(chosen, standing, folder, view, calm_load, replayed), folder
    folder = make_folder(runs, chosen.name)
    with View(chosen, out) as view:
        driver = await drivers.named(driver_name).up(fabric, progress=view.step)
        try:
            view.step("waiting until the kernel forwards everywhere")
            await driver.wait_ready()
            return await _trials(chosen, driver, folder, view, calm_load, replayed), folder
        finally:
            view.step("taking the fabric down")
            await driver.down()


async def _trials(
    chosen: Experiment,
    driver: Driver,
    folder: Path,
    view: View,
    calm_load: float,
    replayed: Record | None,
) -> Record:
    command = ["railbreak", *sys.argv[1:]]
    return await run_experiment(
        chosen,
        driver,
        folder,
        tell=view.tell,
        command=command,
        calm_foreign_percent=calm_load,
        storms=None if replayed is None else recorded(replayed, driver.fabric),
    )
