"""Several faults in one storm on the real Containerlab: in order, at once, at random, again.

The experiments and what is asked of them are those of the embedded fabric (`tests/netns`).
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import drivers, topology
from chaos import record as records
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.experiment import loads
from chaos.replay import again, recorded
from chaos.run import make_folder, run
from chaos.strikes import storms
from tests.netns.test_compound import (
    ARRIVALS,
    HEAD,
    LATE_MS,
    OVERLAP,
    RECOVERY,
    SEQUENCE,
    times,
    trial,
)

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.alone]

COMMAND = (sys.executable, "-c", "from chaos.cli import main; main()")
AT_ONCE = """
phases: {calm: 1 s, storm: 5 s, after: 1 s}
faults:
  - {link_down/cut: {link: in-use leaf--spine}}
  - packet_fault/lost:
      link: in-use host--leaf
      end: near
      when: {random: 10 %, on: 200 ms, off: 200 ms, count: 5}
  - {bgp_down/shut: {node: leaf4, neighbor: eth1}}
"""
TEXTS = {
    "sequence": SEQUENCE, "overlap": OVERLAP, "recovery": RECOVERY, "at_once": AT_ONCE,
    "arrivals": ARRIVALS,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(lab_runtime, tmp_path_factory):
    """Every run once, on one lab: records by name; nothing of the lab is left."""
    home = Path("/run", f"railbreak-compound-{os.getpid()}")
    home.mkdir()
    before = {name: os.environ.get(name) for name in ("RAILBREAK_STATE", *lab_runtime.environment)}
    os.environ.update(lab_runtime.environment, RAILBREAK_STATE=str(home))
    try:
        found = asyncio.run(run_all(tmp_path_factory.mktemp("compound")))
        yield found
        assert list(home.iterdir()) == []
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        shutil.rmtree(home, ignore_errors=True)


async def run_all(folder):
    fabric = drivers.fabric("clos-2x4x8", "containerlab")
    driver = await ContainerlabDriver.up(fabric, instance=f"rbt{os.getpid()}-compound")
    found = {"folder": folder}
    try:
        await driver.wait_ready(90)
        for name, text in TEXTS.items():
            (folder / f"{name}.yaml").write_text(HEAD + text)
            experiment = loads(HEAD + text, str(folder / f"{name}.yaml"))
            experiment.check(driver.fabric)
            for _ in range(3):  # a busy machine makes BFD speak before anything is broken
                there = make_folder(folder, name)
                await run(experiment, driver, there, calm_foreign_percent=100)
                record = records.read(there / "record.json")
                if not any("calm was not calm" in one for one in record.trials[0].trouble):
                    break
            found[name] = experiment, record
            found[f"{name} record"] = there / "record.json"
        experiment, record = found["recovery"]
        there = make_folder(folder, "replay")
        struck = recorded(record, driver.fabric)
        await run(again(experiment, record), driver, there, calm_foreign_percent=100, storms=struck)
        found["replay"] = experiment, records.read(there / "record.json")
    finally:
        await driver.down()
    return found


def test_one_after_the_other(made):
    one, felt = trial(made, "sequence")
    (_, healed), (later, gone) = times(one)

    assert healed == pytest.approx(500, abs=LATE_MS)
    assert (later, gone) == pytest.approx((3500, 4300), abs=LATE_MS)
    assert one.strikes[0]["element"] != one.strikes[1]["element"]
    assert all(strike["exposed"] for strike in one.strikes)
    for label in ("near", "far"):
        assert felt[f"{label}_localisation_right_percent"].value == 100
    lost = [felt[f"{label}_flow_lost_packets"].value for label in ("near", "far")]
    assert sum(lost) == felt["flow_lost_packets"].value
    assert lost[1] > 20, "a far cable waits for BGP"


def test_two_that_overlap(made):
    one, felt = trial(made, "overlap")
    cut, loss = times(one)

    assert cut[0] < loss[0] < cut[1] < loss[1], "each is healed in its own time"
    assert all(change["hit"] for change in one.proof.changes if change["hit"] is not None)
    assert felt["cut_flow_lost_packets"].value is None
    assert "struck before it was healed" in felt["cut_flow_lost_packets"].note
    assert felt["flow_lost_packets"].value > 50


def test_three_at_once_one_of_them_in_turns(made):
    """A cable, packets of another in turns, a session of a third node: each its own proof."""
    one, _ = trial(made, "at_once")
    begun = [start for start, _ in times(one)]
    lost = [change for change in one.proof.changes if "drop on random=10%" in change["text"]]
    turns = [action for action in one.proof.actions if action["change"] in numbers(one, lost)]

    assert max(begun) < LATE_MS
    assert {change["strike"] for change in one.proof.changes} == {0, 1, 2}
    assert [action["kind"] for action in turns] == ["do", "undo"] * 5
    assert lost[0]["hit"] > 10
    assert lost[0]["seen"] < 1500, "between its turns nothing is counted"


def numbers(one, changes):
    return {one.proof.changes.index(change) for change in changes}


def test_a_second_fault_during_the_recovery_of_the_first(made):
    one, felt = trial(made, "recovery")
    (_, healed), (second, _) = times(one)
    at = one.strikes[1]["event_ns"][0]
    back = [
        event.at_ns
        for event in one.events
        if event.source == "routing" and event.name == "bgp.back" and event.at_ns > at
    ]

    assert 0 < second - healed < 50 + LATE_MS
    assert back, "no session came back after the second fault"
    assert felt["second_flow_lost_packets"].note.startswith("cannot be told apart: link_down")


def test_arrivals_fall_as_planned(made):
    experiment, _ = made["arrivals"]
    one, _ = trial(made, "arrivals")
    ((_, planned),) = storms(experiment, topology.load("clos-2x4x8"))

    assert len(one.strikes) >= 3
    assert [s["at_ns"] for s in one.strikes] == [s.at_ns for s in planned.strikes]
    zero = one.strikes[0]["at_ns"]
    for (begun, _), strike in zip(times(one), one.strikes, strict=True):
        assert begun == pytest.approx((strike["at_ns"] - zero) / 1e6, abs=LATE_MS)


def test_a_replay_strikes_the_same_at_the_same_instants(made):
    """Also what traffic had settled: the replay names the links themselves."""
    one, _ = trial(made, "recovery")
    two, _ = trial(made, "replay")
    same = ("fault", "fields", "at_ns", "until_ns", "spans", "element", "origin", "label")

    assert [[s[key] for key in same] for s in one.strikes] == [
        [s[key] for key in same] for s in two.strikes
    ]
    assert all("in-use" not in s["fields"]["link"] for s in two.strikes)


def test_a_record_is_replayed_by_the_command_on_a_lab_of_its_own(made, tmp_path):
    """`run --replay RECORD --driver containerlab`, from deploying to destroying."""
    one, _ = trial(made, "arrivals")
    words = ["--driver", "containerlab", "--replay", str(made["arrivals record"])]
    told = tmp_path / "again.json"
    for _ in range(2):  # six routers on two busy cores are not always ready in their time
        done = subprocess.run(
            [*COMMAND, "run", str(made["folder"] / "arrivals.yaml"), *words,
             "--calm-load", "100%", "--json", str(told)],
            capture_output=True, text=True, check=False, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(drivers.__file__).parents[2])},
        )  # fmt: skip
        if "is not ready after" not in done.stdout + done.stderr:
            break
    assert told.exists(), done.stdout + done.stderr
    (two,) = json.loads(told.read_text())["trials"]
    assert two["proof"]["taken_back"], done.stdout
    assert two["proof"]["residue"] == []
    assert [s["at_ns"] for s in two["strikes"]] == [s["at_ns"] for s in one.strikes]
    assert [s["element"] for s in two["strikes"]] == [s["element"] for s in one.strikes]
    assert not re.search(
        r"clab-clos-2x4x8-", told_of("docker", "ps", "-a", "--format", "{{.Names}}")
    )


def told_of(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
