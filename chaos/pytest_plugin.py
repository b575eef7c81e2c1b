"""pytest plugin: `--fabric`, fixtures, and verdicts that stay apart.

fail is a failed test; inconclusive is an *error* with the reason, never a pass and never a silent
skip; blocked (a wrong spec, a fabric that cannot be built, a calm that was none) is an error in
set-up; a missing capability is a skip with the sentence that names it. What is still in force is an
error that says so first.
Measures become JUnit properties. With xdist each worker brings up a fabric of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from chaos.errors import (
    ApplyError,
    BlockedError,
    CapabilityError,
    FabricError,
    LeftoverError,
    RailbreakError,
    SpecError,
)

if TYPE_CHECKING:
    from chaos.driver import Driver
    from chaos.experiment import Experiment
    from chaos.fabric import Fabric
    from chaos.objectives import Objective
    from chaos.observe import Observer
    from chaos.record import Record

T = TypeVar("T")
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


class _Loop:
    """One event loop in a thread of its own, so that fixtures of one session share a fabric."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="railbreak", daemon=True)
        self.thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Fabrics:
    """Fabrics of this session, one per name, brought up when first asked for."""

    def __init__(self, driver: str = "netns", on: str = "") -> None:
        self._loop = _Loop()
        self._driver, self._on = driver, on
        self._up: dict[str, Driver | Exception] = {}
        self._kept: Observer | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end: the one synchronous face."""
        return self._loop.call(work)

    def get(self, name: str) -> Driver:
        """The running fabric of that name; a fabric that once failed stays failed."""
        name = self._on or name
        if name not in self._up:
            try:
                self._up[name] = self.call(self._bring_up(name, self._driver, self._on))
            except (FabricError, SpecError) as error:
                self._up[name] = error
        found = self._up[name]
        if isinstance(found, CapabilityError):
            pytest.skip(str(found))
        if isinstance(found, Exception):
            raise BlockedError(f"fabric {name}: {found}") from found
        return found

    async def observer(self, driver: Driver, probes: Mapping[str, Any]) -> Observer:
        """Probes that go on from trial to trial, as long as they are the same ones."""
        from chaos.observe import Observer

        kept = self._kept
        if kept is None or kept.driver is not driver or kept.probes != dict(probes):
            await self.stop_probes()
            self._kept = Observer(driver, probes)
        assert self._kept is not None
        return self._kept

    async def stop_probes(self) -> None:
        """End those that went on."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.stop()

    @staticmethod
    async def _bring_up(name: str, driver_name: str, on: str) -> Driver:
        from chaos import drivers

        if on:
            return await drivers.attach(on)
        driver = await drivers.named(driver_name).up(drivers.fabric(name, driver_name))
        try:
            await driver.wait_ready()
        except BaseException:
            await driver.down()
            raise
        return driver

    def close(self) -> None:
        """Take down every fabric of this session."""
        self.call(self.stop_probes())
        for driver in self._up.values():
            if not isinstance(driver, Exception) and not self._on:
                self.call(driver.down())
        self._loop.close()


@pytest.fixture(scope="session")
def railbreak_fabrics(request: pytest.FixtureRequest) -> Iterator[Fabrics]:
    """Fabrics of this session; taken down at its end, except one that --fabric-on named."""
    option = request.config.getoption
    fabrics = Fabrics(option("--fabric-driver"), option("--fabric-on") or "")
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
def fabric(request: pytest.FixtureRequest, railbreak_fabrics: Fabrics) -> Driver:
    """A fabric that forwards: `--fabric`, else the test's marker, else clos-2x4x8."""
    if not request.node.get_closest_marker("same_probes"):
        railbreak_fabrics.call(railbreak_fabrics.stop_probes())
    return railbreak_fabrics.get(_fabric_name(request))


@pytest.fixture
def flow() -> Callable[..., Any]:
    """Describe a sequence-numbered UDP flow: `flow("host1", "host8", rate="2 kpps")`."""

    def make(source: str, target: str, **values: Any) -> Any:
        return _probe("flow", source=source, target=target, **values)

    return make


@pytest.fixture
def job() -> Callable[..., Any]:
    """Describe a collective job: `job("host1", "host3", op="all_reduce", size="1 MiB")`."""

    def make(*hosts: str, **values: Any) -> Any:
        return _probe("collective", hosts=list(hosts), **values)

    return make


