"""Verdict rules: each has a row here, and nothing vacuous passes."""

from dataclasses import replace

import pytest

from chaos.judge import judge_run, judge_trial, worst
from chaos.objectives import Bound, DetectedBy, FalseAlarms, Named, UndetectedBy
from chaos.record import Exposure, Proof, Trial
from chaos.timeline import Event, Measure, Moment, Windows
from chaos.units import Duration, Percent

WINDOWS = Windows((0, 1000), Moment(2000, 2010), Moment(9000, 9010), 20_000)
GOOD = Proof(in_force=True, seen=100, hit=7, taken_back=True)
TRIAL = Trial(
    number=1,
    placebo=False,
    seed=1,
    windows=WINDOWS,
    proof=GOOD,
    exposure=Exposure(True, "17 packets crossed"),
)
PLACEBO = replace(
    TRIAL, placebo=True, proof=Proof(), exposure=Exposure(), windows=replace(WINDOWS, placebo=True)
)


def of(*measures, **changes):
    return judge_trial(replace(TRIAL, measures=measures, **changes))


def verdict_of(objective, *trials):
    findings, _, verdict = judge_run([objective], trials)
    return verdict.value, findings[0].sentence


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "inconclusive"),
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail", "pass"], "fail"),
        (["pass", "blocked"], "inconclusive"),
    ],
    ids=["nothing checked", "all well", "one doubt", "fail beats doubt", "blocked is doubt"],
)
def test_worst_finding_wins(verdicts, expected):
    assert worst(verdicts) == expected


@pytest.mark.parametrize(
    ("changes", "verdict", "sentence"),
    [
        ({}, "pass", "the fault was in force, acted 7 times and was taken back"),
        (
            {"proof": replace(GOOD, in_force=False)},
            "inconclusive",
            "the fault was not proved in force",
        ),
        (
            {"proof": replace(GOOD, hit=0)},
            "inconclusive",
            "the fault was in force but never acted (100 packets met it)",
        ),
        (
            {"exposure": Exposure(False, "not exposed: it crosses spine2")},
            "inconclusive",
            "not exposed: it crosses spine2",
        ),
        (
            {"proof": replace(GOOD, residue=("leaf1: route 10.0.0.0/24 is missing",))},
            "fail",
            "left behind: expected no trace, got leaf1: route 10.0.0.0/24 is missing",
        ),
        (
            {"proof": replace(GOOD, taken_back=False, changes=({"cure": "nft delete x"},))},
            "fail",
            "still in force after healing; cure: nft delete x",
        ),
        (
            {"trouble": ("probe flow: program sender ended in mid-trial",)},
            "inconclusive",
            "probe flow: program sender ended in mid-trial",
        ),
        ({"windows": None}, "inconclusive", "the trial did not reach its end"),
        (
            {"proof": replace(GOOD, late=("action 1 was 80 ms late",))},
            "inconclusive",
            "action 1 was 80 ms late",
        ),
    ],
    ids=[
        "all proved",
        "not in force",
        "never acted",
        "not exposed",
        "residue",
        "still there",
        "probe died",
        "broken off",
        "late",
    ],
)
def test_the_rules_of_one_trial(changes, verdict, sentence):
    trial = of(**changes)

    assert (trial.verdict, trial.findings[0].sentence) == (verdict, sentence)


def ms(value, **more):
    return Measure("outage_ms", value, value, value, **more)


@pytest.mark.parametrize(
    ("measures", "verdict", "sentence"),
    [
        ([ms(3.0)], "pass", "outage_ms: expected at most 10 ms, got 3 ms in 1 trial"),
        ([ms(12.0)], "fail", "outage_ms: expected at most 10 ms, got 12 ms in 1 trial"),
        (
            [ms(None, note="no packet came")],
            "inconclusive",
            "outage_ms: expected at most 10 ms, got no data in 1 of 1 trials (no packet came)",
        ),
        (
            [],
            "inconclusive",
            "outage_ms: expected at most 10 ms, "
            "got no data in 1 of 1 trials (no probe measures it)",
        ),
        (
            [ms(60.0, censored=True)],
            "fail",
            "outage_ms: expected at most 10 ms, got more than 60 ms in 1 trial",
        ),
        (
            [ms(4.0, censored=True)],
            "inconclusive",
            "outage_ms: expected at most 10 ms, got more than 4 ms in 1 trial",
        ),
    ],
    ids=["within", "beyond", "absent", "nobody measures", "censored beyond", "censored below"],
)
def test_a_bound(measures, verdict, sentence):
    assert verdict_of(Bound("outage_ms", at_most=10), of(*measures)) == (verdict, sentence)


