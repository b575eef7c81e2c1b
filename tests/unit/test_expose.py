"""Which paths meet a fault, and which measures tell of one."""

from dataclasses import dataclass

import pytest

from chaos.aim import Aimed
from chaos.experiment import loads
from chaos.expose import judged, meets, of_impact
from chaos.fabric import Crossing, Link, Port
from chaos.trial import listens

UP = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
DOWN = Link(Port("leaf2", "eth1"), Port("spine1", "eth2"))
FORTH = (Crossing(UP, "leaf1", "spine1"), Crossing(DOWN, "spine1", "leaf2"))
BACK = (Crossing(DOWN, "leaf2", "spine1"), Crossing(UP, "spine1", "leaf1"))


@dataclass(frozen=True)
class Cut:
    mode: str
    end: str


def aimed(mode, end, element=UP.id):
    return Aimed(Cut(mode, end), element, (), None)


@pytest.mark.parametrize(
    ("fault", "path", "met"),
    [
        (aimed("carrier", "leaf1"), FORTH, True),
        (aimed("carrier", "leaf1"), BACK, True),
        (aimed("silent", "both"), BACK, True),
        (aimed("silent", "leaf1"), FORTH, True),
        (aimed("silent", "leaf1"), BACK, False),
        (aimed("silent", "leaf1:eth1"), FORTH, True),
        (aimed("carrier", "both", "leaf9:eth1--spine1:eth9"), FORTH, False),
        (aimed("carrier", "both", "spine1"), FORTH, True),
        (aimed("carrier", "both", "spine2"), FORTH, False),
        (aimed("carrier", "both"), (), False),
    ],
    ids=[
        "cable, same way", "cable, other way", "silent both ways", "silent, its way",
        "silent, other way", "silent, by port", "another cable", "its node", "another node",
        "no path",
    ],
)  # fmt: skip
def test_a_path_meets_a_fault(fault, path, met):
    assert meets(fault, path) is met


@pytest.mark.parametrize(
    ("measure", "of_it"),
    [
        ("job_recovery_ms", True),
        ("flow_lost_packets", True),
        ("job_wrong_values", False),
        ("calm_lost_packets", False),
        ("job_busbw_calm_gbytes_per_s", False),
    ],
)
def test_measures_of_calm_and_of_values_hold_without_exposure(measure, of_it):
    assert of_impact(measure) is of_it


@pytest.mark.parametrize(
    ("objective", "rests"),
    [
        ("{measure: job_recovery_ms, at_most: 5000}", True),
        ("{measure: job_wrong_values, at_most: 0}", False),
        ("{measure: flow_lost_packets, at_most: 5}", False),
        ("{detected_by: job_stall}", True),
        ("{undetected_by: [heartbeat]}", True),
        ("{detected_by: flow_gap}", False),
    ],
)
def test_an_objective_rests_on_a_probe(objective, rests):
    experiment = loads(
        "promise: p\nfabric: clos-2x4x8\nfault: {node_down: {node: spine1}}\n"
        "probes:\n  flow: {source: host1, target: host8}\n  collective: {}\n"
        f"objectives: [{objective}]\n"
    )

    assert judged(experiment, "collective") is rests


@dataclass(frozen=True)
class Ears:
    nodes: tuple = ()


@pytest.mark.parametrize(
    ("nodes", "truth", "hears"),
    [
        ((), ("leaf1:eth1--spine1:eth1",), True),
        (("leaf1",), ("leaf1:eth1--spine1:eth1", "leaf1:eth1"), True),
        (("host1",), ("leaf1:eth1--spine1:eth1", "leaf1:eth1"), False),
        (("spine1",), ("spine1",), True),
    ],
    ids=["all nodes", "an end", "elsewhere", "the node"],
)
def test_a_detector_that_looks_elsewhere_is_deaf_not_silent(nodes, truth, hears):
    assert listens(Ears(nodes), truth) is hears
