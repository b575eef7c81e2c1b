"""Abort conditions on real fabrics: what goes too far is taken back at once, and leaves nothing."""

import asyncio
import importlib.util

import pytest

from chaos import topology
from chaos.experiment import loads
from chaos.run import make_folder, run

pytestmark = pytest.mark.netns

STORM_S = 40.0
TEXT = """
promise: It is given up in time.
fabric: {fabric}
fault: {fault}
probes:
  flow: {{source: host1, target: host2, rate: 1 kpps}}
{probes}abort: [{abort}]
phases: {{calm: 1 s, storm: {storm}, after: 800 ms}}
trials: 2
placebos: 0
objectives:
  - {{measure: flow_outage_longest_ms, at_most: 1, because: what was cut short proves nothing}}
"""
BLACK_HOLE = "{link_down: {link: in-use host--router, mode: silent, end: near}}"
HALF = "{packet_loss: {link: in-use host--router, end: near, share: 50 %}}"


@pytest.fixture
def given_up(state_root, tmp_path):
    """`given_up(text)` runs an experiment that is to be given up; its record, what was told."""

    def go(fault=BLACK_HOLE, abort="", fabric="pair", probes="", storm=f"{STORM_S:g} s"):
        text = TEXT.format(fault=fault, abort=abort, fabric=fabric, probes=probes, storm=storm)
        made, told = loads(text, "given_up.yaml"), []

        async def through():
            from chaos.drivers.netns import NetnsDriver

            driver = await NetnsDriver.up(topology.load(fabric))
            try:
                await driver.wait_ready()
                folder = make_folder(tmp_path, "given_up")
                record = await run(
                    made,
                    driver,
                    folder,
                    tell=lambda kind, facts: told.append((kind, dict(facts))),
                    calm_foreign_percent=100,
                )
                return record, told
            finally:
                await driver.down()

        return asyncio.run(through())

    return go


def storm_s(trial):
    return (trial.windows.heal.latest_ns - trial.windows.event.earliest_ns) / 1e9


@pytest.mark.parametrize(
    ("fabric", "fault"),
    [
        ("pair", BLACK_HOLE),
        ("rails-2x4", BLACK_HOLE.replace("host--router", "host--leaf")),
    ],
)
def test_a_black_hole_is_taken_back_when_half_is_lost(given_up, fabric, fault):
    """A storm of forty seconds ends in a small part of that; the run ends with that trial."""
    record, told = given_up(fault, "{when: loss_percent, of: flow, above: 50}", fabric)
    (trial,) = record.trials

    assert trial.aborted["sentence"].startswith("loss_percent of flow was ")
    assert trial.aborted["value"] > 50
    assert storm_s(trial) < STORM_S / 8
    assert trial.aborted["to_healed_ms"] < STORM_S * 1000 / 40
    assert trial.windows.event.latest_ns < trial.aborted["at_ns"] <= trial.aborted["healed_ns"]
    assert (trial.proof.in_force, trial.proof.taken_back, trial.proof.residue) == (True, True, ())
    assert trial.proof.hit > 0
    assert (trial.verdict, record.verdict) == ("inconclusive", "inconclusive")
    assert record.findings[0].sentence == "broken off after 1 of 2 trials"
    assert ("storm.aborted", trial.aborted) in told


def test_a_measure_above_its_bound_ends_the_storm(given_up):
    record, _ = given_up(HALF, "{when: flow_lost_packets, above: 300}")
    (trial,) = record.trials
    lost = {m.name: m.value for m in trial.measures}["flow_lost_packets"]

    assert trial.aborted["when"] == "flow_lost_packets"
    assert 300 < trial.aborted["value"] <= lost
    assert storm_s(trial) < STORM_S / 8
    assert trial.proof.residue == ()


def test_what_stays_within_the_bound_is_let_go_on(given_up):
    """Half is lost, more than three quarters would be too much: both trials run to their end."""
    record, told = given_up(HALF, "{when: loss_percent, above: 75}", storm="1 s")

    assert [trial.aborted for trial in record.trials] == [None, None]
    assert all(storm_s(trial) >= 1 for trial in record.trials)
    assert "storm.aborted" not in {kind for kind, _ in told}


@pytest.mark.job
def test_a_job_that_dies_ends_the_storm(given_up):
    """A rank is killed; the job reports its end, and nothing stays in force for forty seconds."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("collective needs torch: pip install railbreak[job]")
    record, _ = given_up(
        "{rank_kill: {rank: 1}}",
        "{when: job_dead}",
        probes="  collective: {hosts: [host1, host2], size: 64 KiB}\nexposed: flow\n",
    )
    (trial,) = record.trials

    assert trial.aborted["sentence"].startswith("job_dead: collective was ")
    assert (trial.aborted["when"], trial.aborted["of"]) == ("job_dead", "collective")
    assert storm_s(trial) < STORM_S / 4
    assert trial.verdict == "inconclusive"
