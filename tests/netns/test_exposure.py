"""A fault on a leg of ECMP that the traffic does not use comes out as not exposed."""

import asyncio

import pytest

from chaos import topology
from chaos.experiment import loads
from chaos.path import Tracer
from chaos.run import make_folder, run

pytestmark = pytest.mark.netns

TEXT = """
promise: An idle leg may break.
fabric: clos-2x4x8
fault: {link_down: {link: "leaf1--SPINE", mode: carrier}}
probes:
  flow: {source: host1, target: host8, rate: 1 kpps}
phases: {calm: 1 s, storm: 500 ms, after: 500 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_lost_packets, at_most: 100000, because: always true}
"""


def test_a_fault_on_an_idle_leg_is_not_exposed(tmp_path):
    """The flow hashes onto one spine; the other spine's link is cut: the path taken is named."""
    record, idle, used = asyncio.run(cut_the_idle_leg(tmp_path))
    sentence = record.trials[0].exposure.sentence

    assert record.verdict == "inconclusive"
    assert sentence.startswith("not exposed: the traffic avoids leaf1:")
    assert idle in sentence.partition(";")[0]
    assert f"host1 -> leaf1 -> {used} -> leaf4 -> host8" in sentence
    assert record.trials[0].proof.in_force is None, "nothing was broken"


async def cut_the_idle_leg(folder):
    from chaos.drivers.netns import NetnsDriver

    driver = await NetnsDriver.up(topology.load("clos-2x4x8"))
    try:
        await driver.wait_ready()
        used = spine_in_use(driver)
        idle = {"spine1": "spine2", "spine2": "spine1"}[used]
        experiment = loads(TEXT.replace("SPINE", idle), "idle.yaml")
        made = await run(experiment, driver, make_folder(folder, "idle"), calm_foreign_percent=100)
        return made, idle, used
    finally:
        await driver.down()


def spine_in_use(driver):
    """The spine that the flow's own 5-tuple is sent over, by the kernel's look-up."""
    known = driver.addresses()
    with Tracer(driver.fabric, driver.namespaces()) as tracer:
        path = tracer.crossings("host1", known["host1"], known["host8"], 17, 49152, 5201)
    return path[1].target
