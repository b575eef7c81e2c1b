"""What actions do to packets, byte by byte on arrival: by nftables, and by a worker."""

import socket
from dataclasses import replace

import pytest
from scapy.all import IPv6, raw

from chaos.netns import inside
from chaos.roce import CNP, Ethernet, IPv4, Packet, Syndrome, Vlan, cnp
from tests.netns.bench import OUTGOING, THEIRS, acting, drained, numbers
from tests.netns.frames import (
    ETHER,
    V4,
    V6,
    assortment,
    checksum_holds,
    data,
    plain_frames,
    roce,
    rule,
    scapy_finds_icrc,
    summed,
)

pytestmark = pytest.mark.netns

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
    odd = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2", nh=59) / b"nothing follows"
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
    before = counted()
    with server, client, acting(two_hosts, chosen):
        for number in range(100):
            client.sendto(b"%03d" % number, (host, 5000))
        got = [int(server.recv(100)) for _ in range(75)]

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


# ---- a worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{"random": "10 %", "seed": 3}, {"every": 7}, {"first": 3}])
def test_the_same_packets_are_silently_corrupted_in_ten_runs(road, words):
    one = rule(when=words, then="corrupt=silent seed=9")
    frames = [data(n).write() for n in range(300)]

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
    frames = [data(n, payload=b"data").write() for n in psns]

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
    one = rule(select={"opcode": "data"}, when={"every": 4}, then="forge=cnp qp=0x2a")
    frames = [data(n, ip, b"x" * 8).write() for n in range(20) for ip in (V4, V6)]
    with road.door("h1") as back:
        came = road.go(one, frames)
        told = [
            Packet.read(frame)
            for frame, address in drained(lambda: back.recvfrom(4096))
            if address[2] != OUTGOING and address[4] == THEIRS
        ]

    assert [got.frame for got in came] == frames
    base, zeros = cnp(0x2A)
    assert len(told) == road.counted["hit"] == 10
    for packet, number in zip(told, one.hit(frames), strict=True):
        cause = Packet.read(frames[number])
        assert (packet.bth, packet.payload, packet.bth.opcode) == (base, zeros, CNP)
        assert (packet.ip.source, packet.ip.destination) == (cause.ip.destination, cause.ip.source)
        assert packet.ethernet.destination == cause.ethernet.source
        assert packet.intact
