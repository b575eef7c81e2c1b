"""Packets held on a machine over SSH: by the kernel's queue, and taken back whoever dies there."""

import asyncio
import time

import pytest

from chaos.units import Duration
from tests.ssh.attached import fault, held, on
from tests.waiting import wait_until

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

LIFE = Duration.parse("60s")
H2 = "198.19.2.2"


def tables(three):
    return three["r1"].run("nft", "list", "tables")


@pytest.mark.parametrize(("signal", "victim"), [("KILL", "injector"), ("STOP", "injector"),
                                                ("KILL", "packet_worker")])  # fmt: skip
def test_whoever_dies_or_freezes_there_packets_flow_again(three, home, signal, victim):
    """A worker ends with its injector; where that hangs, the dead-man ends it by shell alone."""
    assert three["h1"].rtt_ms(H2) < 40
    r1 = three["r1"]
    delay = fault("packet_fault", "link=h1--r1", "end=h1", "select=family=4", "then=delay=60ms")

    def gone():
        return "railbreak" not in tables(three) and not r1.pids("packet_worker")

    async def work(driver):
        hands = await held(driver, home, delay.changes(driver.fabric), LIFE)
        try:
            assert "table inet railbreak_" in await asyncio.to_thread(tables, three)
            assert await asyncio.to_thread(three["h1"].rtt_ms, H2) > 60
            pids = await asyncio.to_thread(r1.pids, victim)
            assert pids
            await asyncio.to_thread(r1.run, "kill", f"-{signal}", *pids)
            begun = time.monotonic()
            await asyncio.to_thread(wait_until, gone, "the table and its worker to go")
            took_s = time.monotonic() - begun
            assert await asyncio.to_thread(three["h1"].rtt_ms, H2) < 40
            if signal == "STOP":
                left = await asyncio.to_thread(r1.pids, victim)
                await asyncio.to_thread(r1.run, "kill", "-CONT", *left, check=False)
        finally:
            proof = await hands.heal()
            await hands.close()
        return proof, took_s

    proof, took_s = on(three, home, work)

    assert all(one.taken_back for one in proof.changes)
    assert took_s < (12 if signal == "STOP" else 3)
    three.await_clean()
