"""What actions do to packets, byte by byte on arrival; what a worker costs in packets: none.

Crafted frames go from h1 through the hidden namespace, where the rule stands, to h2. Every frame
carries its number in its last four bytes, beyond what its headers account for.
"""

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scapy.all import IP, TCP, UDP, Ether, IPv6, raw
from scapy.contrib.roce import BTH as SCAPY_BTH

from chaos import native, recover, snapshot
from chaos.change import PacketRule
from chaos.changes.queue import Queue
from chaos.hands import Hands
from chaos.natives.able import Here
from chaos.netns import inside
from chaos.packet_worker import line_of, workers_of
from chaos.packets.engines import SEED
from chaos.packets.rewrite import finished
from chaos.registry import InForce
from chaos.roce import AETH, CNP, Ethernet, IPv4, Packet, Syndrome, Vlan, bth, cnp
from chaos.timeline import now_ns
from chaos.units import Duration

from .test_packets import TABLE, V4, V6, WIRE, Bench, roce, rule

pytestmark = pytest.mark.netns

_STAMP = 35  # SO_TIMESTAMPNS: the kernel's, when the frame arrived
_PACKET, _NOTES, _TAGGED = 263, 8, 1 << 4  # SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID
_OURS, _THEIRS = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
_QUIET_S = 0.03  # after the last expected frame: would one too many still come?


class Road(Bench):
    """`go(rule, frames)`: the frames that arrived, in their order, and when."""

    def __init__(self, two_hosts):
        super().__init__(two_hosts)
        self.come.setsockopt(socket.SOL_SOCKET, _STAMP, 1)
        self.come.setsockopt(_PACKET, _NOTES, 1)
        self.told = {}
        self.engine = "auto"

    @contextlib.contextmanager
    def in_force(self, one):
        """The rule is in force; afterwards everything that it met is accounted for."""
        change = PacketRule(WIRE, TABLE, one, self.engine)
        made = native.build(change, self.two_hosts.resolve(WIRE))
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})  # so that frames also meet the rule in order
        try:
            made.do()
            yield made
        finally:
            os.sched_setaffinity(0, cpus)
            refused, counted = made.undo(), dict(made.counted)
            self.told = dict(getattr(made, "told", {}))
            self.met = getattr(made, "met", None)
            trouble = made.trouble
            made.close()
        assert refused == ()
        assert trouble == ()
        assert counted["seen"] == counted["hit"] + counted["passed"]
        if self.told:
            gone = ("sent", "unsent", "dropped", *(("unfit",) if one.then.answers else ()))
            assert self.told["taken"] == sum(self.told[name] for name in gone)
        if self.met is not None:
            assert self.met.sent + self.met.dropped == counted["hit"]
            assert self.met.waiting == 0
        self.counted = counted

    def go(self, one, frames, *, expect=None, gap_s=0.0, socket_in=None):
        """Send frames, wait until as many as expected came; (number, frame, sent to arrival)."""
        came, sent = [], []
        expect = len(frames) if expect is None else expect
        source = socket_in or self.come
        with self.in_force(one):
            for number, frame in enumerate(frames):
                sent.append(time.time_ns())
                self.out.send(frame + struct.pack(">I", number))
                if gap_s:
                    time.sleep(gap_s)
                if number % 128 == 127:
                    self._gather(source, came)
            until = time.monotonic() + 20
            while len(came) < expect:
                self._gather(source, came)
                assert time.monotonic() < until, f"{len(came)} of {expect} came, of {len(frames)}"
                time.sleep(0.001)
            time.sleep(_QUIET_S)
            self._gather(source, came)
        assert len(came) == expect
        return [
            SimpleNamespace(number=n, frame=frame, took_ns=at - sent[n] if n < len(sent) else 0)
            for n, frame, at in came
        ]

    def _gather(self, source, came):
        while True:
            try:
                data, notes, _, address = source.recvmsg(1 << 17, 256)
            except BlockingIOError:
                return
            if address[2] == 4 or address[4] != _OURS:  # going out; not of h1's making
                continue
            noted = {(level, kind): one for level, kind, one in notes}
            seconds, ns = struct.unpack("=qq", noted[socket.SOL_SOCKET, _STAMP])
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", noted[_PACKET, _NOTES])
            if status & _TAGGED:
                data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
            (number,) = struct.unpack(">I", data[-4:])
            came.append((number, data[:-4], seconds * 10**9 + ns))


