"""`in-use` words become elements that the traffic crosses; the plan is pure and complete."""

from dataclasses import dataclass

import pytest

from chaos.aim import aim
from chaos.errors import SpecError
from chaos.experiment import Experiment
from chaos.fabric import Crossing, Fabric, Link, Node, Port
from chaos.plan import shortest_path, slots


def clos():
    """host1 - leaf1 - {spine1, spine2} - leaf2 - host2."""
    roles = {"host1": "host", "host2": "host"}
    roles |= {"leaf1": "leaf", "leaf2": "leaf", "spine1": "spine", "spine2": "spine"}
    cables = [("host1:eth1", "leaf1:eth3"), ("leaf1:eth1", "spine1:eth1")]
    cables += [("leaf1:eth2", "spine2:eth1"), ("leaf2:eth1", "spine1:eth2")]
    cables += [("leaf2:eth2", "spine2:eth2"), ("host2:eth1", "leaf2:eth3")]
    links = tuple(Link(*sorted((Port(*a.split(":")), Port(*b.split(":"))))) for a, b in cables)
    return Fabric("t", {n: Node(n, role=r) for n, r in roles.items()}, links)


FABRIC = clos()
OVER_SPINE2 = tuple(
    Crossing(FABRIC.link(f"{a}--{b}"), a, b)
    for a, b in (("host1", "leaf1"), ("leaf1", "spine2"), ("spine2", "leaf2"), ("leaf2", "host2"))
)


@dataclass(frozen=True)
class Cut:
    link: str
    end: str = "both"
    name = "cut"


@dataclass(frozen=True)
class Off:
    node: str
    name = "off"


@pytest.mark.parametrize(
    ("fault", "element", "end"),
    [
        (Cut("in-use"), "leaf1:eth2--spine2:eth1", "both"),
        (Cut("in-use leaf--spine", "near"), "leaf1:eth2--spine2:eth1", "leaf1"),
        (Cut("in-use spine--leaf", "near"), "leaf2:eth2--spine2:eth2", "spine2"),
        (Cut("in-use spine--leaf", "far"), "leaf2:eth2--spine2:eth2", "leaf2"),
        (Cut("in-use host--leaf", "far"), "host1:eth1--leaf1:eth3", "leaf1"),
        (Cut("in-use leaf--host"), "host2:eth1--leaf2:eth3", "both"),
    ],
    ids=["first inner", "local near", "remote near", "remote far", "first hop", "last hop"],
)
def test_a_link_in_use_is_found_in_the_direction_of_travel(fault, element, end):
    aimed = aim(fault, FABRIC, [OVER_SPINE2])

    assert (aimed.element, aimed.fault.link, aimed.fault.end) == (element, element, end)
    assert aimed.crossing is not None
    assert element in aimed.truth


def test_a_link_that_is_not_crossed_has_no_crossing():
    aimed = aim(Cut("leaf1--spine1"), FABRIC, [OVER_SPINE2])

    assert (aimed.element, aimed.crossing) == ("leaf1:eth1--spine1:eth1", None)


def test_the_node_in_use_is_the_one_of_that_role():
    aimed = aim(Off("in-use spine"), FABRIC, [OVER_SPINE2])

    assert aimed.fault.node == "spine2"
    assert {"spine2", "spine2:eth1", "leaf1:eth2--spine2:eth1"} <= set(aimed.truth)


def test_words_that_match_nothing_name_the_path_taken():
    with pytest.raises(
        SpecError, match=r"matches no link in use; the traffic crosses host1->leaf1"
    ):
        aim(Cut("in-use spine--spine"), FABRIC, [OVER_SPINE2])


def test_a_shortest_path_is_found_by_the_topology_alone():
    path = shortest_path(FABRIC, "host1", "host2")

    assert [crossing.target for crossing in path] == ["leaf1", "spine1", "leaf2", "host2"]
    assert shortest_path(FABRIC, "host1", "nowhere") == ()


def test_slots_are_repeatable_and_mix_placebos_in():
    """Same seed, same order and same seeds; another seed, another order somewhere in 20."""
    experiment = Experiment("p", "t", faults=(), trials=6)

    assert slots(experiment, 7) == slots(experiment, 7)
    assert len({slot.seed for slot in slots(experiment, 7)}) == 6
    assert len({slots(experiment, seed) for seed in range(20)}) == 20
