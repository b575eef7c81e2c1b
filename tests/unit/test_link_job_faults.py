"""Link, NIC, host and job faults on paper: what they take, where they are refused."""

import random
from dataclasses import replace

import pytest

from chaos import nos
from chaos.change import Load, Place, PortMtu, PortShape, ProcessSignal, WireTo
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.drivers.netns import NetnsDriver
from chaos.drivers.ssh.places import moved, refusal
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.radius import Rank, radius
from chaos.toll import toll
from chaos.units import Bitrate, Duration, Percent, Size
from faults.cpu_load import CpuLoad
from faults.dirty_optic import DirtyOptic, lost_share
from faults.link_slow import LinkSlow
from faults.mtu_mismatch import MtuMismatch
from faults.nic_kill import NicKill
from faults.nic_load import NicLoad
from faults.plane_down import PlaneDown
from faults.rail_down import RailDown
from faults.rendezvous_loss import RendezvousLoss
from faults.straggler import Straggler
from faults.tiny_buffers import TinyBuffers
from faults.wires_swapped import WiresSwapped
from faults.wrong_value import WrongValue

PAIRS = (
    ("host1", "eth1", "leaf1", "eth1"),
    ("host2", "eth1", "leaf1", "eth2"),
    ("host1", "eth2", "leaf2", "eth1"),
    ("host2", "eth2", "leaf2", "eth2"),
    ("leaf1", "eth9", "spine1", "eth1"),
)
LINKS = tuple(Link(Port(a, x), Port(b, y), mtu=9000) for a, x, b, y in PAIRS)
NODES = {
    name: Node(name, role=name[:-1], addresses={"eth1": (f"10.0.0.{name[-1]}/24",)})
    for name in ("host1", "host2", "leaf1", "leaf2", "spine1")
}
FABRIC = Fabric("two-planes", NODES, LINKS)
MBIT = Bitrate(10**6)


def links_out(fault):
    return sorted(toll(fault.changes(FABRIC), FABRIC).out)


def test_a_rail_is_the_hosts_interface_unless_a_label_says_otherwise():
    assert links_out(RailDown("host1:eth2")) == [
        "host1:eth2--leaf2:eth1", "host2:eth2--leaf2:eth2",
    ]  # fmt: skip
    labels = ("a", "b", "a", "b", "")
    told = tuple(
        replace(link, labels={"rail": rail} if rail else {})
        for link, rail in zip(LINKS, labels, strict=True)
    )
    fabric = replace(FABRIC, links=told)
    (first, *_, last) = RailDown("host1:eth1").changes(fabric)
    assert (first.place.port, last.place.node) == ("eth1", "leaf2")
    with pytest.raises(SpecError, match="no label rail and ends at no host"):
        RailDown("leaf1--spine1").changes(FABRIC)


def test_a_plane_is_what_the_blast_radius_calls_one():
    first, second = PlaneDown("leaf1--spine1"), PlaneDown("host1:eth2")
    assert links_out(first) == [
        "host1:eth1--leaf1:eth1", "host2:eth1--leaf1:eth2", "leaf1:eth9--spine1:eth1",
    ]  # fmt: skip
    assert links_out(second) == ["host1:eth2--leaf2:eth1", "host2:eth2--leaf2:eth2"]
    ranks = [Rank(f"rank{n}", f"host{n + 1}") for n in range(2)]
    told = radius(second.changes(FABRIC), FABRIC, ranks)
    assert told.planes_lost == ("leaf2",)
    assert told.hosts_isolated == ()


def test_a_plane_is_followed_through_all_its_switches():
    """Three tiers: one cable of a leaf stands for the leaves beyond its spine and its core."""
    pairs = (
        *(("host1", "eth1", "leaf1", "eth1"), ("host2", "eth1", "leaf2", "eth1")),
        *(("leaf1", "eth9", "spine1", "eth1"), ("leaf2", "eth9", "spine2", "eth1")),
        *(("spine1", "eth9", "core1", "eth1"), ("spine2", "eth9", "core1", "eth2")),
        *(("host1", "eth2", "leaf3", "eth1"), ("host2", "eth2", "leaf3", "eth2")),
    )
    nodes = {name: Node(name, role=name[:-1]) for a, _, b, _ in pairs for name in (a, b)}
    tiers = Fabric("t", nodes, tuple(Link(Port(a, x), Port(b, y)) for a, x, b, y in pairs))
    out = toll(PlaneDown("host1:eth1").changes(tiers), tiers).out
    assert out == {link.id for link in tiers.links if "leaf3" not in link.nodes}


def test_a_nic_is_all_ports_of_a_host_or_those_named():
    assert len(links_out(NicKill("host1"))) == 2
    assert links_out(NicKill("host1", ("eth2",))) == ["host1:eth2--leaf2:eth1"]
    with pytest.raises(SpecError, match=r"host1 has no port 'eth3' with a cable; did you mean"):
        NicKill("host1", ("eth3",)).changes(FABRIC)


