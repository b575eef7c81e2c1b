"""Several faults in one storm: in order, at once, in a recovery, at random, by a trace."""

import asyncio
import os
from pathlib import Path

import pytest

from chaos import record as records
from chaos import topology
from chaos.experiment import loads
from chaos.replay import again, recorded
from chaos.run import make_folder, run
from chaos.strikes import storms

pytestmark = pytest.mark.netns

HEAD = """
promise: p
fabric: clos-2x4x8
probes:
  flow: {source: host1, target: host8, rate: 1 kpps}
  kernel_events: {}
  routing: {}
trials: 1
placebos: 0
objectives: [{measure: flow_lost_packets, at_most: 100000, because: always true}]
"""
SEQUENCE = """
phases: {calm: 1 s, storm: 4.5 s, after: 1 s}
faults:
  - {link_down/near: {link: in-use leaf--spine}, at: 100 ms, for: 500 ms}
  - {link_down/far: {link: in-use spine--leaf}, after: near, at: 3 s, for: 800 ms}
"""
OVERLAP = """
phases: {calm: 1 s, storm: 2 s, after: 1 s}
faults:
  - {link_down/cut: {link: in-use leaf--spine}, for: 1.2 s}
  - {packet_loss/loss: {link: in-use host--leaf, end: near, share: 10 %}, at: 400 ms, for: 1.4 s}
"""
RECOVERY = """
phases: {calm: 1 s, storm: 1.5 s, after: 1.5 s}
faults:
  - {link_down/first: {link: in-use leaf--spine}, for: 600 ms}
  - {link_down/second: {link: in-use spine--leaf}, after: first, at: 50 ms, for: 700 ms}
"""
ARRIVALS = """
phases: {calm: 1 s, storm: 3 s, after: 1 s}
seed: 5
arrivals:
  - of: {link_down: {mode: carrier}}
    over: leaf1--spine
    rate: hpn-nic-link
    compress: 3e9
    for: 400 ms
  - of: {link_down: {mode: silent, end: near}}
    over: host1--leaf1
    rate: 0.057 % per link-month
    compress: 3e9
    for: {from: 200 ms, to: 300 ms}
"""
TRACE = """
phases: {calm: 1 s, storm: 2.5 s, after: 1 s}
trace: {file: t.csv, compress: 3600}
"""
ROWS = """start,end,element,fault
0.2 h,1 h,leaf2--spine1,link_down
# both ends of the sender's own cable
0.5 h,1.5 h,host1--leaf1,link_down mode=silent
1.6 h,2.2 h,spine2,node_down
"""
MS = 10**6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every run once, on one fabric: records by name."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    folder = tmp_path_factory.mktemp("compound")
    (folder / "t.csv").write_text(ROWS)
    return asyncio.run(run_all(folder))


async def run_all(folder: Path):
    from chaos.drivers.netns import NetnsDriver

    texts = {
        "sequence": SEQUENCE, "overlap": OVERLAP, "recovery": RECOVERY, "arrivals": ARRIVALS,
        "trace": TRACE,
    }  # fmt: skip
    driver = await NetnsDriver.up(topology.load("clos-2x4x8"))
    found = {}
    try:
        await driver.wait_ready()
        for name, text in texts.items():
            experiment = loads(HEAD + text, str(folder / f"{name}.yaml"))
            experiment.check(driver.fabric)
            there = make_folder(folder, name)
            await run(experiment, driver, there, calm_foreign_percent=100)
            found[name] = experiment, records.read(there / "record.json")
        experiment, record = found["arrivals"]
        storm = recorded(record, driver.fabric)
        there = make_folder(folder, "replay")
        later = again(experiment, record)
        await run(later, driver, there, calm_foreign_percent=100, storms=storm)
        found["replay"] = later, records.read(there / "record.json")
    finally:
        await driver.down()
    return found


def trial(made, name):
    """The only trial of a run, and its measures by name; nothing of it may be in doubt."""
    _, record = made[name]
    (one,) = record.trials
    assert [f.sentence for f in one.findings if f.verdict != "pass"] == []
    assert one.proof.residue == ()
    return one, {measure.name: measure for measure in one.measures}


def times(one):
    """Per strike: when it took effect and was gone, ms since the first took effect."""
    zero = min(strike["event_ns"][0] for strike in one.strikes)
    return [((s["event_ns"][0] - zero) / MS, (s["heal_ns"][1] - zero) / MS) for s in one.strikes]


#: How late an action may be on a machine that others use.
LATE_MS = 60


