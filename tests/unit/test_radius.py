"""Blast radius: published arithmetic, and what must hold on every fabric."""

import json
import random
from dataclasses import dataclass
from typing import ClassVar

import pytest

from chaos import topology
from chaos.bisection import halves, max_flow
from chaos.change import (
    BgpNeighbour,
    LinkState,
    NodePower,
    PacketDrop,
    Place,
    ProcessSignal,
)
from chaos.fabric import Fabric, Link, Node, Port
from chaos.radius import Count, Rank, radius
from faults.link_down import LinkDown
from faults.node_down import NodeDown


class Drawn:
    """A fabric as it is drawn: nodes by role, then cables; ports are numbered as they come."""

    def __init__(self, **roles):
        self.nodes = {name: role for role, names in roles.items() for name in names.split()}
        self.cables, self.ports = [], dict.fromkeys(self.nodes, 0)

    def join(self, a, b, times=1, **values):
        for _ in range(times):
            self.cables.append((self._port(a), self._port(b), values))
        return self

    def _port(self, node):
        self.ports[node] += 1
        return Port(node, f"eth{self.ports[node]}")

    def built(self, way):
        """The same fabric made in Python, or read from a topology file."""
        if way == "python":
            nodes = {name: Node(name, role=role) for name, role in self.nodes.items()}
            links = (Link(*sorted((a, b)), **values) for a, b, values in self.cables)
            return Fabric("drawn", nodes, tuple(links))
        lines = ["name: drawn", "topology:", "  nodes:"]
        for name, role in self.nodes.items():
            lines.append(f"    {name}: {{kind: linux, image: x, labels: {{role: {role}}}}}")
        lines.append("  links:")
        for a, b, values in self.cables:
            more = f", vars: {json.dumps(values['vars'])}" if "vars" in values else ""
            lines.append(f'    - {{endpoints: ["{a.id}", "{b.id}"]{more}}}')
        return lines


@pytest.fixture(params=["python", "file"])
def build(request, tmp_path):
    """Makes a drawn fabric, in Python or through a topology file."""

    def make(drawn):
        made = drawn.built(request.param)
        if isinstance(made, Fabric):
            return made
        path = tmp_path / "drawn.clab.yml"
        path.write_text("\n".join(made) + "\n")
        return topology.load(str(path))

    return make


def rails(hosts, leaves):
    """Every host has one port on every leaf; the leaves share nothing."""
    drawn = Drawn(
        leaf=" ".join(f"leaf{n}" for n in range(1, leaves + 1)),
        host=" ".join(f"host{n}" for n in range(1, hosts + 1)),
    )
    for host in range(1, hosts + 1):
        for leaf in range(1, leaves + 1):
            drawn.join(f"leaf{leaf}", f"host{host}")
    return drawn


def clos(**values):
    """clos-2x4x8 as drawn: 2 spines, 4 leaves, 8 hosts."""
    drawn = Drawn(
        spine="spine1 spine2",
        leaf="leaf1 leaf2 leaf3 leaf4",
        host=" ".join(f"host{n}" for n in range(1, 9)),
    )
    for leaf in range(1, 5):
        for spine in (1, 2):
            drawn.join(f"leaf{leaf}", f"spine{spine}", **values)
        for host in (2 * leaf - 1, 2 * leaf):
            drawn.join(f"leaf{leaf}", f"host{host}", **values)
    return drawn


def cut(fabric, *links):
    """Changes that take the carrier from these links."""
    return [change for name in links for change in LinkDown(name, "carrier").changes(fabric)]


def test_one_of_sixteen_host_ports_is_six_and_a_quarter_percent(build):
    """The published loss of one NIC port of a host with sixteen (HPN, SIGCOMM 2024)."""
    fabric = build(rails(hosts=4, leaves=16))

    found = radius(cut(fabric, "host2--leaf5"), fabric)

    assert found.worst_host == ("host2", Count(1, 16))
    assert found.host_ports["host2"].percent == 6.25
    assert "host ports      1 of 16 (6.25 %) at host2" in found.lines()
    assert not found.hosts_isolated