@pytest.mark.parametrize(
    ("fault", "impaired"),
    [
        (MtuMismatch("leaf1--spine1", "leaf1"), {"leaf1:eth9--spine1:eth1"}),
        (LinkSlow("leaf1--spine1", MBIT), {"leaf1:eth9--spine1:eth1"}),
        (DirtyOptic("leaf1--spine1", 1e-6), {"leaf1:eth9--spine1:eth1"}),
        (NicLoad("host1", "host2", MBIT), {"host1:eth1--leaf1:eth1"}),
        (CpuLoad("host1"), set()),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_hurts_is_not_out(fault, impaired):
    took = toll(fault.changes(FABRIC), FABRIC)
    assert (took.out, took.impaired) == (set(), impaired)
    assert took.nodes


def test_a_busy_node_touches_its_ranks_and_a_wrong_value_stops_none():
    ranks = [Rank(f"rank{n}", f"host{n + 1}") for n in range(2)]
    assert radius(CpuLoad("host1").changes(FABRIC), FABRIC, ranks).ranks_touched == ("rank0",)
    told = toll((ProcessSignal(Place("host1", process="rank0"), "USR1"),), FABRIC)
    assert told.stopped == set()


def test_exchanged_cables_are_out():
    swapped = WiresSwapped("host1--leaf1", "host2--leaf1")
    assert links_out(swapped) == ["host1:eth1--leaf1:eth1", "host2:eth1--leaf1:eth2"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: MtuMismatch("leaf1--spine1", "both"), "no mismatch; name one end"),
        (lambda: MtuMismatch("leaf1--spine1", "leaf1", Size(67)), "must be 68 to 65535 bytes, got"),
        (
            lambda: MtuMismatch("leaf1--spine1", "leaf1", Size(9000)).changes(FABRIC),
            "less than that of leaf1:eth9--spine1:eth1, 9000 B, got",
        ),
        (
            lambda: LinkSlow("leaf1--spine1", MBIT, burst=Size(9017)).changes(FABRIC),
            "burst must be at least 9018 B, the longest packet",
        ),
        (
            lambda: TinyBuffers("leaf1--spine1", MBIT, queue=Size(9000)).changes(FABRIC),
            "queue must hold at least one packet of leaf1:eth9--spine1:eth1, 9018 B",
        ),
        (lambda: DirtyOptic("leaf1--spine1", 0.0), "above 0 and at most 0.01, got 0"),
        (
            lambda: DirtyOptic("leaf1--spine1", 1e-12).changes(FABRIC),
            "less than one in a million of the longest packets of leaf1:eth9--spine1:eth1 is lost; "
            "the least is 1e-11",
        ),
        (
            lambda: Straggler(0, Percent(100)),
            "must each last 5 ms or more; 100 % of 50 ms is 50 ms",
        ),
        (lambda: Straggler(0, Percent(9)), "must each last 5 ms or more"),
        (
            lambda: Straggler(0, Percent(50)).schedule(Duration.parse("20 ms"), random.Random(1)),
            "a stop of 25 ms does not fit into a storm of 20 ms",
        ),
        (lambda: CpuLoad("host1", 0), "processes must be 1 to 256, got 0"),
        (lambda: CpuLoad("host1", nice=20), "nice must be -20 to 19, got 20"),
        (lambda: NicLoad("host1", "host1", MBIT).changes(FABRIC), "host1 sends to itself"),
        (
            lambda: NicLoad("host1", "host2", MBIT, "eth2").changes(FABRIC),
            "nothing says which address host2 has on eth2",
        ),
        (lambda: NicLoad("host1", "host2", MBIT, size=Size(70000)), "size must be 1 to 65507"),
        (lambda: RendezvousLoss("host1", 0), "a port is 1 to 65535, got 0"),
        (lambda: WrongValue(0, 0), "count must be 1 or more, got 0"),
        (
            lambda: WrongValue(0, 9).schedule(Duration.parse("1 s"), random.Random(1)),
            "9 wrong values, 200 ms apart, do not fit into a storm of 1 s",
        ),
        (
            lambda: WrongValue(0, 3).schedule(Duration.parse("599 ms"), random.Random(1)),
            "3 wrong values, 200 ms apart, do not fit into a storm of 599 ms",
        ),
        (
            lambda: WiresSwapped("host1--leaf1", "host1--leaf1").changes(FABRIC),
            "cannot be exchanged with itself",
        ),
        (lambda: Bitrate.parse("0"), "a bit rate must be above 0"),
        (lambda: Bitrate.parse("10 Mbps"), r"a bit rate expected, such as 100 Mbit/s"),
        (lambda: PortShape(Place("a", "b"), 12, 1, 1), "a whole number of bytes per second"),
        (lambda: Load(Place("a"), "x y"), "1 to 15 letters and digits"),
        (lambda: Load(Place("a"), "x", "udp", rate_bps=1), "an address to send to expected"),
        (lambda: WireTo(Place("a", "b"), "railbreak_x", "c:d"), "a wire is led to a port"),
        (lambda: PortMtu(Place("a", "b"), 67), "an MTU must be 68 to 65535 bytes, got 67"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_nonsense_is_refused_with_what_is_right(wrong, sentence):
    with pytest.raises(SpecError, match=sentence):
        wrong()


def test_as_many_wrong_values_as_just_fit():
    spans = WrongValue(0, 3).schedule(Duration.parse("600 ms"), random.Random(1))
    assert [one.start_ns // 10**6 for one in spans] == [0, 200, 400]


def test_a_cable_from_a_node_to_itself_carries_nobody_to_a_store():
    loop = Link(Port("host1", "eth7"), Port("host1", "eth8"))
    fabric = replace(FABRIC, links=(*LINKS, loop))
    assert RendezvousLoss("host1").changes(fabric) == RendezvousLoss("host1").changes(FABRIC)
    with pytest.raises(SpecError, match="host1 has no links, so nobody reaches a store on it"):
        RendezvousLoss("host1").changes(replace(FABRIC, links=(loop,)))


def test_where_nothing_says_a_links_mtu_jumbo_packets_are_thought_of():
    """As on machines whose inventory names cables only."""
    unsaid = replace(FABRIC, links=tuple(replace(link, mtu=0) for link in LINKS))
    (tiny,) = TinyBuffers("leaf1--spine1", MBIT, "leaf1").changes(unsaid)
    assert (tiny.burst, tiny.limit) == (9234, 2 * 9234)
    assert MtuMismatch("leaf1--spine1", "leaf1", Size(9000)).changes(unsaid)
    *_, longest = DirtyOptic("leaf1--spine1", 1e-9, "leaf1").changes(unsaid)
    assert longest.millionths == round(lost_share(1e-9, 9216) * 1e6)


def test_the_share_lost_is_the_one_of_the_formula():
    """By the plain formula, where floating point still allows it; and to first order below."""
    assert lost_share(1e-5, 1500) == pytest.approx(1 - (1 - 1e-5) ** (8 * 1518), rel=1e-9)
    assert lost_share(1e-15, 1500) == pytest.approx(8 * 1518 * 1e-15, rel=1e-6)


def test_a_lossier_class_of_packets_never_has_a_step_that_no_pattern_has():
    for ber in (1e-10, 1e-8, 3e-7, 1e-5, 1e-3, 1e-2):
        for change in DirtyOptic("leaf1--spine1", ber).changes(FABRIC):
            change.pattern()  # raises for a share between two steps
            assert 1 <= change.millionths <= 1_000_000


# ---- where it cannot be done --------------------------------------------------------------------


def placed(fabric, **logins):
    nodes = {
        name: replace(node, settings={"ssh": {"address": name, **logins.get(name, {})}})
        for name, node in fabric.nodes.items()
    }
    return replace(fabric, nodes=nodes)


def test_on_machines_a_slow_link_is_made_where_the_packets_are_sent():
    fabric = placed(FABRIC)
    changes = LinkSlow("host1:eth1", MBIT, "host1").changes(fabric)
    made = moved(changes, fabric)
    assert [str(one.place) for one in made.changes] == ["host1:eth1"]
    assert refusal(changes[0], fabric) == ""


def test_on_machines_what_cannot_be_done_says_why():
    fabric = placed(FABRIC, leaf1={"platform": "eos"}, host2={"rdma": {"eth1": ["mlx5_0"]}})
    (slow,) = LinkSlow("host1:eth1", MBIT, "leaf1").changes(fabric)
    assert "name the other end, where a Linux host sends" in refusal(slow, fabric)
    (mtu,) = MtuMismatch("host1:eth1", "leaf1").changes(fabric)
    assert "name the end at a Linux host" in refusal(mtu, fabric)
    (rdma,) = LinkSlow("host2:eth1", MBIT, "host2").changes(fabric)
    assert "go past the kernel" in refusal(rdma, fabric)
    for change in WiresSwapped("host1:eth1", "host2:eth1").changes(fabric):
        assert "exchange the plugs by hand" in refusal(change, fabric)
    (load,) = CpuLoad("leaf1").changes(fabric)
    assert "load a host instead" in refusal(load, fabric)
    assert nos.refusal(nos.platform("eos"), load) in refusal(load, fabric)


def test_on_a_lab_cables_stay_where_they_are_and_nobody_outside_is_slowed():
    for change in WiresSwapped("host1:eth1", "host2:eth1").changes(FABRIC):
        assert "exchange its ends there" in ContainerlabDriver.refusal(change, FABRIC)
        assert NetnsDriver.refusal(change, FABRIC) == ""
    outside = replace(FABRIC, nodes={**NODES, "leaf1": replace(NODES["leaf1"], kind="bridge")})
    (slow,) = LinkSlow("host1:eth1", MBIT, "leaf1").changes(outside)
    assert "is no container, so it cannot be slowed there" in ContainerlabDriver.refusal(
        slow, outside
    )
