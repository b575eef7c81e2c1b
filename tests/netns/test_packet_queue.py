"""A worker where only the interface that receives is reached: packets wait in a kernel's queue."""

import os
import signal
import time
from dataclasses import replace

import pytest

from chaos.roce import AETH, IPv4, Packet, bth, cnp
from tests.netns.bench import OUTGOING, QUIET_S, acting, drained, numbers
from tests.netns.frames import V4, V6, data, expected_order, roce, rule, summed
from tests.netns.stack import PORT, as_packet
from tests.netns.transfer import frames_of, transferred
from tests.waiting import wait_until

pytestmark = pytest.mark.netns


# ---- held ---------------------------------------------------------------------------------------


def test_five_thousand_delayed_packets_arrive_once_each_and_in_order(stack):
    frames = [roce(n) for n in range(5000)]

    came = stack.go(rule(select={"roce": True}, then="delay=2ms"), frames)

    assert numbers(came) == list(range(5000))
    assert all(one.data == frames[one.number][14:] for one in came)
    assert min(one.took_ns for one in came) >= 2_000_000
    assert stack.told["taken"] == stack.told["sent"] == stack.counted["hit"] == 5000
    assert stack.told["unsent"] == stack.told["lost"] == 0


def test_a_delay_holds_the_chosen_and_nobody_else(stack):
    one = rule(select={"opcode": "middle"}, when={"every": 5}, then="delay=20ms")
    frames = [f for n in range(0, 200, 2) for f in (roce(n), roce(n + 1, "rc_acknowledge"))]

    came = stack.go(one, frames, gap_s=0.001)

    late = {got.number for got in came if got.took_ns >= 20_000_000}
    assert late == set(one.hit(frames))
    assert sorted(numbers(came)) == list(range(200))


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ({"every": 10}, "reorder=3"),
        ({"random": "10 %", "seed": 3}, "reorder=2"),
        ({"psn": [5, 200]}, "reorder=5"),
        ({"first": 1}, "reorder=100"),
    ],
)
def test_reordering_is_exact_and_the_same_in_ten_runs(stack, when, then):
    one = rule(when=when, then=then, select={"roce": True})
    frames = [roce(n) for n in range(500)]
    want = expected_order(one, frames)
    assert want != sorted(want)

    runs = [numbers(stack.go(one, frames)) for _ in range(10)]

    assert runs == [want] * 10


def test_a_rate_is_kept_and_what_would_wait_too_long_vanishes(stack):
    """1238 bytes at 200 kbit/s are 49.5 ms each; all 30 are there when the worker looks."""
    frames = [data(n, payload=bytes(1180)).write() for n in range(30)]
    assert len(frames[0]) == 1238

    one = rule(select={"roce": True}, then="rate=200kbit/s queue=250ms")
    with stack.in_force(one) as made, stack.reading() as came:
        os.kill(made.worker.pid, signal.SIGSTOP)
        stack.send_all(frames)
        os.kill(made.worker.pid, signal.SIGCONT)
        wait_until(lambda: len(came) >= 6, lambda: f"6 packets; {len(came)} came")
        time.sleep(0.1)  # twice as long as one takes: would a seventh come?

    assert numbers(came) == list(range(6))
    assert came[-1].at_ns - came[0].at_ns == pytest.approx(5 * 49_520_000, rel=0.1)
    assert stack.told["dropped"] == 24
    assert stack.told["taken"] == 30


def test_a_stream_of_large_segments_stays_whole_in_the_kernel(two_hosts):
    """Only its headers are read here; what goes on is what came."""
    size = 8_000_000
    with acting(two_hosts, rule(select={"protocol": "tcp"}, then="delay=1ms"), PORT) as made:
        transferred(two_hosts, size)
        assert made.undo() == ()
        trouble, told, hits = made.trouble, made.told, made.hits()

    assert trouble == ()
    assert told["taken"] == hits.hit
    assert hits.hit < frames_of(size) / 4, "segments of many frames each"


