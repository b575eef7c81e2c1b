"""The RoCEv2 codec by itself: round trips, layouts of IBTA, what it refuses, the ICRC."""

import random
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.roce import (
    AETH,
    BTH,
    BY_NAME,
    OPCODES,
    Ethernet,
    IPv4,
    IPv6,
    Packet,
    Syndrome,
    Vlan,
    bth,
    cnp,
    icrc,
    opcode,
)
from chaos.roce.headers import KINDS
from chaos.roce.opcodes import SIZES
from chaos.roce.packet import checksum
from chaos.roce.syndromes import NAKS, RNR_MS
from chaos.units import Duration

V4 = IPv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
V6 = IPv6(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
every_opcode = pytest.mark.parametrize("number", OPCODES, ids=lambda n: OPCODES[n].name)


def anything(rng, number, family):
    """A packet of that opcode in which every field is drawn."""
    known = OPCODES[number]
    pad = rng.randrange(4)
    size = rng.choice((0, 1, 8, 256)) if known.payload else 0
    headers = []
    for name in known.headers:
        raw = rng.randbytes(SIZES[name])
        headers.append(KINDS[name].read(raw))
    tags = tuple(
        Vlan(rng.randrange(4096), rng.randrange(8), rng.random() < 0.5, kind)
        for kind in rng.choice(((), (0x8100,), (0x88A8, 0x8100)))
    )
    ip = (
        IPv4(
            IPv4Address(rng.randbytes(4)),
            IPv4Address(rng.randbytes(4)),
            rng.randrange(64),
            rng.randrange(4),
            rng.randrange(256),
            rng.randrange(1 << 16),
            rng.choice((0, 2)),
            rng.randbytes(rng.choice((0, 0, 4, 40))),
        )
        if family == 4
        else IPv6(
            IPv6Address(rng.randbytes(16)),
            IPv6Address(rng.randbytes(16)),
            rng.randrange(64),
            rng.randrange(4),
            rng.randrange(1 << 20),
            rng.randrange(256),
        )
    )
    base = BTH(
        number,
        rng.randrange(1 << 24),
        rng.randrange(1 << 24),
        *(rng.random() < 0.5 for _ in range(3)),
        pad if size else 0,
        rng.randrange(16),
        rng.randrange(1 << 16),
        *(rng.random() < 0.5 for _ in range(2)),
        rng.randrange(64),
        rng.randrange(128),
    )
    payload = rng.randbytes(size + pad) if size else b""
    ethernet = Ethernet(rng.randbytes(6).hex(":"), rng.randbytes(6).hex(":"), tags)
    trailer = rng.randbytes(rng.choice((0, 0, 6)))
    return Packet(
        ip, base, tuple(headers), payload, rng.randrange(1 << 16), ethernet, trailer=trailer
    )


# ---- round trips --------------------------------------------------------------------------------


@every_opcode
@pytest.mark.parametrize("family", [4, 6])
def test_what_is_written_is_read_back(number, family):
    rng = random.Random(number * 10 + family)
    for _ in range(20):
        made = anything(rng, number, family)
        frame = made.write()
        read = Packet.read(frame)

        assert read.write() == frame
        assert read.sealed().write() == frame
        assert read.intact
        assert (read.bth, read.headers, read.payload) == (made.bth, made.headers, made.payload)
        assert (read.ethernet, read.sport, read.trailer) == (
            made.ethernet,
            made.sport,
            made.trailer,
        )
        assert (read.ip.source, read.ip.dscp, read.ip.ecn) == (
            made.ip.source,
            made.ip.dscp,
            made.ip.ecn,
        )


def test_an_unknown_opcode_is_kept_as_it_is():
    made = Packet(V4, BTH(0xFE, 1, 2), payload=b"what it may be")
    assert Packet.read(made.write()).payload == b"what it may be"
    assert made.opcode is None
    assert "0xfe" in str(made.bth)


def test_fuzzed_frames_are_read_exactly_or_refused_with_a_sentence():
    """Flips, cuts and repeats of good frames: no other exception, and no byte invented."""
    rng, outcomes = random.Random(5), {True: 0, False: 0}
    for _ in range(4000):
        frame = bytearray(
            anything(rng, rng.choice(list(OPCODES)), rng.choice((4, 6))).write()[:200]
        )
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        frame = bytes(frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.3 else frame)
        try:
            read = Packet.read(frame)
        except SpecError as refused:
            outcomes[False] += bool(str(refused).strip())
        else:
            assert read.write() == frame
            outcomes[True] += 1
    assert sum(outcomes.values()) == 4000, "every refusal is a sentence"
    assert min(outcomes.values()) > 400, outcomes


def test_noise_is_refused():
    rng = random.Random(6)
    for _ in range(2000):
        with pytest.raises(SpecError):
            Packet.read(rng.randbytes(rng.randrange(120)))


# ---- layouts ------------------------------------------------------------------------------------


def test_a_base_transport_header_lies_as_ibta_draws_it():
    made = BTH(0x0A, 0x123456, 0xABCDEF, True, True, True, 2, 1, 0x7FFF, True, False, 0x15, 0x33)
    assert made.write().hex(" ") == "0a e1 7f ff 95 12 34 56 b3 ab cd ef"
    assert BTH.read(made.write()) == made


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("rc_rdma_write_only_with_immediate", ("RETH", "ImmDt")),
        ("rc_atomic_acknowledge", ("AETH", "AtomicAckETH")),
        ("rc_send_only_with_invalidate", ("IETH",)),
        ("rc_rdma_read_response_middle", ()),
        ("rd_compare_swap", ("RDETH", "DETH", "AtomicETH")),
        ("rd_rdma_read_response_only", ("RDETH", "AETH")),
        ("rd_resync", ("RDETH", "DETH")),
        ("ud_send_only_with_immediate", ("DETH", "ImmDt")),
        ("uc_rdma_write_first", ("RETH",)),
    ],
)
def test_an_opcode_has_the_headers_that_ibta_gives_it(name, headers):
    assert opcode(name).headers == headers


