"""Where changes are made on machines, and what is refused; no machine needed."""

import pytest

from chaos.change import BgpNeighbour, LinkState, NodePower, PacketDrop, Place, PortShape
from chaos.drivers.ssh.places import called_there, moved, refusal, target_of
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.units import Percent
from faults.packet_loss import PacketLoss

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
        (drop("gpu", "eth1"), ("mlx5_0", "past the kernel", "end: gpu")),
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


# ---- switches ------------------------------------------------------------------------------------


def switched(**ssh):
    """A host with an RDMA device at a switch whose ports have names of their own."""
    there = {**SSH, "platform": "sonic", "ports": {"eth1": "Ethernet0"}, **ssh}
    nodes = {
        "gpu1": Node("gpu1", settings={"ssh": RDMA}),
        "leaf1": Node("leaf1", role="leaf", settings={"ssh": there}),
    }
    return Fabric("f", nodes, (Link(Port("gpu1", "eth1"), Port("leaf1", "eth1")),))


def test_a_switch_is_told_of_its_own_ports():
    """Of a neighbour that one of its ports names, too; other neighbours stay as they are."""
    found = switched()

    assert called_there(LinkState(Place("leaf1", "eth1")), found) == "Ethernet0"
    assert called_there(BgpNeighbour(Place("leaf1"), "eth1"), found) == "Ethernet0"
    assert called_there(BgpNeighbour(Place("leaf1"), "10.0.0.9"), found) == ""
    assert "'Ethernet0' is none" in refusal(BgpNeighbour(Place("leaf1"), "eth1"), found)


@pytest.mark.parametrize(
    ("platform", "asked", "given"),
    [
        ("sonic", "sudo", "sudo"),
        ("frr", "sudo", "sudo"),
        ("cumulus", "sudo", "sudo"),
        ("sonic", "", ""),
        ("arista.eos.eos", "enable", ""),
        ("srlinux", "sudo", ""),
    ],
)
def test_a_switch_whose_login_is_a_shell_gets_root_as_a_host_does(platform, asked, given):
    assert target_of(switched(platform=platform, become=asked), "leaf1").become == given


def test_su_at_a_switch_is_refused_before_anybody_logs_in():
    with pytest.raises(SpecError, match=r"leaf1: become method 'su'; at a switch .* it is sudo"):
        target_of(switched(become="su"), "leaf1")


def test_what_a_refusal_of_roce_says_to_do_is_not_refused():
    """`end` names the sender: the host's packets can be lost at the switch, its own nowhere."""
    found = switched()

    def told(end):
        loss = PacketLoss("gpu1--leaf1", Percent(100), end=end, roce=True)
        return [refusal(one, found) for one in loss.changes(found)]

    (said,) = told("leaf1")
    assert "end: leaf1" not in said
    assert "(end: gpu1)" in said
    assert "link_down" in said
    assert told("gpu1") == [""]
    assert refusal(LinkState(Place("gpu1", "eth1")), found) == ""


def test_where_the_other_direction_cannot_be_lost_either_the_refusal_says_why():
    """A share at an access list; a cable between two hosts that both go past their kernels."""
    found = switched()
    (share,) = PacketLoss("gpu1--leaf1", Percent(1), end="leaf1", roce=True).changes(found)

    assert "arrives at leaf1:eth1, but SONiC cannot drop 1 % of a flow" in refusal(share, found)
    assert "; or take the link down" in refusal(share, found)

    pair = {name: Node(name, settings={"ssh": RDMA}) for name in ("gpu1", "gpu2")}
    cable = Fabric("f", pair, (Link(Port("gpu1", "eth1"), Port("gpu2", "eth1")),))
    for end in pair:
        (lost,) = PacketLoss("gpu1--gpu2", Percent(100), end=end, roce=True).changes(cable)
        assert "end:" not in refusal(lost, cable)
        assert "take the link down" in refusal(lost, cable)


def test_a_rate_where_roce_goes_past_the_kernel_names_no_end():
    """No switch is slowed from here, and the host's own queues are not met."""
    said = refusal(PortShape(Place("gpu1", "eth1"), 8_000_000, 10_000, 20_000), switched())

    assert "slow none of them" in said
    assert "end:" not in said
