"""What leaves a lab as it was, on one pair that stands for all of it."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from chaos import drivers, snapshot
from chaos.change import LinkState, PacketDrop, Place
from chaos.drivers import state
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.errors import FabricError
from chaos.netns import inode
from chaos.registry import Program

from .test_clab_driver import (
    LINK,
    answered,
    asleep,
    broken,
    faults,
    reaches,
    traces,
)

pytestmark = [pytest.mark.lab, pytest.mark.slow]

__all__ = ["asleep"]


@pytest.fixture(scope="module")
def pair(lab_runtime):
    """Two hosts behind one router, `(run, driver)`; nothing of it is left at the end."""
    root = Path("/run", f"railbreak-clabpair-{os.getpid()}")
    root.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("RAILBREAK_STATE", str(root))
    for name, value in lab_runtime.environment.items():
        patch.setenv(name, value)
    name = f"rbt{os.getpid()}-standing"
    with asyncio.Runner() as runner:
        up = ContainerlabDriver.up(drivers.fabric("pair", "containerlab"), instance=name)
        driver = runner.run(up)
        try:
            runner.run(driver.wait_ready(90))
            yield runner.run, driver
        finally:
            runner.run(driver.down())
            left = list(root.iterdir())
            shutil.rmtree(root, ignore_errors=True)
            patch.undo()
    assert left == []
    assert traces(name) == []


# ---- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields", "pings"),
    [
        ("link_down", {"link": LINK, "mode": "carrier"}, 0),
        ("link_down", {"link": LINK, "mode": "admin"}, 0),
        ("link_down", {"link": LINK, "mode": "silent"}, 0),
        ("link_down", {"link": LINK, "mode": "silent", "end": "router1"}, 0),
        ("packet_loss", {"link": LINK, "share": "100 %", "match": "ip protocol icmp"}, 0),
        ("node_down", {"node": "router1"}, 0),
        ("node_stop", {"node": "router1"}, 0),
        ("node_stop", {"node": "router1", "how": "pause"}, 2),
    ],
    ids=str,
)
def test_each_fault_bites_and_leaves_nothing(pair, name, fields, pings):
    run, driver = pair

    async def scenario():
        (fault,) = faults(driver, (name, fields))
        target = driver.addresses()["host2"]
        before = await driver.snapshot()

        async def ping():
            await asyncio.sleep(0.6 if name == "node_stop" else 0)
            return await answered(driver, "host1", target, 2)

        lasting = 4.0 if name == "node_stop" else 2.5
        proof, seen = await broken(driver, fault.changes(driver.fabric), ping, lasting)
        assert proof.in_force
        assert proof.taken_back
        assert seen == pings
        assert await snapshot.settled(driver.snapshot, before, 20.0) == ()
        await reaches(driver, "host1", target)

    run(scenario())


def test_the_outer_end_that_faces_a_port_takes_its_carrier_and_no_others(pair):
    run, driver = pair

    async def scenario():

        async def carriers():
            found = {}
            for node, port in (("host1", "eth1"), ("router1", "eth1"), ("router1", "eth2")):
                done = await driver.exec(node, ("ip", "-o", "link", "show", "dev", port))
                found[f"{node}:{port}"] = b"NO-CARRIER" not in done.stdout
            return found

        change = LinkState(Place("host1", "eth1", "wire"))
        proof, seen = await broken(driver, [change], carriers)
        assert proof.taken_back
        assert seen == {"host1:eth1": False, "router1:eth1": True, "router1:eth2": True}

    run(scenario())


def test_a_drop_counts_what_the_port_sent(pair):
    """One direction only: every request is counted once, and no answer comes."""
    run, driver = pair

    async def scenario():
        target = driver.addresses()["host2"]
        await reaches(driver, "host1", target)  # the test before took the carrier
        table = "railbreak_test_drop"
        drop = PacketDrop(Place("host1", "eth1", "wire"), table, "icmp type echo-request")
        proof, seen = await broken(
            driver, [drop], lambda: answered(driver, "host1", target, 5), 2.5
        )
        assert seen == 0
        assert proof.changes[0].hit == 5

    run(scenario())


# ---- processes in nodes --------------------------------------------------------------------------


def test_exec_has_bytes_codes_and_a_deadline(pair):
    run, driver = pair

    async def scenario():
        done = await driver.exec("host1", ("cat",), stdin=b"\x00\xff\n")
        assert (done.code, done.stdout) == (0, b"\x00\xff\n")
        assert (await driver.exec("host1", ("sh", "-c", "exit 7"))).code == 7
        with pytest.raises(FabricError, match="no such program"):
            await driver.exec("host1", ("no-such-program",))
        with pytest.raises(FabricError, match="was killed"):
            await driver.exec("host1", ("sleep", "4321"), deadline_s=0.5)
        left = await driver.exec("host1", ("ps", "-eo", "args"))
        assert b"sleep 4321" not in left.stdout

    run(scenario())


def test_a_program_lives_in_its_container(pair):
    """Its network, process ids and control groups are the node's; its death is ours."""
    run, driver = pair

    async def scenario():
        child = await driver.spawn(Program("asleep", "tests_asleep", {}, "host1"))
        told = json.loads(await anext(aiter(child.lines())))
        box = driver._nodes.box("host1")
        assert told["net"] == inode(f"/proc/{box.pid}/ns/net")
        assert told["pid_space"] == inode(f"/proc/{box.pid}/ns/pid")
        assert box.id in told["groups"]
        pid = told["outer"]
        assert state.start_ticks(pid)
        child.kill()
        await child.stop()
        assert not state.start_ticks(pid)

    run(scenario())
