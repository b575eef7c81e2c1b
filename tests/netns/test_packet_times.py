"""Windows and trains of packet rules, by the hands that act on time: packet by packet.

Crafted frames go from h1 to h2 as in `test_packets`; the rule comes and goes as its `when` says.
"""

import asyncio
import random
import threading
import time

import pytest

from chaos import snapshot
from chaos.packets import Schedule
from chaos.registry import FAULTS, build, load
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.netns.frames import roce
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

MS = 1_000_000
CABLE = "h1:eth1--h2:eth1"


class Stream:
    """Numbered frames from h1, one each millisecond, until told to stop; which arrived at h2."""

    def __init__(self, bench):
        self.bench = bench
        self.sent, self.got = [], {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._send)

    def __enter__(self):
        self.thread.start()
        return self

    def _send(self):
        frame = roce()
        while not self.over.is_set():
            self.sent.append(now_ns())
            self.bench.send(len(self.sent) - 1, frame)
            time.sleep(0.001)

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            self.bench.receive(self.got)
            time.sleep(0.01)

    @property
    def lost(self):
        return [number for number in range(len(self.sent)) if number not in self.got]

    def between(self, before, after):
        """Numbers sent surely within a time in force: after its acknowledgement, before its end."""
        return [n for n, at in enumerate(self.sent) if before <= at < after]


def packet_fault(when, then="drop"):
    load()
    words = {"link": CABLE, "end": "h1", "when": when, "then": then}
    return build(FAULTS, "fault", "packet_fault", words)


def held(two_hosts, fault, storm, meanwhile=None, seed=1):
    """The fault in force on its schedule for a storm; its spans and its proof."""

    async def go():
        changes = fault.changes(two_hosts.fabric)
        spans = fault.schedule(Duration.parse(storm), random.Random(seed))
        async with await two_hosts.arm(changes) as hands:
            await hands.start(now_ns() + 50 * MS, spans)
            waiting = asyncio.create_task(hands.wait())
            if meanwhile is not None:
                await asyncio.to_thread(meanwhile, hands, spans)
            await waiting
            return spans, await hands.heal()

    before = snapshot.take(two_hosts.namespaces)
    spans, proof = asyncio.run(go())
    assert snapshot.difference(before, snapshot.take(two_hosts.namespaces)) == ()
    assert (proof.trouble, proof.in_force, proof.taken_back) == ((), True, True)
    return spans, proof


def turns_of(proof):
    """Per turn: asked to come, there, asked to go, gone."""
    dos = [one for one in proof.actions if one.kind == "do"]
    undos = [one for one in proof.actions if one.kind == "undo"]
    return [
        (a.before_ns, a.acknowledged_ns, b.before_ns, b.acknowledged_ns)
        for a, b in zip(dos, undos, strict=True)
    ]


def test_a_window_loses_every_packet_within_it_and_none_outside(two_hosts, bench):
    with Stream(bench) as stream:
        spans, proof = held(two_hosts, packet_fault("from=200ms until=500ms"), "900 ms")

    ((begun, there, leaving, gone),) = turns_of(proof)
    lost = stream.lost
    assert [(one.start_ns, one.end_ns) for one in spans] == [(200 * MS, 500 * MS)]
    assert len(lost) > 100
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert set(stream.between(there, leaving)) <= set(lost) <= set(stream.between(begun - MS, gone))
    (change,) = proof.changes
    assert change.seen == change.hit == len(lost)
    assert stream.sent[0] < begun - 100 * MS, "packets also came before the window"
    assert stream.sent[-1] > gone, "and after it"


def test_a_window_counts_its_packets_from_its_own_first(two_hosts, bench):
    """Not from the fault's: `first=3` are three within the window, `every=10` its tenth."""
    for words, ordinals in (("first=3", [0, 1, 2]), ("every=10", [9, 19, 29])):
        with Stream(bench) as stream:
            _, proof = held(two_hosts, packet_fault(f"{words} from=200ms until=500ms"), "900 ms")
        ((begun, there, _, _),) = turns_of(proof)
        first = stream.lost[0] - ordinals[0]  # the first packet that the rule met
        assert [one - first for one in stream.lost[:3]] == ordinals
        assert begun - MS <= stream.sent[first]
        assert first <= stream.between(there, there + 300 * MS)[0]
        assert proof.changes[0].hit == len(stream.lost)


def test_a_train_begins_its_schedule_anew_in_every_turn(two_hosts, bench):
    """Four turns: exactly three packets of each, the first ones."""
    with Stream(bench) as stream:
        _, proof = held(two_hosts, packet_fault("first=3 on=100ms off=100ms count=4"), "1 s")

    assert proof.changes[0].hit == len(stream.lost) == 12
    for turn, (begun, there, leaving, _) in enumerate(turns_of(proof)):
        lost = stream.lost[3 * turn : 3 * turn + 3]
        assert lost == list(range(lost[0], lost[0] + 3))
        assert begun - MS <= stream.sent[lost[0]]
        assert lost[0] <= stream.between(there, leaving)[0]
    assert proof.changes[0].seen < len(stream.sent) - 300, "between turns nothing is counted"


def done(hands, kind):
    return sum(one.kind == kind for one in hands.actions)


def paced(bench, many):
    """Sends so many frames in every turn once it has begun, and none between; which were lost."""
    frame, lost = roce(), []

    def go(hands, spans):
        for turn in range(len(spans)):
            wait_until(lambda t=turn: done(hands, "do") > t, f"turn {turn} to begin", 5)
            got = {}
            for number in range(many):
                bench.send(number, frame)
            wait_until(lambda t=turn: done(hands, "undo") > t, f"turn {turn} to end", 5)
            bench.receive(got)
            lost.append(tuple(number for number in range(many) if number not in got))

    return lost, go


@pytest.mark.parametrize(
    "words", ["random=5% seed=3", "first=7", "every=9 offset=4", "enter=5% leave=20% seed=2"]
)
def test_ten_runs_lose_the_same_ordinals_in_every_turn(two_hosts, bench, words):
    want = Schedule.parse(words).towards(0).ordinals(300)
    assert want
    runs = []
    for _ in range(10):
        lost, go = paced(bench, 300)
        fault = packet_fault(f"{words} on=200ms off=30ms count=2")
        _, proof = held(two_hosts, fault, "1 s", go)
        runs.append((tuple(lost), proof.changes[0].seen, proof.changes[0].hit))

    assert set(runs) == {((want,) * 2, 600, 2 * len(want))}


@pytest.mark.parametrize("then", ["drop", "delay=1ms"])
def test_the_fastest_train_keeps_its_time(two_hosts, bench, then):
    """50 turns per second, by the table alone and by a worker: the median turn is as long."""
    fault = packet_fault("random=1% frequency=50Hz", then)
    with Stream(bench) as stream:
        spans, proof = held(two_hosts, fault, "1 s")

    assert len(spans) == 50
    lengths = sorted((leaving - there) / MS for _, there, leaving, _ in turns_of(proof))
    assert 7 < lengths[25] < 11, lengths
    assert proof.changes[0].seen > 100
    if then != "drop":
        assert stream.lost == []