def test_one_of_eight_planes_on_a_nic_is_twelve_and_a_half_percent(build):
    """One 100G leg of an 800G NIC that is split over eight planes."""
    fabric = build(rails(hosts=4, leaves=8))

    found = radius(cut(fabric, "host1--leaf3"), fabric)

    assert found.host_ports["host1"].percent == 12.5
    assert (found.planes_left, found.planes_of, found.planes_at) == (7, 8, "host1")
    assert found.planes_lost == ()
    # two hosts a side, eight ports each: one of sixteen is gone
    assert found.bisection == (15, 16)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 18, 35, 36])
def test_36_minus_n_of_36_links_are_left(n, build):
    drawn = Drawn(leaf="leaf1 leaf2", host="host1 host2").join("leaf1", "leaf2", 36)
    drawn.join("leaf1", "host1", 36).join("leaf2", "host2", 36)
    fabric = build(drawn)
    members = [link.id for link in fabric.select_links("leaf1--leaf2")[:n]]

    found = radius(cut(fabric, *members), fabric)

    assert found.tiers["leaf--leaf"] == Count(n, 36)
    assert found.tiers["leaf--leaf"].left == found.bisection[0] == 36 - n
    assert found.bisection_left_percent == pytest.approx(100 * (36 - n) / 36)
    assert found.hosts_isolated == (("host1", "host2") if n == 36 else ())


@pytest.mark.parametrize(("uplinks", "percent"), [(32, 3.125), (256, 0.390625)])
def test_one_uplink_of_a_rack(uplinks, percent, build):
    """3 % of a rack on one 800G plane, 0.4 % where each link is split over eight planes."""
    drawn = Drawn(t0="t0", t1="t1", host="host1").join("t0", "t1", uplinks).join("t0", "host1")
    fabric = build(drawn)

    found = radius(cut(fabric, fabric.select_links("t0--t1")[0].id), fabric)

    assert found.tiers["t0--t1"].percent == percent
    assert found.bisection_left_percent is None  # one host has no halves


def test_a_spine_of_two_is_half_of_the_bisection(build):
    fabric = build(clos())

    found = radius(NodeDown("spine1").changes(fabric), fabric)

    assert found.links == Count(4, 16)
    assert found.tiers == {"leaf--spine": Count(4, 8), "host--leaf": Count(0, 8)}
    assert found.bisection_left_percent == 50
    assert (found.planes_left, found.planes_of) == (1, 1)
    assert not found.hosts_isolated


def test_a_leaf_that_falls_isolates_its_hosts_and_their_ranks(build):
    fabric = build(clos())
    ranks = [Rank(f"rank{n}", f"host{n + 1}", "eth1", "collective") for n in range(8)]

    found = radius(NodeDown("leaf4").changes(fabric), fabric, ranks)

    assert found.hosts_isolated == ("host7", "host8")
    assert found.ranks_lost == found.ranks_touched == ("rank6", "rank7")
    assert found.planes_left == 0
    assert "hosts isolated  2 of 8: host7, host8" in found.lines()


def test_speeds_weigh_where_every_link_has_one(build):
    """A 400G uplink among 100G ones counts four times."""
    drawn = Drawn(leaf="leaf1 leaf2", host="host1 host2")
    drawn.join("leaf1", "leaf2", vars={"speed": "400G"})
    drawn.join("leaf1", "leaf2", vars={"speed": "100 Gb/s"})
    for host, leaf in (("host1", "leaf1"), ("host2", "leaf2")):
        drawn.join(leaf, host, vars={"speed": "1.6T"})
    fabric = build(drawn)

    found = radius(cut(fabric, "leaf1:eth1"), fabric)

    assert (found.bisection, found.unit) == ((100, 500), "Gb/s")
    assert found.bisection_left_percent == 20
    assert not found.notes


def test_speeds_of_some_links_only_are_told_and_not_used(build):
    drawn = Drawn(leaf="leaf1", host="host1 host2")
    drawn.join("leaf1", "host1", vars={"speed": "400G"}).join("leaf1", "host2")
    fabric = build(drawn)

    found = radius((), fabric)

    assert found.unit == "links"
    assert found.notes[0].startswith("1 of 2 links have a speed, so every link counts the same;")
    assert "host2:eth1--leaf1:eth2" in found.notes[0]


