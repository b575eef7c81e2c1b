"""Kernel events as one process hears them from many namespaces."""

import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.netlink import Netlink, set_updown
from chaos.timeline import Moment, Windows, now_ns
from probes.kernel_events import KernelEvents

pytestmark = pytest.mark.netns


@pytest.fixture
def heard(two_paths, start):
    """A listener that is ready; `heard(count, event)` waits, `heard.readings()` stops and reads."""
    (program,) = KernelEvents().programs(two_paths.fabric, two_paths.addresses)
    running = start(program, two_paths.namespaces)
    running.wait_for("ready")
    return running


def read(running):
    return KernelEvents().read({"listener": running.stop()})


def named(readings, name):
    return [event for event in readings.events if event.name == name]


def test_admin_down_is_heard_at_both_ends_after_the_deed(two_paths, heard):
    before = now_ns()
    two_paths.ip("r1", "link set eth2 down")
    heard.wait_for(lambda r: r["ev"] == "link_carrier" and r["node"] == "r2")
    two_paths.ip("r1", "link set eth2 up")
    heard.wait_for(lambda r: r["ev"] == "link_carrier" and r["node"] == "r2" and r["up"])
    readings = read(heard)
    assert readings.trouble == ()
    assert [e.element for e in named(readings, "link.admin_down")] == ["r1:eth2"]
    assert [e.element for e in named(readings, "link.admin_up")] == ["r1:eth2"]
    lost, back = named(readings, "carrier.lost"), named(readings, "carrier.back")
    assert {e.element for e in lost} == {e.element for e in back} == {"r1:eth2", "r2:eth2"}
    assert {(e.detector, e.blames == e.element) for e in lost} == {("carrier", True)}
    assert {e.detector for e in back} == {""}
    assert before < min(e.at_ns for e in lost) <= max(e.at_ns for e in lost) < now_ns()


def test_the_loss_of_a_leg_and_of_a_route_are_symptoms_and_their_return_is_none(two_paths, heard):
    route = "10.9.8.0/24"
    two_paths.ip("r1", f"route replace {route} via 10.9.12.2 dev eth2")
    two_paths.ip("r1", f"route del {route}")
    two_paths.ip("r1", f"route add {route} via 10.9.12.2 dev eth2")
    two_paths.ip("r1", "route add 192.0.2.0/24 via 10.9.12.2 table 77")  # not the main table
    two_paths.ip("r1", "route add blackhole 198.51.100.0/24")  # not unicast
    heard.wait_for(lambda r: r["ev"] == "route" and not r["before"])
    readings = read(heard)
    changes = [e for e in named(readings, "route.changed") if e.node == "r1"]
    assert [(e.detector, e.facts["lost"], len(e.facts["after"])) for e in changes] == [
        ("fib", 1, 1),
        ("fib", 1, 0),
        ("", 0, 1),
    ]
    assert {e.element for e in changes} == {f"r1 {route}"}
    assert changes[0].facts["before"] == ["eth2 10.9.12.2", "eth3 10.9.13.2"]


def test_legs_of_an_ipv6_route_go_one_by_one(two_paths, heard):
    for leg in ("via fd00::1 dev eth2 onlink", "via fd00::2 dev eth3 onlink"):
        two_paths.ip("r1", f"-6 route append fd77::/64 {leg}")
    two_paths.ip("r1", "-6 route del fd77::/64 via fd00::1 dev eth2")
    two_paths.ip("r1", "-6 route del fd77::/64 via fd00::2 dev eth3")
    heard.wait_for(lambda r: r["ev"] == "route" and r["route"] == "fd77::/64" and not r["after"])
    readings = read(heard)
    changes = [e for e in named(readings, "route.changed") if e.element == "r1 fd77::/64"]
    assert [len(e.facts["after"]) for e in changes] == [1, 2, 1, 0]
    assert [e.facts["lost"] for e in changes] == [0, 0, 1, 1]