@pytest.fixture
def road(request, two_hosts):
    """Two hosts and a rule between them; with a parameter, by that engine."""
    engine = getattr(request, "param", "auto")
    if engine != "auto" and (why := Here()[engine]):
        pytest.skip(f"{engine}: {why}")
    made = Road(two_hosts)
    made.engine = engine
    yield made
    made.close()


def by(*engines):
    """The same body for each engine that is here; for another its probe says why it is skipped."""
    marks = {"netem": pytest.mark.vm}
    params = [pytest.param(one, marks=marks.get(one, ())) for one in engines]
    return pytest.mark.parametrize("road", params, indirect=True)


def numbers(came):
    return [one.number for one in came]


def summed(packet):
    """The same with a UDP checksum."""
    return finished(replace(packet, checksum=1), False)


def checksum_holds(frame):
    """Whether scapy finds the checksum of UDP or TCP right; None where there is none."""
    layer = UDP if UDP in Ether(frame) else TCP
    seen = Ether(frame)
    if seen[layer].chksum == 0:
        return None
    del seen[layer].chksum
    return Ether(raw(seen))[layer].chksum == Ether(frame)[layer].chksum


def scapy_finds_icrc(frame):
    """The ICRC as scapy computes it; it knows that of IPv4 alone."""
    seen = Ether(frame)
    del seen[SCAPY_BTH].icrc
    return Ether(raw(seen))[SCAPY_BTH].icrc == Ether(frame)[SCAPY_BTH].icrc


def assortment():
    """RoCEv2 packets of both families, with and without a UDP checksum, and bytes of all sizes."""
    made = []
    for ip in (V4, V6):
        for first in (0x00, 0x7F, 0x80, 0xFF):
            data = Packet(ip, bth("rc_rdma_write_middle", 0x11, first), (), bytes([first]) * 64)
            only = Packet(ip, bth("rc_send_only", 0x11, first, ack_request=True), (), b"x" * 64)
            ack = Packet(ip, bth("rc_acknowledge", 0x12, first), (AETH(first & 0x1F, 3),))
            bare = Packet(ip, bth("rc_send_only", 0x13, first))
            for packet in (data, only, ack, bare):
                made += [packet.write(), summed(packet)]
    return made


# ---- nftables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["fecn", "becn"])
def test_a_congestion_bit_is_set_and_nothing_else(road, deed):
    """Also where the other bit and the reserved ones are set already; ICRC and checksum hold."""
    frames = assortment()
    odd = Packet.read(frames[0])
    for more in ({"fecn": True}, {"becn": True, "reserved6": 63}, {"reserved6": 5}):
        packet = replace(odd, bth=replace(odd.bth, **more))
        frames += [packet.write(), summed(packet)]
    other = roce().replace(b"\x12\xb7", b"\x12\xb8")  # another port: no RoCE packet
    frames.append(other)

    came = road.go(rule(then=deed), frames)

    assert numbers(came) == list(range(len(frames)))
    assert road.counted["hit"] == len(frames) - 1
    assert came[-1].frame == other
    for one in came[:-1]:
        before, after = Packet.read(frames[one.number]), Packet.read(one.frame)
        wanted = replace(before, bth=replace(before.bth, **{deed: True}))
        assert replace(after, checksum=before.checksum) == wanted
        assert after.intact
        assert checksum_holds(one.frame) is (None if before.checksum == 0 else True)


def test_a_corrupt_roce_packet_fails_its_icrc_and_no_checksum(road):
    """One byte behind the BTH; the headers a receiver looks at first are as they were."""
    frames = assortment()

    came = road.go(rule(select={"roce": True}, then="corrupt"), frames)

    assert numbers(came) == list(range(len(frames)))
    for one in came:
        before, after = frames[one.number], one.frame
        at = 14 + (20 if before[14] >> 4 == 4 else 40) + 8 + 12
        differ = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert at in differ
        assert set(differ) <= {at, at - 14, at - 13}, "that byte, and the UDP checksum"
        assert not Packet.read(after).intact
        assert Packet.read(after).bth == Packet.read(before).bth
        assert checksum_holds(after) is checksum_holds(before)
        assert checksum_holds(after) is not False