def test_two_rails_are_two_planes_and_a_job_on_one_of_them_is_lost():
    """Hosts keep their other rail; a job that uses eth1 only does not."""
    fabric = topology.load("rails-2x4")
    ranks = [Rank(f"rank{n}", f"host{n + 1}", "eth1", "job") for n in range(4)]

    found = radius(NodeDown("leaf1").changes(fabric), fabric, ranks)

    assert len(found.planes) == 2
    assert (found.planes_left, found.planes_of, found.planes_lost) == (1, 2, ("leaf1",))
    assert found.bisection_left_percent == 50
    assert not found.hosts_isolated
    assert found.ranks_lost == ("rank0", "rank1", "rank2", "rank3")
    other = radius(NodeDown("leaf2").changes(fabric), fabric, ranks)
    assert (other.ranks_lost, other.ranks_touched) == ((), found.ranks_touched)


def test_a_host_never_passes_traffic_on():
    """host1 on rail 1 and host3 on rail 2 reach each other through no third host."""
    drawn = Drawn(leaf="leaf1 leaf2", host="host1 host2 host3")
    drawn.join("leaf1", "host1").join("leaf1", "host2").join("leaf2", "host2")
    drawn.join("leaf2", "host3").join("leaf1", "host3")
    fabric = drawn.built("python")

    found = radius(cut(fabric, "leaf1--host3"), fabric)

    # each of them lost one of two: exactly half, which is no isolation; nor did host2 lose any
    assert found.hosts_isolated == ()
    both = radius(cut(fabric, "leaf1--host3", "leaf2--host3"), fabric)
    assert both.hosts_isolated == ("host3",)


def test_one_direction_dropped_is_out_and_a_share_is_not():
    fabric = clos().built("python")
    place = Place("leaf1", "eth1", "wire")

    def drop(**values):
        return radius([PacketDrop(place, "railbreak_t", **values)], fabric)

    assert drop().links == Count(1, 16)
    for found in (drop(millionths=1000), drop(match="udp dport 4791")):
        assert (found.links.out, found.links_impaired) == (0, ("leaf1:eth1--spine1:eth1",))
        assert found.bisection_left_percent == 100
    both = [PacketDrop(place, "railbreak_t", "", 1000), LinkState(place)]
    assert radius(both, fabric).links_impaired == ()


def test_planes_left_names_the_host_that_lost_one():
    """A host that never had more than one plane is not the worse for it."""
    drawn = Drawn(leaf="leaf1 leaf2", host="host1 host2 host3").join("leaf1", "host1")
    for host in ("host2", "host3"):
        drawn.join("leaf1", host).join("leaf2", host)
    fabric = drawn.built("python")

    found = radius(cut(fabric, "leaf1--host3"), fabric)

    assert (found.planes_left, found.planes_of, found.planes_at) == (1, 2, "host3")
    assert "planes left     1 of 2 at host3" in found.lines()


@pytest.mark.parametrize(
    ("change", "touched", "lost", "links"),
    [
        (ProcessSignal(Place("host3", process="rank2")), ("rank2",), ("rank2",), 0),
        (ProcessSignal(Place("", process="rank2"), "KILL"), ("rank2",), ("rank2",), 0),
        (NodePower(Place("host3"), "pause"), ("rank2",), ("rank2",), 0),
        (NodePower(Place("host3"), "stop"), ("rank2",), ("rank2",), 1),
        (PacketDrop(Place("host3", "eth1"), "railbreak_t", "", 500), ("rank2",), (), 0),
    ],
    ids=["stop", "kill without a node yet", "pause", "power off", "loss"],
)
def test_what_a_rank_feels(change, touched, lost, links):
    fabric = clos().built("python")
    ranks = [Rank(f"rank{n}", f"host{n + 1}") for n in range(8)]

    found = radius([change], fabric, ranks)

    assert (found.ranks_touched, found.ranks_lost, found.links.out) == (touched, lost, links)


def test_a_session_shut_takes_its_cable():
    """By interface, or by the address of the neighbour."""
    fabric = topology.load("pair")
    by_port = radius([BgpNeighbour(Place("router1"), "eth2")], fabric)
    drawn = clos().built("python")
    same = {"eth1": ("9.9.9.9/31",)}  # leaf2 is no neighbour of spine1's eth1
    nodes = drawn.nodes | {
        "spine1": Node("spine1", role="spine", addresses=same),
        "leaf2": Node("leaf2", role="leaf", addresses=same),
    }
    by_address = radius([BgpNeighbour(Place("leaf1"), "9.9.9.9")], Fabric("f", nodes, drawn.links))

    assert by_port.links_out == ("host2:eth1--router1:eth2",)
    assert by_address.links_out == ("leaf1:eth1--spine1:eth1",)
    nowhere = radius([BgpNeighbour(Place("leaf1"), "9.9.9.8")], drawn)
    assert (nowhere.links_out, nowhere.nodes_touched) == ((), ("leaf1",))


