"""Changes of routes, settings, routers and daemons on paper: words, refusals, what they take."""

import random

import pytest

from chaos.change import (
    BgpClear,
    BgpWithdraw,
    DaemonState,
    OwnRoute,
    Place,
    Setting,
    Where,
    from_json,
    identity,
    to_json,
)
from chaos.drivers import fabric
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.drivers.netns import NetnsDriver
from chaos.drivers.ssh.places import refusal
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.toll import toll
from chaos.units import Duration
from faults.acl_drop import AclDrop
from faults.bgp_reset import BgpReset
from faults.daemon_kill import DaemonKill
from faults.daemon_restart import DaemonRestart
from faults.forwarding_loop import ForwardingLoop
from faults.forwarding_off import ForwardingOff
from faults.member_lost import MemberLost
from faults.prefix_churn import PrefixChurn
from faults.route_blackhole import RouteBlackhole
from faults.route_detour import RouteDetour

LEAF = Place("leaf1")
CHANGES = (
    OwnRoute(LEAF, "10.0.8.0/31"),
    OwnRoute(Place("leaf1", "eth2"), "10.0.8.0/31", "leg"),
    OwnRoute(LEAF, "2001:db8::/64", "as-is"),
    Setting(LEAF, "net.ipv4.fib_multipath_hash_policy", "0"),
    BgpWithdraw(LEAF, "10.0.8.0/31", "eth1"),
    BgpClear(LEAF, "eth1", "in"),
    DaemonState(LEAF, "bgpd"),
)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_survives_a_journal_and_has_an_identity_of_its_own(change):
    assert from_json(to_json(change)) == change
    assert sum(identity(one) == identity(change) for one in CHANGES) == 1


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_plan_has_words_where_only_a_machine_knows(change):
    steps = change.steps(Where(ifname=change.place.port))
    assert steps.do
    assert all(isinstance(word, str) and word for argv in (*steps.do, *steps.undo) for word in argv)


def test_what_was_saved_is_in_the_commands():
    at = Where(enter=("enter", "leaf1", "--"))
    born = {"pid": 7, "argv": ["/usr/lib/frr/bgpd", "-f", "x.conf"]}
    killed = DaemonState(LEAF, "bgpd").steps(at, {"daemons": [born]})
    assert killed.do == (("kill", "-KILL", "7"),)
    assert killed.undo == (
        ("enter", "leaf1", "--", "setsid", "-f", "/usr/lib/frr/bgpd", "-f", "x.conf"),
    )
    setting = Setting(Place("leaf1", "eth1"), "net.ipv4.conf.{port}.forwarding", "0")
    steps = setting.steps(Where(ifname="eth1.5"), {"value": "1"})
    assert steps.undo == (("sysctl", "-qw", "net.ipv4.conf.eth1/5.forwarding=1"),)
    taken = BgpWithdraw(LEAF, "10.0.8.0/31").steps(at, {"neighbors": ["fab", "10.1.1.1"]})
    assert sum("fab" in word for word in taken.do[1]) == 1
    assert len(taken.undo) == 3  # one call per neighbour, then the list itself


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RouteBlackhole("leaf1", "10.0.8.1/31"), r"has host bits set"),
        (lambda: RouteBlackhole("leaf1", "ten"), r"must be a network such as 10\.0\.8\.0/31"),
        (lambda: RouteBlackhole("leaf1", "10.0.8.1"), r"'10\.0\.8\.1' is written 10\.0\.8\.1/32"),
        (lambda: OwnRoute(LEAF, "10.0.0.0/8", "hole"), r"'hole'; did you mean blackhole"),
        (lambda: OwnRoute(LEAF, "10.0.0.0/8", "leg"), r"to leg needs a port, got leaf1"),
        (lambda: Setting(LEAF, "net.ipv4.ip_forward", "0"), r"one under net\. that changes no"),
        (lambda: Setting(LEAF, "kernel.panic", "1"), r"one under net\. that changes no other"),
        (lambda: Setting(LEAF, "net.ipv4.x", "on"), r"a setting is a whole number, got 'on'"),
        (lambda: BgpWithdraw(LEAF, "10.0.8.0/31", "a b"), r"an address or an interface, got 'a b'"),
        (lambda: DaemonKill("leaf1", "bgp"), r"FRR has no daemon 'bgp'; did you mean bgpd"),
        (lambda: DaemonRestart("leaf1", up=Duration(10**8)), r"up must be 2 s or more, got 100 ms"),
        (lambda: PrefixChurn("leaf1", "10.0.8.0/31", down=Duration(10**7)), r"down must be 200 ms"),
        (lambda: PrefixChurn("leaf1", "10.0.8.0/31", up=Duration(10**7)), r"up must be 200 ms"),
        (lambda: BgpReset("leaf1", count=0), r"count must be 1 or more, got 0"),
        (lambda: BgpReset("leaf1", every=Duration(10**7)), r"every must be 1 s or more"),
        (lambda: ForwardingOff("leaf1", family=5), r"family must be 4 or 6, got 5"),
        (lambda: AclDrop("leaf1", "10.0.0.1", "::1"), r"must be of one family"),
        (lambda: AclDrop("leaf1", "10.0.0.0/8", "10.0.0.1"), r"source must be one address"),
        (lambda: AclDrop("leaf1", "10.0.0.1", "10.0.0.2", sport=70000), r"sport must be 0 \(any\)"),
        (lambda: MemberLost("leaf1", "10.0.8.0/31", "x", mode="soft"), r"has no mode 'soft'"),
    ],
)
def test_nonsense_is_refused_with_what_is_right(make, sentence):
    with pytest.raises(SpecError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (RouteDetour("leaf1", "10.0.8.0/31", "spine9"), r"no neighbour or port 'spine9'; did you"),
        (RouteBlackhole("in-use spine", "10.0.8.0/31"), r"known only on a running fabric"),
        (DaemonKill("leaf9"), r"leaf9"),
        (ForwardingLoop("in-use", "10.0.8.0/31"), r"known only on a running fabric"),
    ],
)
def test_a_fabric_without_it_refuses(fault, sentence):
    with pytest.raises(SpecError, match=sentence):
        fault.changes(fabric("clos-2x4x8"))


