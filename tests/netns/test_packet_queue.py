"""A worker where only the interface is reached that receives: packets wait in the kernel's queue.

Crafted packets go from h1 to h2, and the rule stands at h2's own port. What h2 then receives is
read above it: by a raw socket (IPv4, from the IP header on), and by a UDP socket, whose kernel has
verified the checksum before.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from chaos import native, nfqueue, recover, snapshot
from chaos.change import PacketRule, Place
from chaos.errors import CapabilityError
from chaos.hands import Hands
from chaos.netns import inside
from chaos.nfqueue import Queue
from chaos.nft import Compiler
from chaos.packet_worker import workers_of
from chaos.registry import InForce
from chaos.roce import AETH, IPv4, Packet, bth, cnp
from chaos.timeline import now_ns
from chaos.units import Duration

from .test_packet_actions import model, numbers, summed
from .test_packets import TABLE, V4, V6, Bench, roce, rule

pytestmark = pytest.mark.netns

PORT = Place("h2", "eth1")
_QUIET_S = 0.03


class Stack(Bench):
    """`go(rule, frames)`: what h2's IP was given, in its order, and when; PSN is the number."""

    def __init__(self, two_hosts):
        super().__init__(two_hosts)
        two_hosts.run("h2", "ip", "link", "set", "eth1", "address", "02:00:00:00:00:02")
        self.raw = inside(two_hosts.path("h2"), self._raw)
        self.six = inside(two_hosts.path("h2"), self._six)
        self.told, self.counted = {}, {}

    @staticmethod
    def _raw():
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
        made.setblocking(False)
        return made

    @staticmethod
    def _six():
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("::", 4791))
        made.setblocking(False)
        return made

    def open(self, one):
        """The rule at h2's own port, ready."""
        return native.build(PacketRule(PORT, TABLE, one), self.two_hosts.resolve(PORT))

    @contextlib.contextmanager
    def in_force(self, one):
        """The rule is in force; afterwards everything that it met is accounted for."""
        made = self.open(one)
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})  # so that frames also meet the rule in order
        try:
            made.do()
            yield made
        finally:
            os.sched_setaffinity(0, cpus)
            refused, self.counted, self.told = made.undo(), dict(made.counted), dict(made.told)
            trouble = made.trouble
            made.close()
        assert (refused, trouble) == ((), ())
        assert self.counted["seen"] == self.counted["hit"] + self.counted["passed"]

    def send(self, frames, gap_s=0.0):
        """Frames in order; when each was sent."""
        sent = []
        for frame in frames:
            sent.append(time.time_ns())
            self.out.send(frame)
            if gap_s:
                time.sleep(gap_s)
        return sent

    def go(self, one, frames, *, expect=None, gap_s=0.0):
        """Send frames, wait until as many as expected came."""
        expect = len(frames) if expect is None else expect
        came = []
        with self.in_force(one), self._reading(came):
            sent = self.send(frames, gap_s)
            until = time.monotonic() + 20
            while len(came) < expect:
                assert time.monotonic() < until, f"{len(came)} of {expect} came"
                time.sleep(0.001)
            time.sleep(_QUIET_S)
        assert len(came) == expect
        psns = [int.from_bytes(frame[14 + 20 + 8 + 9 :][:3]) for frame in frames]
        for got in came:
            got.took_ns = got.at_ns - sent[psns.index(got.number)]
        return came

    @contextlib.contextmanager
    def _reading(self, came):
        """A thread reads, so that it is known when a packet came; the kernel's stamp is older."""
        over = threading.Event()

        def read():
            while not over.is_set():
                select.select([self.raw], [], [], 0.01)
                came.extend(self._gather())

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def come_in(self, expect):
        """So many packets, and no more."""
        came, until = [], time.monotonic() + 20
        while len(came) < expect:
            came += self._gather()
            assert time.monotonic() < until, f"{len(came)} of {expect} came"
            time.sleep(0.001)
        time.sleep(_QUIET_S)
        came += self._gather()
        assert len(came) == expect
        return came

    def _gather(self):
        came = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, at_ns = self.raw.recv(1 << 17), time.time_ns()
                psn = int.from_bytes(data[20 + 8 + 9 :][:3])
                came.append(SimpleNamespace(number=psn, data=data, at_ns=at_ns, took_ns=0))
        return came

    def close(self):
        super().close()
        self.raw.close()
        self.six.close()


