"""Faults that arrive at ranks of a running job, at a published rate of GPUs."""

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

pytestmark = [pytest.mark.netns, pytest.mark.job]

HEAD = """
promise: p
fabric: clos-2x4x8
probes:
  collective: {hosts: [host1, host3, host5, host8], op: all_reduce, size: 64 KiB, mode: MODE}
  kernel_events: {}
phases: {calm: 1 s, storm: 3 s, after: 1500 ms}
trials: 1
placebos: 0
objectives: [{measure: job_stall_ms, at_least: 0, because: always true}]
"""
# 16384 GPUs of which 0.167 in a thousand fail each day: 2.7 a day; a second stands for 0.4 days
STOPS = """
seed: 10
arrivals:
  - of: rank_stop
    over: ranks
    rate: llama3-gpu
    population: 16384
    compress: 35000
    for: {from: 150 ms, to: 300 ms}
  - of: {straggler: {share: 50 %}}
    over: host3
    rate: llama3-software
    population: 16384
    compress: 35000
    for: 300 ms
"""
KILLS = """
seed: 55
arrivals:
  - {of: rank_kill, over: ranks, rate: llama3-any, population: 16384, compress: 10000, for: 500 ms}
  - {of: rank_stop, over: ranks, rate: llama3-any, population: 16384, compress: 5000, for: 200 ms}
"""


async def run_all(folder: Path, texts):
    from chaos.drivers.netns import NetnsDriver

    driver = await NetnsDriver.up(topology.load("clos-2x4x8"))
    found = {}
    try:
        await driver.wait_ready()
        for name, text in texts.items():
            experiment = loads(text, str(folder / f"{name}.yaml"))
            experiment.check(driver.fabric)
            there = make_folder(folder, name)
            await run(experiment, driver, there, calm_foreign_percent=100)
            record = records.read(there / "record.json")
            found[name] = experiment, record
            if name == "stops":
                there = make_folder(folder, "replay")
                later = again(experiment, record)
                struck = recorded(record, driver.fabric)
                await run(later, driver, there, calm_foreign_percent=100, storms=struck)
                found["replay"] = later, records.read(there / "record.json")
        found["fabric"] = driver.fabric
    finally:
        await driver.down()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("ranks")
    stops = HEAD.replace("MODE", "ride") + STOPS
    kills = HEAD.replace("MODE", "regroup").replace("trials: 1", "trials: 2") + KILLS
    return asyncio.run(run_all(folder, {"stops": stops, "kills": kills}))


def test_ranks_are_struck_as_they_were_drawn(made):
    """Each stop is in force on its rank, acted, and is over; the job goes on."""
    experiment, record = made["stops"]
    ((_, storm),) = storms(experiment, made["fabric"])
    (trial,) = record.trials

    planned = [(one.fault.name, one.fault.rank) for one in storm.strikes]
    assert len({rank for _, rank in planned}) > 1
    assert {name for name, _ in planned} == {"rank_stop", "straggler"}
    assert all(rank == 1 for name, rank in planned if name == "straggler"), "the rank on host3"
    assert [change["text"] for change in trial.proof.changes] == [
        f"{made_on(rank)}/rank{rank}: SIGSTOP" for _, rank in planned
    ]
    assert all(change["hit"] for change in trial.proof.changes)
    assert (trial.proof.in_force, trial.proof.taken_back, trial.proof.residue) == (True, True, ())
    assert [f.sentence for f in trial.findings if f.verdict != "pass"] == []
    measured = {one.name: one.value for one in trial.measures}
    assert measured["job_stall_ms"] > 100


def made_on(rank):
    return ("host1", "host3", "host5", "host8")[rank]


def test_a_replay_strikes_the_same_ranks_at_the_same_instants(made):
    first, second = (
        [one["text"] for one in made[n][1].trials[0].strikes] for n in ("stops", "replay")
    )

    assert first == second
    assert len(first) >= 3


def test_the_rate_is_told_with_its_source(made):
    _, record = made["stops"]
    told = record.experiment["arrivals"]

    assert [one["of"] for one in told] == ["rank_stop()", "straggler(share=50 %)"]
    assert "148 interruptions by a faulty GPU in 54 days" in told[0]["rate"]


def test_a_rank_that_died_is_not_struck_again_and_lives_in_the_next_trial(made):
    """The others go on without it; the next trial has all four again."""
    experiment, record = made["kills"]
    planned = storms(experiment, made["fabric"])
    left = [sentence for _, storm in planned for sentence in storm.left_out]

    assert any(
        "rank_kill" in one.split("; ")[0] and "rank_kill" in one.split("; ")[1] for one in left
    )
    assert [one.number for one in record.trials] == [1, 2]
    for trial, (_, storm) in zip(record.trials, planned, strict=True):
        struck = [change["text"] for change in trial.proof.changes]
        names = {"rank_kill": "SIGKILL", "rank_stop": "SIGSTOP"}
        assert struck == [
            f"{made_on(one.fault.rank)}/rank{one.fault.rank}: {names[one.fault.name]}"
            for one in storm.strikes
        ]
        assert all(change["hit"] == 1 for change in trial.proof.changes), trial.proof.changes
        assert any("SIGKILL" in one for one in struck)
