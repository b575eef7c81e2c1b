"""Packets held where a machine sends them, by a queue of its kernel; gone there whoever dies."""

import asyncio

import pytest

from chaos.natives.able import Here
from chaos.registry import FAULTS, InForce, build, load
from chaos.timeline import now_ns
from chaos.units import Duration
from chaos.worded import fields_from
from tests.ssh.conftest import wait_until
from tests.ssh.test_ssh_driver import on

pytestmark = pytest.mark.ssh

load()
LIFE = Duration.parse("60s")
THENS = {"htb": "rate=100kbit/s queue=2s", "netem": "delay=150ms"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture(scope="module")
def three(shared_machines):
    """h1 -- r1 -- h2."""
    shared_machines.add("h1", "h2", "r1")
    return shared_machines.star(["h1", "h2"])


@pytest.fixture(params=THENS)
def engine(request):
    """Each engine that is here; machines of a test have this kernel."""
    if why := Here()[request.param]:
        pytest.skip(f"{request.param}: {why}")
    return request.param


def rtt_ms(three):
    """The median echo from h1 to h2, with 1242 bytes each."""
    told = three["h1"].run("ping", "-q", "-s", "1200", "-i", "0.02", "-c", "7", "198.19.2.2")
    return float(told.rpartition(" = ")[2].split("/")[1])


def queues(three):
    return "htb 7262:" in three["h1"].run("tc", "qdisc", "show", "dev", "eth1")


@pytest.mark.parametrize("victim", ["nobody", "injector"])
def test_it_is_slow_where_it_sends_and_gone_whoever_dies(three, home, engine, victim):
    """With its injector killed the machine takes it back by itself, by shell alone."""
    assert rtt_ms(three) < 80

    async def work(driver):
        words = ("link=h1--r1", "end=h1", "select=family=4", f"then={THENS[engine]}")
        kind = FAULTS["packet_fault"]
        fault = build(
            FAULTS, "fault", "packet_fault", fields_from(kind, (*words, f"engine={engine}"))
        )
        hands = await driver.arm(
            fault.changes(driver.fabric),
            journal=driver.folder / "journal.jsonl",
            max_life=LIFE,
            log_dir=home / "logs",
        )
        try:
            await hands.start(now_ns() + driver.lead_ns, [InForce(0, LIFE.ns)])
            await asyncio.to_thread(wait_until, lambda: hands.actions, "it to be in force", 10)
            assert queues(three)
            assert await asyncio.to_thread(rtt_ms, three) > 120
            if victim == "injector":
                told = three["h1"].run("ps", "-ww", "-eo", "pid=,args=").splitlines()
                pids = [line.split()[0] for line in told
                        if "chaos.injector" in line and "sshd" not in line]  # fmt: skip
                three["h1"].run("kill", "-KILL", *pids)
                await asyncio.to_thread(wait_until, lambda: not queues(three), "it to go", 20)
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
    wait_until(lambda: three.left() == [], f"nothing to be left: {three.left()[:5]}", 60)
