"""Defects planted on purpose end inconclusive or blocked, never as a pass."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from chaos import topology
from chaos.errors import BlockedError
from chaos.experiment import loads
from chaos.run import make_folder, run

pytestmark = pytest.mark.netns

TEXT = """
promise: Planted.
fabric: pair
fault: {FAULT}
probes:
  flow: {source: host1, target: host2, rate: 1 kpps}
  kernel_events: {}
phases: {calm: 1 s, storm: 500 ms, after: 800 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_outage_longest_ms, at_most: 100000, because: always true}
"""
SILENT = "link_down: {link: in-use host--router, mode: silent, end: near}"
ROCE_ONLY = "packet_loss: {link: in-use host--router, end: near, share: 100 %, roce: true}"


def experiment(fault=SILENT, **changes):
    return replace(loads(TEXT.replace("{FAULT}", "{" + fault + "}"), "planted.yaml"), **changes)


@pytest.fixture(scope="module")
def loop():
    """One loop for the module: the fabric's processes belong to it."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(loop):
    """host1 -- router1 -- host2, up and ready."""
    from chaos.drivers.netns import NetnsDriver

    async def up():
        driver = await NetnsDriver.up(topology.load("pair"))
        await driver.wait_ready()
        return driver

    driver = loop.run_until_complete(up())
    yield driver
    loop.run_until_complete(driver.down())


@pytest.fixture
def trial(loop, pair, tmp_path):
    """`trial(experiment, tell=…)` runs it on the pair; its record. `spoil` is given its folder."""

    def go(made, tell=lambda kind, facts: None, load=100.0, spoil=lambda folder: None):
        folder = make_folder(tmp_path, made.name)
        spoil(folder)
        return loop.run_until_complete(
            run(made, pair, folder, tell=tell, calm_foreign_percent=load)
        )

    return go


def sentences(record):
    return " | ".join(finding.sentence for finding in record.findings)


def test_without_a_defect_the_same_experiment_passes(trial):
    """The yardstick: what is planted below is the only difference."""
    record = trial(experiment())

    assert record.verdict == "pass", sentences(record)
    assert record.trials[0].proof.hit > 100


def test_a_rule_that_matches_nothing(trial):
    """Only RoCE is dropped, and the flow is not RoCE: in force, met by nobody."""
    record = trial(experiment(ROCE_ONLY))

    assert record.verdict == "inconclusive", sentences(record)
    assert "never acted" in sentences(record)


def test_a_flow_that_avoids_the_link(trial, pair):
    """The flow goes from host1 to router1's own address; host2's link is not on its way."""
    fault = "link_down: {link: 'host2--router1', mode: silent}"
    probes = experiment().probes
    away = replace(probes["flow"], source="host1", target="router1")
    known = pair.addresses

    pair.addresses = lambda: {**known(), "router1": gateway(known()["host1"])}
    try:
        record = trial(experiment(fault, probes={**probes, "flow": away}))
    finally:
        del pair.addresses

    assert record.verdict == "inconclusive", sentences(record)
    assert "not exposed: the traffic avoids" in sentences(record)
    assert "host1 -> router1" in sentences(record), "the path that was taken is named"
    assert record.trials[0].proof.in_force is None, "nothing was broken"


def test_a_fault_in_the_direction_that_the_flow_does_not_take(trial):
    """What the far end sends is lost; the flow only goes forth: in force it would cost nothing."""
    record = trial(experiment("packet_loss: {link: in-use host--router, end: far, share: 100 %}"))

    assert record.verdict == "inconclusive", sentences(record)
    assert "not exposed: the traffic avoids that direction" in sentences(record)
    assert "it crosses host1->router1" in sentences(record)
    assert "the fault acts on what router1 sends" in sentences(record)


def gateway(address):
    """The other address of a host's /31."""
    head, _, last = address.rpartition(".")
    return f"{head}.{int(last) ^ 1}"


@pytest.mark.parametrize("program", ["flow_receiver", "flow_sender"])
def test_a_probe_that_is_killed_in_mid_trial(trial, program):
    def kill(kind, facts):
        if kind == "phase.entered" and facts["name"] == "storm":
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "-f", program], check=True)

    record = trial(experiment(), tell=kill)

    assert record.verdict == "inconclusive", sentences(record)
    assert "ended in mid-trial" in sentences(record)


def test_load_on_the_machine_in_calm(trial):
    """Twice as many hogs as cores, none of them our descendants: they take most of the machine."""
    hogs = [stranger() for _ in range(2 * (os.cpu_count() or 1))]
    try:
        record = trial(experiment(), load=40.0)
    finally:
        for pid in hogs:
            os.kill(pid, signal.SIGKILL)

    assert record.verdict == "inconclusive", sentences(record)
    assert "calm was not calm: other processes used" in sentences(record)


def stranger():
    """A process that spins for a minute at most; its parent ends at once, so it is nobody's."""
    spin = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    shell = f"{sys.executable} -c '{spin}' >/dev/null 2>&1 & echo $!"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, check=True)
    return int(done.stdout)


def test_a_journal_that_cannot_be_written_is_refused_before_the_deed(trial, pair):
    """A folder lies where it should be: nothing comes into force, no link loses its carrier."""
    before, made = link_changes(pair), []

    def spoil(folder):
        made.append(pair.folder / f"journal-{folder.name}-1-0.jsonl")
        made[0].mkdir()

    with pytest.raises(BlockedError, match="journal"):
        trial(experiment("link_down: {link: 'host1--router1', mode: carrier}"), spoil=spoil)
    made[0].rmdir()

    assert link_changes(pair) == before


def link_changes(driver):
    """carrier_changes of every port: exact, even where events merge."""
    from chaos.netlink import RTM_GETLINK, Netlink, attrs, ifinfo
    from chaos.netns import inside

    def count():
        warm = Netlink.open()
        try:
            return sorted(attrs(m.body, 16).get(35) for m in warm.dump(RTM_GETLINK, ifinfo()))
        finally:
            warm.close()

    return {node: inside(path, count) for node, path in driver.namespaces().items()}
