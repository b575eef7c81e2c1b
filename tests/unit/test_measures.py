"""Measures of detection, localisation and of many trials."""

import pytest

from chaos import measures
from chaos.timeline import Event, Measure, Moment, Windows

WINDOWS = Windows(
    (0, 10**9),
    Moment(2 * 10**9, 2 * 10**9 + 10**6),
    Moment(4 * 10**9, 4 * 10**9),
    6 * 10**9,
)


def event(at_ms, detector="bfd", blames=""):
    return Event(
        int(at_ms * 1e6),
        "routing",
        "x.lost",
        element="leaf1:eth1",
        detector=detector,
        blames=blames,
    )


def named(found):
    return {m.name: m for m in found}


def test_detection_counts_from_the_event_instant_with_its_uncertainty():
    """The event lies in [2000, 2001] ms; a symptom at 2100 ms is 99 to 100 ms late."""
    found = named(measures.detection([event(1500), event(2100), event(2050, "bgp")], WINDOWS, ()))

    assert (found["detection_bfd_ms"].low, found["detection_bfd_ms"].high) == (99.0, 100.0)
    assert found["detection_first_ms"].value == pytest.approx(49.5)


def test_a_detector_that_listened_and_saw_nothing_is_absent_not_zero():
    found = named(measures.detection([event(5000)], WINDOWS, ["bfd", "carrier"]))

    assert found["detection_bfd_ms"].value is None, "after healing is too late"
    assert found["detection_carrier_ms"].value is None
    assert found["detection_first_ms"].value is None


@pytest.mark.parametrize(
    ("blames", "right"), [("leaf1:eth1", 100.0), ("leaf2:eth1", 0.0), ("", None)]
)
def test_localisation_takes_the_first_name(blames, right):
    found = named(measures.localisation([event(2100, blames=blames)], WINDOWS, ["leaf1:eth1"]))

    assert found["localisation_right_percent"].value == right


def test_the_median_keeps_censored_trials():
    """Two of three did not recover: the median itself is beyond its value."""
    trials = [
        [Measure("recovery_ms", 100.0)],
        [Measure("recovery_ms", 60_000.0, censored=True)],
        [Measure("recovery_ms", 60_000.0, censored=True)],
    ]
    (combined,) = measures.over_trials(trials)

    assert (combined.value, combined.censored, combined.n) == (60_000.0, True, 3)


def test_a_censored_trial_sorts_behind_every_one_that_ended():
    """Observed for 50 ms only and not recovered: that is more than 100 ms for all we know."""
    trials = [
        [Measure("recovery_ms", 50.0, censored=True)],
        [Measure("recovery_ms", 100.0)],
        [Measure("recovery_ms", 80.0)],
    ]
    (combined,) = measures.over_trials(trials)

    assert (combined.value, combined.censored) == (100.0, False)


def test_ten_trials_have_an_order_statistic_interval():
    """For n = 10 the 2nd and 9th of the ordered values hold the median at 97.9 %."""
    (combined,) = measures.over_trials([[Measure("x_ms", float(v))] for v in range(1, 11)])

    assert (combined.value, combined.low, combined.high) == (5.5, 2.0, 9.0)
    assert "order-statistic" in combined.note


def test_absent_everywhere_is_absent():
    (combined,) = measures.over_trials([[Measure("x_ms", None, note="no packet")]] * 2)

    assert (combined.value, combined.n, combined.note) == (None, 0, "no packet")


@pytest.mark.parametrize(("n", "percent"), [(20, 13.9), (30, 9.5), (59, 4.95), (299, 0.997)])
def test_zero_failures_bound_the_rate(n, percent):
    assert 100 * measures.failure_bound(n) == pytest.approx(percent, rel=5e-3)
