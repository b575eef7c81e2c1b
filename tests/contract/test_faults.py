"""What every fault promises; a new fault is covered by adding one line to the table."""

import asyncio
import random
import subprocess
import time
from dataclasses import replace

import pytest

from chaos import native, snapshot
from chaos.change import (
    LinkState,
    PacketDrop,
    Place,
    ProcessRestart,
    ProcessSignal,
    from_json,
    identity,
    to_json,
)
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.packets import Rule, When
from chaos.registry import FAULTS, InForce, load
from chaos.units import Bitrate, Duration, Hertz, Percent, Size
from faults.acl_drop import AclDrop
from faults.bfd_down import BfdDown
from faults.bgp_down import BgpDown
from faults.bgp_reset import BgpReset
from faults.cpu_load import CpuLoad
from faults.daemon_freeze import DaemonFreeze
from faults.daemon_kill import DaemonKill
from faults.daemon_restart import DaemonRestart
from faults.dirty_optic import DirtyOptic
from faults.forwarding_loop import ForwardingLoop
from faults.forwarding_off import ForwardingOff
from faults.hash_polarised import HashPolarised
from faults.link_down import LinkDown
from faults.link_flap import LinkFlap
from faults.link_slow import LinkSlow
from faults.member_lost import MemberLost
from faults.mtu_mismatch import MtuMismatch
from faults.nic_kill import NicKill
from faults.nic_load import NicLoad
from faults.node_down import NodeDown
from faults.node_stop import NodeStop
from faults.packet_fault import PacketFault
from faults.packet_loss import PacketLoss
from faults.pfc_storm import PfcStorm
from faults.plane_down import PlaneDown
from faults.prefix_churn import PrefixChurn
from faults.rail_down import RailDown
from faults.rank_kill import RankKill
from faults.rank_restart import RankRestart
from faults.rank_stop import RankStop
from faults.rendezvous_loss import RendezvousLoss
from faults.route_blackhole import RouteBlackhole
from faults.route_detour import RouteDetour
from faults.route_withdraw import RouteWithdraw
from faults.straggler import Straggler
from faults.tiny_buffers import TinyBuffers
from faults.wires_swapped import WiresSwapped
from faults.wrong_value import WrongValue

CABLE = "h1:eth1--h2:eth1"


def packets(end="h1", **words):
    """A packet fault by the words of its YAML form."""
    when = When.parse(words.pop("when", "all"))
    rule = Rule.parse(words)
    return PacketFault(CABLE, end, rule.select, when, rule.then)


class Received(PacketFault):
    """The same at the port that receives, as on a lab or a machine: by the kernel's queue."""

    def changes(self, fabric):
        ports = [Port(one.place.node, one.place.port) for one in super().changes(fabric)]
        links = [fabric.link_at(port).other(port) for port in ports]
        pairs = zip(super().changes(fabric), links, strict=True)
        return tuple(replace(one, place=Place.at(port)) for one, port in pairs)


def received(end="h1", **words):
    """A packet fault at the port that receives."""
    one = packets(end, **words)
    return Received(one.link, one.end, one.select, one.when, one.then)