def _probe(name: str, **values: Any) -> Any:
    from chaos.registry import PROBES, build
    from chaos.registry import load as load_registry

    load_registry()
    return build(PROBES, "probe", name, values)


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    fabric: Driver,
    railbreak_fabrics: Fabrics,
    record_property: Callable[[str, object], None],
) -> Callable[..., Record]:
    """Run an experiment on the fabric and hold the test to its verdict.

    `trial("local_link_down")` runs a shipped experiment or a file;
    `trial(fault, probes, objectives, promise=…, …)` one made in Python.
    """

    def hold(experiment: Any, *parts: Any, **values: Any) -> Record:
        made = _experiment(request, experiment, parts, values)
        record = railbreak_fabrics.call(_run(request, made, fabric, railbreak_fabrics))
        for measure in record.measures:
            record_property(measure.name, measure.value)
        record_property("verdict", record.verdict)
        settle(record)
        return record

    return hold


def _experiment(
    request: pytest.FixtureRequest, first: Any, parts: tuple[Any, ...], values: dict[str, Any]
) -> Experiment:
    from chaos.experiment import Experiment, find

    if isinstance(first, Experiment):
        made = first
    elif isinstance(first, str):
        made = replace(find(first), **values)
    else:
        if len(parts) != 2:
            raise SpecError(
                "trial(fault, [probe, …], [objective, …]) expected, or trial(name) of a shipped "
                f"experiment; got {1 + len(parts)} positional values"
            )
        probes, objectives = parts
        values.setdefault("promise", (request.node.function.__doc__ or request.node.name).strip())
        made = Experiment(
            fabric=_fabric_name(request),
            faults=() if first is None else (first,),
            probes=_labelled(probes),
            objectives=tuple(_objective(one) for one in objectives),
            name=re.sub(r"\W+", "_", request.node.name),
            **values,
        )
    trials = request.config.getoption("--trials")
    return replace(made, trials=trials) if trials else made


def _labelled(probes: Iterable[Any]) -> dict[str, Any]:
    """Probes by label: `flow`, then `flow/b`, `flow/c` where one occurs again."""
    found: dict[str, Any] = {}
    for probe in probes:
        again = sum(label.partition("/")[0] == probe.name for label in found)
        found[f"{probe.name}/{_tail(again)}" if again else probe.name] = probe
    return found


def _tail(at: int) -> str:
    return chr(ord("a") + at) if at < 26 else str(at + 1)


def _objective(one: Any) -> Objective:
    from chaos.objectives import objective

    return objective(one) if isinstance(one, dict) else one


async def _run(
    request: pytest.FixtureRequest, made: Experiment, driver: Driver, fabrics: Fabrics
) -> Record:
    from chaos import record as records
    from chaos.ground import CALM_FOREIGN_PERCENT
    from chaos.report import junit, page
    from chaos.run import make_folder, run

    _check(made, driver.fabric)
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
            observer=await fabrics.observer(driver, made.probes) if same else None,
        )
    except BaseException:
        await fabrics.stop_probes()
        raise
    if record.verdict != "pass":  # whatever was wrong, the next test does not inherit it
        await fabrics.stop_probes()
    data = records.to_json(record)
    (folder / "report.html").write_text(page(data))
    (folder / "junit.xml").write_text(junit(data))
    return record


def _check(made: Experiment, fabric: Fabric) -> None:
    """Refuse an experiment that does not fit; says which names a fabric of the user's lacks."""
    from chaos import topology

    try:
        made.check(fabric)
    except SpecError as error:
        home = topology.load(made.fabric)
        words = (str(one) for part in (*made.probes.values(), *made.faults) for one in _words(part))
        lacking = sorted({word for word in words if word in home.nodes} - {*fabric.nodes})
        if not lacking:
            raise
        raise BlockedError(
            f"experiment {made.name} is written for fabric {made.fabric} and needs "
            f"{', '.join(lacking)}, which fabric {fabric.name} lacks; write one that names its own "
            f"nodes ({error})"
        ) from None


def _words(part: Any) -> Iterator[Any]:
    for item in fields(part):
        value = getattr(part, item.name)
        yield from value if isinstance(value, tuple) else (value,)


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