def test_resets_that_do_not_fit_are_refused():
    resets = BgpReset("leaf1", count=3, every=Duration.parse("1 s"))
    rng = random.Random(1)
    assert [one.start_ns // 10**9 for one in resets.schedule(Duration.parse("3 s"), rng)] == [
        0,
        1,
        2,
    ]
    held = [
        (one.end_ns - one.start_ns) / 1e9 for one in resets.schedule(Duration.parse("3 s"), rng)
    ]
    assert held == [0.5, 0.5, 0.5], "each is over before the next"
    with pytest.raises(SpecError, match="3 resets, one every 1 s, do not fit into a storm of 2 s"):
        resets.schedule(Duration.parse("2 s"), rng)


def test_daemons_are_refused_where_nobody_can_start_them_again():
    node = {"leaf1": Node("leaf1", role="leaf", settings={"ssh": {"address": "10.0.0.1"}})}
    told = refusal(DaemonState(LEAF, "bgpd"), Fabric("f", node))
    assert "driver ssh cannot kill a daemon of leaf1" in told
    assert "route_withdraw" in told
    hosts = fabric("clos-2x4x8")
    for driver in (NetnsDriver, ContainerlabDriver):
        for change in (DaemonState(Place("host1"), "all"), BgpClear(Place("host1"))):
            assert "host1 runs no BGP of FRR" in driver.refusal(change, hosts)
            assert driver.refusal(type(change)(LEAF, "bgpd"), hosts) == ""


def test_what_each_takes_from_the_fabric():
    clos = fabric("clos-2x4x8")
    at_leaf1 = {link.id for link in clos.links_of("leaf1")}

    def taken(*changes):
        found = toll(changes, clos)
        return found.out, found.impaired

    uplink = clos.link_at(Port("leaf1", "eth1")).id
    assert taken(BgpClear(LEAF, "eth1")) == ({uplink}, set())
    assert taken(BgpClear(LEAF)) == (at_leaf1, set())
    assert taken(BgpClear(LEAF, "eth1", "in")) == (set(), at_leaf1)
    assert taken(DaemonState(LEAF, "all")) == (set(), at_leaf1)
    assert taken(OwnRoute(LEAF, "10.0.8.0/31")) == (set(), at_leaf1)
    assert taken(*ForwardingOff("leaf1").changes(clos)) == (at_leaf1, set())


def test_a_link_of_one_router_is_no_loop():
    cable = Link(Port("r1", "eth1"), Port("r1", "eth2"))
    with pytest.raises(SpecError, match="does not join two routers"):
        ForwardingLoop(cable.id, "10.0.0.0/8").changes(Fabric("f", {"r1": Node("r1")}, (cable,)))
