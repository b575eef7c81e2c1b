"""Failures that nothing in the fabric detects: shown as such, with what they cost the traffic."""

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.railbreak]


def test_one_flow_of_many_is_eaten_and_only_it_notices(trial):
    """An access list gone wrong: one flow of eight between the same hosts."""
    trial("gray_one_flow")


def test_a_loss_of_a_thousandth_one_way_is_nobodys_business(trial):
    """BFD would need three losses in a row."""
    trial("gray_thin_loss")


def test_a_link_that_is_merely_slow_is_noticed_by_no_port_and_no_protocol(trial):
    """All that they look at is small, and passes; the job waits for every large message."""
    trial("slow_link")


def test_a_black_hole_behind_a_healthy_control_plane_stays(trial):
    """The kernel drops what BGP announces."""
    trial("gray_blackhole")


def test_polarised_hashing_moves_flows_and_nobody_notices(trial):
    """All flows of a pair of hosts on one uplink; the other stands idle."""
    trial("gray_polarised")
