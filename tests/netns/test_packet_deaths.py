"""Packet workers that die or freeze, and those who started them: nothing is left, packets flow."""

import contextlib
import os
import signal
import time

import pytest

from chaos.change import PacketRule
from tests.netns.bench import TABLE, WIRE, made_ready
from tests.netns.frames import roce, rule
from tests.netns.stack import PORT
from tests.netns.workers import await_gone, home_of, outlived

pytestmark = pytest.mark.netns

#: Where a rule stands, and by what engine it then acts.
DETOURS = {"across a cable": (WIRE, "worker"), "where a node receives": (PORT, "nfqueue")}


@pytest.fixture(params=DETOURS.values(), ids=DETOURS)
def detour(request):
    return request.param


def held(two_hosts, one, place=WIRE, engine="worker"):
    made = made_ready(two_hosts, one, place, engine)
    made.do()
    return made


def test_a_frozen_worker_is_ended_by_undo(two_hosts, detour):
    made = held(two_hosts, rule(then="delay=1ms"), *detour)
    os.kill(made.worker.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert made.undo() == ()
    assert time.monotonic() - begun < 8
    made.close()
    await_gone(two_hosts, home_of(detour[0]))
    assert two_hosts.ping() == 3


def test_a_worker_does_not_outlive_who_started_it(two_hosts, detour):
    """Its input closes when that process dies, however it dies."""
    made = held(two_hosts, rule(then="delay=1ms"), *detour)
    made.worker.stdin.close()
    made.worker.wait(5)
    await_gone(two_hosts, home_of(detour[0]))
    assert two_hosts.ping() == 3
    made.worker.stdout.close()
    made.worker = None
    made.close()


@pytest.mark.parametrize("victim", ["injector", "worker", "both"])
def test_whoever_is_killed_nothing_is_left(two_hosts, detour, victim):
    outlived(two_hosts, *detour, victim, turns=5)


# ---- across a cable -----------------------------------------------------------------------------


def test_a_killed_worker_leaves_an_open_road(road):
    """The kernel takes the table with the process: what is sent later arrives, undelayed."""
    sent, killed = [], 0
    with contextlib.closing(held(road.two_hosts, rule(then="delay=5ms"))) as made:
        for number in range(3000):
            if number == 1000:
                killed = time.time_ns()
                os.kill(made.worker.pid, signal.SIGKILL)
            sent.append(road.send(number, roce(number)))
            time.sleep(0.0001)  # the pace is what is asked
        came = road.last(2999)
        assert made.undo() == ()

    got = [one.number for one in came]
    lost = sorted(set(range(3000)) - set(got))
    assert len(got) == len(set(got)), "none came twice"
    assert not lost or sent[lost[-1]] - killed < 500_000_000, f"{lost[0]} to {lost[-1]} were lost"
    assert got[-500:] == list(range(2500, 3000))
    late = [one.at_ns - sent[one.number] for one in came if one.number >= 2500]
    assert sorted(late)[250] < 1_000_000
    await_gone(road.two_hosts)


def test_packets_that_found_no_room_are_told(road):
    """A worker that stands still: 20000 packets wait for it, the rest is lost, and said to be."""
    with contextlib.closing(held(road.two_hosts, rule(then="delay=1ms"))) as made:
        os.kill(made.worker.pid, signal.SIGSTOP)
        for number in range(20_500):
            road.send(number, roce(number))
        os.kill(made.worker.pid, signal.SIGCONT)
        assert made.undo() == ()
        (sentence,) = made.trouble
        told, hits = made.told, made.hits()

    assert hits.hit == 20_500 == told["taken"] + told["lost"]
    assert told["lost"] > 0
    assert f"({told['lost']} found its queue full)" in sentence
    assert told["sent"] == told["taken"], "those that waited were put back"


def test_by_hand_it_is_started_and_stopped(two_hosts):
    """What a dry run prints, twice."""
    change = PacketRule(WIRE, TABLE, rule(then="delay=1ms"), "worker")
    steps = change.steps(two_hosts.resolve(WIRE))
    for _ in range(2):
        two_hosts.run("wire", *steps.do[0])
        assert two_hosts.ping() == 3
        for _ in range(2):
            two_hosts.run("wire", *steps.undo[0])
        await_gone(two_hosts)