def plain_frames():
    """Packets that are no RoCE, by name."""
    ether = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
    v4, v6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
    load = b"payload!"
    return {
        f"{name} v{4 if ip is v4 else 6}": raw(ether / ip / layer / load)
        for ip in (v4, v6)
        for name, layer in (("udp", UDP(sport=7, dport=9)), ("tcp", TCP(sport=7, dport=9)))
    }


def test_a_corrupt_packet_that_is_no_roce_fails_a_checksum_of_its_own(road):
    """IPv4: that of its header. IPv6 has none: that of UDP or TCP."""
    frames = plain_frames()

    came = road.go(rule(then="corrupt"), list(frames.values()))

    for (name, before), one in zip(frames.items(), came, strict=True):
        at = (14 + 10) if "v4" in name else 14 + 40 + (6 if "udp" in name else 16)
        differ = [n for n, (a, b) in enumerate(zip(before, one.frame, strict=True)) if a != b]
        assert differ
        assert set(differ) <= {at, at + 1}, name
        if "v6" in name:
            assert checksum_holds(one.frame) is False
    assert road.counted == {"seen": 4, "hit": 4, "passed": 0}


def test_what_has_no_checksum_to_break_is_not_seen(road):
    ether = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
    odd = ether / IPv6(src="2001:db8::1", dst="2001:db8::2", nh=59) / b"nothing follows"
    frames = [raw(odd), roce()[:12] + b"\x08\x06" + bytes(40), *plain_frames().values()]
    one = rule(then="corrupt")

    road.go(one, frames)

    assert road.counted["seen"] == len(one.seen([f + bytes(4) for f in frames])) == 4


