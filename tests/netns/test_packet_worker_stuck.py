"""A worker that stands still or dies while it holds packets: noticed, said, and the road opens."""

import asyncio
import os
import re
import signal
import threading
import time

import pytest

from chaos import snapshot
from chaos.change import PacketRule
from chaos.packet_worker import workers_of
from chaos.registry import InForce
from chaos.timeline import now_ns
from tests.netns.bench import TABLE, WIRE, Bench
from tests.netns.frames import roce, rule
from tests.netns.workers import await_gone
from tests.waiting import until

pytestmark = pytest.mark.netns

MS = 1_000_000


class Traffic:
    """Numbered frames from h1, one each millisecond, and when each arrived at h2."""

    def __init__(self, two_hosts):
        self.bench = Bench(two_hosts)
        self.sent, self.came = [], {}
        self.over = threading.Event()
        self.threads = [threading.Thread(target=one) for one in (self._send, self._take)]

    def __enter__(self):
        for one in self.threads:
            one.start()
        return self

    def _send(self):
        frame = roce()
        while not self.over.is_set():
            self.sent.append(now_ns())
            self.bench.send(len(self.sent) - 1, frame)
            time.sleep(0.001)

    def _take(self):
        while not self.over.is_set():
            got = {}
            self.bench.receive(got)
            self.came.update(dict.fromkeys(got, now_ns()))
            time.sleep(0.0005)

    def __exit__(self, *exc):
        time.sleep(0.1)
        self.over.set()
        for one in self.threads:
            one.join()
        self.bench.close()

    @property
    def lost(self):
        return [n for n in range(len(self.sent) - 100) if n not in self.came]


def weathered(two_hosts, spans, harm, *, engine="worker"):
    """A delay in force, harmed 200 ms into its first span; when that was, when it was over."""
    change = PacketRule(WIRE, TABLE, rule(then="delay=5ms"), engine)

    async def go():
        async with await two_hosts.arm((change,)) as hands:
            await hands.start(now_ns() + 20 * MS, spans)
            await until(lambda: hands.actions, "the delay to be in force", 5)
            await asyncio.sleep(0.2)  # in the middle of it
            (worker,) = workers_of(TABLE, two_hosts.path("wire"))
            os.kill(worker, harm)
            harmed = now_ns()
            await hands.wait()
            over = now_ns()
            return harmed, over, await hands.heal()

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("harm", "words"), [(signal.SIGSTOP, "stood still"), (signal.SIGKILL, "ended")]
)
def test_it_is_noticed_within_a_second_or_so_and_packets_go_straight_on(two_hosts, harm, words):
    """20 s before it would be taken back: the fault is over, and says why."""
    with Traffic(two_hosts) as traffic:
        before = snapshot.take(two_hosts.namespaces)
        harmed, over, proof = weathered(two_hosts, [InForce(0, 20_000 * MS)], harm)
        await_gone(two_hosts)
        time.sleep(0.3)

    assert 0 < over - harmed < 1500 * MS
    (sentence,) = proof.trouble
    assert re.search(rf"delay=5ms.*: its worker {words}; packets go straight on since", sentence)
    assert proof.taken_back
    assert proof.in_force
    (change,) = proof.changes
    assert change.hit > 10, "what it did before is still counted"
    if harm == signal.SIGSTOP:  # its table led packets to it until it was given up
        met = sum(proof.event.latest_ns < at < over - 200 * MS for at in traffic.sent)
        assert change.hit >= met
    last = traffic.sent[(traffic.lost or [0])[-1]]
    assert last < over + 20 * MS, "nothing sent later is lost"
    late = [traffic.came[n] - at for n, at in enumerate(traffic.sent[:-100]) if at > over + 50 * MS]
    assert sorted(late)[len(late) // 2] < 4 * MS, "nor delayed"
    assert snapshot.difference(before, snapshot.take(two_hosts.namespaces)) == ()


def test_one_that_stands_still_as_it_is_taken_back_is_ended_soon(two_hosts):
    """In turns shorter than a sign of life takes: the injector does not wait for it for long."""
    spans = [InForce(at * 450 * MS, at * 450 * MS + 400 * MS) for at in range(20)]
    harmed, over, proof = weathered(two_hosts, spans, signal.SIGSTOP)

    assert over - harmed < 1500 * MS
    assert [one.kind for one in proof.actions[:2]] == ["do", "undo"]
    assert any("its worker stood still" in one for one in proof.trouble)
    assert proof.taken_back
    await_gone(two_hosts)


def test_a_worker_that_lives_is_left_in_peace_under_load(two_hosts):
    """It answers between packets: four seconds of what it can carry are no reason to end it."""
    change = PacketRule(WIRE, TABLE, rule(then="delay=1ms"), "worker")
    bench = Bench(two_hosts)
    frame = roce() + bytes(4)

    def flood(until):
        sent = 0
        while time.monotonic() < until:
            for _ in range(20):
                bench.out.send(frame)
            sent += 20
            time.sleep(0.002)
        return sent

    async def go():
        async with await two_hosts.arm((change,)) as hands:
            await hands.start(now_ns() + 20 * MS, [InForce(0, 4000 * MS)])
            sent = await asyncio.to_thread(flood, time.monotonic() + 3.5)
            await hands.wait()
            return sent, await hands.heal()

    sent, proof = asyncio.run(go())
    bench.close()

    assert proof.trouble == ()
    assert [one.kind for one in proof.actions] == ["do", "undo"]
    assert proof.changes[0].hit > 0.9 * sent > 5_000
