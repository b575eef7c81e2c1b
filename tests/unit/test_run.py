"""What stands before the first trial: a sound fabric, a folder, a job that is not over."""

import asyncio

import pytest

from chaos import describe, drivers
from chaos.driver import Audit
from chaos.errors import BlockedError, CapabilityError, LeftoverError
from chaos.experiment import loads
from chaos.judge import judge_trial
from chaos.preflight import be_ready, be_sound
from chaos.record import Proof, Record, Trial
from chaos.run import be_whole, finish, make_folder
from chaos.timeline import Measure, Moment, Windows


class Fabric:
    """A fabric that answers its audits in turn, the last one for ever."""

    instance = "lab"

    def __init__(self, *audits):
        self.audits = list(audits)
        self.asked = 0

    async def audit(self):
        self.asked += 1
        findings = self.audits[0] if len(self.audits) == 1 else self.audits.pop(0)
        return Audit(tuple(findings))


class Bare(drivers.named("netns")):  # type: ignore[misc]
    """A driver that can make nothing but rules; it was never brought up, so no question works."""

    def __init__(self, fabric):
        self.fabric = fabric

    @classmethod
    def engines(cls):
        return {"nftables": "", "netem": "no sch_netem here", "worker": "no taps here"}


def test_what_a_driver_cannot_make_is_said_before_anything_is_asked():
    delay = "packet_fault: {link: leaf1--spine1, end: leaf1, then: {delay: 1 ms}}"
    experiment = loads(
        f"promise: p\nfabric: clos-2x4x8\nfault: {{{delay}}}\n"
        "probes: {flow: {source: host1, target: host8}}\n"
        "objectives: [{measure: flow_lost_packets, at_most: 1, because: few}]\n"
    )

    with pytest.raises(CapabilityError, match=r"delay=1ms.*no taps here"):
        asyncio.run(be_ready(experiment, Bare(drivers.fabric(experiment.fabric))))


def test_a_fabric_that_agrees_with_itself_is_sound():
    fabric = Fabric([])
    asyncio.run(be_sound(fabric))

    assert fabric.asked == 1


def test_a_fabric_that_settles_is_sound():
    asyncio.run(be_sound(Fabric(["leaf1: one leg is missing"], []), looks=2))


def test_a_fabric_at_odds_with_itself_blocks():
    with pytest.raises(BlockedError, match="lab is not sound: leaf1: the kernel has 1 leg of 2"):
        asyncio.run(be_sound(Fabric(["leaf1: the kernel has 1 leg of 2"]), looks=1))


def test_run_folders_never_meet(tmp_path):
    made = {make_folder(tmp_path, "x") for _ in range(4)}

    assert len(made) == 4


def test_a_run_folder_that_cannot_be_made_blocks(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(BlockedError, match="cannot be made: Not a directory"):
        make_folder(tmp_path / "file", "x")


def test_a_run_that_was_broken_off_is_no_pass():
    """Two good trials of three planned: the promise was not tried as often as it said."""
    experiment = loads(TEXT)
    made = Record(describe.experiment(experiment), {}, 1)
    trials = [judge_trial(placebo(number)) for number in (1, 2, 3)]

    assert finish(made, experiment, trials).verdict == "pass"
    broken = finish(made, experiment, trials[:2])
    assert (broken.verdict, broken.findings[0].sentence) == (
        "inconclusive",
        "broken off after 2 of 3 trials",
    )


def test_no_further_trial_starts_on_a_faulted_fabric():
    change = {"text": "leaf1:eth1: admin down", "taken_back": False, "cure": "ip link set eth1 up"}
    left = Trial(3, False, 1, proof=Proof(True, 1, 1, False, changes=(change,)))

    with pytest.raises(LeftoverError, match=r"trial 3: still in force.*\n.*ip link set eth1 up"):
        be_whole(left)
    be_whole(placebo(1))


TEXT = """
promise: p
fabric: pair
probes:
  flow: {source: host1, target: host2}
trials: 3
objectives: [{measure: flow_lost_packets, at_most: 0}]
"""


def placebo(number):
    windows = Windows((0, 1), Moment(2, 2), Moment(3, 3), 4, placebo=True)
    return Trial(number, True, 1, windows=windows, measures=(Measure("flow_lost_packets", 0.0),))
