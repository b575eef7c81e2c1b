"""Control planes break: which deaths and withdrawals are hitless, and which are not.

Each number's reason stands in the experiment file (`because`), and in the report.
"""

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.railbreak]


def test_a_spine_whose_daemons_all_die_loses_nothing(trial):
    """Its kernel forwards by the routes it has until the leaves have left it."""
    trial("daemons_killed")


def test_the_same_deaths_are_noticed_where_the_kernels_route_goes_with_them(trial):
    """The proof that the test above could have failed: one thing more is broken, and packets go."""
    trial("daemons_killed_fib_gone")


def test_a_leaf_whose_bgpd_alone_dies_is_cut_off(trial):
    """Without graceful restart its zebra takes the routes of a client that is gone away."""
    trial("leaf_bgpd_killed")


@pytest.mark.fabric("clos-graceful")
def test_with_graceful_restart_the_same_death_is_hitless(trial):
    """The neighbours and its own zebra keep its routes until it is back."""
    trial("leaf_bgpd_killed_graceful")


def test_a_prefix_that_a_spine_withdraws_moves_without_a_loss(trial):
    """It forwards what still arrives, and the leaves have another way."""
    trial("route_withdrawn")
