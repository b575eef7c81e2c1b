"""Whoever dies, every machine heals: checked on the machines, not by what the controller believes.

Twenty hosts are under fault (every other one its link set down, the others losing packets) while
the controller is killed, its network is a black hole, the injectors are killed, or all of it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import wait_until

pytestmark = [pytest.mark.ssh, pytest.mark.slow, pytest.mark.timeout(600)]
HOSTS = [f"h{number}" for number in range(1, 21)]
LIFE_S = 40

CONTROLLER = """
import asyncio, json, os, sys
from pathlib import Path
from chaos.change import LinkState, PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

async def work():
    driver = await SshDriver.adopt(sys.argv[1], links=[sys.argv[2]], instance="cut")
    driver.lease_s = float(os.environ["LEASE_S"])
    changes = []
    for at, node in enumerate(sys.argv[4:]):
        place = Place(node, "eth1")
        changes.append(PacketDrop(place, table_name("cut", place)) if at % 2 else LinkState(place))
    hands = await driver.arm(
        changes, journal=driver.folder / "journal-cut.jsonl",
        max_life=Duration.parse(sys.argv[3] + "s"), log_dir=driver.folder / "logs",
    )
    t0 = now_ns() + driver.lead_ns
    await hands.start(t0, [InForce(0, int(sys.argv[3]) * 10**9)])
    while len(hands.actions) < len(changes):
        await asyncio.sleep(0.05)
    print(json.dumps({"skew_ns": max(a.before_ns for a in hands.actions) - min(
        a.before_ns for a in hands.actions)}), flush=True)
    await hands.wait()

asyncio.run(work())
"""


@pytest.fixture(scope="module")
def twenty(shared_machines):
    """h1 … h20 around r1."""
    shared_machines.add(*HOSTS, "r1")
    return shared_machines.star(HOSTS)


def state_of(box):
    """Links and routes and tables, as the machine has them."""
    links = box.run("ip", "-o", "link", "show", "eth1").split("<")[1].split(">")[0].split(",")
    return {
        "up": "UP" in links,
        "routes": sorted(box.run("ip", "route").splitlines()),
        "tables": box.run("nft", "list", "tables"),
    }


@pytest.fixture
def under_fault(twenty, home, request):
    """The controller as a process, once all twenty are under fault; and what was before.

    The marker's parameter is the lease in seconds, so that killing twenty takes less than it.
    """
    lease_s = getattr(request, "param", 3)
    before = {name: state_of(twenty[name]) for name in HOSTS}
    hosts, table = twenty.inventory()
    argv = ("-c", CONTROLLER, str(hosts), str(table), str(LIFE_S), *HOSTS)
    env = os.environ | {"LEASE_S": str(lease_s)}
    process = twenty.python(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    said = process.stdout.readline()
    assert said, process.stderr.read().decode()
    assert "skew_ns" in json.loads(said)
    for at, name in enumerate(HOSTS):
        now = state_of(twenty[name])
        assert now != before[name], f"{name} is not under fault"
        assert now["up"] is bool(at % 2)
    began = time.monotonic()
    yield process, before, began
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def healed(twenty, before):
    return all(state_of(twenty[name]) == before[name] for name in HOSTS)


def assert_heals(twenty, before, began):
    """All of them, before the changes' life is over."""
    left_s = LIFE_S - (time.monotonic() - began)
    assert left_s > 0
    wait_until(lambda: healed(twenty, before), "twenty machines to heal", left_s)
    wait_until(lambda: twenty.left() == [], f"nothing to be left: {twenty.left()[:5]}", 60)


def kill_on_hosts(twenty, *words):
    """SIGKILL to processes of ours inside the machines, by their pids there; all at once."""

    def one(name):
        told = twenty[name].run("ps", "-ww", "-eo", "pid=,args=")
        for word in words:
            lines = [line for line in told.splitlines() if word in line and "sshd" not in line]
            assert lines, f"{name}: no {word} runs"
            twenty[name].run("kill", "-KILL", *(line.split()[0] for line in lines))

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        list(pool.map(one, HOSTS))


def test_the_controller_is_killed(twenty, under_fault):
    process, before, began = under_fault
    process.send_signal(signal.SIGKILL)
    assert_heals(twenty, before, began)


def test_the_network_between_is_a_black_hole(twenty, under_fault):
    """No end of input, no reset: the injectors miss their beats."""
    _, before, began = under_fault
    undo = twenty.blackhole(*HOSTS)
    try:
        left_s = LIFE_S - (time.monotonic() - began)
        wait_until(lambda: healed(twenty, before), "twenty machines to heal", left_s)
    finally:
        undo()
    # a steward that hears nothing leaves after 45 s
    wait_until(lambda: twenty.left() == [], f"nothing to be left: {twenty.left()[:5]}", 90)


@pytest.mark.parametrize("under_fault", [12], indirect=True)
def test_injectors_and_controller_are_killed(twenty, under_fault):
    """Only the shell scripts are left, and they suffice."""
    process, before, began = under_fault
    undo = twenty.blackhole(*HOSTS)  # so that no channel tells anybody anything
    try:
        kill_on_hosts(twenty, "chaos.injector")
        process.send_signal(signal.SIGKILL)
        assert not any(state_of(twenty[name]) == before[name] for name in HOSTS)
        left_s = LIFE_S - (time.monotonic() - began)
        wait_until(lambda: healed(twenty, before), "twenty machines to heal", left_s)
    finally:
        undo()
    wait_until(lambda: twenty.left() == [], "nothing to be left", 120)


@pytest.mark.parametrize("under_fault", [20], indirect=True)
def test_undo_after_everything_of_ours_died(twenty, under_fault):
    """Dead-men, injectors and controller killed: `undo --all` takes it back, `status` knew it."""
    process, before, _ = under_fault
    process.send_signal(signal.SIGSTOP)  # else it would heal the others once the first is dead
    kill_on_hosts(twenty, "takeback.sh", "chaos.injector")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not any(state_of(twenty[name]) == before[name] for name in HOSTS)

    def railbreak(*words):
        body = ("-c", "from chaos.cli import main; main()", *words)
        argv = ("nsenter", f"--net={twenty.mgmt}", sys.executable)
        return subprocess.run((*argv, *body), capture_output=True, text=True, check=False)

    told = railbreak("status")
    assert told.stdout.count("nobody holds it") == len(HOSTS), told.stdout + told.stderr
    undone = railbreak("undo", "--all")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert healed(twenty, before)
    assert "nobody holds it" not in railbreak("status").stdout
    assert railbreak("down", "cut").returncode == 0
    wait_until(lambda: twenty.left() == [], f"nothing to be left: {twenty.left()[:5]}", 60)
