"""nftables' own `queue`, with which this kernel is built: the same bodies as for the other way."""

import os

import pytest

from chaos import nfqueue
from chaos.netns import inside
from chaos.nft import Compiler
from tests.netns.conftest import stack
from tests.netns.test_packet_queue import (
    test_a_delay_holds_the_chosen_and_nobody_else,
    test_a_forged_notification_reaches_the_sender_and_the_packet_goes_on,
    test_the_same_packets_are_silently_corrupted_in_three_runs,
)
from tests.netns.test_packet_queue_left import (
    test_a_killed_worker_leaves_an_open_road,
    test_a_port_whose_packets_another_takes_is_refused,
    test_by_hand_it_is_started_and_stopped_and_leaves_nothing,
)

__all__ = [
    "stack",
    "test_a_delay_holds_the_chosen_and_nobody_else",
    "test_a_forged_notification_reaches_the_sender_and_the_packet_goes_on",
    "test_a_killed_worker_leaves_an_open_road",
    "test_a_port_whose_packets_another_takes_is_refused",
    "test_by_hand_it_is_started_and_stopped_and_leaves_nothing",
    "test_the_same_packets_are_silently_corrupted_in_three_runs",
]

pytestmark = pytest.mark.vm


@pytest.mark.skipif("+deb" not in os.uname().release, reason="for Debian's kernel: .ci/vm")
def test_this_kernel_has_words_for_it(two_hosts):
    def probe():
        compiler = Compiler()
        try:
            return nfqueue.native(compiler)
        finally:
            compiler.close()

    assert inside(two_hosts.path("h2"), probe) is True
    assert "railbreak" not in two_hosts.run("h2", "nft", "list", "tables")
