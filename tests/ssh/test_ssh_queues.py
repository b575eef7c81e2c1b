"""Packets held where a machine sends them, by a queue of its kernel; gone there whoever dies."""

import asyncio

import pytest

from chaos.natives.able import Here
from chaos.units import Duration
from tests.ssh.attached import fault, held, on
from tests.waiting import wait_until

pytestmark = pytest.mark.ssh

LIFE = Duration.parse("60s")
THENS = {"htb": "rate=100kbit/s queue=2s", "netem": "delay=150ms"}


@pytest.fixture(params=THENS)
def engine(request):
    """Each engine that is here; machines of a test have this kernel."""
    if why := Here()[request.param]:
        pytest.skip(f"{request.param}: {why}")
    return request.param


def rtt_ms(three):
    """The median echo from h1 to h2, with 1242 bytes each."""
    return three["h1"].rtt_ms("198.19.2.2", "-s", "1200")


def queues(three):
    return "htb 7262:" in three["h1"].run("tc", "qdisc", "show", "dev", "eth1")


@pytest.mark.parametrize("victim", ["nobody", "injector"])
def test_it_is_slow_where_it_sends_and_gone_whoever_dies(three, home, engine, victim):
    """With its injector killed the machine takes it back by itself, by shell alone."""
    assert rtt_ms(three) < 80

    words = ("link=h1--r1", "end=h1", "select=family=4", f"then={THENS[engine]}")
    slow = fault("packet_fault", *words, f"engine={engine}")

    async def work(driver):
        hands = await held(driver, home, slow.changes(driver.fabric), LIFE)
        try:
            assert queues(three)
            assert await asyncio.to_thread(rtt_ms, three) > 120
            if victim == "injector":
                three["h1"].run("kill", "-KILL", *three["h1"].pids("chaos.injector"))
                await asyncio.to_thread(wait_until, lambda: not queues(three), "it to go")
        finally:
            proof = await hands.heal()
            await hands.close()
        return proof, driver.warnings

    proof, warnings = on(three, home, work)

    assert not queues(three)
    assert rtt_ms(three) < 80
    assert all(one.taken_back for one in proof.changes)
    assert any("at egress, by" in note for note in warnings)
    if victim == "nobody":
        (one,) = proof.changes
        assert one.change.describe().endswith(f"by {engine}")
        assert one.hit >= 7
        assert proof.trouble == ()
    three.await_clean()
