"""The reader and the measures of the collective probe: recorded jobs, and jobs made by hand."""

import json
from pathlib import Path

import pytest

from chaos.timeline import Moment, Windows
from probes.collective import Collective
from probes.collective_events import cause_of
from probes.collective_reading import ladder

DATA = Path(__file__).parents[1] / "data" / "collective"
MS = 1_000_000
JOB = Collective()


def recorded(name):
    records = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    raw = json.loads((DATA / f"{name}.windows.json").read_text())
    windows = Windows(
        tuple(raw["calm_ns"]), Moment(*raw["event"]), Moment(*raw["heal"]), raw["end_ns"]
    )
    return records, windows


def judged(records, windows):
    readings = JOB.read({"coordinator": records})
    return readings, {m.name: m for m in JOB.measures(readings, windows)}


def environment(seconds, steal=0.0):
    """What the coordinator says of the machine, once a second."""
    stamps = range(500, 1000 * seconds, 1000)
    return [{"ev": "env", "t": t * MS, "rank": -1, "steal": steal} for t in stamps]


def by_hand(done_ms, *, took_ms=10, ranks=2, more=(), env=None):
    """Records of ranks that complete iterations at these times (per rank, or one list for all)."""
    lists = done_ms if isinstance(done_ms, dict) else dict.fromkeys(range(ranks), done_ms)
    records = []
    for rank, times in lists.items():
        limits = {"stall_ms": 200.0}
        records.append({"ev": "hello", "t": 0, "rank": rank, "n": 1, "node": f"host{rank + 1}"})
        records.append(
            {
                "ev": "baseline",
                "t": 0,
                "rank": rank,
                "n": 2,
                "limits": limits,
                "p50_ms": 20.0,
                "p90_ms": 21.0,
            }
        )
        for n, ms in enumerate(times):
            common = {"op": "all_reduce", "bytes": 1 << 20, "world": len(lists), "inc": 0}
            stamps = {"t0": [(ms - took_ms) * MS], "t1": [ms * MS], "t": ms * MS}
            records.append(
                {"ev": "it", "rank": rank, "n": n + 3, "i": n, "bad": [], "full": 0, **stamps}
                | common
                | {"node": f"host{rank + 1}"}
            )
    more = [*more, *(environment(7) if env is None else env)]
    return sorted([*records, *more], key=lambda r: r["t"])


def steady(start, end, step=20):
    return list(range(start, end, step))


CALM = (0, 2000 * MS)


def windows(event=2000, heal=3000, end=6000):
    return Windows(CALM, Moment(event * MS, event * MS), Moment(heal * MS, heal * MS), end * MS)


# ---- recorded jobs ------------------------------------------------------------------------------


def test_a_recorded_black_hole():
    records, trial = recorded("black_hole")
    readings, measures = judged(records, trial)
    storm = [e for e in readings.events if e.at_ns >= trial.event.earliest_ns and e.detector]
    assert {e.detector for e in storm} == {"heartbeat", "job_stall", "op_age", "tcp_retransmit"}
    named = [e for e in storm if e.blames]
    assert [(e.blames, e.facts["cause"]) for e in named] == [("host2:eth1", "network")]
    assert measures["job_stall_ms"].value == pytest.approx(1553.3, abs=1)
    assert not measures["job_stall_ms"].censored
    assert measures["job_recovery_ms"].value > measures["job_stall_ms"].value - 100
    assert measures["job_wrong_values"].value == 0
    assert readings.extra["fate"] == "survived"
    assert readings.extra["rto_ladder_ms"][:4] == [204.0, 612.0, 1428.0, 3060.0]
    assert readings.trouble == ()


def test_a_recorded_frozen_rank_is_no_fault_of_the_network():
    records, trial = recorded("frozen")
    readings, measures = judged(records, trial)
    named = [e for e in readings.events if e.blames and e.at_ns >= trial.event.earliest_ns]
    assert [(e.blames, e.facts["cause"]) for e in named] == [("rank2", "frozen")]
    assert "tcp_retransmit" not in {e.detector for e in readings.events}
    assert measures["job_stall_ms"].value == pytest.approx(1015.4, abs=1)


def test_a_recorded_killed_rank():
    records, trial = recorded("killed")
    readings, measures = judged(records, trial)
    first = next(e for e in readings.events if e.blames)
    assert (first.name, first.blames) == ("process.exited", "rank2")
    assert readings.extra["fate"] == "aborted"
    assert "Connection reset by peer" in readings.extra["error"]
    assert measures["job_recovery_ms"].censored
    assert measures["job_stall_ms"].censored
    fate = [e for e in readings.events if e.name == "job.fate"]
    assert [e.facts["fate"] for e in fate] == ["aborted"]