def test_there_are_as_many_opcodes_as_ibta_has():
    count = {kind: 0 for kind in ("RC", "UC", "RD", "UD", "CNP")}
    for one in OPCODES.values():
        count[one.transport] += 1
    assert count == {"RC": 23, "UC": 12, "RD": 22, "UD": 2, "CNP": 1}
    assert (opcode("rc_acknowledge").number, opcode("ud_send_only").number) == (0x11, 0x64)
    assert all(OPCODES[one.number] is one for one in BY_NAME.values())


def test_sizes_agree_with_the_headers():
    assert {name: kind.size() for name, kind in KINDS.items()} == SIZES


def test_a_congestion_notification_is_becn_and_sixteen_zeros():
    base, payload = cnp(0x11)
    read = Packet.read(Packet(V4, base, payload=payload).write())
    assert (read.bth.becn, read.bth.opcode, read.payload) == (True, 0x81, bytes(16))


# ---- syndromes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", range(256))
def test_every_syndrome_is_read_and_written(byte):
    assert Syndrome.read(byte).write() == byte


@pytest.mark.parametrize(
    ("byte", "told"),
    [
        (0x1F, "ACK"),
        (0x00, "ACK with 0 credits"),
        (0x05, "ACK with 6 credits"),
        (0x1E, "ACK with 32768 credits"),
        (0x20, "RNR NAK, wait 655.36 ms"),
        (0x2E, "RNR NAK, wait 1.28 ms"),
        (0x60, "NAK psn sequence error"),
        (0x62, "NAK remote access error"),
        (0x6F, "NAK reserved code 15"),
        (0x40, "reserved syndrome"),
    ],
)
def test_a_syndrome_in_words(byte, told):
    assert str(Syndrome.read(byte)) == told


def test_rnr_timers_rise_but_for_the_first():
    assert len(RNR_MS) == 32
    assert list(RNR_MS[1:]) == sorted(RNR_MS[1:])
    assert Syndrome.rnr(Duration.parse("0.01 ms")).value == 1
    assert Syndrome.rnr(Duration.parse("600 ms")).value == 0
    with pytest.raises(SpecError, match=r"at most 655\.36 ms, got 1 s"):
        Syndrome.rnr(Duration.parse("1 s"))


def test_an_unknown_nak_is_refused_with_near_names():
    assert Syndrome.nak("invalid_request").write() == 0x61
    with pytest.raises(SpecError, match=r"did you mean remote_access_error"):
        Syndrome.nak("remote_acess_error")
    assert set(NAKS.values()) == set(range(5))


# ---- the invariant CRC --------------------------------------------------------------------------

#: Offsets from the IP header of what a router may change, for headers without options.
MASKED = {
    4: {1, 8, 10, 11, 26, 27, 32},
    6: {1, 2, 3, 7, 46, 47, 52},
}


@pytest.mark.parametrize(("family", "ip"), [(4, V4), (6, V6)])
def test_exactly_the_masked_bytes_do_not_count(family, ip):
    packet = Packet(ip, bth("rc_send_only", 5, 6), payload=bytes(range(64))).write()[14:-4]
    right, free = icrc(packet), set()
    for at in range(1, len(packet)):  # byte 0 holds the version
        other = bytearray(packet)
        other[at] ^= 0xFF
        if icrc(bytes(other)) == right:
            free.add(at)
    assert free == MASKED[family]


def test_the_upper_half_of_an_ipv6_traffic_class_does_not_count():
    one = Packet(V6, bth("rc_send_only", 5, 6)).write()[14:-4]
    other = bytes([one[0] | 0x0F]) + one[1:]
    assert icrc(one) == icrc(other)


def test_a_changed_payload_is_no_longer_intact():
    frame = bytearray(Packet(V4, bth("rc_send_only", 5, 6), payload=b"weights!").write())
    frame[-6] ^= 1
    read = Packet.read(bytes(frame))
    assert not read.intact
    assert read.write() == bytes(frame), "a wrong ICRC is kept"
    assert read.sealed().intact


