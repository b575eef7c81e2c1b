"""Kernel messages into records, and a real listener's records into events and counts."""

import ipaddress
import json
import socket
import struct
from pathlib import Path

import pytest

from chaos import netlink
from chaos.errors import SpecError
from chaos.fabric import Fabric, Node
from chaos.netlink import attr, u32
from chaos.timeline import Moment, Windows
from probes.jobs.kernel_events import NodeView
from probes.kernel_events import KernelEvents

DATA = Path(__file__).parents[1] / "data" / "probes"
UP, CARRIER = netlink.IFF_UP, netlink.IFF_UP | netlink.IFF_LOWER_UP


@pytest.fixture(scope="module")
def records():
    """r1:eth3 goes down and comes back 320 ms later; a route follows it by hand."""
    lines = (DATA / "kernel_events-listener.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def phases():
    found = json.loads((DATA / "two-paths-phases.json").read_text())
    down, heal = Moment(*found["down"]), Moment(*found["heal"])
    return Windows((found["calm"], down.earliest_ns), down, heal, found["end"])


def measured(records, windows):
    found = KernelEvents().measures(KernelEvents().read({"listener": records}), windows)
    assert [m.name for m in found] == list(KernelEvents.schema)
    return {m.name: m.value for m in found}


# ---- reading -------------------------------------------------------------------------------------


def test_a_carrier_lost_at_both_ends_names_its_port(records, phases):
    readings = KernelEvents().read({"listener": records})
    assert readings.trouble == ()
    lost = [event for event in readings.events if event.name == "carrier.lost"]
    assert [(e.element, e.blames, e.detector) for e in lost] == [
        ("r1:eth3", "r1:eth3", "carrier"),
        ("r2:eth3", "r2:eth3", "carrier"),
    ]
    assert phases.event.earliest_ns < lost[0].at_ns < phases.heal.earliest_ns


def test_only_losses_are_symptoms(records):
    events = KernelEvents().read({"listener": records}).events
    told = {(event.name, event.detector) for event in events}
    assert told == {
        ("link.admin_down", ""),
        ("link.admin_up", ""),
        ("carrier.lost", "carrier"),
        ("carrier.back", ""),
        ("route.changed", "fib"),
        ("route.changed", ""),
        ("neigh.gone", ""),
        ("neigh.resolved", ""),
    }


def test_a_route_that_lost_a_leg_blames_nobody_but_says_which(records):
    events = KernelEvents().read({"listener": records}).events
    (event,) = [event for event in events if event.detector == "fib"]
    assert (event.element, event.blames) == ("r1 10.9.8.0/24", "")
    assert event.facts["before"] == ["eth2 10.9.12.2", "eth3 10.9.13.2"]
    assert event.facts["after"] == ["eth2 10.9.12.2"]
    assert event.facts["lost"] == 1


def test_counts_from_fault_to_end(records, phases):
    assert measured(records, phases) == {
        "carrier_lost_count": 2,
        "carrier_changes_count": 4,
        "carrier_merged_count": 0,
        "route_changes_count": 2,
        "route_legs_lost_count": 1,
    }


def test_what_happened_outside_of_the_trial_is_not_counted(records, phases):
    early = phases.calm_ns[0]
    before = Windows((0, early - 9), Moment(early, early), Moment(early, early), early + 9)
    assert set(measured(records, before).values()) <= {0, 4}  # the audit looks ahead, events do not
    assert measured(records, before)["carrier_lost_count"] == 0
    late = phases.end_ns
    after = Windows((0, late), Moment(late, late), Moment(late, late), late + 9)
    assert set(measured(records, after).values()) == {0}


def test_a_listener_that_heard_nothing_counts_zero(records, phases):
    """It was there and heard nothing: that is a zero, unlike a listener that told nothing."""
    quiet = [record for record in records if record["ev"] in ("ready", "beat", "end")]
    assert set(measured(quiet, phases).values()) == {0}
    assert set(measured([], phases).values()) == {None}


def test_notices_are_of_carriers(records):
    said = [notice for record in records if (notice := KernelEvents.notice(record))]
    assert said == [
        "r1:eth3 carrier lost",
        "r2:eth3 carrier lost",
        "r1:eth3 carrier back",
        "r2:eth3 carrier back",
    ]


READY = {"ev": "ready", "t": 0, "n": 1}


def beat(n, at_s):
    return {"ev": "beat", "t": int(at_s * 1e9), "n": n}


TROUBLE = {
    "never ready": ([], "the listener never became ready"),
    "records gone": ([READY, beat(2, 1), beat(4, 2)], "records of the listener are missing"),
    "silence": ([READY, beat(2, 1), beat(3, 3.1)], "the listener fell silent for seconds"),
    "overrun": (
        [READY, beat(2, 1), {"ev": "overrun", "t": 10**9, "n": 3, "node": "r1"}],
        "r1 told more events than the socket holds; states were read anew, times between are lost",
    ),
}


@pytest.mark.parametrize(("lines", "sentence"), TROUBLE.values(), ids=TROUBLE.keys())
def test_doubtful_records_are_trouble(lines, sentence):
    assert KernelEvents().read({"listener": lines}).trouble == (f"kernel_events: {sentence}",)


def audit(at_s, changes, untold):
    return {
        "ev": "audit",
        "t": int(at_s * 1e9),
        "n": 2,
        "node": "r1",
        "changes": {"eth1": changes},
        "untold": {"eth1": untold},
    }


def test_what_the_kernel_merged_is_counted_and_what_was_before_the_fault_is_not():
    windows = Windows((0, 10**9), Moment(10**9, 10**9), Moment(2 * 10**9, 2 * 10**9), 3 * 10**9)
    found = measured([READY, audit(0.5, 8, 8), audit(1.5, 10, 7)], windows)
    assert (found["carrier_changes_count"], found["carrier_merged_count"]) == (10, 7)


def test_an_unknown_node_is_refused():
    with pytest.raises(SpecError, match="no node 'r9' in fabric f"):
        KernelEvents(("r9",)).programs(Fabric("f", {"r1": Node("r1")}), {})


# ---- messages ------------------------------------------------------------------------------------


def link(index, flags, name="eth1", changes=0, family=socket.AF_UNSPEC):
    head = struct.pack("=BxHiII", family, 1, index, flags, 0)
    return head + attr(3, name.encode() + b"\0") + u32(35, changes)


@pytest.fixture
def view():
    """A node with eth1 (up, with carrier) and eth2 (down)."""
    made = NodeView("r1")
    made.link(netlink.RTM_NEWLINK, link(1, CARRIER))
    made.link(netlink.RTM_NEWLINK, link(2, 0, "eth2"))
    return made


def test_only_differences_of_a_link_are_told(view):
    assert view.link(netlink.RTM_NEWLINK, link(1, CARRIER)) == []
    assert view.link(netlink.RTM_NEWLINK, link(1, UP, changes=1)) == [
        ("link_carrier", {"port": "eth1", "up": False, "changes": 1})
    ]
    assert view.link(netlink.RTM_NEWLINK, link(1, 0, changes=1)) == [
        ("link_admin", {"port": "eth1", "up": False})
    ]


def test_a_bridges_chatter_about_its_port_is_no_change(view):
    assert view.link(netlink.RTM_NEWLINK, link(1, 0, family=socket.AF_BRIDGE)) == []


def test_links_come_and_go(view):
    assert view.link(netlink.RTM_NEWLINK, link(3, UP, "eth3"))[0][0] == "link_new"
    assert view.link(netlink.RTM_DELLINK, link(3, UP, "eth3")) == [("link_gone", {"port": "eth3"})]
    assert view.link(netlink.RTM_DELLINK, link(3, UP, "eth3")) == []


def route(legs, table=254, kind=1, prefix="10.0.0.0/24"):
    """An IPv4 route; a leg is interface index, gateway and next-hop flags."""
    to = ipaddress.ip_network(prefix)
    head = struct.pack("=BBBBBBBBI", socket.AF_INET, to.prefixlen, 0, 0, table, 0, 0, kind, 0)
    hops = b""
    for index, via, flags in legs:
        inner = attr(5, ipaddress.ip_address(via).packed)
        hops += struct.pack("=HBBi", 8 + len(inner), flags, 0, index) + inner
    return head + attr(1, to.network_address.packed) + attr(9, hops)


BOTH = [(1, "10.1.0.2", 0), (2, "10.2.0.2", 0)]


def test_a_route_is_told_when_its_legs_differ(view):
    both = [("eth1", "10.1.0.2"), ("eth2", "10.2.0.2")]
    facts = {"route": "10.0.0.0/24", "metric": 0}
    assert view.route(netlink.RTM_NEWROUTE, 0, route(BOTH)) == [
        ("route", facts | {"before": [], "after": both})
    ]
    assert view.route(netlink.RTM_NEWROUTE, 0, route(BOTH[::-1])) == []  # order is no change
    assert view.route(netlink.RTM_NEWROUTE, 0, route(BOTH[:1])) == [
        ("route", facts | {"before": both[::-1], "after": both[:1]})
    ]
    assert view.route(netlink.RTM_DELROUTE, 0, route(BOTH[:1])) == [
        ("route", facts | {"before": both[:1], "after": []})
    ]
    assert view.routes == {}


@pytest.mark.parametrize("flag", [0x1, 0x10], ids=["dead", "linkdown"])
def test_a_leg_that_is_not_usable_is_no_leg(view, flag):
    (_, facts) = view.route(netlink.RTM_NEWROUTE, 0, route([BOTH[0], (2, "10.2.0.2", flag)]))[0]
    assert facts["after"] == [("eth1", "10.1.0.2")]


@pytest.mark.parametrize(
    "body",
    [
        route(BOTH, table=77),
        route(BOTH, kind=6),  # blackhole
        route(BOTH, prefix="169.254.0.0/16"),
        route(BOTH, prefix="224.0.0.0/4"),
    ],
    ids=["another table", "blackhole", "link-local", "multicast"],
)
def test_other_routes_are_none_of_our_business(view, body):
    assert view.route(netlink.RTM_NEWROUTE, 0, body) == []
