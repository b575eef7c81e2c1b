"""Rates, MTUs and processes of ours on machines over SSH: made there, counted there, gone there."""

import asyncio

import pytest

from chaos.change import Load, Place, PortMtu, tag_of
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Bitrate, Duration, Size
from faults.link_slow import LinkSlow
from faults.mtu_mismatch import MtuMismatch
from tests.ssh.attached import armed, on, put
from tests.waiting import wait_until

pytestmark = pytest.mark.ssh
S = 10**9
LEASE_S = 2.0


def everything(driver):
    """A slow link, a smaller MTU, busy processes and traffic, all at h1 but the MTU."""
    slow = LinkSlow("h1--r1", Bitrate.parse("1 Mbit/s"), "h1", Size(16_000)).changes(driver.fabric)
    small = MtuMismatch("h2--r1", "h2").changes(driver.fabric)
    cpu = Load(Place("h1"), tag_of(Place("h1"), "test"))
    sends = Load(
        Place("h1", "eth1"), tag_of(Place("h1", "eth1"), "test"), "udp", target="198.19.2.2",
        rate_bps=10**7,
    )  # fmt: skip
    return [*slow, *(PortMtu(one.place, 1000) for one in small), cpu, sends]


def there(three):
    """What of ours is on the machines now."""
    queues = three["h1"].run("tc", "qdisc", "show", "dev", "eth1")
    mtu = three["h2"].run("ip", "-o", "link", "show", "eth1").split(" mtu ")[1].split()[0]
    named = [n for n in three["h1"].run("ps", "-e", "-o", "comm=").split() if n.startswith("rb_")]
    return ("tbf 7261:" in queues, int(mtu), len(named))


CALM, BROKEN = (False, 1500, 0), (True, 1000, 2)


def test_they_are_made_on_the_machines_counted_and_taken_back(three, home):
    assert there(three) == CALM

    async def work(driver):
        async def between(hands):
            await asyncio.to_thread(wait_until, lambda: there(three) == BROKEN, "the faults")

        return await put(driver, home, everything(driver), [InForce(0, 2 * S)], between)

    proof = on(three, home, work)

    assert proof.in_force
    assert all(one.taken_back for one in proof.changes)
    hits = [one.hit for one in proof.changes]
    slow, _, cpu, sends = hits
    assert slow > 10, hits
    assert cpu > 50, hits
    assert sends > 10, f"what its own port holds back, a socket waits for: {hits}"
    assert there(three) == CALM


def test_when_the_injectors_are_killed_the_machines_put_everything_back(three, home):
    """The dead-man's shell ends the rate and the MTU; the kernel ended the processes before."""

    async def work(driver):
        driver.lease_s = LEASE_S
        hands = await armed(driver, home, everything(driver), Duration.parse("20 s"))
        await hands.start(now_ns() + driver.lead_ns, [InForce(0, 15 * S)])
        await asyncio.to_thread(wait_until, lambda: there(three) == BROKEN, "the faults")
        for host in ("h1", "h2"):
            found = three[host].pids("chaos.injector")
            assert found, f"{host} has an injector"
            three[host].run("kill", "-KILL", *found)
        await asyncio.to_thread(wait_until, lambda: there(three) == CALM, "the dead-man", 30.0)
        await hands.close()

    on(three, home, work)