@pytest.mark.parametrize("name", ["black_hole", "frozen", "killed"])
def test_what_is_read_keeps_the_promises_of_readings(name):
    readings, measures = judged(*recorded(name))
    assert list(measures) == list(JOB.schema)
    assert [e.at_ns for e in readings.events] == sorted(e.at_ns for e in readings.events)
    for series in readings.series:
        assert len(series.at_ns) == len(series.values)
        assert list(series.at_ns) == sorted(series.at_ns)
    assert {e.detector for e in readings.events} - {""} <= set(JOB.detectors)
    json.dumps(readings.extra)
    for measure in measures.values():
        assert measure.value is not None or measure.note


def test_streams_are_those_that_carry_bytes():
    records, _ = recorded("black_hole")
    addresses = {f"host{n}": f"10.77.{n}.2" for n in range(1, 5)}
    streams = JOB.streams(addresses, {"coordinator": records})
    assert {s.proto for s in streams} == {6}
    assert all(addresses[s.source] == s.source_ip for s in streams)
    assert {s.source for s in streams} == set(addresses)
    assert JOB.streams(addresses, {}) == ()


def test_no_records_are_absent_numbers_not_zeros():
    readings, measures = judged([], windows())
    assert {m.value for m in measures.values()} == {None}
    assert all(m.note and m.n == 0 for m in measures.values())
    assert readings.extra["fate"] is None


# ---- stall, recovery ----------------------------------------------------------------------------


def test_stall_is_the_gap_that_holds_the_fault_not_a_larger_later_one():
    done = [*steady(0, 2020), *steady(2520, 4500), *steady(5400, 7000)]
    _, measures = judged(by_hand(done), windows(heal=2400, end=7000))
    assert measures["job_stall_ms"].value == 520
    assert measures["job_heal_stall_ms"].value == 920


def test_the_slowest_rank_counts():
    done = {0: steady(0, 6000), 1: [*steady(0, 2001), *steady(2600, 6000)]}
    _, measures = judged(by_hand(done), windows())
    assert measures["job_stall_ms"].value == 600
    assert "rank1" in measures["job_stall_ms"].note


def test_an_operation_in_flight_may_end_just_after_the_event():
    done = [*steady(0, 2030), *steady(2700, 6000)]  # 2000 was in flight, ends at 2020
    _, measures = judged(by_hand(done), windows())
    assert measures["job_stall_ms"].value == 680


def test_a_stall_that_begins_at_healing_is_no_stall_of_the_fault():
    done = [*steady(0, 3001), *steady(3300, 6000)]
    _, measures = judged(by_hand(done), windows())
    assert measures["job_stall_ms"].value == 20
    assert measures["job_heal_stall_ms"].value == 300
    assert measures["job_recovery_ms"].value == 0


def test_never_disturbed_is_recovered_at_once_and_says_so():
    _, measures = judged(by_hand(steady(0, 6001)), windows())
    assert measures["job_recovery_ms"].value == 0
    assert "never left" in measures["job_recovery_ms"].note
    assert measures["job_recovery_after_heal_ms"].value == -1000
    assert measures["job_degradation_percent"].value == pytest.approx(0, abs=0.1)
    assert measures["job_jct_ratio"].value == pytest.approx(1, abs=0.01)
    assert measures["job_busbw_ratio"].value == pytest.approx(1, abs=0.01)


def test_recovery_before_healing_is_negative_after_heal():
    done = [*steady(0, 2001), *steady(2400, 6000)]
    _, measures = judged(by_hand(done), windows())
    assert measures["job_recovery_ms"].value == 400
    assert measures["job_recovery_after_heal_ms"].value == -600


def test_slow_iterations_are_no_recovery():
    done = [*steady(0, 2001), *steady(2400, 4000, 40), *steady(4000, 6001)]
    _, measures = judged(by_hand(done), windows())
    assert measures["job_stall_ms"].value == 400
    # the window in which at most half the iterations are slow starts just before 4000
    assert 1600 < measures["job_recovery_ms"].value <= 2000


