"""Nothing is broken: the yardstick itself, and the false alarms of every detector."""

import pytest

from chaos.experiment import Phases, Range
from chaos.units import Duration

SHORT = Duration.parse("500 ms")
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")

pytestmark = [pytest.mark.netns, pytest.mark.railbreak]


def test_an_unbroken_fabric_loses_nothing_and_no_detector_speaks(trial):
    """While nothing is broken, the flow loses nothing, every value is right, nobody cries wolf."""
    trial("placebo")


@pytest.mark.parametrize("op", OPS)
def test_a_collective_comes_out_right(trial, job, op):
    """Each collective that training uses gives right values over the routed fabric.

    One wrong value is a failure, whatever the speed: 4 ranks, every element of every iteration is
    compared.
    """
    trial(
        None,
        [job("host1", "host3", "host5", "host7", op=op, size="256 KiB", check="full")],
        [
            {"measure": "job_wrong_values", "at_most": 0, "because": "wrong is worse than slow"},
            {"false_alarms": 0, "because": "nothing was broken"},
        ],
        trials=1,
        phases=Phases(SHORT, Range(SHORT, SHORT), SHORT),
    )
