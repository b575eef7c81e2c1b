"""Faults of switches on a machine over real SSH: routes of ours, settings; daemons are refused."""

import pytest

from chaos import snapshot
from chaos.drivers.ssh import SshDriver
from chaos.errors import CapabilityError
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from faults.acl_drop import AclDrop
from faults.daemon_kill import DaemonKill
from faults.forwarding_off import ForwardingOff
from faults.route_blackhole import RouteBlackhole

pytestmark = [pytest.mark.ssh, pytest.mark.slow]
LIFE = Duration.parse("20 s")


async def answers(driver):
    """How many of three pings from h1 to h2, through r1, were answered."""
    argv = ("ping", "-n", "-q", "-c", "3", "-i", "0.1", "-W", "0.5", "198.19.2.2")
    done = await driver.exec("h1", argv)
    return int(done.stdout.partition(b" received")[0].split()[-1])


@pytest.mark.parametrize(
    "fault",
    [
        RouteBlackhole("r1", "198.19.2.2/32"),
        ForwardingOff("r1"),
        AclDrop("r1", "198.19.1.2", "198.19.2.2", "tcp", dport=5201),
    ],
    ids=lambda fault: fault.name,
)
def test_it_bites_and_leaves_no_trace(three, tmp_path, monkeypatch, fault):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    hosts, table = three.inventory()

    async def body():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="control")
        try:
            before = await driver.snapshot()
            assert await answers(driver) == 3
            hands = await driver.arm(
                fault.changes(driver.fabric),
                journal=driver.folder / "journal.jsonl",
                max_life=LIFE,
                log_dir=tmp_path,
            )
            async with hands:
                start = now_ns() + driver.lead_ns
                await hands.start(start, [InForce(0, 15 * 10**9)])
                while now_ns() < start + 5 * 10**8:
                    await driver.exec("h1", ("true",))
                held = await answers(driver)
                proof = await hands.heal()  # which ends it, however long the pings took
            assert (proof.in_force, proof.taken_back, proof.trouble) == (True, True, ())
            assert await snapshot.settled(driver.snapshot, before) == ()
            assert await answers(driver) == 3
            with pytest.raises(CapabilityError, match="cannot kill a daemon of r1"):
                await driver.arm(
                    DaemonKill("r1").changes(driver.fabric),
                    journal=driver.folder / "journal-2.jsonl",
                    max_life=LIFE,
                    log_dir=tmp_path,
                )
            return held
        finally:
            await driver.down()

    assert three.control(body) == (3 if fault.name == "acl_drop" else 0)
