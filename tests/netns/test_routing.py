"""BGP and BFD session changes as real FRR daemons log them."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from chaos.fabric import Fabric, Node
from chaos.timeline import Moment, Windows, now_ns
from probes.routing import Routing

pytestmark = pytest.mark.netns


@pytest.fixture
def watched(bring_up, square, start):
    """`watched(scenario)` runs `await scenario(driver, follower)` on two FRR routers; readings."""

    def run(scenario):
        async def whole():
            async with bring_up(square) as driver:
                (program,) = Routing().programs(driver.fabric, driver.addresses())
                logs = {node: str(driver.logs(node)) for node in ("r1", "r2")}
                follower = start(program, dict(driver.namespaces()), logs)
                follower.wait_for("ready")
                await scenario(driver, follower)
                return Routing().read({"follower": follower.stop()})

        return asyncio.run(whole())

    return run


def change(ev, node, **facts):
    """A predicate over records."""
    return lambda r: (
        r["ev"] == ev and r["node"] == node and all(r[key] == facts[key] for key in facts)
    )


def daemon(driver, node, name):
    """Process id of a routing daemon of a node."""
    inode = os.stat(driver.namespaces()[node]).st_ino
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdecimal() or (process / "comm").read_text().strip() != name:
                continue
            if os.stat(process / "ns" / "net").st_ino == inode:
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no {name} in {node}")


def test_silent_loss_is_told_by_bfd_with_port_and_time(watched):
    """What arrives at r1:eth1 vanishes: r1's BFD expires, then BGP goes, and all comes back."""
    at = {}

    async def scenario(driver, follower):
        table = "table netdev railbreak_t"
        hook = "type filter hook ingress device eth1 priority -500;"
        at["before"] = now_ns()
        rules = f"{table} {{ chain c {{ {hook} counter drop; }}; }}"
        done = await driver.exec("r1", ("nft", rules))
        assert done.code == 0, done.stderr
        at["after"] = now_ns()
        follower.wait_for(change("bfd", "r1", port="eth1", after="down"))
        follower.wait_for(change("bgp", "r1", port="eth1", up=False))
        at["healing"] = now_ns()
        await driver.exec("r1", ("nft", "delete", *table.split()))
        at["healed"] = now_ns()
        follower.wait_for(change("bgp", "r1", port="eth1", up=True))
        follower.wait_for(change("bgp", "r2", port="eth1", up=True))
        follower.wait_for(change("bfd", "r1", port="eth1", after="up"))
        at["end"] = now_ns()

    readings = watched(scenario)
    assert readings.trouble == ()
    mine = [e for e in readings.events if e.element == "r1:eth1"]
    assert [e.name for e in mine[:2]] == ["bfd.lost", "bgp.lost"]
    bfd, bgp = mine[:2]
    assert (bfd.detector, bfd.blames, bfd.node) == ("bfd", "r1:eth1", "r1")
    assert bfd.facts["reason"] == "control-expired"
    assert (bgp.detector, bgp.facts["neighbour"]) == ("bgp", "r2")
    assert bgp.facts["notification"] == "sent 6/10 (Cease/BFD Down)"
    # detect time is 3 x 100 ms since the last packet, which came at most 100 ms before
    assert 150 < (bfd.at_ns - at["before"]) / 1e6 < 1000
    assert at["after"] < bfd.at_ns < bgp.at_ns < at["healing"]
    event = Moment(at["before"], at["after"])
    heal = Moment(at["healing"], at["healed"])
    windows = Windows((0, at["before"]), event, heal, at["end"])
    found = {m.name: m for m in Routing().measures(readings, windows)}
    assert found["routing_bfd_lost_count"].value >= 1
    assert found["routing_hold_timer_expired_count"].value == 0
    took = found["routing_bgp_reestablished_ms"]
    assert not took.censored
    assert 0 < took.low <= took.value <= (at["end"] - at["healing"]) / 1e6


def test_a_stopped_bgpd_is_told_by_the_hold_timer_of_its_peers(watched):
    async def scenario(driver, follower):
        pid = daemon(driver, "r2", "bgpd")
        os.kill(pid, signal.SIGSTOP)
        follower.wait_for(change("bgp", "r1", port="eth1", up=False))
        follower.wait_for(change("bgp", "r1", port="eth2", up=False))
        os.kill(pid, signal.SIGCONT)

    readings = watched(scenario)
    lost = [e for e in readings.events if e.name == "bgp.lost" and e.node == "r1"]
    assert {e.element for e in lost} >= {"r1:eth1", "r1:eth2"}
    first = {e.element: e for e in reversed(lost)}
    for event in first.values():
        assert event.detector == "hold_timer"
        assert event.facts["notification"] == "sent 4/0 (Hold Timer Expired)"


def test_interface_down_is_told_at_once_by_its_own_end(watched):
    async def scenario(driver, follower):
        await driver.exec("r1", ("ip", "link", "set", "eth2", "down"))
        follower.wait_for(change("bgp", "r1", port="eth2", up=False))

    (first, *_) = [e for e in watched(scenario).events if e.name == "bgp.lost"]
    assert (first.element, first.detector) == ("r1:eth2", "bgp")
    assert "notification" not in first.facts


def test_sessions_between_addresses_are_laid_on_the_port_of_their_network(watched):
    """Numbered neighbours: neither FRR's BGP line nor its BFD line names an interface."""

    async def scenario(driver, follower):
        for number in (1, 2):
            peer = f"10.7.12.{3 - number}"
            lines = (
                "configure terminal",
                "interface eth2",
                f"ip address 10.7.12.{number}/24",
                "exit",
                f"router bgp 6500{number}",
                f"neighbor {peer} remote-as 6500{3 - number}",
                f"neighbor {peer} timers connect 1",
                f"neighbor {peer} bfd",
            )
            argv = ["vtysh", *(part for line in lines for part in ("-c", line))]
            done = await driver.exec(f"r{number}", argv)
            assert done.code == 0, done.stdout
        follower.wait_for(change("bfd", "r1", peer="10.7.12.2", after="up"))
        await driver.exec("r1", ("vtysh", "-c", "clear bgp 10.7.12.2"))
        follower.wait_for(change("bgp", "r1", peer="10.7.12.2", up=False))

    readings = watched(scenario)
    mine = [e for e in readings.events if e.facts["peer"] == "10.7.12.2"]
    assert {e.element for e in mine} == {"r1:eth2"}
    assert {e.name for e in mine} >= {"bfd.back", "bgp.back", "bgp.lost"}
    lost = next(e for e in mine if e.name == "bgp.lost")
    assert lost.facts["reason"] == "User reset"
    assert lost.blames == "r1:eth2"


def test_a_router_without_a_log_ends_the_follower(start, tmp_path):
    (program,) = Routing().programs(Fabric("f", {"r1": Node("r1", runs="frr")}), {})
    running = start(program, {}, {"r1": str(tmp_path / "none.log")})
    assert running.end() == []
    assert running.process.returncode == 1