@pytest.mark.parametrize(
    ("host", "counter"),
    [("10.0.0.2", "IpExtInCsumErrors"), ("2001:db8::2", "Udp6InCsumErrors")],
)
def test_the_receivers_kernel_counts_what_was_corrupted(two_hosts, host, counter):
    """And its program gets none of it, but all of what was not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def at_h2():
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((host, 5000))
        made.settimeout(2)
        return made

    def counted():
        two_hosts.run("h2", "sh", "-c", "command -v nstat >/dev/null")
        told = two_hosts.run("h2", "nstat", "-asz", counter)
        return int(told.splitlines()[1].split()[1])

    two_hosts.run("h1", "ethtool", "-K", "eth1", "tx", "off")  # as the embedded fabric does
    server = inside(two_hosts.path("h2"), at_h2)
    client = inside(two_hosts.path("h1"), lambda: socket.socket(family, socket.SOCK_DGRAM))
    chosen = rule(select={"protocol": "udp", "dport": 5000}, when={"every": 4}, then="corrupt")
    made = native.build(PacketRule(WIRE, TABLE, chosen), two_hosts.resolve(WIRE))
    before = counted()
    try:
        made.do()
        for number in range(100):
            client.sendto(b"%03d" % number, (host, 5000))
        got = [int(server.recv(100)) for _ in range(75)]
    finally:
        made.undo()
        made.close()
        client.close()
        server.close()

    assert got == [number for number in range(100) if number % 4 != 3]
    assert counted() - before == 25


def test_a_duplicate_comes_right_before_its_original_and_equals_it(road):
    """Also from under a VLAN tag, which the kernel takes off and puts on again."""
    tagged = roce(ethernet=Ethernet(vlans=(Vlan(5, 3),)))
    frames = [one for at in range(200) for one in (roce(at), tagged)]

    came = road.go(rule(when={"every": 10}, then="duplicate"), frames, expect=440)

    want = [n for n in range(400) for _ in range(1 + (n % 10 == 9))]
    assert numbers(came) == want
    assert all(one.frame == frames[one.number] for one in came)
    assert road.counted == {"seen": 400, "hit": 40, "passed": 360}


# ---- by each engine: no packet lost, doubled or out of place ------------------------------------


@by("netem", "worker")
def test_ten_thousand_delayed_packets_arrive_once_each_and_in_order(road):
    frames = [roce(n) for n in range(10_000)]

    came = road.go(rule(then="delay=2ms"), frames)

    assert numbers(came) == list(range(10_000))
    assert all(one.frame == frames[one.number] for one in came)
    assert min(one.took_ns for one in came) >= 2_000_000
    assert road.counted["hit"] == 10_000
    if road.told:
        assert road.told["taken"] == road.told["sent"] == 10_000


#: netem is tried in a machine that is emulated and at times stands still for some milliseconds, so
#: there what is looked for is longer: milliseconds by engine.
_LONG = {"netem": 10, "worker": 1}


@by("netem", "worker")
def test_a_delay_holds_the_chosen_and_nobody_else(road):
    held_ns = 20_000_000 * _LONG[road.engine]
    one = rule(select={"opcode": "middle"}, when={"every": 5}, then=f"delay={held_ns // 1000}us")
    frames = [f for n in range(200) for f in (roce(n), roce(n, "rc_acknowledge"))]

    came = road.go(one, frames, gap_s=0.001)

    late = {got.number for got in came if got.took_ns >= held_ns}
    assert late == set(one.hit(frames))
    assert sorted(numbers(came)) == list(range(400))
    others = sorted(got.took_ns for got in came if got.number not in late)
    assert others[len(others) // 2] < held_ns // 10


def drawn_by_netem(one):
    """The delays that the kernel draws, told from its generator (lfsr113) and from our table."""
    queue = Queue.of(one, TABLE)
    seed, table, spread = queue.seed, queue.table(), queue.spread_ns
    first = ((seed >> 32) ^ (seed << 10) ^ seed) & 0xFFFFFFFF
    state = [first + least if first < least else first for least in (2, 8, 16, 128)]
    shifts = ((6, 13, 1, 18), (2, 27, 3, 2), (13, 21, 4, 7), (3, 12, 7, 13))
    while True:
        drawn = 0
        for at, (a, b, low, d) in enumerate(shifts):
            s = state[at]
            kept = s >> low << low
            state[at] = ((kept << d) & 0xFFFFFFFF) ^ ((((s << a) & 0xFFFFFFFF) ^ s) >> b)
            drawn ^= state[at]
        if table:
            yield max(0, queue.delay_ns + round(table[drawn % len(table)] * spread / 8192))
        else:
            yield queue.delay_ns - spread + drawn % (2 * spread)


@by("netem", "worker")
@pytest.mark.parametrize("shape", ["uniform", "normal", "exponential"])
def test_jitter_is_drawn_by_its_seed(road, shape):
    """Packets far apart: each comes when the pure draw says, within what this machine adds."""
    long = _LONG[road.engine]
    one = rule(then=f"delay={8 * long}ms jitter={3 * long}ms shape={shape} seed=5")
    if road.engine == "netem" and (why := Here()[SEED]):
        pytest.skip(why)
    draw = drawn_by_netem(one).__next__ if road.engine == "netem" else one.then.how.draws()
    want = [draw() for _ in range(60 if long == 1 else 25)]

    came = road.go(one, [roce(n) for n in range(len(want))], gap_s=0.025 * long)

    over = sorted(got.took_ns - want[got.number] for got in came)
    assert over[0] >= 0, "another draw would be too early now and then"
    assert over[len(over) // 2] < long * 1_000_000, "the median packet is hardly late"
    assert len({ns // (long * 100_000) for ns in want}) > 15


def model(one, frames):
    """The order in which a pure line lets frames go that come one after the other."""
    line, order = line_of(one), []
    meant = set(one.seen(frames))
    for number, frame in enumerate(frames):
        if number not in meant:
            order.append(number)
            continue
        psn = int.from_bytes(frame[51:54])
        line.meet(number, len(frame), number, psn)
        order += line.due(number)
    return order + line.rest()


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ({"every": 10}, "reorder=1"),
        ({"every": 10}, "reorder=3"),
        ({"random": "10 %", "seed": 3}, "reorder=2"),
        ({"psn": [5, 200]}, "reorder=5"),
        ({"first": 1}, "reorder=100"),
        ({"enter": "5 %", "leave": "50 %"}, "reorder=4"),
    ],
)
def test_reordering_is_exact_and_the_same_in_ten_runs(road, when, then):
    one = rule(when=when, then=then)
    frames = [roce(n) for n in range(500)]
    want = model(one, frames)
    assert want != sorted(want)

    runs = [numbers(road.go(one, frames)) for _ in range(10)]

    assert runs == [want] * 10


def test_a_packet_that_nobody_overtakes_goes_on_in_time(road):
    came = road.go(rule(when={"first": 1}, then="reorder=3 within=50ms"), [roce(0)])
    assert 50_000_000 <= came[0].took_ns < 80_000_000


@by("htb", "worker")
def test_a_rate_spaces_packets_and_drops_what_would_wait_too_long(road):
    """1238 bytes at 1 Mbit/s: 9.9 ms each; of a burst six fit before 50 ms of waiting."""
    frames = [Packet(V4, bth("rc_send_only", 1, n), (), bytes(1176)).write() for n in range(30)]
    assert len(frames[0]) + 4 == 1238

    came = road.go(rule(then="rate=1Mbit/s queue=50ms"), frames, expect=6)

    assert numbers(came) == list(range(6))
    assert came[-1].took_ns - came[0].took_ns == pytest.approx(5 * 9_904_000, rel=0.1)
    dropped = road.met.dropped if road.engine == "htb" else road.told["dropped"]
    assert dropped == 24


@pytest.mark.parametrize("words", [{"random": "10 %", "seed": 3}, {"every": 7}, {"first": 3}])
def test_the_same_packets_are_silently_corrupted_in_ten_runs(road, words):
    one = rule(when=words, then="corrupt=silent seed=9")
    packets = [Packet(V4, bth("rc_send_only", 1, n), (), bytes(40)) for n in range(300)]
    frames = [packet.write() for packet in packets]

    def changed():
        came = road.go(one, frames)
        return {got.number: got.frame for got in came if got.frame != frames[got.number]}

    runs = [changed() for _ in range(10)]

    assert all(run == runs[0] for run in runs), "the same bits of the same packets"
    assert tuple(sorted(runs[0])) == one.hit(frames) == one.when.ordinals(300)


def test_silent_corruption_is_one_bit_of_payload_under_checks_that_hold(road):
    frames = [one for one in assortment() if Packet.read(one).payload or Packet.read(one).headers]
    one = rule(then="corrupt=silent")
    hit = one.hit(frames)
    assert len(hit) > 0

    came = road.go(one, frames)

    for got in came:
        before, after = Packet.read(frames[got.number]), Packet.read(got.frame)
        if got.number not in hit:
            assert got.frame == frames[got.number]
            continue
        flipped = int.from_bytes(before.payload) ^ int.from_bytes(after.payload)
        assert flipped.bit_count() == 1
        assert after.intact
        assert after.icrc != before.icrc
        assert checksum_holds(got.frame) is checksum_holds(frames[got.number])
        assert checksum_holds(got.frame) is not False
        assert replace(after, payload=before.payload, icrc=before.icrc, checksum=before.checksum) \
            == before  # fmt: skip
        if isinstance(before.ip, IPv4):
            assert scapy_finds_icrc(got.frame)


def test_one_sequence_number_is_corrupted_once_and_its_retransmission_is_not(road):
    psns = [*range(40), *range(10, 40)]
    frames = [Packet(V4, bth("rc_send_only", 1, n), (), b"data").write() for n in psns]

    came = road.go(rule(when={"psn": 20}, then="corrupt=silent"), frames)

    assert [got.number for got in came if got.frame != frames[got.number]] == [20]


@pytest.mark.parametrize(
    ("forge", "syndrome"),
    [
        ("psn_sequence_error", 0x60),
        ("invalid_request", 0x61),
        ("remote_access_error", 0x62),
        ("remote_operational_error", 0x63),
        ("rnr_nak", Syndrome("rnr_nak", 20).write()),
        ("rnr_nak wait=1ms", Syndrome("rnr_nak", 14).write()),
        ("0x64", 0x64),
    ],
)
def test_a_forged_answer_has_another_syndrome_and_an_icrc_that_fits(road, forge, syndrome):
    frames = assortment()
    one = rule(then=f"forge={forge}")
    hit = one.hit(frames)
    assert 0 < len(hit) < len(frames)

    came = road.go(one, frames)

    for got in came:
        before, after = Packet.read(frames[got.number]), Packet.read(got.frame)
        if got.number not in hit:
            assert got.frame == frames[got.number]
            continue
        assert after.headers == (replace(before.headers[0], syndrome=syndrome),)
        assert after.bth == before.bth
        assert after.intact
        assert checksum_holds(got.frame) is not False


def test_a_forged_notification_reaches_the_sender_and_the_packet_goes_on(road):
    """A CNP as its receiver would send it: addresses exchanged, BECN, the queue pair asked for."""
    back = inside(road.two_hosts.path("h1"), lambda: road._socket(3))
    one = rule(select={"opcode": "data"}, when={"every": 4}, then="forge=cnp qp=0x2a")
    frames = [Packet(ip, bth("rc_send_only", 1, n), (), b"x" * 8).write()
              for n in range(20) for ip in (V4, V6)]  # fmt: skip
    try:
        came = road.go(one, frames)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = back.recvfrom(4096)
                if address[2] != 4 and address[4] == _THEIRS:
                    told.append(Packet.read(frame))
    finally:
        back.close()

    assert [got.frame for got in came] == frames
    base, zeros = cnp(0x2A)
    assert len(told) == road.counted["hit"] == 10
    for packet, number in zip(told, one.hit(frames), strict=True):
        cause = Packet.read(frames[number])
        assert (packet.bth, packet.payload, packet.bth.opcode) == (base, zeros, CNP)
        assert (packet.ip.source, packet.ip.destination) == (cause.ip.destination, cause.ip.source)
        assert packet.ethernet.destination == cause.ethernet.source
        assert packet.intact


def test_a_stream_of_large_segments_comes_through_whole(two_hosts):
    """Senders that leave segmentation to the kernel: a super-packet is one packet here too."""
    data = random.Random(1).randbytes(8_000_000)
    one = rule(select={"protocol": "tcp"}, then="delay=1ms")
    made = native.build(PacketRule(WIRE, TABLE, one, "worker"), two_hosts.resolve(WIRE))
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
            s.sendall(data)
        thread.join(30)
        assert made.undo() == ()
        trouble, told, hits = made.trouble, made.told, made.hits()
    finally:
        made.undo()
        made.close()
        server.close()

    assert got.digest() == hashlib.sha256(data).digest()
    assert trouble == ()
    assert told["taken"] == hits.hit
    assert hits.hit < len(data) / 1448 / 4, "segments of many frames each"


# ---- whoever dies -------------------------------------------------------------------------------


def held(two_hosts, one):
    made = native.build(PacketRule(WIRE, TABLE, one, "worker"), two_hosts.resolve(WIRE))
    made.do()
    return made


def gone(two_hosts):
    """Nothing of a worker is left: no table, no tap, no process."""
    tables = two_hosts.run("wire", "nft", "list", "tables")
    links = two_hosts.run("wire", "ip", "-o", "link")
    return (
        "railbreak" not in tables
        and " rbt" not in links
        and not workers_of(TABLE, two_hosts.path("wire"))
    )


def await_gone(two_hosts):
    until = time.monotonic() + 5
    while not gone(two_hosts):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_killed_worker_leaves_an_open_road(road):
    """The kernel takes the table with the process: what is sent later arrives, undelayed."""
    made = held(road.two_hosts, rule(then="delay=5ms"))
    came, sent, killed = [], [], 0
    try:
        for number in range(3000):
            if number == 1000:
                killed = time.time_ns()
                os.kill(made.worker.pid, signal.SIGKILL)
            sent.append(time.time_ns())
            road.out.send(roce(number) + struct.pack(">I", number))
            time.sleep(0.0001)
        time.sleep(0.05)
        road._gather(road.come, came)
        assert made.undo() == ()
    finally:
        made.close()

    got = [number for number, _, _ in came]
    lost = sorted(set(range(3000)) - set(got))
    assert len(got) == len(set(got)), "none came twice"
    assert not lost or sent[lost[-1]] - killed < 500_000_000, f"{lost[0]} to {lost[-1]} were lost"
    assert got[-500:] == list(range(2500, 3000))
    late = [at - sent[number] for number, _, at in came if number >= 2500]
    assert sorted(late)[250] < 1_000_000
    await_gone(road.two_hosts)


def test_a_frozen_worker_is_ended_by_undo(two_hosts):
    made = held(two_hosts, rule(then="delay=1ms"))
    os.kill(made.worker.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert made.undo() == ()
    assert time.monotonic() - begun < 8
    made.close()
    await_gone(two_hosts)
    assert two_hosts.ping() == 3


def test_packets_that_found_no_room_are_told(road):
    """A worker that stands still: 20000 packets wait for it, the rest is lost, and said to be."""
    made = held(road.two_hosts, rule(then="delay=1ms"))
    try:
        os.kill(made.worker.pid, signal.SIGSTOP)
        for number in range(20_500):
            road.out.send(roce(number) + struct.pack(">I", number))
        os.kill(made.worker.pid, signal.SIGCONT)
        assert made.undo() == ()
        (sentence,) = made.trouble
        told, hits = made.told, made.hits()
    finally:
        made.undo()
        made.close()

    assert hits.hit == 20_500 == told["taken"] + told["lost"]
    assert told["lost"] > 0
    assert f"({told['lost']} found its queue full)" in sentence
    assert told["sent"] == told["taken"], "those that waited were put back"


def test_a_worker_does_not_outlive_who_started_it(two_hosts):
    """Its input closes when that process dies, however it dies."""
    made = held(two_hosts, rule(then="delay=1ms"))
    made.worker.stdin.close()
    made.worker.wait(5)
    await_gone(two_hosts)
    assert two_hosts.ping() == 3
    made.worker.stdout.close()
    made.worker = None
    made.close()


def test_by_hand_it_is_started_and_stopped(two_hosts):
    """What a dry run prints, twice."""
    change = PacketRule(WIRE, TABLE, rule(then="delay=1ms"), "worker")
    where = two_hosts.resolve(WIRE)
    steps = change.steps(where)
    for _ in range(2):
        two_hosts.run("wire", *steps.do[0])
        assert two_hosts.ping() == 3
        for _ in range(2):
            two_hosts.run("wire", *steps.undo[0])
        await_gone(two_hosts)


@by("worker")
def test_what_is_held_when_it_ends_is_let_go(road):
    """Nothing is lost by taking a delay of ten seconds back after a moment."""
    frames = [roce(n) for n in range(100)]
    came = []
    with road.in_force(rule(then="delay=10s")):
        for number, frame in enumerate(frames):
            road.out.send(frame + struct.pack(">I", number))
        time.sleep(0.05)
        road._gather(road.come, came)
        assert came == []
    time.sleep(_QUIET_S)
    road._gather(road.come, came)
    assert [number for number, _, _ in came] == list(range(100))


@pytest.mark.parametrize("victim", ["injector", "worker", "both"])
def test_whoever_is_killed_nothing_is_left(two_hosts, victim):
    """At moments drawn at random, under traffic; then `undo` finds nothing, and packets flow."""
    rng = random.Random(victim)
    change = PacketRule(WIRE, TABLE, rule(then="delay=3ms jitter=2ms"), "worker")
    before = snapshot.take(two_hosts.namespaces)

    async def go(turn):
        journal = two_hosts.folder / f"journal{turn}.jsonl"
        hands = await Hands.arm(
            (change,),
            two_hosts.wheres((change,)),
            journal=journal,
            max_life=Duration.parse("30 s"),
            log_dir=two_hosts.folder,
        )
        await hands.start(now_ns() + 5_000_000, [InForce(0, 10**10)])
        await asyncio.sleep(rng.uniform(0, 0.05))
        (worker,) = workers_of(TABLE, two_hosts.path("wire"))
        for pid in {"injector": [hands.pid], "worker": [worker], "both": [hands.pid, worker]}[
            victim
        ]:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(await_no_table, two_hosts)
        proof = await hands.heal()
        await hands.close()
        return proof, await asyncio.to_thread(recover.undo, [journal])

    ping = ("ping", "-q", "-i", "0.002", "-c", "100000", "10.0.0.2")
    traffic = inside(
        two_hosts.path("h1"), lambda: subprocess.Popen(ping, stdout=subprocess.DEVNULL)
    )
    try:
        for turn in range(5):
            proof, later = asyncio.run(go(turn))
            assert proof.taken_back
            assert later == []
            await_gone(two_hosts)
    finally:
        traffic.kill()
        traffic.wait()
    assert two_hosts.ping() == 3
    assert asyncio.run(snapshot.settle(two_hosts.namespaces, before, 5)) == ()


def await_no_table(two_hosts):
    until = time.monotonic() + 5
    while "railbreak" in two_hosts.run("wire", "nft", "list", "tables"):
        assert time.monotonic() < until
        time.sleep(0.005)