def test_a_noisy_calm_widens_the_band():
    noisy = [0]
    while noisy[-1] < 1980:
        noisy.append(noisy[-1] + (20, 20, 20, 60)[len(noisy) % 4])
    done = [*noisy, *steady(2010, 6001, 30)]
    _, measures = judged(by_hand(done), windows())
    assert measures["job_iterations_calm_median_ms"].value == 20
    assert not measures["job_recovery_ms"].censored


def test_a_train_of_stalls_is_recovered_after_the_last():
    done = [*steady(0, 2001), *steady(2300, 2900), *steady(3200, 6000)]
    _, measures = judged(by_hand(done), windows(heal=3150))
    assert measures["job_recovery_ms"].value == 1200


@pytest.mark.parametrize("done", [steady(0, 2001), [*steady(0, 2001), *steady(2400, 6000, 60)]])
def test_no_recovery_within_the_observation_is_censored(done):
    alive = [{"ev": "alive", "t": 5990 * MS, "rank": r} for r in (0, 1)]
    _, measures = judged(by_hand(done, more=alive), windows())
    recovery = measures["job_recovery_ms"]
    assert recovery.censored
    assert recovery.value == recovery.low == 4000
    assert "rank0, rank1" in recovery.note


def test_a_job_that_never_resumes_is_hung_and_its_stall_open():
    alive = [{"ev": "alive", "t": 5990 * MS, "rank": r} for r in (0, 1)]
    readings, measures = judged(by_hand(steady(0, 2001), more=alive), windows())
    assert readings.extra["fate"] == "hung"
    assert (measures["job_stall_ms"].value, measures["job_stall_ms"].censored) == (4000, True)
    assert [s.facts["open"] for s in readings.spans] == [True, True]
    assert measures["job_degradation_percent"].value == pytest.approx(100)
    assert measures["job_gpu_seconds_lost"].value == pytest.approx(8)
    assert measures["job_jct_ratio"].value is None


def test_half_speed_to_the_end_is_degraded():
    readings, measures = judged(by_hand([*steady(0, 2001), *steady(2040, 6001, 40)]), windows())
    assert readings.extra["fate"] == "degraded"
    assert measures["job_degradation_percent"].value == pytest.approx(50, abs=1)
    assert measures["job_jct_ratio"].value == pytest.approx(2, abs=0.05)
    assert measures["job_gpu_seconds_lost"].value == pytest.approx(4, abs=0.1)


# ---- bandwidth, goodput -------------------------------------------------------------------------


def test_bus_bandwidth_is_size_over_operation_time_by_the_formula():
    _, measures = judged(by_hand(steady(0, 6001), ranks=4), windows())
    expected = (1 << 20) / 10e-3 / 1e9 * 1.5
    assert measures["job_busbw_calm_gbytes_per_s"].value == pytest.approx(expected)


def test_an_operation_longer_than_the_storm_still_has_a_bandwidth():
    records = by_hand([*steady(0, 2001)])
    for rank in (0, 1):
        last = {**next(r for r in records[::-1] if r["ev"] == "it" and r["rank"] == rank)}
        records.append(last | {"t0": [2010 * MS], "t1": [6010 * MS], "t": 6010 * MS, "n": 500})
    _, measures = judged(records, windows(end=7000))
    assert measures["job_busbw_ratio"].value == pytest.approx(10 / 4000, rel=0.01)


def test_goodput_keeps_every_byte_and_is_still_during_a_stall():
    done = [*steady(20, 2001), *steady(3000, 4000)]
    records = by_hand(done)
    for record in records:
        if record.get("t1") == [3000 * MS]:
            record["t0"] = [2010 * MS]  # the operation that hung: its bytes moved at its end
    readings, _ = judged(records, windows())
    series = next(s for s in readings.series if s.name == "goodput_mbytes_per_s")
    moved = sum(rate * 0.1 for rate in series.values)
    assert moved == pytest.approx(len(done) * (1 << 20) / 1e6, rel=1e-3)
    quiet = [v for at, v in zip(series.at_ns, series.values, strict=True) if 2.1e9 < at < 2.8e9]
    assert quiet
    assert set(quiet) == {0.0}


# ---- values, trouble ----------------------------------------------------------------------------


def test_a_wrong_iteration_counts_once_however_it_shows():
    records = by_hand(steady(0, 6001))
    for record in records:
        if record["ev"] == "it" and record["i"] == 7:
            record["bad"] = [7]
    for rank, value in ((0, "aa"), (1, "bb")):
        hashed = {"ev": "hash", "inc": 0, "i": 50, "hash": value, "rank": rank}
        records.append({**hashed, "t": 1000 * MS, "n": 900 + rank})
    _, measures = judged(records, windows())
    assert measures["job_wrong_values"].value == 2