@pytest.fixture
def stack(two_hosts):
    """Two hosts, and a rule at the port of one."""
    made = Stack(two_hosts)
    yield made
    made.close()


def as_packet(got):
    """What a raw socket read, as a packet."""
    return Packet.read(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + got.data)


def data(psn, ip=V4, size=40, **more):
    return Packet(ip, bth("rc_send_only", 1, psn), (), bytes(size), **more)


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
def test_reordering_is_exact_and_the_same_in_three_runs(stack, when, then):
    one = rule(when=when, then=then, select={"roce": True})
    frames = [roce(n) for n in range(500)]
    want = model(one, frames)
    assert want != sorted(want)

    runs = [numbers(stack.go(one, frames)) for _ in range(3)]

    assert runs == [want] * 3


def test_a_rate_is_kept_and_what_would_wait_too_long_vanishes(stack):
    """1238 bytes at 200 kbit/s are 49.5 ms each; all 30 are there when the worker looks."""
    frames = [data(n, size=1180).write() for n in range(30)]
    assert len(frames[0]) == 1238
    came = []

    one = rule(select={"roce": True}, then="rate=200kbit/s queue=250ms")
    with stack.in_force(one) as made, stack._reading(came):
        os.kill(made.worker.pid, signal.SIGSTOP)
        stack.send(frames)
        os.kill(made.worker.pid, signal.SIGCONT)
        until = time.monotonic() + 20
        while len(came) < 6:
            assert time.monotonic() < until, f"{len(came)} of 6 came"
            time.sleep(0.001)
        time.sleep(0.1)

    assert numbers(came) == list(range(6))
    assert came[-1].at_ns - came[0].at_ns == pytest.approx(5 * 49_520_000, rel=0.1)
    assert stack.told["dropped"] == 24
    assert stack.told["taken"] == 30


def test_a_stream_of_large_segments_stays_whole_in_the_kernel(two_hosts):
    """Only its headers are read here; what goes on is what came."""
    sent = random.Random(1).randbytes(8_000_000)
    one = rule(select={"protocol": "tcp"}, then="delay=1ms")
    made = native.build(PacketRule(PORT, TABLE, one), two_hosts.resolve(PORT))
    server = inside(two_hosts.path("h2"), lambda: socket.create_server(("10.0.0.2", 5001)))
    got = hashlib.sha256()

    def receive():
        with server.accept()[0] as peer:
            while block := peer.recv(1 << 20):
                got.update(block)

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        made.do()
        with inside(
            two_hosts.path("h1"), lambda: socket.create_connection(("10.0.0.2", 5001))
        ) as s:
            s.sendall(sent)
        thread.join(30)
        assert made.undo() == ()
        trouble, told, hits = made.trouble, made.told, made.hits()
    finally:
        made.undo()
        made.close()
        server.close()

    assert got.digest() == hashlib.sha256(sent).digest()
    assert trouble == ()
    assert told["taken"] == hits.hit
    assert hits.hit < len(sent) / 1448 / 4, "segments of many frames each"


def test_what_is_held_when_it_ends_is_let_go_in_its_order(stack):
    frames = [roce(n) for n in range(100)]
    with stack.in_force(rule(then="delay=10s")):
        stack.send(frames)
        time.sleep(0.05)
        assert stack._gather() == []
    assert numbers(stack.come_in(100)) == list(range(100))


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
        after = as_packet(SimpleNamespace(data=raw))
        flipped = int.from_bytes(packets[number].payload) ^ int.from_bytes(after.payload)
        assert flipped.bit_count() == 1
        assert after.intact


