"""Every kind of fault in many forms: in force, felt as it should be, healed, and without a trace.

One trial each, in `variants.yaml`. `--fabric-driver containerlab` runs the same on the real one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.experiment import Phases, Range
from chaos.experiment_python import probe
from chaos.objectives import Objective, objective
from chaos.registry import FAULTS, build, load
from chaos.units import Duration

pytestmark = [pytest.mark.netns, pytest.mark.railbreak, pytest.mark.same_probes]

load()
SECOND = Duration.parse("1 s")
PHASES = Phases(calm=SECOND, storm=Range(SECOND, SECOND), after=Duration.parse("1500 ms"))
BECAUSE = "it is what this variant of the fault is for"
VARIANTS = sorted(  # by traffic: what is sent and watched goes on from one to the next
    yaml.safe_load((Path(__file__).parent / "variants.yaml").read_text()),
    key=lambda variant: str(variant.get("traffic", "flow")),
)


def told(variant: dict[str, Any]) -> str:
    """A name for reports: the fault and its values, without punctuation."""
    [(name, fields)] = variant["fault"].items()
    words = re.sub(r"[^A-Za-z0-9.%]+", "-", str(fields).replace("in-use leaf--spine", "in-use"))
    return f"{name}{words}".strip("-")


def shown(shows: dict[str, Any]) -> Iterator[Objective]:
    """Objectives from `measure: [at least, at most]` and `detected_by: detector`."""
    for name, wanted in shows.items():
        if name == "detected_by":
            yield objective({"detected_by": wanted, "within": "2 s", "because": BECAUSE})
            continue
        for word, value in zip(("at_least", "at_most"), wanted, strict=False):
            yield objective({"measure": name, word: value, "because": BECAUSE})


@pytest.fixture
def traffic(request, flow, job, fabric):
    """Probes by the word of a variant."""
    ends = {"source": "host1", "target": "host8"}
    ranks = ("host1", "host3", "host5", "host8")
    kinds = {
        "flow": lambda: probe("flow", **ends, rate="2 kpps"),
        "jumbo": lambda: probe("flow", **ends, rate="500 pps", size="4000 B"),
        "roce": lambda: probe("roce_flow", **ends, rate="2 kpps"),
        "slow flow": lambda: probe("flow", **ends, rate="50 pps"),
        "slow roce": lambda: probe("roce_flow", **ends, rate="50 pps"),
        "job": lambda: job(*ranks, op="all_reduce", size="64 KiB"),
        "job that restarts": lambda: job(*ranks, size="64 KiB", mode="restart"),
    }
    seen = ["kernel_events"]
    if any(node.runs == "frr" for node in fabric.fabric.nodes.values()):
        seen.append("routing")
    return lambda word: [kinds[word](), *map(probe, seen)]


def marked(variant: dict[str, Any]):
    """A parameter of the test, with the marks that the variant names."""
    marks = [pytest.mark.vm] if variant.get("machine") else []
    return pytest.param(variant, id=told(variant), marks=marks)


@pytest.mark.parametrize("variant", [marked(one) for one in VARIANTS])
def test_a_variant_acts_is_felt_and_leaves_no_trace(variant, traffic, trial):
    [(name, fields)] = variant["fault"].items()
    fault = build(FAULTS, "fault", name, fields)
    record = trial(
        fault,
        traffic(variant.get("traffic", "flow")),
        list(shown(variant["shows"])),
        promise=f"{told(variant)} acts, is felt as it should be, and is gone after it",
        phases=PHASES,
        trials=1,
        placebos=0,
    )

    [one] = record.trials
    assert one.proof.in_force
    assert one.proof.residue == ()
    assert one.proof.hit is None or one.proof.hit > 0