def test_what_is_held_when_it_ends_is_let_go_in_its_order(stack):
    with stack.in_force(rule(then="delay=10s")) as made:
        stack.send_all([roce(n) for n in range(100)])
        wait_until(lambda: made.hits().hit >= 100, "all of them to be queued")
        time.sleep(QUIET_S)
        assert stack.gather() == []
    assert numbers(stack.arrivals(100)) == list(range(100))


# ---- rewritten ----------------------------------------------------------------------------------


def test_the_same_packets_are_silently_corrupted_in_three_runs(stack):
    one = rule(when={"random": "10 %", "seed": 3}, then="corrupt=silent seed=9")
    packets = [data(n) for n in range(300)]
    frames = [packet.write() for packet in packets]

    def changed():
        came = stack.go(one, frames)
        return {got.number: got.data for got in came if got.data != frames[got.number][14:]}

    runs = [changed() for _ in range(3)]

    assert all(run == runs[0] for run in runs), "the same bits of the same packets"
    assert tuple(sorted(runs[0])) == one.hit(frames) == one.when.ordinals(300)
    for number, raw in runs[0].items():
        after = as_packet(raw)
        flipped = int.from_bytes(packets[number].payload) ^ int.from_bytes(after.payload)
        assert flipped.bit_count() == 1
        assert after.intact


def test_a_receiver_of_udp_takes_what_was_silently_corrupted(stack):
    """IPv6, where a wrong UDP checksum is the end of a packet: its kernel verified the new one."""
    frames = [summed(data(n, V6)) for n in range(20)]

    with stack.in_force(rule(then="corrupt=silent")):
        stack.send_all(frames)
        got = []
        wait_until(lambda: got.extend(stack.datagrams()) or len(got) >= 20, "20 datagrams")

    assert len(got) == 20
    for number, payload in enumerate(got):
        before = frames[number][14 + 40 + 8 :]
        assert payload[:12] == before[:12]
        assert (int.from_bytes(payload[12:-4]) ^ int.from_bytes(before[12:-4])).bit_count() == 1
        assert payload[-4:] != before[-4:]


def test_a_forged_answer_has_another_syndrome_and_an_icrc_that_fits(stack):
    acks = [Packet(V4, bth("rc_acknowledge", 0x12, n), (AETH(n & 0x1F, 3),)) for n in range(40)]
    frames = [summed(packet) if at % 2 else packet.write() for at, packet in enumerate(acks)]
    one = rule(when={"every": 4}, then="forge=remote_access_error")

    came = stack.go(one, frames)

    hit = one.hit(frames)
    assert len(hit) == 10
    for got in came:
        if got.number not in hit:
            assert got.data == frames[got.number][14:]
            continue
        after = as_packet(got.data)
        assert after.headers == (replace(acks[got.number].headers[0], syndrome=0x62),)
        assert after.intact


def test_a_forged_notification_reaches_the_sender_and_the_packet_goes_on(stack):
    one = rule(select={"opcode": "data"}, when={"every": 4}, then="forge=cnp qp=0x2a")
    frames = [data(n).write() for n in range(40)]
    with stack.door("h1") as back:
        came = stack.go(one, frames)
        told = [
            Packet.read(frame)
            for frame, address in drained(lambda: back.recvfrom(4096))
            if address[2] != OUTGOING and frame[12:14] == b"\x08\0" and frame[23] == 17
        ]

    assert [got.data for got in came] == [frame[14:] for frame in frames], "none was overtaken"
    base, zeros = cnp(0x2A)
    assert len(told) == stack.counted["hit"] == 10
    for packet in told:
        assert (packet.bth, packet.payload) == (base, zeros)
        assert (packet.ip.source, packet.ip.destination) == (V4.destination, V4.source)
        assert packet.ethernet.destination == "02:00:00:00:00:01"
        assert packet.ethernet.source == "02:00:00:00:00:02"
        assert packet.intact
        assert isinstance(packet.ip, IPv4)
