"""What cannot be accounted for is told: by the rule, and by the hands that took it back."""

import asyncio
import contextlib
import threading

import pytest

from chaos.change import PacketRule
from chaos.registry import InForce
from chaos.roce import Packet, bth
from chaos.timeline import now_ns
from tests.netns.bench import TABLE, WIRE, made_ready
from tests.netns.frames import V4, data, roce, rule
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

MS = 1_000_000


def test_every_packet_is_counted_however_fast_they_come(two_hosts, bench):
    """A rule comes and goes three hundred times: what it lost is what it counted, to the last."""
    sent, over = [], threading.Event()

    def flood():
        while not over.is_set():
            bench.send(len(sent), frame)
            sent.append(None)

    frame, got, turns = roce(), {}, 300
    thread = threading.Thread(target=flood)
    with contextlib.closing(made_ready(two_hosts, rule(when="every=2"))) as made:
        thread.start()
        try:
            for _ in range(turns):
                before = len(sent)
                made.do()
                wait_until(lambda at=before: len(sent) > at + 20, "packets to come")
                assert made.undo() == ()
                bench.receive(got)
        finally:
            over.set()
            thread.join()
        counted, trouble = dict(made.counted), made.trouble

    def all_there():
        bench.receive(got)
        return len(got) + counted["hit"] >= len(sent)

    wait_until(all_there, lambda: f"{len(sent)} sent, {counted} counted, {len(got)} arrived")
    assert len(got) + counted["hit"] == len(sent)
    assert trouble == ()
    assert counted["hit"] > turns * 5


@pytest.mark.parametrize(
    ("counter", "sentence"),
    [
        ("passed", "40 packets seen, but 10 hit + 0 passed"),
        ("hit", "40 packets seen, but 0 hit + 30 passed"),
        ("seen", "0 packets seen, but 10 hit + 30 passed"),
        ("", ""),
    ],
)
def test_counters_that_do_not_add_up_reach_the_proof(two_hosts, bench, counter, sentence):
    """Somebody sets one of them back to 0, as a second tool would: the trial cannot be trusted."""

    async def go():
        change = PacketRule(WIRE, TABLE, rule(when="every=4"))
        async with await two_hosts.arm((change,)) as hands:
            await hands.start(now_ns(), [InForce(0, 600 * MS)])
            while not any(one.kind == "do" for one in hands.actions):
                await hands.hits()
            for number in range(40):
                bench.send(number, roce(number))
            if counter:
                two_hosts.run("wire", "nft", "reset", "counter", "netdev", TABLE, counter)
            await hands.wait()
            return await hands.heal()

    proof = asyncio.run(go())
    assert proof.taken_back
    assert [one.rpartition(": ")[2] for one in proof.trouble] == ([sentence] if sentence else [])


def test_packets_that_could_not_be_rewritten_are_told(two_hosts, bench):
    """Data by its opcode, but without a payload that could be another; it goes on as it came."""
    frames = [data(7).write(), Packet(V4, bth("rc_send_only", 1, 8)).write(), data(9).write()]
    got = {}
    with contextlib.closing(made_ready(two_hosts, rule(then="corrupt=silent"))) as made:
        made.do()
        for number, frame in enumerate(frames):
            bench.send(number, frame)

        def all_there():
            bench.receive(got)
            return len(got) == len(frames)

        wait_until(all_there, "three frames")
        assert made.undo() == ()
        (sentence,) = made.trouble

    assert sentence.endswith(": 1 packets could not be rewritten, and went on")
    assert [got[at] == frames[at] for at in range(3)] == [False, True, False]