def test_a_kind_of_change_may_say_what_it_takes():
    @dataclass(frozen=True)
    class Unplugged:
        place: Place
        takes_out: ClassVar[str] = "node"

    @dataclass(frozen=True)
    class Unknown:
        place: Place

    fabric = clos().built("python")

    assert radius([Unplugged(Place("leaf1"))], fabric).links == Count(4, 16)
    unknown = radius([Unknown(Place("leaf1"))], fabric)
    assert (unknown.links.out, len(unknown.links_impaired)) == (0, 4)


def test_a_dummy_is_no_cable_and_a_loop_joins_nothing():
    nodes = {name: Node(name, role=role) for name, role in
             (("host1", "host"), ("host2", "host"), ("leaf1", "leaf"))}  # fmt: skip
    links = (
        Link(Port("host1", "eth1"), Port("leaf1", "eth1")),
        Link(Port("host2", "eth1"), Port("leaf1", "eth2")),
        Link(Port("leaf1", "eth3"), Port("leaf1", "eth4")),
        Link(Port("host1", "eth9"), Port("", ""), kind="dummy"),
    )
    fabric = Fabric("odd", nodes, links)

    loop = radius([LinkState(Place("leaf1", "eth3"))], fabric)
    dummy = radius([LinkState(Place("host1", "eth9"))], fabric, [Rank("rank0", "host1")])

    assert loop.links == Count(1, 3)
    assert (loop.bisection_left_percent, loop.hosts_isolated) == (100, ())
    assert (dummy.links, dummy.nodes_touched) == (Count(0, 3), ("host1",))
    assert (dummy.ranks_touched, dummy.ranks_lost, dummy.host_ports) == (("rank0",), (), {})


def test_two_cables_between_the_same_nodes_are_two():
    drawn = Drawn(host="host1 host2").join("host1", "host2", 2)
    fabric = drawn.built("python")

    one, both = (
        radius([LinkState(Place("host1", f"eth{n + 1}")) for n in range(many)], fabric)
        for many in (1, 2)
    )

    assert (one.bisection_left_percent, one.hosts_isolated, one.planes_left) == (50, (), 1)
    assert (both.bisection_left_percent, both.planes_left) == (0, 0)
    assert both.hosts_isolated == ("host1", "host2")


def test_nodes_without_any_cable_break_nothing():
    fabric = Fabric("bare", {"host1": Node("host1"), "host2": Node("host2")})

    found = radius([NodePower(Place("host1"))], fabric)

    assert (found.links, found.hosts_isolated, found.planes_left) == (Count(0, 0), (), None)
    assert found.bisection_left_percent is None
    assert json.loads(json.dumps(found.as_json()))["bisection_left_percent"] is None


def drawn_at_random(rng):
    """A small fabric of any shape: hosts, switches, loops, dummies, cables side by side."""
    names = {f"host{n}": "host" for n in range(rng.randint(1, 6))}
    names |= {f"sw{n}": rng.choice(("leaf", "spine")) for n in range(rng.randint(0, 5))}
    ports, links = dict.fromkeys(names, 0), []
    for _ in range(rng.randint(0, 16)):
        ends = []
        for node in (rng.choice([*names]), rng.choice([*names])):
            ports[node] += 1
            ends.append(Port(node, f"eth{ports[node]}"))
        if rng.random() < 0.1:
            ends[1] = Port("", "")
        links.append(Link(*ends, kind="veth" if ends[1].node else "dummy"))
    return Fabric(
        "any", {name: Node(name, role=role) for name, role in names.items()}, tuple(links)
    )


def changes_at_random(rng, fabric):
    """Changes of every kind, in any order."""
    made = []
    for port in fabric.walk():
        place = Place.at(port, rng.choice(("node", "wire")))
        made.append(LinkState(place))
        made.append(PacketDrop(place, "railbreak_t", "", rng.choice((1000, 1_000_000))))
    made += [NodePower(Place(name), rng.choice(("stop", "pause"))) for name in fabric.nodes]
    made += [ProcessSignal(Place("", process=f"rank{n}")) for n in range(3)]
    rng.shuffle(made)
    return made


