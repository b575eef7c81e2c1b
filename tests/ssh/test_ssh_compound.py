"""Several faults in one storm on machines over SSH: overlapping, in a recovery, in turns, again."""

import pytest

from chaos import record as records
from chaos.experiment import loads
from chaos.replay import again, recorded
from chaos.run import make_folder, run
from tests.ssh.attached import on

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

TEXT = """
promise: p
fabric: clos-2x4x8
probes:
  flow: {source: h1, target: h2, rate: 1 kpps}
  kernel_events: {}
phases: {calm: 1 s, storm: 4 s, after: 1 s}
trials: 1
placebos: 0
limits: {hosts_isolated: 2, links: 2, host_ports: 100 %, bisection_left: 0 %, planes_left: 0}
faults:
  - {link_down/cut: {link: h1--r1}, for: 800 ms}
  - packet_fault/lost: {link: h2--r1, end: r1, when: "first=5 on=300ms off=300ms count=4"}
    at: 400 ms
    for: 2.4 s
  - {packet_loss/again: {link: h1--r1, end: h1, share: 50 %}, after: cut, at: 500 ms, for: 1 s}
objectives: [{measure: flow_lost_packets, at_most: 100000, because: always true}]
"""
MS = 10**6


def times(trial):
    zero = min(strike["event_ns"][0] for strike in trial.strikes)
    return [((s["event_ns"][0] - zero) / MS, (s["heal_ns"][1] - zero) / MS) for s in trial.strikes]


def test_a_storm_of_three_and_its_replay(three, home):
    """Each is in force and healed in its own time, on its own machine, and proved by itself."""
    three.acquainted()  # a look-up that fails takes a second, as long as a fault here

    async def work(driver):
        await driver.wait_ready(10)
        experiment = loads(TEXT, str(home / "three.yaml"))
        experiment.check(driver.fabric)
        found = []
        there = make_folder(home, "three")
        await run(experiment, driver, there, calm_foreign_percent=100)
        found.append(records.read(there / "record.json"))
        there = make_folder(home, "again")
        struck = recorded(found[0], driver.fabric)
        later = again(experiment, found[0])
        await run(later, driver, there, calm_foreign_percent=100, storms=struck)
        found.append(records.read(there / "record.json"))
        return found

    first, second = (record.trials[0] for record in on(three, home, work))

    for trial in (first, second):
        assert (trial.proof.in_force, trial.proof.taken_back) == (True, True)
        assert trial.proof.residue == ()
        cut, lost, again_ = times(trial)
        assert cut[0] < lost[0] < cut[1] < again_[0] < again_[1]
        assert lost[0] < again_[0] < lost[1], "the train goes on through both"
        planned = [(0, 800), (400, 2500), (1300, 2300)]
        for got, wanted in zip(times(trial), planned, strict=True):
            assert got == pytest.approx(wanted, abs=250), "over SSH an undo waits for its answer"
        hits = {change["fault"].split("(")[0]: change for change in trial.proof.changes}
        assert 5 <= hits["packet_fault"]["hit"] <= 20, "five in each turn that has so many packets"
        assert hits["packet_loss"]["hit"] > 200
    same = ("fault", "fields", "at_ns", "until_ns", "spans", "element", "label")
    assert [[s[key] for key in same] for s in first.strikes] == [
        [s[key] for key in same] for s in second.strikes
    ]
