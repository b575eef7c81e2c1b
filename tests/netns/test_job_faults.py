"""Faults of hosts and jobs: processes that die with us, ranks that are slow or wrong."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from chaos import native, recover, topology
from chaos.change import Where
from chaos.errors import BlockedError, FabricError
from chaos.experiment import loads
from chaos.fabric import Node
from chaos.hands import Hands
from chaos.journal import read
from chaos.native import process_state
from chaos.netns import inode, inside
from chaos.registry import InForce
from chaos.run import make_folder, run
from chaos.timeline import now_ns
from chaos.units import Bitrate, Duration
from faults.cpu_load import CpuLoad
from faults.nic_load import NicLoad
from faults.wrong_value import WrongValue
from tests.waiting import until, wait_until

pytestmark = pytest.mark.netns

MS = 1_000_000


def named(tag):
    """Process ids by the name that only one change's processes have."""
    done = subprocess.run(("pgrep", "-x", tag), capture_output=True, text=True, check=False)
    found = [int(word) for word in done.stdout.split()]
    return [pid for pid in found if process_state(pid)[0] not in ("", "Z")]


def at(two_hosts, node):
    return Where(two_hosts.path(node), inode(two_hosts.path(node)))


async def armed(two_hosts, change, life="30 s"):
    return await Hands.arm(
        [change],
        {change.place: at(two_hosts, change.place.node)},
        journal=two_hosts.folder / "journal.jsonl",
        max_life=Duration.parse(life),
        log_dir=two_hosts.folder,
    )


# ---- processes of ours --------------------------------------------------------------------------


def test_busy_processes_wait_for_the_deed_work_and_are_gone(two_hosts):
    (change,) = CpuLoad("h1", processes=2, nice=7).changes(two_hosts.fabric)

    async def go():
        hands = await armed(two_hosts, change)
        (entry,) = read(two_hosts.folder / "journal.jsonl")
        born = sorted(pid for pid, _ in entry.saved["processes"])
        assert len(born) == 2, "they are in the journal before the deed"
        await until(lambda: sorted(named(change.tag)) == born, "them to name themselves", 5)
        await until(lambda: {process_state(pid)[0] for pid in born} == {"S"}, "them to wait", 5)
        await hands.start(now_ns(), [InForce(0, 400 * MS)])
        await until(lambda: hands.actions, "them to be let go", 5)
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in born} == {7}
        assert {inode(f"/proc/{pid}/ns/net") for pid in born} != set()
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    assert proof.in_force
    assert proof.taken_back
    assert proof.changes[0].hit > 20, "milliseconds of processor time in 400 ms"
    assert named(change.tag) == []


def test_in_a_train_every_time_has_processes_of_its_own(two_hosts):
    (change,) = CpuLoad("h1").changes(two_hosts.fabric)

    async def go():
        hands = await armed(two_hosts, change)
        await hands.start(now_ns(), [InForce(0, 100 * MS), InForce(200 * MS, 300 * MS)])
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    assert proof.taken_back
    assert proof.changes[0].hit > 5
    assert named(change.tag) == []


def test_they_die_with_the_injector_however_it_dies(two_hosts):
    (change,) = CpuLoad("h1", processes=2).changes(two_hosts.fabric)

    async def go():
        hands = await armed(two_hosts, change)
        await hands.start(now_ns(), [InForce(0, 20_000 * MS)])
        await until(lambda: len(named(change.tag)) == 2, "the processes", 5)
        (entry,) = read(two_hosts.folder / "journal.jsonl")
        os.kill(entry.owner[0], signal.SIGKILL)
        await until(lambda: not named(change.tag), "their end", 1.0)
        with contextlib.suppress(FabricError):  # its injector is dead: that is what was done
            await hands.close()

    asyncio.run(go())
    (undone,) = recover.undo([two_hosts.folder / "journal.jsonl"])
    assert not undone.leftover


CONTROLLER = """
import asyncio, sys
from pathlib import Path
from chaos.change import Where
from chaos.fabric import Fabric, Node
from chaos.hands import Hands
from chaos.netns import inode
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from faults.cpu_load import CpuLoad

async def go(path, folder):
    (change,) = CpuLoad("h1", processes=2).changes(Fabric("f", {"h1": Node("h1")}))
    hands = await Hands.arm([change], {change.place: Where(path, inode(path))},
        journal=folder / "journal.jsonl", max_life=Duration.parse("30 s"), log_dir=folder)
    await hands.start(now_ns(), [InForce(0, 20_000_000_000)])
    print(change.tag, flush=True)
    await asyncio.sleep(30)

asyncio.run(go(sys.argv[1], Path(sys.argv[2])))
"""


def test_they_die_with_the_controller(two_hosts):
    argv = (sys.executable, "-c", CONTROLLER, two_hosts.path("h1"), str(two_hosts.folder))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as controller:
        tag = controller.stdout.readline().strip()
        assert len(named(tag)) == 2
        controller.kill()
    wait_until(lambda: not named(tag), "their end", 2.0)


def test_what_outlived_its_injector_is_found_by_the_journal_and_ended(two_hosts):
    """As if the kernel had not killed them: another process takes them back by id and start."""
    (change,) = CpuLoad("h1", processes=2).changes(two_hosts.fabric)
    made = native.build(change, at(two_hosts, "h1"))
    made.do()
    assert made.in_force()

    wrong = {"processes": [[pid, started + 1] for pid, started in made.saved["processes"]]}
    stranger = native.build(change, at(two_hosts, "h1"), wrong)
    assert stranger.undo() == ()
    stranger.close()
    assert made.in_force(), "another process of the same id is never killed"

    later = native.build(change, at(two_hosts, "h1"), made.saved)
    assert later.in_force()
    assert later.undo() == ()
    assert not later.in_force()
    later.close()
    assert not made.in_force()
    made.close()
    assert named(change.tag) == []