def sizes(found):
    """What must never shrink, and the shares left, negated."""
    return {
        "links": set(found.links_out),
        "links touched": {*found.links_out, *found.links_impaired},
        "nodes": set(found.nodes_touched),
        "isolated": set(found.hosts_isolated),
        "touched": set(found.ranks_touched),
        "lost": set(found.ranks_lost),
        "planes lost": set(found.planes_lost),
    }


def test_more_changes_never_make_it_smaller():
    """300 random fabrics, each with changes added one by one; no change at all is no radius."""
    rng, grown = random.Random(4), 0
    for _ in range(300):
        fabric = drawn_at_random(rng)
        ranks = [Rank(f"rank{n}", name) for n, name in enumerate([*fabric.nodes][:3])]
        changes = changes_at_random(rng, fabric)[: rng.randint(0, 9)]
        before = radius((), fabric, ranks)
        assert not any(sizes(before).values())
        assert before.bisection_left_percent in (None, 100)
        assert before.planes_left in (None, before.planes_of)
        for upto in range(1, len(changes) + 1):
            after = radius(changes[:upto], fabric, ranks)
            for name, found in sizes(before).items():
                assert found <= sizes(after)[name], name
            assert (after.planes_left or 0) <= (before.planes_left or 0)
            assert (after.bisection_left_percent or 0) <= (before.bisection_left_percent or 0)
            assert after.worst_host[1].percent >= before.worst_host[1].percent
            grown += sizes(after) != sizes(before)
            before = after
        assert radius(changes[::-1], fabric, ranks) == before
    assert grown > 250


def test_the_flow_is_the_smallest_cut():
    """Against every cut of small random graphs, one by one."""
    rng = random.Random(9)
    for _ in range(200):
        nodes = [f"n{at}" for at in range(rng.randint(2, 8))]
        cables = [
            (rng.choice(nodes), rng.choice(nodes), rng.randint(1, 5))
            for _ in range(rng.randint(0, 14))
        ]
        cuts = []
        for picked in range(2 ** (len(nodes) - 2)):
            side = {nodes[0]} | {n for at, n in enumerate(nodes[2:]) if picked >> at & 1}
            cuts.append(sum(c for a, b, c in cables if (a in side) != (b in side)))
        assert max_flow(cables, frozenset(nodes[:1]), frozenset(nodes[1:2])) == min(cuts)


def test_a_flow_sent_the_wrong_way_is_taken_back():
    """The shortest way, s a b t, is taken first; the most needs the cable a-b the other way."""
    cables = [("s", "a", 1), ("a", "b", 1), ("b", "t", 1), ("s", "c", 2), ("c", "d", 2)]
    cables += [("d", "b", 2), ("a", "e", 2), ("e", "f", 2), ("f", "t", 2)]

    assert max_flow(cables, frozenset("s"), frozenset("t")) == 3


def test_the_halves_are_what_they_are_said_to_be():
    ways = halves(["h1", "h2", "h3", "h4", "h5"])

    assert [(sorted(a), sorted(b)) for a, b in ways] == [
        (["h1", "h2"], ["h3", "h4", "h5"]),
        (["h1", "h3", "h5"], ["h2", "h4"]),
    ]
    assert halves(["h1"]) == ()


def test_text_and_json_say_the_same():
    fabric = clos().built("python")
    found = radius(NodeDown("leaf4").changes(fabric), fabric)
    data = json.loads(json.dumps(found.as_json()))

    assert data["links"] == {"out": 4, "of": 16, "left": 12, "percent": 25.0}
    assert data["tiers"]["leaf--spine"]["left"] == 6
    assert data["hosts_isolated"] == ["host7", "host8"]
    assert data["bisection"] == {"left": 2.0, "of": 4.0, "unit": "links"}
    assert found.lines() == (
        "links out       4 of 16 (25 %): leaf4:eth1--spine1:eth4, leaf4:eth2--spine2:eth4, "
        "host7:eth1--leaf4:eth3, host8:eth1--leaf4:eth4",
        "  leaf--spine   2 of 8 (25 %), 6 left",
        "  host--leaf    2 of 8 (25 %), 6 left",
        "host ports      1 of 1 (100 %) at host7",
        "hosts isolated  2 of 8: host7, host8",
        "planes left     0 of 1 at host7",
        "bisection left  50 % (2 of 4 links)",
    )
