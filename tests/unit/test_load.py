"""How busy the machine is with others: what ends between two readings is nobody else's work."""

import os
import time

import pytest

from chaos import load
from chaos.load import Reading, between

ME, CHILD, OTHER = (10, 1), (11, 2), (12, 3)


def foreign(before, after):
    return between(before, after).foreign_percent


def test_a_child_that_began_and_ended_between_counts_by_its_parent():
    before = Reading(0, 0, 0, {ME: 5}, {ME: 100}, {ME: 1})
    after = Reading(100, 60, 0, {ME: 15}, {ME: 150}, {ME: 1})
    assert foreign(before, after) == 0


def test_a_child_that_was_there_before_is_not_counted_twice():
    before = Reading(0, 0, 0, {ME: 0, CHILD: 30}, {ME: 0, CHILD: 0}, {ME: 1, CHILD: 10})
    after = Reading(100, 30, 0, {ME: 0}, {ME: 50}, {ME: 1})  # 20 of its 50 were since
    assert foreign(before, after) == 10


def test_one_that_somebody_else_waited_for_is_left_out():
    before = Reading(0, 0, 0, {ME: 0, OTHER: 30}, {ME: 0, OTHER: 0}, {ME: 1, OTHER: 1})
    after = Reading(100, 30, 0, {ME: 10}, {ME: 0}, {ME: 1})
    assert foreign(before, after) == 20


def test_of_machines_that_tell_no_parents_only_the_living_count():
    before, after = Reading(0, 0, 0, {ME: 0, CHILD: 30}), Reading(100, 30, 0, {ME: 10})
    assert foreign(before, after) == 20


def test_a_real_child_is_found_among_what_we_waited_for():
    before = load.read()
    pid = os.fork()
    if not pid:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    after = load.read()

    me = next(key for key in after.reaped if key[0] == os.getpid())
    ticks = after.reaped[me] - before.reaped[me]
    assert ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(0.3, abs=0.1)