def test_a_receiver_of_udp_takes_what_was_silently_corrupted(stack):
    """IPv6, where a wrong UDP checksum is the end of a packet: its kernel verified the new one."""
    frames = [summed(data(n, V6)) for n in range(20)]

    with stack.in_force(rule(then="corrupt=silent")):
        stack.send(frames)
        time.sleep(0.1)
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(stack.six.recv(2048))

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
        after = as_packet(got)
        assert after.headers == (replace(acks[got.number].headers[0], syndrome=0x62),)
        assert after.intact


def test_a_forged_notification_reaches_the_sender_and_the_packet_goes_on(stack):
    back = inside(stack.two_hosts.path("h1"), lambda: stack._socket(3))
    one = rule(select={"opcode": "data"}, when={"every": 4}, then="forge=cnp qp=0x2a")
    frames = [data(n).write() for n in range(40)]
    try:
        came = stack.go(one, frames)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = back.recvfrom(4096)
                if address[2] != 4 and frame[12:14] == b"\x08\0" and frame[23] == 17:
                    told.append(Packet.read(frame))
    finally:
        back.close()

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


# ---- whoever dies -------------------------------------------------------------------------------


def left_at_h2(two_hosts):
    tables = two_hosts.run("h2", "nft", "list", "tables")
    bound = inside(two_hosts.path("h2"), nfqueue.taken)
    return "railbreak" in tables or bound or workers_of(TABLE, two_hosts.path("h2"))


def await_gone(two_hosts):
    until = time.monotonic() + 5
    while left_at_h2(two_hosts):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_killed_worker_leaves_an_open_road(stack):
    """What is sent after the kill arrives, undelayed; nothing of the table or the queue is left."""
    made = stack.open(rule(then="delay=50ms"))
    made.do()
    sent, came, killed = [], [], 0
    try:
        with stack._reading(came):
            for number in range(3000):
                if number == 1000:
                    killed = time.time_ns()
                    os.kill(made.worker.pid, signal.SIGKILL)
                sent += stack.send([roce(number)], 0.0001)
            time.sleep(0.05)
        assert made.undo() == ()
    finally:
        made.close()

    got = numbers(came)
    lost = sorted(set(range(3000)) - set(got))
    assert len(got) == len(set(got)), "none came twice"
    assert not lost or sent[lost[-1]] - killed < 500_000_000, f"{lost[0]} to {lost[-1]} were lost"
    assert got[-500:] == list(range(2500, 3000))
    late = [one.at_ns - sent[one.number] for one in came if one.number >= 2500]
    assert sorted(late)[250] < 25_000_000, "half of what was asked for"
    await_gone(stack.two_hosts)


def test_when_a_frozen_workers_queue_is_full_packets_go_straight_on(stack):
    """Fail-open: none is lost; what it had is let go by it later. The sentence says how many."""
    made = stack.open(rule(select={"roce": True}, then="delay=1ms"))
    made.do()
    try:
        os.kill(made.worker.pid, signal.SIGSTOP)
        stack.send([roce(n) for n in range(21_000)])
        time.sleep(0.05)
        straight = numbers(stack._gather())
        os.kill(made.worker.pid, signal.SIGCONT)
        assert made.undo() == ()
        later = numbers(stack._gather())
        (sentence,) = made.trouble
        told, hits = made.told, made.hits()
    finally:
        made.undo()
        made.close()

    assert 0 < len(straight) == 21_000 - told["taken"]
    assert sorted(straight + later) == list(range(21_000)), "each came, once"
    assert hits.hit == 21_000
    assert "found its queue full" in sentence


