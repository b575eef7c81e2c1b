"""Packets held on a machine over SSH: by the kernel's queue, and taken back whoever dies there."""

import asyncio
import time

import pytest

from chaos.registry import FAULTS, InForce, build, load
from chaos.timeline import now_ns
from chaos.units import Duration
from chaos.worded import fields_from
from tests.ssh.conftest import wait_until
from tests.ssh.test_ssh_driver import on

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

load()
LIFE = Duration.parse("60s")
WORDS = ("link=h1--r1", "end=h1", "select=family=4", "then=delay=60ms")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture(scope="module")
def three(shared_machines):
    """h1 -- r1 -- h2."""
    shared_machines.add("h1", "h2", "r1")
    return shared_machines.star(["h1", "h2"])


def rtt_ms(three):
    """The median echo from h1 to h2."""
    told = three["h1"].run("ping", "-q", "-i", "0.02", "-c", "7", "-W", "1", "198.19.2.2")
    return float(told.rpartition(" = ")[2].split("/")[1])


def ours(three, word):
    """Process ids of a program of ours on r1."""
    told = three["r1"].run("ps", "-ww", "-eo", "pid=,args=").splitlines()
    return [line.split()[0] for line in told if word in line and "sshd" not in line]


def tables(three):
    return three["r1"].run("nft", "list", "tables")


async def held(driver, home):
    """The delay in force at r1."""
    fault = build(FAULTS, "fault", "packet_fault", fields_from(FAULTS["packet_fault"], WORDS))
    hands = await driver.arm(
        fault.changes(driver.fabric),
        journal=driver.folder / "journal.jsonl",
        max_life=LIFE,
        log_dir=home / "logs",
    )
    await hands.start(now_ns() + driver.lead_ns, [InForce(0, LIFE.ns)])
    await asyncio.to_thread(wait_until, lambda: hands.actions, "the delay to be in force", 10)
    return hands


@pytest.mark.parametrize(("signal", "victim"), [("KILL", "injector"), ("STOP", "injector"),
                                                ("KILL", "packet_worker")])  # fmt: skip
def test_whoever_dies_or_freezes_there_packets_flow_again(three, home, signal, victim):
    """A worker ends with its injector; where that hangs, the dead-man ends it by shell alone."""
    before = rtt_ms(three)
    assert before < 40

    async def work(driver):
        hands = await held(driver, home)
        try:
            assert "table inet railbreak_" in await asyncio.to_thread(tables, three)
            assert await asyncio.to_thread(rtt_ms, three) > 60
            pids = await asyncio.to_thread(ours, three, victim)
            assert pids
            await asyncio.to_thread(three["r1"].run, "kill", f"-{signal}", *pids)
            begun = time.monotonic()
            await asyncio.to_thread(
                wait_until,
                lambda: "railbreak" not in tables(three) and not ours(three, "packet_worker"),
                "the table and its worker to go",
                20,
            )
            took_s = time.monotonic() - begun
            assert await asyncio.to_thread(rtt_ms, three) < 40
            if signal == "STOP":
                left = await asyncio.to_thread(ours, three, victim)
                await asyncio.to_thread(three["r1"].run, "kill", "-CONT", *(left or ["0"]))
        finally:
            proof = await hands.heal()
            await hands.close()
        return proof, took_s

    proof, took_s = on(three, home, work)

    assert all(one.taken_back for one in proof.changes)
    assert took_s < (12 if signal == "STOP" else 3)
    wait_until(lambda: three.left() == [], f"nothing to be left: {three.left()[:5]}", 60)