def test_the_printed_undo_ends_them_and_nobody_else(two_hosts):
    (change,) = CpuLoad("h1").changes(two_hosts.fabric)
    (other,) = CpuLoad("h2").changes(two_hosts.fabric)
    both = [native.build(one, at(two_hosts, "h1")) for one in (change, other)]
    steps = change.steps(at(two_hosts, "h1"))
    try:
        for _ in range(2):
            subprocess.run(steps.undo[0], check=True)
        wait_until(lambda: not named(change.tag), "their end")
        assert len(named(other.tag)) == 1
    finally:
        for one in both:
            one.close()


def test_background_traffic_crosses_the_fabric_at_its_rate(two_hosts):
    nodes = {"h1": Node("h1"), "h2": Node("h2", addresses={"eth1": ("10.0.0.2/24",)})}
    fabric = replace(two_hosts.fabric, nodes=nodes)
    load = NicLoad("h1", "h2", Bitrate.parse("20 Mbit/s"), port=4999, processes=2)
    (change,) = load.changes(fabric)
    kind = socket.SOCK_DGRAM
    assert two_hosts.ping() == 3
    with inside(two_hosts.path("h2"), lambda: socket.socket(socket.AF_INET, kind)) as sink:
        sink.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        sink.bind(("10.0.0.2", 4999))

        async def go():
            hands = await armed(two_hosts, change)
            await hands.start(now_ns(), [InForce(0, 500 * MS)])
            await hands.wait()
            proof = await hands.heal()
            await hands.close()
            return proof

        (proved,) = asyncio.run(go()).changes
        sink.setblocking(False)
        arrived = 0
        try:
            while sink.recv(1 << 16):
                arrived += 1
        except BlockingIOError:
            pass
    due = 20e6 / 8 / 1400 * 0.5
    assert 0.7 * due <= proved.hit <= 1.05 * due, due
    assert proved.hit <= arrived <= proved.hit + 20, "what is sent is counted after it is sent"
    assert named(change.tag) == []


# ---- ranks --------------------------------------------------------------------------------------

JOB = """
promise: A rank that misbehaves is noticed.
fabric: pair
fault: {FAULT}
probes:
  collective: {hosts: [host1, host2], op: all_reduce, size: 64 KiB, mode: MODE}
exposed: collective
phases: {calm: 2 s, storm: 1 s, after: 1 s}
trials: 1
placebos: 0
objectives:
  - OBJECTIVE
"""
RIGHT = '{measure: job_wrong_values, at_most: 0, because: "slow is bearable, wrong is not"}'


@pytest.fixture
def trial(bring_up, tmp_path):
    """`trial(fault, objective)` runs one trial on a fresh pair; its record."""
    pytest.importorskip("torch", reason="collective needs torch: pip install railbreak[job]")

    def go(fault, objective, mode="ride", after="1 s"):
        text = JOB.replace("{FAULT}", f"{{{fault}}}").replace("OBJECTIVE", objective)
        text = text.replace("MODE", mode).replace("after: 1 s", f"after: {after}")
        made = loads(text, "job.yaml")

        async def scenario():
            async with bring_up(topology.load("pair")) as driver:
                folder = make_folder(tmp_path, made.name)
                tell = lambda kind, facts: None  # noqa: E731
                return await run(made, driver, folder, tell=tell, calm_foreign_percent=100.0)

        return asyncio.run(scenario())

    return go


def values(record):
    return {one.name: one.value for one in record.trials[0].measures}


def sentences(record):
    return " | ".join(finding.sentence for finding in record.findings)


@pytest.mark.job
@pytest.mark.slow
def test_one_wrong_value_fails_the_run(trial):
    """Correctness catches it; nothing else is wrong with the job."""
    record = trial("wrong_value: {rank: 1, count: 3, every: 200 ms}", RIGHT)

    assert record.verdict == "fail", sentences(record)
    assert "job_wrong_values" in sentences(record)
    assert values(record)["job_wrong_values"] == 3, "three operations"
    assert record.trials[0].proof.hit == 3


@pytest.mark.job
@pytest.mark.slow
def test_a_straggler_slows_the_job_and_spoils_nothing(trial):
    record = trial("straggler: {rank: 1, share: 60 %, period: 50 ms}", RIGHT)

    assert record.verdict == "pass", sentences(record)
    assert values(record)["job_busbw_ratio"] < 0.8
    assert record.trials[0].proof.hit == 20


@pytest.mark.job
@pytest.mark.slow
def test_a_rank_that_is_started_again_costs_time_and_no_value(trial):
    record = trial("rank_restart: {rank: 1}", RIGHT, mode="restart", after="6 s")

    assert record.verdict == "pass", sentences(record)
    [one] = record.trials
    assert (one.proof.in_force, one.proof.seen, one.proof.hit, one.proof.residue) == (
        True, 1, 1, ()
    )  # fmt: skip
    assert values(record)["job_down_ms"] > 1000
    assert values(record)["job_recovery_after_heal_ms"] > 0
    assert {"process.exited", "process.started"} <= {event.name for event in one.events}


def test_a_process_that_does_not_listen_is_not_ended_by_a_wrong_value(two_hosts):
    process = two_hosts.start("rank0")
    (change,) = WrongValue(0).changes(two_hosts.fabric)

    with pytest.raises(BlockedError, match="does not listen for SIGUSR1, which would end it"):
        native.build(change, two_hosts.resolve(change.place))

    assert process.poll() is None
