"""Declared cabling against LLDP: recorded outputs of lldpd 1.0.16 in a fabric, and made-up ones."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from chaos import topology
from chaos.errors import SpecError
from chaos.fabric import Port
from chaos.inventory import (
    Cable,
    Host,
    Inventory,
    compare,
    load,
    of_fabric,
    read_heard,
    read_neighbours,
    verify,
)

DATA = Path(__file__).parents[1] / "data" / "inventory" / "lldp"
RAILS = of_fabric(topology.load("rails-2x4"))


def recorded(name):
    return read_heard(DATA / name, RAILS.hosts)


def kinds(outcome):
    return [(one.kind, one.counts) for one in outcome.differences]


@pytest.mark.parametrize("name", ["rails", "rails-ifname"], ids=["id is a MAC", "id is ifname"])
def test_a_fabric_that_is_plugged_as_declared(name):
    outcome = compare(RAILS, recorded(name))

    assert outcome.differences == ()
    assert (outcome.declared, outcome.confirmed, outcome.complete) == (8, 8, True)


def test_two_recorded_cables_that_were_exchanged_are_one_swap():
    outcome = compare(RAILS, recorded("rails-swapped"))

    assert [one.sentence for one in outcome.differences] == [
        "swapped: two cables are exchanged: host1:eth1--leaf1:eth1 and host2:eth1--leaf1:eth2 are "
        "declared, host1:eth1--leaf1:eth2 and host2:eth1--leaf1:eth1 are plugged; exchange the "
        "plugs at leaf1:eth1 and leaf1:eth2"
    ]
    assert outcome.confirmed == 6
    assert outcome.differs
    assert any("leaf1.json" in source for source in outcome.differences[0].sources)


def without(heard, host, interface=None):
    """What is left when a host, or one interface of it, hears nothing."""
    words = tuple(one for one in heard[host] if interface and one.interface != interface)
    return {**heard, host: words}


def test_a_cable_that_neither_end_hears_is_missing():
    heard = without(without(recorded("rails"), "host1", "eth1"), "leaf1", "eth1")
    outcome = compare(RAILS, heard)

    assert [one.sentence for one in outcome.differences] == [
        "missing: host1:eth1--leaf1:eth1 is declared, but host1:eth1 and leaf1:eth1 hear no "
        "neighbour"
    ]


def test_the_word_of_one_end_is_enough_with_a_warning():
    outcome = compare(RAILS, without(recorded("rails"), "host1", "eth1"))

    assert kinds(outcome) == [("one-sided", False)]
    assert "only leaf1:eth1 hears host1:eth1--leaf1:eth1; host1:eth1 hears no neighbour" in (
        outcome.differences[0].sentence
    )
    assert (outcome.differs, outcome.complete, outcome.confirmed) == (False, True, 8)


def test_hosts_that_were_not_asked_are_told_with_the_reason():
    heard = recorded("rails")
    only = {"host1": heard["host1"]}
    outcome = compare(RAILS, only, {"leaf1": "no lldpd"})

    assert (outcome.differs, outcome.complete, outcome.unverified) == (False, False, 6)
    assert any("leaf1 was not asked: no lldpd" in one.sentence for one in outcome.differences)


def test_who_does_not_speak_is_not_missed():
    """b runs no lldpd, so a cannot hear it: nothing is known of the cable."""
    declared = Inventory("x", {n: Host(n, n) for n in "ab"}, (cable("a:1--b:1"),))

    outcome = compare(declared, {"a": ()}, {"b": "no lldpd"})
    assert (kinds(outcome), outcome.complete) == ([("unverified", False)], False)
    outcome = compare(declared, {"a": ()})
    assert [one.sentence for one in outcome.differences] == [
        "missing: a:1--b:1 is declared, but a:1 hears no neighbour; b was not asked"
    ]


def test_nothing_declared_is_no_success():
    outcome = compare(replace(RAILS, cables=()), recorded("rails"))

    assert not outcome.complete
    assert {one.kind for one in outcome.differences} == {"unexpected"}
    assert len(outcome.differences) == 8


# ---- made-up cables ------------------------------------------------------------------------------


def cable(text, **more):
    one, other = (Port(*end.split(":")) for end in text.split("--"))
    return Cable.between(one, other, **more)


def output(host, *words):
    """An output of json0 with the given neighbours: (interface, chassis, port id, type, descr)."""
    interfaces = []
    for interface, chassis, told, kind, descr, *speed in words:
        port = {"id": [{"type": kind, "value": told}], "ttl": [{"value": "120"}]}
        if descr:
            port["descr"] = [{"value": descr}]
        if speed:
            port["auto-negotiation"] = [{"current": [{"value": speed[0]}]}]
        name = [{"value": chassis}]
        chassis_ = {"id": [{"type": "mac", "value": "02:00:00:00:00:01"}], "name": name}
        interfaces.append({"name": interface, "chassis": [chassis_], "port": [port]})
    return read_neighbours(json.dumps({"lldp": [{"interface": interfaces}]}), host, f"{host}.json")


def hear(*cables):
    """Outputs of hosts that are plugged as given."""
    words = {}
    for text in cables:
        one, other = (end.split(":") for end in text.split("--"))
        words.setdefault(one[0], []).append((one[1], other[0], other[1], "ifname", ""))
        words.setdefault(other[0], []).append((other[1], one[0], one[1], "ifname", ""))
    return {host: output(host, *each) for host, each in words.items()}


def test_three_cables_that_went_round_are_told_one_by_one():
    declared = [cable(f"a:{n}--b:{n}") for n in "123"]
    found = verify(declared, hear("a:1--b:2", "a:2--b:3", "a:3--b:1"))

    assert [one.kind for one in found] == ["moved"] * 3
    assert found[0].sentence == (
        "moved: a:1 is declared to reach b:1 and b:2 is declared to reach a:2, but a:1--b:2 is "
        "plugged"
    )


def test_a_swap_across_four_boxes():
    declared = [cable("a:1--c:1"), cable("b:1--d:1")]

    for real in (("a:1--d:1", "b:1--c:1"), ("a:1--b:1", "c:1--d:1")):
        found = verify(declared, hear(*real))
        assert [one.kind for one in found] == ["swapped"]


@pytest.mark.parametrize(
    ("declared", "real", "cure"),
    [
        (("x:1--b:1", "x:2--c:1"), ("x:1--c:1", "x:2--b:1"), "x:1 and x:2"),
        (("b:1--x:1", "c:1--x:2"), ("b:1--x:2", "c:1--x:1"), "x:1 and x:2"),
        (("a:1--x:1", "x:2--z:1"), ("a:1--x:2", "x:1--z:1"), "x:1 and x:2"),
        (("a:1--x:1", "a:2--y:1"), ("a:1--y:1", "a:2--x:1"), "a:1 and a:2"),
    ],
)
def test_the_plugs_to_exchange_are_at_one_box_where_there_is_one(declared, real, cure):
    (found,) = verify([cable(one) for one in declared], hear(*real))

    assert found.sentence.endswith(f"; exchange the plugs at {cure}")


@pytest.mark.parametrize(
    ("declared", "real", "told"),
    [
        (["a:1--b:1"], ["a:1--b:1", "a:2--c:1"], ["unexpected"]),
        (["a:1--b:1"], ["a:1--b:2"], ["moved"]),
        (["a:1--b:1", "c:1--d:1"], ["c:1--d:1", "a:9--b:9"], ["unexpected", "missing"]),
        (["a:1--b:1"], ["a:1--b:1", "a:eth0--b:eth0"], []),
        (["a:eth0--b:eth0"], ["a:eth0--c:eth0"], ["moved"]),
    ],
    ids=["one more", "another port", "elsewhere", "management", "declared management"],
)
def test_what_differs(declared, real, told):
    heard = hear(*real)
    for name in "abcd":
        heard.setdefault(name, ())

    assert [one.kind for one in verify([cable(one) for one in declared], heard)] == told


def test_a_neighbour_that_is_no_host():
    heard = {"a": output("a", ("1", "printer.example", "p1", "ifname", "")), "b": ()}
    (found,) = verify([cable("a:1--b:1")], heard)

    assert found.sentence == (
        "unknown-neighbour: a:1 is declared to reach b:1, but hears 'printer.example' p1, which is "
        "no host of the inventory"
    )
    assert found.counts


def test_a_neighbour_that_is_no_host_beside_the_declared_one_is_a_warning():
    heard = hear("a:1--b:1")
    heard["a"] += output("a", ("1", "printer", "p1", "ifname", ""))
    (found,) = verify([cable("a:1--b:1")], heard)

    assert (found.kind, found.counts) == ("unknown-neighbour", False)


def test_speeds_are_compared_where_both_are_known():
    words = ("1", "b", "1", "ifname", "", "100GbaseCR4 - 100Gb PHY")
    heard = {"a": output("a", words), "b": output("b", ("1", "a", "1", "ifname", ""))}

    assert verify([cable("a:1--b:1", speed_mbps=100000)], heard) == []
    assert verify([cable("a:1--b:1")], heard) == []
    (found,) = verify([cable("a:1--b:1", speed_mbps=400000)], heard)
    assert found.sentence == (
        "wrong-speed: a:1--b:1 is declared with 400000 Mbit/s, but runs at 100000 Mbit/s"
    )


@pytest.mark.parametrize(
    ("text", "speed"),
    [
        ("1000BaseTFD - Four-pair Category 5 UTP, full duplex mode", 1000),
        ("10GigBaseCX4 - X copper over 8 pair 100-Ohm balanced cable", 10_000),
        ("40GbaseCR4", 40_000),
        ("unknown", 0),
        ("", 0),
    ],
)
def test_speeds_as_lldpd_names_the_medium(text, speed):
    (one,) = output("a", ("1", "b", "1", "ifname", "", text))

    assert one.speed_mbps == speed


@pytest.mark.parametrize(
    ("told", "kind", "descr", "named"),
    [
        ("Ethernet8", "ifname", "to a, rack 7", "Ethernet8"),
        ("02:00:00:00:00:05", "mac", "Ethernet8", "Ethernet8"),
        ("etp3", "local", "Ethernet8", "Ethernet8"),
        ("Ethernet8", "local", "", "Ethernet8"),
        ("Ethernet8", "local", "to a, rack 7", "Ethernet8"),
        ("eth3", "ifname", "", "Ethernet8"),
    ],
    ids=["ifname", "mac", "local alias", "local alone", "local, free text", "the twin's name"],
)
def test_ports_as_platforms_tell_them(told, kind, descr, named):
    hosts = {"a": Host("a", "a"), "b": Host("b", "b", ports={"eth3": "Ethernet8"})}
    heard = {"a": output("a", ("1", "b", told, kind, descr))}
    found = verify([cable("a:1--b:Ethernet8")], heard, hosts)

    assert [one.kind for one in found] == ["one-sided"]
    assert f"a:1--b:{named}" in found[0].sentence


def test_an_undeclared_port_is_told_by_its_name_and_not_by_its_description():
    heard = {"a": output("a", ("2", "b", "Ethernet9", "ifname", "to a, rack 7")), "b": ()}

    assert [one.found for one in verify([], heard)] == ["a:2--b:Ethernet9"]


def test_a_port_told_by_its_mac_alone_is_named_by_the_other_end():
    heard = {
        "a": output("a", ("1", "b", "02:00:00:00:00:05", "mac", "")),
        "b": output("b", ("7", "a", "1", "ifname", "")),
    }

    assert verify([cable("a:1--b:7")], heard) == []
    assert [one.kind for one in verify([cable("a:1--b:8")], heard)] == ["moved"]


def test_a_port_told_by_its_mac_alone_is_named_by_the_declared_mac():
    heard = {"a": output("a", ("1", "b", "02-00-00-00-00-0A", "mac", ""))}
    declared = cable("a:1--b:7", macs=("", "02:00:00:00:00:0a"))

    assert [one.kind for one in verify([declared], heard)] == ["one-sided"]


def test_a_port_that_nobody_names_is_enough_for_the_declared_host():
    heard = {"a": output("a", ("1", "b", "02:00:00:00:00:05", "mac", ""))}

    (right,) = verify([cable("a:1--b:7")], heard)
    assert (right.kind, right.counts) == ("unnamed-port", False)
    (wrong,) = verify([cable("a:1--c:7")], {**heard, "b": ()})
    assert wrong.sentence == "moved: a:1 is declared to reach c:7, but reaches b"


@pytest.mark.parametrize(
    ("chassis", "known"),
    [
        ("leaf1", True),
        ("LEAF1.lab.example.com", True),
        ("sw-0815", True),
        ("sw-0815.lab", True),
        ("clab-x-leaf1", True),
        ("leaf10", False),
        ("", False),
    ],
)
def test_names_of_boxes(chassis, known):
    leaf = Host("leaf1.dc1", "leaf1", hardware="sw-0815", vars={"longname": "clab-x-leaf1"})
    hosts = {"a": Host("a", "a"), "leaf1.dc1": leaf}
    heard = {"a": output("a", ("1", chassis, "1", "ifname", ""))}
    found = verify([Cable(Port("a", "1"), Port("leaf1.dc1", "1"))], heard, hosts)

    assert [one.kind for one in found] == (["one-sided"] if known else ["unknown-neighbour"])


def test_one_file_may_hold_every_output(tmp_path):
    every = {path.stem: json.loads(path.read_text()) for path in (DATA / "rails").iterdir()}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(every))

    assert compare(RAILS, read_heard(path, RAILS.hosts)).confirmed == 8


def test_lldp_is_a_source_of_cables_too(tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text("all:\n  hosts:\n" + "".join(f"    {name}: \n" for name in RAILS.hosts))
    hosts = load(path, tool="").hosts
    heard = read_heard(DATA / "rails", hosts)

    found = load(path, heard=heard, tool="")
    assert {str(one) for one in found.cables} == {str(one) for one in RAILS.cables}
    assert found.warnings == ()
    assert all(source.line for one in found.cables for source in one.sources)

    found = load(path, heard=without(heard, "host1"), tool="")
    assert len(found.cables) == 8
    assert "only leaf1:eth1 hears it; host1:eth1 hears nothing of it" in found.warnings[0]


def test_lldp_that_contradicts_a_table_is_refused_with_both_places(tmp_path):
    path, table = tmp_path / "hosts.yml", tmp_path / "l.csv"
    path.write_text("all:\n  hosts:\n" + "".join(f"    {name}: \n" for name in RAILS.hosts))
    table.write_text("StartDevice,StartPort,EndDevice,EndPort\nleaf1,eth1,host2,eth1\n")
    heard = read_heard(DATA / "rails", load(path, tool="").hosts)

    with pytest.raises(SpecError, match=r"host1.json:\d+: found the cable .*l.csv:2 has"):
        load(path, [table], heard=heard, tool="")


def test_a_difference_that_is_planted_anywhere_is_found():
    """Every pair of the eight cables, exchanged, is one swap of those two."""
    for first in range(8):
        for second in range(first + 1, 8):
            real = [str(one) for one in RAILS.cables]
            one, other = RAILS.cables[first], RAILS.cables[second]
            real[first], real[second] = f"{one.a}--{other.b}", f"{other.a}--{one.b}"
            heard = hear(*real)
            (found,) = compare(RAILS, heard).differences
            assert (found.kind, set(found.where)) == ("swapped", {*one.ends, *other.ends})
