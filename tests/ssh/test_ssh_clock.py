"""Clocks of machines: measured offsets against time namespaces whose offset is known."""

import pytest

from chaos.drivers.ssh.connect import Connections
from chaos.drivers.ssh.machine import Machine
from chaos.timeline import now_ns

pytestmark = pytest.mark.ssh
AHEAD_S = 86_400


@pytest.fixture
def two(machines):
    """`same` shares our clock, `ahead` is a day before us."""
    machines.add("same")
    machines.add("ahead", monotonic=AHEAD_S)
    return machines


def test_the_offset_is_measured_within_its_error(two, tmp_path):
    async def work():
        async with Connections(two.targets()) as connections:
            await connections.open()
            found = {}
            for name in ("same", "ahead"):
                machine = await Machine.prepare(connections[name])
                clocks = [
                    machine.clock,
                    await machine.measure_clock(),
                    await machine.measure_clock(),
                ]
                before = now_ns()
                told = await machine.program("chaos.drivers.ssh.far.now")
                found[name] = (clocks, before, int(told), now_ns())
                await machine.leave()
            return found

    found = two.control(work)

    for name, truth in (("same", 0), ("ahead", AHEAD_S * 10**9)):
        clocks, before, told, after = found[name]
        for clock in clocks:
            assert abs(clock.offset_ns - truth) <= clock.error_ns, (name, clock)
            assert 0 < clock.error_ns < after - before
        # a shipped program tells times on our clock
        assert before - clocks[-1].error_ns <= told <= after + clocks[-1].error_ns


def test_moments_are_as_wide_as_the_clocks_are_uncertain(two, tmp_path, monkeypatch):
    """What happened on a machine a day ahead is told at our time, within our question's time."""
    from chaos.change import LinkState, Place
    from chaos.drivers.ssh import SshDriver
    from chaos.registry import InForce
    from chaos.units import Duration

    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    two.link("ahead:eth1", "same:eth1")
    hosts, table = two.inventory(routers=())

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)])
        try:
            hands = await driver.arm(
                [LinkState(Place("ahead", "eth1"))],
                journal=driver.folder / "journal.jsonl",
                max_life=Duration.parse("10s"),
                log_dir=tmp_path,
            )
            t0 = now_ns() + driver.lead_ns
            await hands.start(t0, [InForce(0, 300_000_000)])
            await hands.wait()
            proof = await hands.heal()
            await hands.close()
            return t0, now_ns(), proof
        finally:
            await driver.down()

    t0, end, proof = two.control(work)

    assert proof.late == ()
    assert t0 - 10**8 < proof.event.earliest_ns < proof.event.latest_ns < end
    narrow = proof.actions[0].acknowledged_ns - proof.actions[0].before_ns
    assert proof.event.width_ns > narrow
    assert two.left() == []