def test_a_share_of_the_trials_may_be_asked_for():
    """Three of four trials are 75 %: enough for 75 %, too few for 80 %."""
    trials = [of(ms(value)) for value in (1, 2, 3, 50)]

    assert verdict_of(Bound("outage_ms", at_most=10, share=Percent(75)), *trials)[0] == "pass"
    assert verdict_of(Bound("outage_ms", at_most=10, share=Percent(80)), *trials)[0] == "fail"


def test_one_doubtful_trial_makes_the_run_doubtful_not_smaller():
    good, bad = of(ms(1.0)), of(ms(1.0), trouble=("calm was not calm",))

    findings, _, verdict = judge_run([Bound("outage_ms", at_most=10)], [good, bad])

    assert (findings[0].verdict, verdict) == ("pass", "inconclusive")


def test_no_objective_is_no_pass():
    assert judge_run([], [of(ms(1.0))])[2] == "inconclusive"


def test_no_trial_is_no_pass():
    assert judge_run([Bound("outage_ms", at_most=10)], [])[2] == "inconclusive"


def test_a_crashed_judge_is_doubt():
    class Broken(Bound):
        @property
        def expected(self):
            raise RuntimeError("boom")

    findings, _, verdict = judge_run([Broken("outage_ms", at_most=10)], [of(ms(1.0))])

    assert verdict == "inconclusive"
    assert "the judge crashed: RuntimeError('boom')" in findings[0].sentence


def seen(value):
    return Measure("detection_bfd_ms", value, note="bfd on leaf1:eth1")


@pytest.mark.parametrize(
    ("objective", "measures", "verdict"),
    [
        (DetectedBy("bfd", Duration(300_000_000)), [seen(180.0)], "pass"),
        (DetectedBy("bfd", Duration(100_000_000)), [seen(180.0)], "fail"),
        (DetectedBy("bfd"), [seen(None)], "fail"),
        (DetectedBy("bfd"), [], "inconclusive"),
        (UndetectedBy(("bfd",)), [seen(None)], "pass"),
        (UndetectedBy(("bfd",)), [seen(180.0)], "fail"),
        (UndetectedBy(("bfd",)), [], "inconclusive"),
    ],
    ids=["in time", "late", "silent", "deaf", "rightly silent", "it noticed", "nobody listened"],
)
def test_detection(objective, measures, verdict):
    assert verdict_of(objective, of(*measures))[0] == verdict


@pytest.mark.parametrize(("value", "verdict"), [(100.0, "pass"), (0.0, "fail"), (None, "fail")])
def test_localisation(value, verdict):
    measure = Measure("localisation_right_percent", value, note="named leaf2:eth9")

    assert verdict_of(Named(), of(measure))[0] == verdict


def test_false_alarms_are_counted_in_placebo_trials_only():
    alarm = Event(5000, "routing", "bfd.lost", element="leaf1:eth1", detector="bfd")
    quiet, loud = judge_trial(PLACEBO), judge_trial(replace(PLACEBO, events=(alarm,)))

    assert verdict_of(FalseAlarms(0), quiet)[0] == "pass"
    assert verdict_of(FalseAlarms(0), quiet, loud) == (
        "fail",
        "false alarms in placebo trials: expected at most 0, "
        "got 1 in 2 placebo trials (bfd on leaf1:eth1)",
    )
    assert verdict_of(FalseAlarms(0), of(events=(alarm,)))[0] == "inconclusive"


def test_each_of_two_faults_must_have_acted():
    """A rule that matches nothing hides behind no other fault's hits."""
    acted = {"fault": "a", "hit": 9, "seen": 9, "cure": ""}
    idle = {"fault": "b", "hit": 0, "seen": 4, "cure": ""}
    trial = of(proof=replace(GOOD, hit=9, changes=(acted, idle)))

    assert trial.verdict == "inconclusive"
    assert trial.findings[0].sentence == (
        "the fault (b) was in force but never acted (4 packets met it)"
    )
    assert of(proof=replace(GOOD, changes=(acted, {**idle, "hit": 1}))).verdict == "pass"


def test_disturbed_calms_stand_beside_the_false_alarms():
    quiet = judge_trial(replace(PLACEBO, disturbed=("calm was not calm: bfd on leaf1:eth1",)))

    assert verdict_of(FalseAlarms(0), quiet)[1].endswith(
        "; 1 calm phases were disturbed and repeated"
    )
