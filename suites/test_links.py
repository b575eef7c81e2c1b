"""Links and NICs break: what the training job feels, who notices, how soon it runs again.

Each number's reason stands in the experiment file (`because`), and in the report.
"""

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.railbreak]


def test_a_port_shut_beside_the_sender_costs_milliseconds(trial):
    """The leaf's own port goes, and it takes the other spine: no routing protocol in between."""
    trial("local_link_down")


def test_a_cable_pulled_at_the_far_side_is_routed_around_in_half_a_second(trial):
    """Only BGP can tell the sender's leaf; the job waits for it, then for one retransmission."""
    trial("remote_link_down")


def test_a_link_dark_in_one_direction_is_found_by_bfd(trial):
    """No port falls; BFD at the deaf end notices after three lost packets, and BGP withdraws."""
    trial("silent_one_way")


def test_a_link_that_eats_roce_alone_is_noticed_by_nobody_but_the_traffic(trial):
    """Ports, BFD and BGP stay well, so nothing repairs it: the failure that needs a job to see."""
    trial("gray_roce_drop")


def test_a_flapping_link_costs_no_more_than_a_dead_one(trial):
    """Eight flaps in four seconds, beside the sender: each is a local re-hash."""
    trial("flap_train")


def test_a_nic_down_for_seconds_holds_the_job_up_for_seconds(trial):
    """The host has one NIC, so the job must wait, and must go on by itself when it is back."""
    trial("nic_down")


def test_a_dead_spine_costs_twenty_milliseconds(trial):
    """All links of a spine at once: every leaf loses a carrier and takes its other uplink."""
    trial("spine_down")