ONE_OF_EACH = {
    "link_down": LinkDown(CABLE),
    "link_flap": LinkFlap(CABLE, frequency=Hertz(10), jitter=Percent(20)),
    "packet_loss": PacketLoss(CABLE, share=Percent(50), end="h1"),
    "packet_fault": packets(select={"opcode": "data", "dest_qp": 17}, when={"first": 3}),
    "node_down": NodeDown("h1"),
    "rank_kill": RankKill(0),
    "rank_restart": RankRestart(0),
    "rank_stop": RankStop(0),
    "route_blackhole": RouteBlackhole("h1", "10.9.0.0/16"),
    "route_detour": RouteDetour("h1", "10.9.0.0/16", "eth2"),
    "member_lost": MemberLost("h1", "10.7.0.0/16", CABLE),
    "acl_drop": AclDrop("h1", "10.0.0.2", "10.0.0.1", sport=49152),
    "bfd_down": BfdDown(CABLE),
    "forwarding_off": ForwardingOff("h1"),
    "hash_polarised": HashPolarised("h1"),
    "mtu_mismatch": MtuMismatch(CABLE, "h1", Size(1000)),
    "link_slow": LinkSlow(CABLE, Bitrate(10**7)),
    "tiny_buffers": TinyBuffers(CABLE, Bitrate(10**8), "h1"),
    "dirty_optic": DirtyOptic(CABLE, 1e-6, "h1"),
    "nic_kill": NicKill("h1"),
    "rail_down": RailDown(CABLE),
    "plane_down": PlaneDown(CABLE),
    "rendezvous_loss": RendezvousLoss("h1"),
    "straggler": Straggler(0, Percent(50)),
}
#: Further values of the same faults, where a field changes what is done.
MORE = {
    "link_down admin near": LinkDown(CABLE, mode="admin", end="h1"),
    "link_down admin both": LinkDown(CABLE, mode="admin"),
    "link_down carrier one end": LinkDown(CABLE, end="h2"),
    "link_down silent": LinkDown(CABLE, mode="silent"),
    "link_down silent one way": LinkDown(CABLE, mode="silent", end="h2"),
    "link_flap silent": LinkFlap(CABLE, mode="silent", down=Duration(10**7), up=Duration(10**7)),
    "packet_loss both": PacketLoss(CABLE, share=Percent(0.01), match="ip saddr 10.0.0.1"),
    "packet_loss roce": PacketLoss(CABLE, share=Percent(100), roce=True),
    "route_blackhole told": RouteBlackhole("h1", "2001:db8:9::/48", "unreachable"),
    "route_detour ipv6": RouteDetour("h1", "2001:db8:9::/48", "h2"),
    "acl_drop any port": AclDrop("h1", "2001:db8::2", "2001:db8::1", "tcp"),
    "bfd_down one way": BfdDown(CABLE, "h2"),
    "mtu_mismatch above ipv6": MtuMismatch(CABLE, "h2", Size(1400)),
    "link_slow fast": LinkSlow(CABLE, Bitrate(4 * 10**10), "h2", Size(10**6)),
    "nic_kill admin": NicKill("h1", ("eth1",), "admin"),
    "rail_down silent": RailDown("h1:eth2", "silent"),
    "forwarding_off ipv6": ForwardingOff("h1", family=6),
    "packet_fault all": packets("both"),
    "packet_fault after": packets(select={"roce": True}, when={"after": 200}),
    "packet_fault every": packets(select={"opcode": ["first", "last"]}, when={"every": 100}),
    "packet_fault every late": packets(when={"every": 10, "offset": 25}, then="ce"),
    "packet_fault random": packets("both", when={"random": "1 %", "seed": 3}),
    "packet_fault bursts": packets(when={"enter": "1 %", "leave": "20 %"}),
    "packet_fault psn": packets(when={"psn": [5, 7]}),
    "packet_fault window": packets(when={"random": "1 %", "from": "1 s", "until": "1.5 s"}),
    "packet_fault train": packets("both", when={"first": 3, "frequency": "5 Hz", "jitter": "20 %"}),
    "packet_fault naks": packets(select={"opcode": "nak"}),
    "packet_fault syndrome": packets(select={"syndrome": "rnr_nak", "ack_request": False}),
    "packet_fault flow": packets(
        select={
            "source": "10.0.0.1",
            "destination": ["10.0.0.2", "10.1.0.0/24"],
            "protocol": "udp",
            "sport": 49152,
            "dport": "4791-4800",
        }
    ),
    "packet_fault ce": packets(select={"ecn": "ect", "dscp": ["af31", 46]}, then="ce"),
    "packet_fault bleach": packets(select={"family": 6}, then="bleach"),
    "packet_fault dscp": packets(select={"psn": "100-200"}, then={"dscp": 0}),
    "packet_fault becn": packets(then="becn"),
    "packet_fault corrupt": packets("both", when={"random": "1 %"}, then="corrupt"),
    "packet_fault duplicate": packets("both", then="duplicate"),
    "packet_fault delay": packets("both", then={"delay": "5 ms", "jitter": "1 ms"}),
    "packet_fault reorder": packets(when={"every": 10}, then={"reorder": 3, "within": "20 ms"}),
    "packet_fault rate": packets(select={"roce": True}, then={"rate": "10 Mbit/s"}),
    "packet_fault rate by a worker": replace(packets(then={"rate": "10 Mbit/s"}), engine="worker"),
    "packet_fault silent": packets(when={"psn": 5}, then={"corrupt": "silent"}),
    "packet_fault forge": packets(then={"forge": "remote_access_error"}),
    "packet_fault cnp": packets(then={"forge": "cnp", "qp": 17}),
    "packet_fault received drop": received("both", when={"first": 3}),
    "packet_fault received delay": received("both", then={"delay": "5 ms", "jitter": "1 ms"}),
    "packet_fault received reorder": received(when={"every": 10}, then={"reorder": 3}),
    "packet_fault received silent": received(when={"psn": 5}, then={"corrupt": "silent"}),
    "packet_fault received cnp": received(then={"forge": "cnp", "qp": 17}),
}
ALL = ONE_OF_EACH | MORE
#: Faults that need more than two hosts and a cable; `tests/netns` and `tests/lab` break with them.
ELSEWHERE = {
    "bgp_down": BgpDown("h1", "eth1"),
    "bgp_reset": BgpReset("h1", "eth1"),
    "bgp_reset train": BgpReset("h1", how="in", count=2, every=Duration(10**9)),
    "route_withdraw": RouteWithdraw("h1", "10.9.0.0/16"),
    "prefix_churn": PrefixChurn("h1", "2001:db8:9::/48", "eth1"),
    "forwarding_loop": ForwardingLoop(CABLE, "10.9.0.0/16"),
    "daemon_kill": DaemonKill("h1"),
    "daemon_freeze": DaemonFreeze("h1", "bgpd"),
    "daemon_restart": DaemonRestart("h1", "bgpd", down=Duration(10**8)),
    "cpu_load": CpuLoad("h1", 2, 5),
    "nic_load": NicLoad("h1", "h2", Bitrate(10**7)),
    "wires_swapped": WiresSwapped("h1:eth1", "h1:eth2"),
    "wrong_value": WrongValue(0, count=2),
    "nic_kill unbind": NicKill("h1", mode="unbind"),
    "nic_kill remove": NicKill("h1", ("eth2",), "remove"),
    "nic_kill reload": NicKill("h1", ("eth2",), "reload"),
    "pfc_storm": PfcStorm(CABLE, "h1", Bitrate(10**11)),
    "node_stop": NodeStop("h1"),
    "node_stop pause": NodeStop("h1", how="pause"),
}
on_paper = pytest.mark.parametrize(
    "fault", (ALL | ELSEWHERE).values(), ids=(ALL | ELSEWHERE).keys()
)
every_fault = pytest.mark.parametrize(
    "fault",
    [
        pytest.param(one, id=name, marks=pytest.mark.vm if name == "packet_fault delay" else ())
        for name, one in ALL.items()  # by netem in the machine lane
    ],
)
every_kind = pytest.mark.parametrize("fault", ONE_OF_EACH.values(), ids=ONE_OF_EACH.keys())

