"""Where changes are made on machines, and what is refused; no machine needed."""

import pytest

from chaos.change import BgpNeighbour, LinkState, NodePower, PacketDrop, Place
from chaos.drivers.ssh.places import moved, refusal, target_of
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port

SSH = {"address": "10.0.0.1"}
RDMA = {"address": "10.0.0.2", "rdma": {"eth1": ["mlx5_0"]}}


def fabric(**more):
    nodes = {
        "h1": Node("h1", settings={"ssh": SSH}),
        "gpu": Node("gpu", settings={"ssh": RDMA}),
        "r1": Node("r1", role="leaf", settings={"ssh": SSH}),
        "sw": Node("sw", role="leaf", settings={"ssh": {**SSH, "platform": "arista.eos.eos"}}),
        "patch": Node("patch", role="leaf"),
        **more,
    }
    links = [("h1:eth1", "r1:eth1"), ("gpu:eth1", "r1:eth2"), ("gpu:eth2", "patch:eth1")]
    links += [("h1:eth2", "sw:Ethernet1")]
    return Fabric(
        "f", nodes, tuple(Link(Port(*a.split(":")), Port(*b.split(":"))) for a, b in links)
    )


def drop(node, port, match="", side="node"):
    return PacketDrop(Place(node, port, side), "railbreak_t", match)


def test_a_drop_on_the_wire_is_made_at_the_other_end():
    plan = moved([drop("h1", "eth1", side="wire")], fabric())

    assert plan.changes == (drop("r1", "eth1"),)
    assert plan.index == (0,)
    assert "made as r1:eth1: drop everything" in plan.notes[0]


def test_admin_down_and_the_carrier_it_takes_are_one_change():
    asked = [LinkState(Place("h1", "eth1")), LinkState(Place("r1", "eth1", "wire"))]

    plan = moved(asked, fabric())

    assert plan.changes == (LinkState(Place("h1", "eth1")),)
    assert plan.index == (0, 0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_carriers_are_taken_by_the_routers_end(order):
    """The host then sees what a pulled cable shows: no carrier, not set down."""
    ends = [LinkState(Place("h1", "eth1", "wire")), LinkState(Place("r1", "eth1", "wire"))]

    plan = moved([ends[at] for at in order], fabric())

    assert plan.changes == (LinkState(Place("r1", "eth1")),)
    assert plan.index == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("gpu", "eth1"), ("mlx5_0", "past the kernel", "on the switch")),
        (drop("gpu", "eth1", "udp dport 4791"), ("UDP 4791",)),
        (drop("r1", "eth2", side="wire"), ("other end", "mlx5_0")),
        (drop("gpu", "eth1", "tcp dport 80"), ()),
        (drop("gpu", "eth1", side="wire"), ()),
        (LinkState(Place("gpu", "eth1")), ()),
        (drop("h1", "eth1", "udp dport 4791"), ()),
        (NodePower(Place("h1")), ("PDU or BMC", "node_down")),
        (BgpNeighbour(Place("h1"), "10.0.0.9"), ("name a router",)),
        (BgpNeighbour(Place("r1"), "10.0.0.9"), ()),
        (LinkState(Place("gpu", "eth2", "wire")), ("other end", "patch", "no address")),
        (LinkState(Place("h1", "eth2", "wire")), ()),
        (LinkState(Place("sw", "Ethernet1")), ()),
    ],
    ids=lambda value: value.describe() if hasattr(value, "describe") else None,
)
def test_what_is_refused_says_why_and_what_instead(change, words):
    said = refusal(change, fabric())

    assert bool(said) is bool(words), said
    for word in words:
        assert word in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"become": "doas"}, "doas"), ({"become": "sudo", "become_user": "ops"}, "faults need root")],
)
def test_ways_to_root_that_are_not_known_are_refused(settings, why):
    node = Node("x", settings={"ssh": {**SSH, **settings}})

    with pytest.raises(SpecError, match=why):
        target_of(fabric(x=node), "x")


def test_a_target_keeps_no_secret():
    node = Node("x", settings={"ssh": {**SSH, "password": "hush", "secrets": ["ansible_password"]}})

    assert "hush" not in str(target_of(fabric(x=node), "x").to_json())
