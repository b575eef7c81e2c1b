"""pytest plugin: `--fabric`, fixtures, and verdicts that stay apart.

fail is a failed test; inconclusive is an *error* with the reason, never a pass and never a silent
skip; blocked (a wrong spec, a fabric that cannot be built, a calm that was none) is an error in
set-up; a missing capability is a skip with the sentence that names it. What is still in force is an
error that says so first.
Measures become JUnit properties. With xdist each worker brings up a fabric of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chaos.errors import ApplyError, CapabilityError, LeftoverError, RailbreakError, SpecError

if TYPE_CHECKING:  # a session of anybody's tests loads this file, and few of them break anything
    from chaos.driver import Driver
    from chaos.experiment import Experiment
    from chaos.record import Record
    from chaos.session import Session

DEFAULT_FABRIC = "clos-2x4x8"


class InconclusiveError(Exception):
    """Neither passed nor failed: the reason is the message."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fabric` and its kin, `--trials`, `--runs`, `--calm-load`."""
    group = parser.getgroup("railbreak")
    group.addoption(
        "--fabric",
        metavar="FILE",
        help=f"topology file or shipped fabric for the suites (default {DEFAULT_FABRIC})",
    )
    group.addoption(
        "--fabric-driver",
        default="netns",
        metavar="DRIVER",
        help="what brings the fabric up: netns (embedded, default) or containerlab",
    )
    group.addoption(
        "--fabric-on",
        metavar="INSTANCE",
        help="use this fabric, which is up or attached, and leave it as it is",
    )
    group.addoption("--trials", type=int, help="trials with the fault, per suite test")
    group.addoption("--runs", default="runs", help="folder for run folders (default runs)")
    group.addoption(
        "--calm-load",
        type=_share,
        metavar="SHARE",
        help="share of this machine that others may use before calm is not calm, such as 70%%",
    )


def _share(text: str) -> float:
    """A share of an option, in percent."""
    from chaos.units import Percent

    try:
        return Percent.parse(text).value
    except SpecError as error:
        raise argparse.ArgumentTypeError(error.reason) from None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; refuse options that mean nothing."""
    trials = config.getoption("--trials")
    if trials is not None and trials < 1:
        raise pytest.UsageError(f"--trials: 1 or more expected, got {trials}")
    config.addinivalue_line("markers", "netns: makes network namespaces; needs root")
    config.addinivalue_line("markers", "fabric(name): bring up this fabric for the test")
    same = "same_probes: probes go on to the next test of this kind that has the same ones"
    config.addinivalue_line("markers", same)
    config.addinivalue_line("markers", "railbreak: breaks a fabric on purpose; needs root")


@pytest.fixture(scope="session")
def railbreak_fabrics(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Fabrics of this session; taken down at its end, except one that --fabric-on named."""
    from chaos.session import Session

    option = request.config.getoption
    fabrics = Session(option("--fabric-driver"), option("--fabric-on") or "")
    try:
        yield fabrics
    finally:
        fabrics.close()


