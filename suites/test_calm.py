"""Nothing is broken: the yardstick itself, and the false alarms of every detector."""

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.railbreak]


def test_an_unbroken_fabric_loses_nothing_and_no_detector_speaks(trial):
    """While nothing is broken, the flow loses nothing, every value is right, nobody cries wolf."""
    trial("placebo")


def test_every_collective_comes_out_right(trial, job):
    """Every collective that training uses gives right values over the routed fabric.

    One wrong value is a failure, whatever the speed: 8 ranks, full comparison of every element.
    """
    trial(
        None,
        [job("host1", "host3", "host5", "host7", op="all_to_all", size="256 KiB", check="full")],
        [
            {"measure": "job_wrong_values", "at_most": 0, "because": "wrong is worse than slow"},
            {"false_alarms": 0, "because": "nothing was broken"},
        ],
        trials=1,
    )
