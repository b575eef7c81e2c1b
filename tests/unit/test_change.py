"""Changes as values: what they refuse, and what their commands say."""

import pytest

from chaos.change import (
    KINDS,
    BgpClear,
    BgpNeighbour,
    BgpWithdraw,
    DaemonState,
    DeviceGone,
    Hits,
    LinkState,
    Load,
    NodePower,
    OwnRoute,
    PacketDrop,
    PacketRule,
    PauseStorm,
    Place,
    PortMtu,
    PortShape,
    ProcessRestart,
    ProcessSignal,
    Setting,
    Steps,
    Where,
    WireTo,
    aimed,
    from_json,
    identity,
    table_name,
    to_json,
)
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.packets import Rule

PORT = Place("leaf1", "eth1")
WIRE = Place("leaf1", "eth1", "wire")
ONE_OF_EACH = (
    LinkState(PORT),
    PacketDrop(WIRE, "railbreak_x", "udp dport 4791", 5_000, 3),
    PacketRule(
        WIRE,
        "railbreak_y",
        Rule.parse({"select": {"source": "10.0.0.0/8", "opcode": ["nak", 6]}, "when": "psn=5,7"}),
    ),
    ProcessSignal(Place("host1", process="rank0"), "KILL"),
    BgpNeighbour(Place("leaf1"), "eth1"),
    NodePower(Place("spine1"), "pause"),
    OwnRoute(Place("spine1"), "10.0.8.0/31"),
    Setting(PORT, "net.ipv4.conf.{port}.forwarding", "0"),
    BgpWithdraw(Place("leaf1"), "10.0.8.0/31", "eth1"),
    BgpClear(Place("leaf1"), "eth1", "out"),
    DaemonState(Place("leaf1"), "bgpd", "freeze"),
    PortMtu(PORT, 1400),
    PortShape(WIRE, 10_000_000, 32_768, 65_536),
    Load(Place("host1"), "railbreak_x", "udp", 2, 0, "10.0.8.1", 9, 1400, 50_000_000),
    WireTo(WIRE, "railbreak_z", "spine2:eth1"),
    ProcessRestart(Place("host1", process="rank0")),
    DeviceGone(PORT, "remove", ("eth2", "eth3")),
    PauseStorm(PORT, "railbreak_p", "spine1:eth1", (3, 4), 10**11, 2 * 10**9),
)
FABRIC = Fabric(
    "f",
    {name: Node(name) for name in ("leaf1", "spine1", "loop")},
    (
        Link(Port("leaf1", "eth1"), Port("spine1", "eth1")),
        Link(Port("loop", "a"), Port("loop", "b")),
    ),
)


def test_the_table_misses_no_kind():
    assert {type(change) for change in ONE_OF_EACH} == set(KINDS.values())


@pytest.mark.parametrize("change", ONE_OF_EACH, ids=lambda change: change.kind)
def test_a_change_survives_being_written_down(change):
    assert from_json(to_json(change)) == change


def test_fields_of_a_newer_version_are_passed_over_and_unknown_kinds_are_not():
    data = to_json(LinkState(PORT)) | {"colour": "red"}
    assert from_json(data) == LinkState(PORT)
    with pytest.raises(SpecError, match=r"no change of kind 'flood'; known: link_state"):
        from_json(data | {"kind": "flood"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (LinkState(PORT), LinkState(PORT), True),
        (LinkState(PORT), LinkState(WIRE), False),
        (PacketDrop(WIRE, "railbreak_x"), PacketDrop(WIRE, "railbreak_x", "tcp"), True),
        (PacketDrop(WIRE, "railbreak_x"), PacketDrop(WIRE, "railbreak_y"), False),
    ],
)
def test_identity_is_what_an_undo_can_tell_apart(one, other, same):
    assert (identity(one) == identity(other)) is same


# ---- packet drops -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["x", "railbreak_a b", "railbreak_a;flush", "railbreak_a-b"])
def test_a_table_must_carry_our_name_and_nothing_else(table):
    with pytest.raises(SpecError, match=r"identifier after railbreak_"):
        PacketDrop(WIRE, table)


@pytest.mark.parametrize(
    ("millionths", "sentence"),
    [
        (0, r"1 to 1000000 millionths, got 0"),
        (1_000_001, r"1 to 1000000 millionths"),
        (5_001, r"above 0\.5 % must be a multiple of 0\.01 %, got 0\.5001 %"),
    ],
)
def test_a_share_that_no_pattern_can_have_is_refused(millionths, sentence):
    with pytest.raises(SpecError, match=sentence):
        PacketDrop(WIRE, "railbreak_x", "", millionths)


