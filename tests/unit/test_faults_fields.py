"""Fields of the faults: nonsense is refused with what would be right, sense becomes a plan."""

import random

import pytest

from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.registry import FAULTS, build, load
from chaos.units import Duration, Hertz, Percent
from faults.link_down import LinkDown
from faults.link_flap import LinkFlap
from faults.node_down import NodeDown
from faults.packet_loss import PacketLoss

CABLE = "leaf1:eth1--spine1:eth1"
FABRIC = Fabric(
    "f",
    {name: Node(name) for name in ("leaf1", "leaf2", "spine1", "lonely")},
    (
        Link(Port("leaf1", "eth1"), Port("spine1", "eth1")),
        Link(Port("leaf2", "eth1"), Port("spine1", "eth2")),
        Link(Port("lonely", "eth1"), Port("", ""), kind="dummy"),
    ),
)


def told(fault):
    return [change.describe() for change in fault.changes(FABRIC)]


@pytest.mark.parametrize(
    ("mode", "end", "changes"),
    [
        ("carrier", "both", ["leaf1:eth1~wire: no carrier", "spine1:eth1~wire: no carrier"]),
        ("carrier", "spine1", ["spine1:eth1~wire: no carrier"]),
        ("admin", "leaf1", ["leaf1:eth1: admin down", "spine1:eth1~wire: no carrier"]),
        ("admin", "both", ["leaf1:eth1: admin down", "spine1:eth1: admin down"]),
        ("silent", "leaf1", ["leaf1:eth1~wire: drop everything at ingress"]),
        (
            "silent",
            "both",
            [
                "leaf1:eth1~wire: drop everything at ingress",
                "spine1:eth1~wire: drop everything at ingress",
            ],
        ),
    ],
)
def test_what_link_down_touches(mode, end, changes):
    assert told(LinkDown("leaf1--spine1", mode, end)) == changes


def test_node_down_cuts_its_own_ends_first():
    assert [one.place.node for one in NodeDown("spine1").changes(FABRIC)] == [
        "spine1",
        "spine1",
        "leaf1",
        "leaf2",
    ]


def test_each_direction_has_its_own_pattern_and_table():
    one, other = PacketLoss(CABLE, share=Percent(1)).changes(FABRIC)
    assert one.table != other.table
    assert one.pattern() != other.pattern()


def test_two_losses_on_one_link_have_their_own_tables():
    tables = {
        PacketLoss(CABLE, share=Percent(1), match=match).changes(FABRIC)[0].table
        for match in ("ip saddr 10.0.0.1", "ip saddr 10.0.0.2")
    }
    assert len(tables) == 2


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("link_down", {"link": CABLE, "mode": "admn"}, r"no mode 'admn'; did you mean admin\?"),
        ("link_down", {}, r"link_down needs link"),
        ("link_flap", {"link": CABLE}, r"either down and up, or frequency"),
        ("link_flap", {"link": CABLE, "down": "1 s"}, r"either down and up, or frequency"),
        (
            "link_flap",
            {"link": CABLE, "down": "1 s", "up": "1 s", "frequency": "1 Hz"},
            r"either down and up, or frequency",
        ),
        ("link_flap", {"link": CABLE, "frequency": "101 Hz"}, r"at most 100 turns per second"),
        ("link_flap", {"link": CABLE, "down": "4 ms", "up": "5 ms"}, r"at most 100 turns"),
        ("link_flap", {"link": CABLE, "down": "1 s", "up": "0"}, r"each with time down and up"),
        ("link_flap", {"link": CABLE, "frequency": "1 Hz", "count": -1}, r"count must be 0"),
        (
            "link_flap",
            {"link": CABLE, "frequency": "1 Hz", "jitter": "100 %"},
            r"jitter must be below 100 %",
        ),
        ("packet_loss", {"link": CABLE, "share": "0 %"}, r"at least 0\.0001 %"),
        ("packet_loss", {"link": CABLE, "share": "0.5001 %"}, r"multiple of 0\.01 %"),
        (
            "packet_loss",
            {"link": CABLE, "share": "1 %", "match": "tcp; flush ruleset"},
            r"one nftables expression without braces",
        ),
        (
            "packet_loss",
            {"link": CABLE, "share": "1 %", "match": "tcp\ndrop"},
            r"one nftables expression without braces",
        ),
        ("rank_kill", {"rank": -1}, r"counted from 0"),
        ("rank_restart", {"rank": -1}, r"counted from 0, got -1"),
        ("rank_stop", {"rank": "2"}, r"whole number"),
    ],
)
def test_nonsense_is_refused_with_what_would_be_right(name, values, sentence):
    load()
    with pytest.raises(SpecError, match=sentence):
        build(FAULTS, "fault", name, values)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (LinkDown("lonely:eth1"), r"one end only"),
        (LinkDown(CABLE, end="leaf2"), r"no end 'leaf2'"),
        (LinkDown("leaf9--spine1"), r"no link 'leaf9--spine1'"),
        (NodeDown("lonely"), r"has no links"),
        (NodeDown("spine9"), r"no node 'spine9' .*did you mean spine1"),
        (NodeDown("in-use spine"), r"known only on a running fabric"),
    ],
)
def test_what_is_not_in_the_fabric_is_refused(fault, sentence):
    with pytest.raises(SpecError, match=sentence):
        fault.changes(FABRIC)


# ---- flaps --------------------------------------------------------------------------------------


def spans(flap, storm="1 s", seed=1):
    made = flap.schedule(Duration.parse(storm), random.Random(seed))
    return [(one.start_ns // 10**6, one.end_ns // 10**6) for one in made]


def test_a_flap_fills_the_storm_and_ends_up():
    flap = LinkFlap(CABLE, down=Duration.parse("200 ms"), up=Duration.parse("300 ms"))
    assert spans(flap) == [(0, 200), (500, 700)]


def test_a_count_that_does_not_fit_is_refused():
    flap = LinkFlap(CABLE, frequency=Hertz(2), count=8)
    assert len(spans(flap, "4 s")) == 8
    with pytest.raises(SpecError, match=r"8 turns of 500 ms do not fit into 3 s; 6 do"):
        spans(flap, "3 s")
    with pytest.raises(SpecError, match=r"1 turns of 500 ms do not fit"):
        spans(LinkFlap(CABLE, frequency=Hertz(2)), "100 ms")


def test_a_hundred_hertz_is_a_hundred_turns():
    assert len(spans(LinkFlap(CABLE, frequency=Hertz(100)))) == 100


def test_jitter_is_seeded_and_bounded():
    flap = LinkFlap(CABLE, frequency=Hertz(10), jitter=Percent(20))
    made = [flap.schedule(Duration.parse("5 s"), random.Random(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0] != made[2]
    lengths = [one.end_ns - one.start_ns for one in made[0]]
    assert all(40 * 10**6 <= length <= 60 * 10**6 for length in lengths)
    assert max(lengths) - min(lengths) > 5 * 10**6