def test_a_frozen_worker_is_ended_by_undo(two_hosts):
    made = native.build(PacketRule(PORT, TABLE, rule(then="delay=1ms")), two_hosts.resolve(PORT))
    made.do()
    os.kill(made.worker.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert made.undo() == ()
    assert time.monotonic() - begun < 8
    made.close()
    await_gone(two_hosts)
    assert two_hosts.ping() == 3


def test_a_worker_does_not_outlive_who_started_it(two_hosts):
    made = native.build(PacketRule(PORT, TABLE, rule(then="delay=1ms")), two_hosts.resolve(PORT))
    made.do()
    made.worker.stdin.close()
    made.worker.wait(5)
    await_gone(two_hosts)
    assert two_hosts.ping() == 3
    made.worker.stdout.close()
    made.worker = None
    made.close()


def test_by_hand_it_is_started_and_stopped_and_leaves_nothing(two_hosts):
    """What a dry run prints, twice; also no table of iptables'."""
    before = snapshot.take(two_hosts.namespaces)
    change = PacketRule(PORT, TABLE, rule(then="delay=1ms"))
    steps = change.steps(two_hosts.resolve(PORT))
    for _ in range(2):
        two_hosts.run("h2", *steps.do[0])
        assert steps.holds(two_hosts.run("h2", *steps.look))
        assert two_hosts.ping() == 3
        for _ in range(2):
            two_hosts.run("h2", *steps.undo[0])
        await_gone(two_hosts)
        assert not steps.holds(two_hosts.run("h2", *steps.look))
    assert snapshot.difference(before, snapshot.take(two_hosts.namespaces)) == ()
    assert two_hosts.run("h2", "nft", "list", "ruleset").strip() == ""


def test_a_number_that_another_has_is_left_to_him(two_hosts):
    """The next one is taken; his packets stay his."""

    def both():
        first = Queue(TABLE, 100)
        try:
            second = Queue(TABLE, 100)
        except CapabilityError as error:
            pytest.fail(f"no other number was taken: {error}")
        found = nfqueue.taken()
        for one in (first, second):
            one.close()
        return first.number, second.number, found

    first, second, found = inside(two_hosts.path("h2"), both)

    assert second == first + 1
    assert set(found) == {first, second}
    assert len(set(found.values())) == 2


def test_a_kernel_without_either_way_is_told_from_one_that_has_it(two_hosts, monkeypatch):
    """The probe is by doing, and leaves nothing."""

    def probe():
        compiler = Compiler()
        try:
            return nfqueue.native(compiler)
        finally:
            compiler.close()

    assert inside(two_hosts.path("h2"), probe) in (True, False)
    assert "railbreak" not in two_hosts.run("h2", "nft", "list", "tables")

    monkeypatch.setattr(nfqueue, "words", lambda number: f"nosuchword {number}")
    monkeypatch.setattr(nfqueue, "target", lambda number: b"\x0b\0\1\0nosuch\0\0")
    with pytest.raises(CapabilityError, match="CONFIG_NFT_QUEUE"):
        inside(two_hosts.path("h2"), probe)


def test_packets_of_another_interface_are_not_met(two_hosts):
    """The rule is the port's: what comes by the other cable passes by."""
    one = rule(select={"family": 4}, then="delay=50ms")
    made = native.build(PacketRule(PORT, TABLE, one), two_hosts.resolve(PORT))
    made.do()
    try:
        told = two_hosts.run("h1", "ping", "-q", "-c", "3", "-i", "0.01", "10.1.0.2")
        assert float(told.rpartition(" = ")[2].split("/")[1]) < 45
        assert made.hits().seen == 0
        told = two_hosts.run("h1", "ping", "-q", "-c", "3", "-i", "0.01", "10.0.0.2")
        assert float(told.rpartition(" = ")[2].split("/")[1]) > 45
        assert made.hits().seen == 3
    finally:
        assert made.undo() == ()
        made.close()


def test_a_chain_that_somebody_unhooks_empties_every_queue_and_that_is_told(stack):
    """The kernel drops what is queued when any hook of the namespace goes: a limit, not hidden."""
    made = stack.open(rule(select={"roce": True}, then="delay=300ms"))
    made.do()
    try:
        stack.send([roce(n) for n in range(10)])
        chain = "chain c {\n type filter hook ingress device lo priority 0;\n }"
        stack.two_hosts.run("h2", "nft", f"table netdev other {{\n {chain}\n}}")
        stack.two_hosts.run("h2", "nft", "delete table netdev other")
        time.sleep(0.35)
        assert made.undo() == ()
        came, (sentence,) = stack._gather(), made.trouble
    finally:
        made.undo()
        made.close()

    assert came == []
    assert "10 packets could not be put back" in sentence


@pytest.mark.parametrize("victim", ["injector", "worker", "both"])
def test_whoever_is_killed_nothing_is_left(two_hosts, victim):
    """At moments drawn at random, under traffic; then `undo` finds nothing, and packets flow."""
    rng = random.Random(victim)
    change = PacketRule(PORT, TABLE, rule(then="delay=3ms jitter=2ms"))
    before = snapshot.take(two_hosts.namespaces)

    async def go(turn):
        journal = two_hosts.folder / f"journal{turn}.jsonl"
        hands = await Hands.arm(
            (change,),
            {PORT: two_hosts.resolve(PORT)},
            journal=journal,
            max_life=Duration.parse("30 s"),
            log_dir=two_hosts.folder,
        )
        await hands.start(now_ns() + 5_000_000, [InForce(0, 10**10)])
        await asyncio.sleep(rng.uniform(0, 0.05))
        (worker,) = workers_of(TABLE, two_hosts.path("h2"))
        victims = {"injector": [hands.pid], "worker": [worker], "both": [hands.pid, worker]}
        for pid in victims[victim]:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(await_gone, two_hosts) if victim != "worker" else None
        proof = await hands.heal()
        await hands.close()
        return proof, await asyncio.to_thread(recover.undo, [journal])

    ping = ("ping", "-q", "-i", "0.002", "-c", "100000", "10.0.0.2")
    traffic = inside(
        two_hosts.path("h1"), lambda: subprocess.Popen(ping, stdout=subprocess.DEVNULL)
    )
    try:
        for turn in range(4):
            proof, later = asyncio.run(go(turn))
            assert proof.taken_back
            assert later == []
            await_gone(two_hosts)
    finally:
        traffic.kill()
        traffic.wait()
    assert two_hosts.ping() == 3
    assert asyncio.run(snapshot.settle(two_hosts.namespaces, before, 5)) == ()


@pytest.mark.parametrize(("kind", "more"), [("bridge", ""), ("vrf", "table 9")])
def test_a_port_whose_packets_another_takes_is_refused(two_hosts, kind, more):
    """A bridge takes them before IP; a VRF does not, and there the rule acts."""
    try:
        two_hosts.run("h2", *f"ip link add up0 type {kind} {more}".split())
    except AssertionError as error:
        pytest.skip(f"no {kind} on this kernel: {error}")
    two_hosts.run("h2", "ip", "link", "set", "up0", "up")
    two_hosts.run("h2", "ip", "link", "set", "eth1", "master", "up0")
    change = PacketRule(PORT, TABLE, rule(select={"family": 4}, then="delay=1ms"))
    if kind == "bridge":
        with pytest.raises(CapabilityError, match=r"eth1 is a port of up0 \(bridge\), which takes"):
            native.build(change, two_hosts.resolve(PORT))
        assert not left_at_h2(two_hosts)
        return
    made = native.build(change, two_hosts.resolve(PORT))
    try:
        made.do()
        two_hosts.ping()
        assert made.hits().hit == 3
        assert made.undo() == ()
    finally:
        made.undo()
        made.close()