@pytest.mark.parametrize("millionths", [1, 999, 5_000, 5_100, 10_000, 500_000, 999_900])
def test_a_pattern_loses_exactly_the_asked_share(millionths):
    period, lost = PacketDrop(WIRE, "railbreak_x", "", millionths, 1).pattern()
    assert len(lost) * 1_000_000 == millionths * period
    assert len(set(lost)) == len(lost)
    assert all(0 <= ordinal < period for ordinal in lost)


def test_a_pattern_belongs_to_its_seed():
    patterns = [PacketDrop(WIRE, "railbreak_x", "", 10_000, seed).pattern() for seed in (1, 1, 2)]
    assert patterns[0] == patterns[1]
    assert patterns[0] != patterns[2]


def test_losing_everything_needs_no_pattern():
    assert "numgen" not in PacketDrop(WIRE, "railbreak_x").ruleset("eth1")
    assert "numgen inc mod 10000 {" in PacketDrop(WIRE, "railbreak_x", "", 10_000).ruleset("eth1")


# ---- commands -----------------------------------------------------------------------------------

UP = "2: eth1@if7: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 9500 state UP mode DEFAULT"
DARK = "2: eth1@if7: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 9500 state DOWN mode DEFAULT"
DOWN = "2: eth1@if7: <BROADCAST,MULTICAST> mtu 9500 state DOWN mode DEFAULT"


@pytest.mark.parametrize(("looked", "in_force"), [(UP, False), (DARK, False), (DOWN, True)])
def test_no_carrier_is_not_taken_for_admin_down(looked, in_force):
    assert LinkState(PORT).steps(Where(ifname="eth1")).holds(looked) is in_force


def test_what_the_kernel_dropped_is_put_back_after_the_link_is_up():
    back = (("ip", "route", "append", "10.9.0.0/16", "dev", "eth1"),)
    steps = LinkState(PORT).steps(Where(ifname="eth1"), {"commands": back})
    assert steps.undo == (("ip", "link", "set", "dev", "eth1", "up"), *back)


@pytest.mark.parametrize(
    ("signal", "looked", "in_force"),
    [
        ("STOP", "      1 Ss\n    345 Tl\n", True),
        ("STOP", "      1 Ss\n    345 Sl\n", False),
        ("KILL", "      1 Ss\n    345 Sl\n", False),
        ("KILL", "      1 Ss\n", True),
    ],
)
def test_a_process_is_read_from_a_list_that_is_never_empty(signal, looked, in_force):
    change = ProcessSignal(Place("host1", process="rank0"), signal)
    assert change.steps(Where(pid=345)).holds(looked) is in_force


def test_a_drop_is_read_by_its_whole_name():
    steps = PacketDrop(WIRE, "railbreak_x").steps(Where(ifname="eth1"))
    assert steps.holds("table netdev railbreak_x\n")
    assert not steps.holds("table netdev railbreak_xy\n")


def test_hits_that_cannot_be_counted_are_absent_not_zero():
    assert Hits(None, None) != Hits(0, 0)
    assert Steps((), (), look=()).tally == ()


# ---- aiming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "ports"),
    [
        ("both", ("leaf1:eth1", "spine1:eth1")),
        ("spine1", ("spine1:eth1",)),
        ("leaf1:eth1", ("leaf1:eth1",)),
    ],
)
def test_an_end_is_a_node_a_port_or_both(end, ports):
    _, found = aimed(FABRIC, "leaf1--spine1", end)
    assert tuple(port.id for port in found) == ports


def test_a_cable_from_a_node_to_itself_has_two_ends():
    _, found = aimed(FABRIC, "loop:a--loop:b", "loop:b")
    assert [port.id for port in found] == ["loop:b"]


def test_a_wrong_end_is_told_the_right_ones():
    with pytest.raises(SpecError, match=r"no end 'spine2'; did you mean spine1\?"):
        aimed(FABRIC, "leaf1--spine1", "spine2")


def test_table_names_differ_by_fault_place_and_value():
    names = {
        table_name(fault, place, value)
        for fault in ("loss", "down")
        for place in (PORT, WIRE, Place("leaf-1", "eth1"))
        for value in (1, 2)
    }
    assert len(names) == 12
    assert all(name.isidentifier() and len(name) < 128 for name in names)