def _fabric_name(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("fabric")
    if marker is not None and (len(marker.args) != 1 or marker.kwargs):
        raise pytest.UsageError("the marker is written fabric(name): one name or file")
    chosen = request.config.getoption("--fabric")
    return str(chosen or (marker.args[0] if marker else DEFAULT_FABRIC))


@pytest.fixture
def fabric(request: pytest.FixtureRequest, railbreak_fabrics: Session) -> Driver:
    """A fabric that forwards: `--fabric`, else the test's marker, else clos-2x4x8."""
    if not request.node.get_closest_marker("same_probes"):
        railbreak_fabrics.call(railbreak_fabrics.stop_probes())
    return railbreak_fabrics.get(_fabric_name(request))


@pytest.fixture
def flow() -> Callable[..., Any]:
    """Describe a sequence-numbered UDP flow: `flow("host1", "host8", rate="2 kpps")`."""
    from chaos.experiment_python import probe

    def make(source: str, target: str, **values: Any) -> Any:
        return probe("flow", source=source, target=target, **values)

    return make


@pytest.fixture
def job() -> Callable[..., Any]:
    """Describe a collective job: `job("host1", "host3", op="all_reduce", size="1 MiB")`."""
    from chaos.experiment_python import probe

    def make(*hosts: str, **values: Any) -> Any:
        return probe("collective", hosts=list(hosts), **values)

    return make


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    fabric: Driver,
    railbreak_fabrics: Session,
    record_property: Callable[[str, object], None],
) -> Callable[..., Record]:
    """Run an experiment on the fabric and hold the test to its verdict.

    `trial("local_link_down")` runs a shipped experiment or a file;
    `trial(fault, probes, objectives, promise=…, …)` one made in Python.
    """

    from chaos.experiment_python import made as make

    def hold(experiment: Any, *parts: Any, **values: Any) -> Record:
        made = make(
            experiment,
            parts,
            values,
            fabric=_fabric_name(request),
            name=request.node.name,
            told=(request.node.function.__doc__ or request.node.name).strip(),
        )
        if trials := request.config.getoption("--trials"):
            made = replace(made, trials=trials)
        record = railbreak_fabrics.call(_run(request, made, fabric, railbreak_fabrics))
        for measure in record.measures:
            record_property(measure.name, measure.value)
        record_property("verdict", record.verdict)
        settle(record)
        return record

    return hold


async def _run(
    request: pytest.FixtureRequest, made: Experiment, driver: Driver, session: Session
) -> Record:
    from chaos import record as records
    from chaos.experiment_python import be_at_home
    from chaos.ground import CALM_FOREIGN_PERCENT
    from chaos.report import junit, page
    from chaos.run import make_folder, run

    be_at_home(made, driver.fabric)
    folder = make_folder(Path(request.config.getoption("--runs")), made.name)
    load = request.config.getoption("--calm-load")
    same = request.node.get_closest_marker("same_probes") is not None
    try:
        record = await run(
            made,
            driver,
            folder,
            command=("pytest", request.node.nodeid),
            calm_foreign_percent=CALM_FOREIGN_PERCENT if load is None else load,
            observer=await session.observer(driver, made.probes) if same else None,
        )
    except BaseException:
        await session.stop_probes()
        raise
    if record.verdict != "pass":  # whatever was wrong, the next test does not inherit it
        await session.stop_probes()
    data = records.to_json(record)
    (folder / "report.html").write_text(page(data))
    (folder / "junit.xml").write_text(junit(data))
    return record


def settle(record: Record) -> None:
    """Fail, inconclusive and pass, each in pytest's own way."""
    told = "\n".join(
        f"  {f.verdict.upper()}: {f.sentence}" for f in record.findings if f.verdict != "pass"
    )
    if record.verdict == "fail":
        pytest.fail(f"{record.experiment['promise']}\n{told}", pytrace=False)
    if record.verdict != "pass":
        raise InconclusiveError(f"{record.experiment['promise']}\n{told}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Inconclusive and blocked are errors, not failures: they are reported as a broken set-up."""
    outcome: Any = yield
    report = outcome.get_result()
    word = "" if call.excinfo is None else _word(call.excinfo.value)
    if call.excinfo is not None and word:
        report.longrepr = f"{word}: {call.excinfo.value}"
        report.when = "setup"
        report.outcome = "failed"
    if call.excinfo is not None and call.excinfo.errisinstance(CapabilityError):
        path, line, _ = item.location
        report.outcome = "skipped"
        report.longrepr = (str(path), (line or 0) + 1, f"Skipped: {call.excinfo.value}")


def _word(error: BaseException) -> str:
    """What an error of ours is called in a report; empty for any other, and for a skip."""
    if isinstance(error, CapabilityError):
        return ""
    if isinstance(error, LeftoverError):
        return "STILL IN FORCE"
    if isinstance(error, InconclusiveError | ApplyError):
        return "INCONCLUSIVE"
    return "BLOCKED" if isinstance(error, RailbreakError) else ""