@pytest.mark.parametrize("packet", [b"", b"\x45" + bytes(30), b"\x65" + bytes(50), b"\x00" * 60])
def test_no_icrc_is_computed_over_less_than_the_headers(packet):
    with pytest.raises(SpecError, match=r"an ICRC is over"):
        icrc(packet)


def test_the_ipv4_checksum_of_a_whole_header_is_zero():
    assert checksum(Packet(V4, bth("rc_send_only", 5, 6)).write()[14:34]) == 0


# ---- refusals -----------------------------------------------------------------------------------

GOOD = Packet(V4, bth("rc_acknowledge", 5, 6), (AETH(0x1F, 1),)).write()
GOOD6 = Packet(V6, bth("rc_acknowledge", 5, 6), (AETH(0x1F, 1),)).write()


def patched(frame, at, *values):
    return frame[:at] + bytes(values) + frame[at + len(values) :]


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (GOOD[:10], r"header of 14 bytes, got 10"),
        (GOOD[:12] + b"\x81\x00\x00", r"ends within its VLAN tag"),
        (patched(GOOD, 12, 0x08, 0x06), r"IPv4 or IPv6, got Ethernet type 0x0806"),
        (GOOD[:30], r"within its IPv4 header: 16 of 20 bytes"),
        (GOOD6[:50], r"within its IPv6 header: 36 of 40 bytes"),
        (patched(GOOD, 14, 0x65), r"got version 6"),
        (patched(GOOD6, 14, 0x45), r"got version 4"),
        (GOOD[:-1], r"truncated: IPv4 says 48 bytes, the frame holds 47"),
        (GOOD6[:-1], r"truncated: IPv6 says 68 bytes, the frame holds 67"),
        (patched(GOOD, 20, 0x20, 0), r"a fragment carries no whole"),
        (patched(GOOD, 23, 6), r"right after its IP header, got protocol 6"),
        (patched(GOOD6, 20, 43), r"right after its IP header, got protocol 43"),
        (patched(GOOD, 36, 0, 53), r"UDP port 4791, got 53"),
        (patched(GOOD, 38, 0, 9), r"UDP says 9 bytes, IP has 28"),
        (patched(GOOD, 43, 0x30), r"rc_acknowledge QP 0x5 PSN 6: pads 3 bytes of a payload of 0"),
        (patched(GOOD, 42, 0x0A), r"rc_rdma_write_only ends within its RETH: 4 of 16"),
        (patched(patched(GOOD, 16, 0, 36), 38, 0, 16), r"12 bytes of BTH and 4 of ICRC.*got 8"),
        (patched(GOOD, 16, 0, 24)[:38], r"within its UDP header: 4 of 8"),
    ],
)
def test_what_is_no_packet_is_refused(frame, sentence):
    with pytest.raises(SpecError, match=sentence):
        Packet.read(frame)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BTH(256, 0, 0), r"BTH opcode must be 0 to 255 \(8 bits\), got 256"),
        (lambda: BTH(0, 1 << 24, 0), r"BTH dest_qp must be 0 to 16777215"),
        (lambda: BTH(0, 0, -1), r"BTH psn must be 0 to 16777215 \(24 bits\), got -1"),
        (lambda: AETH(0, 1 << 24), r"AETH msn must be"),
        (lambda: AETH.read(b"123"), r"AETH is 4 bytes long, got 3"),
        (lambda: BTH.read(b"123"), r"BTH is 12 bytes long, got 3"),
        (lambda: Vlan(4096), r"VLAN id must be 0 to 4095"),
        (lambda: Vlan(1, kind=0x9100), r"0x8100 or 0x88a8, got 0x9100"),
        (lambda: IPv4(V4.source, V4.destination, 64), r"dscp must be 0 to 63"),
        (lambda: IPv4(V4.source, V4.destination, options=b"123"), r"whole words"),
        (lambda: IPv4(V4.source, V4.destination, flags=1), r"a fragment carries no whole"),
        (lambda: IPv6(V6.source, V6.destination, flow_label=1 << 20), r"flow label must be"),
        (lambda: Ethernet("02:00").write(0x800), r"MAC address such as .* got '02:00'"),
        (lambda: opcode("rc_send_onyl"), r"did you mean rc_send_only"),
        (lambda: Syndrome("ack", 32), r"0 to 31 \(5 bits\), got 32"),
        (lambda: Syndrome.read(256), r"0 to 255 \(8 bits\), got 256"),
    ],
)
def test_what_no_field_can_hold_is_refused(make, sentence):
    with pytest.raises(SpecError, match=sentence):
        make()


def test_the_codec_needs_only_words():
    for path in (Path(__file__).parents[2] / "chaos" / "roce").glob("*.py"):
        ours = [line for line in path.read_text().splitlines() if line.startswith("from chaos.")]
        rooms = {line.split()[1].split(".")[1] for line in ours}
        assert rooms <= {"errors", "units", "roce"}, path.name