def test_the_ports_own_counter_audits_what_was_told(two_paths, heard):
    """A burst faster than the kernel tells: merged changes are counted, never lost silently."""
    flaps = 50
    warm = two_paths.inside("r1", Netlink.open)
    for _ in range(flaps):
        warm.send(set_updown(1002, False))
        warm.send(set_updown(1002, True))
    warm.close()
    heard.wait_count("beat", 3)  # rounds of audits: each change is counted in one only
    readings = read(heard)
    counted = Counter()
    for audit in readings.extra["audits"]:
        counted.update(audit["changes"])
    assert counted == {"r1:eth2": 2 * flaps, "r2:eth2": 2 * flaps}
    told = len(named(readings, "carrier.lost") + named(readings, "carrier.back"))
    now = now_ns()
    windows = Windows((0, 1), Moment(1, 1), Moment(now, now), now)
    measured = {m.name: m.value for m in KernelEvents().measures(readings, windows)}
    assert measured["carrier_changes_count"] == 4 * flaps
    assert measured["carrier_merged_count"] == 4 * flaps - told
    assert readings.trouble == ()


def test_an_overrun_is_trouble_and_states_are_read_anew(two_paths, start):
    """A socket too small for a burst: the listener says so and still knows the final state."""
    (program,) = KernelEvents(("r1",)).programs(two_paths.fabric, two_paths.addresses)
    program = replace(program, config={**program.config, "buffer_bytes": 4096})
    running = start(program, two_paths.namespaces)
    running.wait_for("ready")
    os.kill(running.process.pid, signal.SIGSTOP)
    status = Path(f"/proc/{running.process.pid}/status")
    while "State:\tT" not in status.read_text():
        time.sleep(0.001)
    warm = two_paths.inside("r1", Netlink.open)
    for _ in range(50):
        warm.send(set_updown(1002, False))
        warm.send(set_updown(1002, True))
    warm.send(set_updown(1002, False))
    warm.close()
    os.kill(running.process.pid, signal.SIGCONT)
    running.wait_for("overrun")
    readings = read(running)
    assert any("r1 told more events than the socket holds" in line for line in readings.trouble)
    last = [e for e in readings.events if e.element == "r1:eth2"][-2:]
    assert {e.name for e in last} == {"link.admin_down", "carrier.lost"}
    # the routes went without a word when the link did; only reading anew can know
    anew = [e for e in readings.events if e.facts.get("resync")]
    assert "r1 10.9.12.0/24" in {e.element for e in anew}


def test_neighbours_that_fail_are_information(two_paths, heard):
    two_paths.ip("r1", "neigh add 10.9.12.77 dev eth2 lladdr 02:00:00:00:00:77 nud reachable")
    two_paths.ip("r1", "neigh del 10.9.12.77 dev eth2")
    heard.wait_for(lambda r: r["ev"] == "neigh" and r["state"] == "gone")
    readings = read(heard)
    found = [e for e in readings.events if e.facts.get("address") == "10.9.12.77"]
    assert [e.name for e in found] == ["neigh.resolved", "neigh.failed", "neigh.gone"]
    assert {e.detector for e in found} == {""}


def test_next_hops_that_are_made_and_removed_are_told(two_paths, heard):
    two_paths.ip("r1", "nexthop add id 9 via 10.9.12.2 dev eth2")
    two_paths.ip("r1", "nexthop del id 9")
    heard.wait_for(lambda r: r["ev"] == "nexthop" and not r["up"])
    names = [e.name for e in read(heard).events if e.element == "r1 nexthop 9"]
    assert names == ["nexthop.made", "nexthop.removed"]


def test_a_listener_that_hangs_is_trouble(two_paths, heard):
    heard.wait_for("beat")
    os.kill(heard.process.pid, signal.SIGSTOP)
    time.sleep(2.5)  # the condition *is* the time that passes
    os.kill(heard.process.pid, signal.SIGCONT)
    readings = read(heard)
    assert readings.trouble == ("kernel_events: the listener fell silent for seconds",)


def test_an_unknown_node_ends_the_listener_with_a_sentence(two_paths, start):
    (program,) = KernelEvents(("r1",)).programs(two_paths.fabric, {})
    running = start(program, {"h1": two_paths.namespaces["h1"]})
    assert running.end() == []
    assert running.process.returncode == 1