FABRIC = Fabric(
    "two-hosts",
    {"h1": Node("h1"), "h2": Node("h2", addresses={"eth1": ("10.0.0.2/24",)})},
    tuple(Link(Port("h1", f"eth{n}"), Port("h2", f"eth{n}")) for n in (1, 2)),
)


def test_the_table_misses_no_fault():
    load()
    ours = {name for name, cls in FAULTS.items() if cls.__module__.startswith("faults.")}
    assert ONE_OF_EACH.keys() | {fault.name for fault in ELSEWHERE.values()} == ours
    assert all(type(fault).name == name for name, fault in ONE_OF_EACH.items())


# ---- on paper: no machine is touched ------------------------------------------------------------


@on_paper
def test_planning_is_pure(fault):
    assert fault.changes(FABRIC) == fault.changes(FABRIC)
    assert fault.changes(FABRIC), "a fault that changes nothing is not a fault"


@on_paper
def test_its_changes_can_be_told_apart(fault):
    changes = fault.changes(FABRIC)
    assert len({identity(change) for change in changes}) == len(changes)


@on_paper
def test_its_changes_survive_a_journal(fault):
    for change in fault.changes(FABRIC):
        assert from_json(to_json(change)) == change


@on_paper
def test_its_schedule_is_seeded_ordered_and_inside_the_storm(fault):
    storm = Duration.parse("2 s")
    spans = fault.schedule(storm, random.Random(7))

    assert spans == fault.schedule(storm, random.Random(7))
    assert spans
    edges = [edge for span in spans for edge in (span.start_ns, span.end_ns)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= storm.ns
    assert all(isinstance(span, InForce) and span.start_ns < span.end_ns for span in spans)


@on_paper
def test_every_change_says_in_one_line_what_it_does(fault):
    for change in fault.changes(FABRIC):
        assert change.describe().strip()
        assert "\n" not in change.describe()


@pytest.mark.parametrize("word", ["in-use", "in-use leaf--spine"])
@pytest.mark.parametrize("kind", [LinkDown, LinkFlap, PacketLoss])
def test_an_unresolved_link_is_refused_with_its_reason(kind, word):
    more = {PacketLoss: {"share": Percent(1)}, LinkFlap: {"frequency": Hertz(1)}}.get(kind, {})
    with pytest.raises(SpecError, match=r"known only on a running fabric"):
        kind(word, **more).changes(FABRIC)


@pytest.mark.parametrize("word", ["near", "far"])
def test_an_unresolved_end_is_refused_with_its_reason(word):
    with pytest.raises(SpecError, match=r"relative to the measured traffic"):
        LinkDown(CABLE, end=word).changes(FABRIC)


# ---- on real namespaces -------------------------------------------------------------------------


def ready(two_hosts, fault):
    """The fault's changes with their places; a rank is a process of h1."""
    for change in (changes := fault.changes(FABRIC)):
        if isinstance(change, ProcessSignal):
            two_hosts.start(change.place.process)
        if isinstance(change, ProcessRestart):
            two_hosts.supervise(change.place.process)
    return changes, two_hosts.wheres(changes)


def state(two_hosts):
    """The state once it has stood still: carriers follow their cause with a delay."""
    seen = [snapshot.take(two_hosts.namespaces)]
    until = time.monotonic() + 5
    while len(seen) < 4 or any(one != seen[-1] for one in seen[-4:]):
        assert time.monotonic() < until, "the state never stood still"
        time.sleep(0.03)
        seen.append(snapshot.take(two_hosts.namespaces))
    return seen[-1]


def carrier_of_h1_goes(fault):
    return any(
        isinstance(change, LinkState) and (change.place.node, change.place.side) == ("h1", "wire")
        for change in fault.changes(FABRIC)
    )


def enrich(two_hosts, fault):
    """What an admin down loses: static routes of both families, neighbours, a proxy, a nexthop."""
    for argv in (
        "ip route add 10.9.0.0/16 via 10.0.0.2 proto static",
        "ip route add default via 10.0.0.2 mtu 1400",
        "ip route add 10.7.0.0/16 nexthop via 10.0.0.2 weight 2 nexthop via 10.1.0.2",
        "ip route add 10.6.0.0/16 via inet6 2001:db8:0::2 dev eth1",
        "ip -6 route add 2001:db8:9::/48 via 2001:db8:0::2 metric 77",
        "ip route add 10.5.0.0/16 dev eth1 table 77",
        "ip route add 10.4.0.0/16 dev eth2",
        "ip route append 10.4.0.0/16 dev eth1",
        "ip -6 route add 2001:db8:4::/48 dev eth2 metric 5",
        "ip -6 route append 2001:db8:4::/48 dev eth1 metric 5",
        "ip -6 route add 2001:db8:7::/48 nexthop via 2001:db8:0::2 nexthop via 2001:db8:1::2",
        "ip -6 route add 2001:db8:6::/48 via fe80::7 dev eth1 src 2001:db8:0::1",
        "ip route add 10.3.0.0/16 via 192.0.2.1 dev eth1 onlink",
        "ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth1 nud permanent",
        "ip neigh add 2001:db8:0::9 lladdr 02:00:00:00:00:09 dev eth1 nud permanent",
        "ip neigh add proxy 10.0.0.77 dev eth1",
    ):
        two_hosts.run("h1", *argv.split())
    if not carrier_of_h1_goes(fault):  # the kernel deletes nexthop objects then, as in nature
        for argv in (
            "ip nexthop add id 5 via 10.0.0.2 dev eth1 proto static",
            "ip nexthop add id 6 via 10.1.0.2 dev eth2 proto static",
            "ip nexthop add id 7 group 5/6 proto static",
            "ip route add 10.8.0.0/16 nhid 7",
        ):
            two_hosts.run("h1", *argv.split())
    for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv4.fib_multipath_hash_policy"):
        two_hosts.run("h1", "sysctl", "-qw", f"net.{key}=1")
    vlan = "link add link eth1 name eth1.5 type vlan id 5"
    made = subprocess.run(
        ("ip", "-n", f"{two_hosts.prefix}h1", *vlan.split()), capture_output=True, check=False
    )
    if made.returncode == 0:  # where the kernel has VLANs
        two_hosts.run("h1", "ip", "addr", "add", "10.55.0.1/24", "dev", "eth1.5")
        two_hosts.run("h1", "ip", "link", "set", "eth1.5", "up")
        two_hosts.run("h1", "ip", "route", "add", "10.56.0.0/16", "via", "10.55.0.2")


def undone(made):
    """Repeat an undo until nothing is refused: an address may wait for its link to be ready."""
    until = time.monotonic() + 2
    while refused := made.undo():
        assert time.monotonic() < until, refused
        time.sleep(0.01)


def natively(two_hosts, changes, wheres):
    """Do and undo through `chaos.native`; what differs from before, while in force and after."""
    made = [native.build(change, wheres[change.place]) for change in changes]
    for one in made:
        one.do()
    meanwhile = state(two_hosts)
    assert all(one.in_force() for one in made)
    for one in reversed(made):
        undone(one)
    for one in made:
        one.close()
    return meanwhile


def by_commands(two_hosts, changes, wheres):
    """The same through the commands that a dry run prints."""
    steps = []
    for change in changes:
        where = wheres[change.place]
        kept = native.build(change, where)
        steps.append((where, getattr(kept, "change", change).steps(where, kept.saved)))
        kept.close()
    for where, step in steps:
        for argv in step.do:
            in_place(two_hosts, where, argv)
    if isinstance(changes[0], ProcessSignal) and changes[0].signal == "KILL":
        two_hosts.processes["rank0"].wait()
    meanwhile = state(two_hosts)
    assert all(step.holds(in_place(two_hosts, where, step.look)) for where, step in steps)
    for where, step in reversed(steps):
        for argv in step.undo:
            in_place(two_hosts, where, argv)
    assert not any(
        step.holds(in_place(two_hosts, where, step.look)) for where, step in steps if step.undo
    )
    return meanwhile


def in_place(two_hosts, where, argv):
    enter = ("nsenter", f"--net={where.netns}") if where.netns else ()
    done = subprocess.run((*enter, *argv), capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "File exists" in done.stderr, f"{argv}: {done.stderr}"
    return done.stdout


@pytest.mark.netns
@every_fault
def test_both_renderings_leave_the_same_state_and_no_trace(two_hosts, fault):
    enrich(two_hosts, fault)
    changes, wheres = ready(two_hosts, fault)
    before = state(two_hosts)

    first = natively(two_hosts, changes, wheres)
    assert settled(two_hosts, before) == ()
    if isinstance(fault, RankKill):
        two_hosts.processes["rank0"].wait()
    if isinstance(fault, RankKill | RankRestart):
        changes, wheres = ready(two_hosts, fault)
    second = by_commands(two_hosts, changes, wheres)

    assert snapshot.difference(first, second) == ()
    assert settled(two_hosts, before) == ()
    if not isinstance(changes[0], ProcessSignal | ProcessRestart):
        assert snapshot.difference(before, first) != ()


def settled(two_hosts, before):
    return asyncio.run(snapshot.settle(two_hosts.namespaces, before, deadline_s=5))


@pytest.mark.netns
@every_fault
def test_undo_is_repeatable_and_safe_before_the_deed(two_hosts, fault):
    enrich(two_hosts, fault)
    changes, wheres = ready(two_hosts, fault)
    before = state(two_hosts)

    for change in changes:
        made = native.build(change, wheres[change.place])
        if not made.lasting:
            for _ in range(2):
                undone(made)
                assert not made.in_force()
            made.do()
            for _ in range(2):
                undone(made)
                assert not made.in_force()
        made.close()

    assert settled(two_hosts, before) == ()


@pytest.mark.netns
@every_kind
def test_what_was_half_done_is_undone_by_another_process(two_hosts, fault):
    """Only the first change was made when everybody died; the journal's data is enough."""
    enrich(two_hosts, fault)
    changes, wheres = ready(two_hosts, fault)
    before = state(two_hosts)
    made = [native.build(change, wheres[change.place]) for change in changes]
    saved = [dict(one.saved) for one in made]
    lasting = [one.lasting for one in made]
    if not lasting[0]:
        made[0].do()
    for one in made:
        one.close()

    for change, kept in reversed(list(zip(changes, saved, strict=True))):
        later = native.build(change, wheres[change.place], kept)
        undone(later)
        assert later.lasting or not later.in_force()
        later.close()

    assert settled(two_hosts, before) == ()


@pytest.mark.netns
def test_a_plain_down_and_up_is_no_undo(two_hosts):
    """The reason for saving: the kernel drops what it drops."""
    enrich(two_hosts, LinkDown(CABLE, "admin", "h1"))
    before = state(two_hosts)
    two_hosts.run("h1", "ip", "link", "set", "eth1", "down")
    two_hosts.run("h1", "ip", "link", "set", "eth1", "up")

    lost = " ".join(snapshot.difference(before, state(two_hosts)))

    for what in ("10.9.0.0/16", "2001:db8:9::/48", "address 2001:db8::1/64", "neighbour 10.0.0.9"):
        assert what in lost


@pytest.mark.netns
def test_a_drop_hides_nothing_that_is_not_ours(two_hosts):
    """Undo deletes our table and no other."""
    two_hosts.run("wire", "nft", "table netdev foreign {\ncounter c { }\n}")
    change = PacketDrop(LinkDown(CABLE, "silent", "h1").changes(FABRIC)[0].place, "railbreak_x")
    made = native.build(change, two_hosts.resolve(change.place))
    made.do()
    made.undo()
    made.close()
    tables = two_hosts.run("wire", "nft", "list", "tables")
    assert "foreign" in tables
    assert "wires" in tables
    assert "railbreak" not in tables