def test_skipped_record_numbers_are_trouble():
    records = by_hand(steady(0, 6001))
    assert JOB.read({"coordinator": records}).trouble == ()
    records.pop(next(k for k, r in enumerate(records) if r.get("n") == 40))
    (sentence,) = JOB.read({"coordinator": records}).trouble
    assert "1 records of rank0 are missing" in sentence


def test_dropped_records_are_trouble():
    records = by_hand(steady(0, 6001))
    records[30]["lost"] = 3
    assert any("lost 3 of its records" in s for s in JOB.read({"coordinator": records}).trouble)


@pytest.mark.parametrize(("steal", "told"), [(4.0, False), (14.0, True)])
def test_stolen_cpu_is_trouble(steal, told):
    records = by_hand(steady(0, 6001), env=environment(6, steal))
    trouble = JOB.read({"coordinator": records}).trouble
    assert any("hypervisor" in s for s in trouble) == told


def test_a_silent_coordinator_is_trouble():
    records = by_hand(steady(0, 6001), env=environment(2))
    (sentence,) = JOB.read({"coordinator": records}).trouble
    assert "coordinator was silent for 4.5 s" in sentence


# ---- causes, ladder -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        (None, "network"),
        ({"ev": "suspect", "state": "S"}, "network"),
        ({"ev": "suspect", "state": "T"}, "frozen"),
        ({"ev": "ctl_lost", "state": ""}, "frozen"),
        ({"ev": "exited", "code": -9}, "killed"),
    ],
)
def test_causes_of_silence(record, cause):
    others = [{"ev": "suspect", "state": "T", "who": 1, "t": 100}]
    told = [{**record, "who": 2, "t": 200}] if record else []
    assert cause_of(2, 150, [*others, *told]) == cause


def test_an_error_that_our_own_abort_caused_is_no_symptom():
    more = [
        {"ev": "aborting", "t": 2100 * MS, "rank": 0, "n": 900},
        {"ev": "error", "t": 2101 * MS, "rank": 1, "n": 901, "msg": "closed", "cls": "x"},
    ]
    readings = JOB.read({"coordinator": by_hand(steady(0, 2001), more=more)})
    assert not [e for e in readings.events if e.detector == "job_error"]
    readings = JOB.read({"coordinator": by_hand(steady(0, 2001), more=more[1:])})
    assert [e.element for e in readings.events if e.detector == "job_error"] == ["rank1"]


@pytest.mark.parametrize(
    ("missed", "more", "alarm"),
    [
        (9, [], True),
        (0, [], False),
        (0, [{"ev": "suspect", "t": 2200 * MS, "who": 1, "rank": -1, "state": "T"}], True),
    ],
)
def test_a_beat_that_was_only_held_up_is_no_alarm(missed, more, alarm):
    told = {"ev": "net", "rank": 0, "peer": 1, "source": -1, "silence_ms": 90, "thr_ms": 80}
    lost = {**told, "kind": "hb_lost", "t": 2100 * MS}
    back = {**told, "kind": "hb_back", "t": 2300 * MS, "missed": missed}
    records = by_hand(steady(0, 6001), more=[lost, back, *more])
    found = [e for e in JOB.read({"coordinator": records}).events if e.detector == "heartbeat"]
    assert bool(found) == alarm


def test_the_ladder_doubles_from_the_measured_timeout():
    socks = [{"rto_ms": 204.0, "bytes_sent": 10**7}, {"rto_ms": 1.0, "bytes_sent": 8}]
    rungs = ladder([{"ev": "sock", "socks": socks}])
    assert rungs[:3] == [204.0, 612.0, 1428.0]
    assert ladder([]) == []


def test_a_live_view_shows_goodput_and_what_went_wrong():
    """Of real records of a killed rank: meters for every rank, and a line per symptom."""
    lines = (DATA / "killed.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    meters = [moved for record in records if (moved := Collective.live(record))]
    said = [text for record in records if (text := Collective.notice(record))]

    assert {name for moved in meters for name in moved} == {f"rank{n} MB/s" for n in range(4)}
    assert all(value > 0 for moved in meters for value in moved.values())
    assert "rank1 hears nothing of rank2" in said
    assert "rank2 on host3 ended (killed by signal 9)" in said