def test_one_after_the_other(made):
    one, felt = trial(made, "sequence")
    (_, healed), (later, gone) = times(one)

    assert healed == pytest.approx(500, abs=LATE_MS)
    assert (later, gone) == pytest.approx((3500, 4300), abs=LATE_MS)
    assert one.strikes[0]["element"] != one.strikes[1]["element"]
    assert all(strike["exposed"] for strike in one.strikes)
    for label in ("near", "far"):
        assert felt[f"{label}_detection_carrier_ms"].value < 500
        assert felt[f"{label}_localisation_right_percent"].value == 100
        assert felt[f"{label}_flow_lost_packets"].value is not None, "it stands apart"
    lost = [felt[f"{label}_flow_lost_packets"].value for label in ("near", "far")]
    assert sum(lost) == felt["flow_lost_packets"].value
    assert lost[1] > 20, "a far cable waits for BGP"
    assert felt["near_flow_outage_longest_ms"].value <= felt["far_flow_outage_longest_ms"].value


def test_two_at_one_time(made):
    one, felt = trial(made, "overlap")
    cut, loss = times(one)

    assert cut[0] < loss[0] < cut[1] < loss[1], "they overlap, and each is healed in its own time"
    assert {change["strike"] for change in one.proof.changes} == {0, 1}
    assert all(change["hit"] for change in one.proof.changes if change["hit"] is not None)
    assert felt["cut_detection_carrier_ms"].value < 250, "its own ports name it"
    blurred = [felt[f"{label}_flow_lost_packets"] for label in ("cut", "loss")]
    assert [measure.value for measure in blurred] == [None, None]
    assert "struck before it was healed" in blurred[0].note
    assert "was in force" in blurred[1].note
    assert felt["flow_lost_packets"].value > 50, "of the storm as a whole there is a number"


def test_a_second_fault_during_the_recovery_of_the_first(made):
    """The cable is back and its BGP session is not, when the next cable is pulled."""
    one, felt = trial(made, "recovery")
    (_, healed), (second, _) = times(one)
    at = one.strikes[1]["event_ns"][0]
    ends = one.strikes[0]["truth"]
    back = [
        event.at_ns
        for event in one.events
        if event.source == "routing" and event.name == "bgp.back" and event.at_ns > at
    ]

    assert 0 < second - healed < 50 + LATE_MS
    assert back, "no session came back after the second fault"
    assert felt["second_detection_carrier_ms"].value < 250
    assert felt["second_flow_lost_packets"].value is None
    assert felt["second_flow_lost_packets"].note.startswith("cannot be told apart: link_down")
    assert ends != one.strikes[1]["truth"]


def test_arrivals_fall_as_planned(made):
    experiment, record = made["arrivals"]
    one, _ = trial(made, "arrivals")
    ((_, planned),) = storms(experiment, topology.load("clos-2x4x8"))

    assert len(one.strikes) >= 3
    assert [(s["fields"]["link"], s["at_ns"]) for s in one.strikes] == [
        (topology.load("clos-2x4x8").link(s.fault.link).id, s.at_ns) for s in planned.strikes
    ]
    assert any(strike["exposed"] for strike in one.strikes)
    shown = "\n".join(record.plan)
    for strike in planned.strikes:
        assert strike.text in shown
    zero = one.strikes[0]["at_ns"]
    for (begun, _), strike in zip(times(one), one.strikes, strict=True):
        assert begun == pytest.approx((strike["at_ns"] - zero) / MS, abs=LATE_MS)


def test_a_replay_strikes_the_same_at_the_same_instants(made):
    one, _ = trial(made, "arrivals")
    two, _ = trial(made, "replay")
    same = ("fault", "fields", "at_ns", "until_ns", "spans", "element", "origin")

    assert [[s[key] for key in same] for s in one.strikes] == [
        [s[key] for key in same] for s in two.strikes
    ]
    for (a, b), (c, d) in zip(times(one), times(two), strict=True):
        assert (a, b) == pytest.approx((c, d), abs=LATE_MS)


def test_a_trace_is_played(made):
    one, felt = trial(made, "trace")

    assert [strike["origin"] for strike in one.strikes] == ["trace"] * 3
    assert [strike["element"].count("--") for strike in one.strikes] == [1, 1, 0]
    assert [begun for begun, _ in times(one)] == pytest.approx([0, 300, 1400], abs=LATE_MS)
    assert [gone for _, gone in times(one)] == pytest.approx([800, 1300, 2000], abs=LATE_MS)
    assert felt["flow_lost_packets"].value > 800, "the sender's own cable was cut for a second"
