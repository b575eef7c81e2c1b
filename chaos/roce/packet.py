"""A RoCEv2 packet as a value: Ethernet (and VLAN tags), IPv4 or IPv6, UDP, BTH and what follows.

`Packet.read` refuses what is no RoCEv2 packet with a sentence; `write` of what was read gives the
same bytes. Lengths follow from the contents; checksum and ICRC are kept as they came, wrong ones
too, and are computed where they are None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from chaos.errors import SpecError
from chaos.roce.headers import BTH, Extended, limit, split
from chaos.roce.icrc import SIZE as ICRC_SIZE
from chaos.roce.icrc import icrc
from chaos.roce.opcodes import BTH_SIZE, OPCODES, Opcode

PORT = 4791
_IPV4, _IPV6, _TAGS, _UDP = 0x0800, 0x86DD, (0x8100, 0x88A8), 17


@dataclass(frozen=True, slots=True)
class Vlan:
    """One VLAN tag.

    Attributes:
        id: VLAN number, 12 bits.
        priority: Priority code point, 0 to 7.
        drop_eligible: The bit beside it.
        kind: Tag protocol: 0x8100, or 0x88A8 for a service tag.
    """

    id: int
    priority: int = 0
    drop_eligible: bool = False
    kind: int = 0x8100

    def __post_init__(self) -> None:
        limit("VLAN id", self.id, 12)
        limit("VLAN priority", self.priority, 3)
        if self.kind not in _TAGS:
            raise SpecError(f"a VLAN tag is of kind 0x8100 or 0x88a8, got 0x{self.kind:04x}")

    def write(self) -> bytes:
        """The four bytes of the tag."""
        tci = self.priority << 13 | self.drop_eligible << 12 | self.id
        return struct.pack(">HH", self.kind, tci)


@dataclass(frozen=True, slots=True)
class Ethernet:
    """Ethernet header; its type follows from what is in it."""

    destination: str = "02:00:00:00:00:02"
    source: str = "02:00:00:00:00:01"
    vlans: tuple[Vlan, ...] = ()

    def write(self, kind: int) -> bytes:
        """The header, its tags, and the type of what follows."""
        macs = b"".join(_mac(one) for one in (self.destination, self.source))
        return macs + b"".join(one.write() for one in self.vlans) + struct.pack(">H", kind)


def _mac(text: str) -> bytes:
    try:
        made = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        made = b""
    if len(made) != 6:
        raise SpecError(f"a MAC address such as 02:00:00:00:00:01 expected, got {text!r}")
    return made


@dataclass(frozen=True, slots=True)
class IPv4:
    """IPv4 header.

    Attributes:
        source: Sender.
        destination: Receiver.
        dscp: Differentiated services code point, 6 bits.
        ecn: 0 not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
        ttl: Time to live.
        identification: 16 bits.
        flags: The reserved bit (4) and don't-fragment (2).
        options: Whole words of four bytes.
        checksum: Of the header; None is computed.
    """

    source: IPv4Address
    destination: IPv4Address
    dscp: int = 0
    ecn: int = 2
    ttl: int = 64
    identification: int = 0
    flags: int = 2
    options: bytes = b""
    checksum: int | None = None

    def __post_init__(self) -> None:
        limit("dscp", self.dscp, 6)
        limit("ecn", self.ecn, 2)
        if self.flags & 1:
            raise SpecError(
                "a fragment carries no whole RoCEv2 packet; flags 0, 2, 4 or 6 expected"
            )
        if len(self.options) % 4 or len(self.options) > 40:
            raise SpecError(f"IPv4 options are whole words, 40 bytes at most: {self.options!r}")

    def write(self, length: int) -> bytes:
        """The header in front of `length` bytes."""
        words = 5 + len(self.options) // 4
        head = struct.pack(
            ">BBHHHBBH4s4s",
            4 << 4 | words,
            self.dscp << 2 | self.ecn,
            words * 4 + length,
            self.identification,
            self.flags << 13,
            self.ttl,
            _UDP,
            0,
            self.source.packed,
            self.destination.packed,
        )
        made = checksum(head + self.options) if self.checksum is None else self.checksum
        return head[:10] + made.to_bytes(2) + head[12:] + self.options


def checksum(data: bytes) -> int:
    """The internet checksum of whole 16-bit words.

    Examples:
        >>> hex(checksum(bytes.fromhex("4500003000000000401100000a0000010a000002")))
        '0x66bb'
    """
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class IPv6:
    """IPv6 header; UDP follows it at once.

    Attributes:
        source: Sender.
        destination: Receiver.
        dscp: Upper six bits of the traffic class.
        ecn: Lower two bits of it.
        flow_label: 20 bits.
        hop_limit: As IPv4's time to live.
    """

    source: IPv6Address
    destination: IPv6Address
    dscp: int = 0
    ecn: int = 2
    flow_label: int = 0
    hop_limit: int = 64

    def __post_init__(self) -> None:
        limit("dscp", self.dscp, 6)
        limit("ecn", self.ecn, 2)
        limit("flow label", self.flow_label, 20)

    def write(self, length: int) -> bytes:
        """The header in front of `length` bytes."""
        first = 6 << 28 | self.dscp << 22 | self.ecn << 20 | self.flow_label
        head = struct.pack(">IHBB", first, length, _UDP, self.hop_limit)
        return head + self.source.packed + self.destination.packed


@dataclass(frozen=True, slots=True)
class Packet:
    """One RoCEv2 packet.

    Attributes:
        ip: IPv4 or IPv6 header.
        bth: Base transport header.
        headers: What follows it, as the opcode asks.
        payload: Data and its padding.
        sport: UDP source port: a flow's entropy.
        ethernet: Ethernet header.
        checksum: Of UDP; RoCEv2 sends 0.
        icrc: Invariant CRC, four bytes; None is computed.
        trailer: What Ethernet padded the frame with.
    """

    ip: IPv4 | IPv6
    bth: BTH
    headers: tuple[Extended, ...] = ()
    payload: bytes = b""
    sport: int = 49152
    ethernet: Ethernet = field(default_factory=Ethernet)
    checksum: int = 0
    icrc: bytes | None = None
    trailer: bytes = b""

    @property
    def opcode(self) -> Opcode | None:
        """What the opcode means; None for an unknown one."""
        return OPCODES.get(self.bth.opcode)

    @property
    def data(self) -> bytes:
        """The payload without its padding."""
        return self.payload[: len(self.payload) - self.bth.pad]

    @property
    def computed_icrc(self) -> bytes:
        """What the invariant CRC should be."""
        return icrc(self._ip_bytes())

    @property
    def intact(self) -> bool:
        """Whether a receiver would accept the invariant CRC."""
        return self.icrc in (None, self.computed_icrc)

    def sealed(self) -> Self:
        """The same with a checksum of IPv4 and an ICRC that are right."""
        ip = replace(self.ip, checksum=None) if isinstance(self.ip, IPv4) else self.ip
        return replace(self, ip=ip, icrc=None)

    def write(self) -> bytes:
        """The frame on the wire."""
        kind = _IPV4 if isinstance(self.ip, IPv4) else _IPV6
        icrc = self.computed_icrc if self.icrc is None else self.icrc
        return self.ethernet.write(kind) + self._ip_bytes() + icrc + self.trailer

    def _ip_bytes(self) -> bytes:
        body = self.bth.write() + b"".join(one.write() for one in self.headers) + self.payload
        length = 8 + len(body) + ICRC_SIZE
        udp = struct.pack(">HHHH", self.sport, PORT, length, self.checksum)
        return self.ip.write(length) + udp + body

    @classmethod
    def read(cls, frame: bytes) -> Self:
        """Read an Ethernet frame.

        Raises:
            SpecError: it is no RoCEv2 packet, or a truncated or odd one; the sentence says where.
        """
        ethernet, kind, data = _ethernet(frame)
        ip, size, length = _ipv4(data) if kind == _IPV4 else _ipv6(data)
        data, trailer = data[:length], data[length:]
        sport, checksum = _udp(data[size:])
        inner = data[size + 8 :]
        if len(inner) < BTH_SIZE + ICRC_SIZE:
            raise SpecError(
                f"a RoCEv2 packet has 12 bytes of BTH and 4 of ICRC after UDP, got {len(inner)}"
            )
        bth = BTH.read(inner[:BTH_SIZE])
        headers, payload = split(bth.opcode, inner[BTH_SIZE:-ICRC_SIZE])
        if bth.pad > len(payload):
            raise SpecError(f"{bth}: pads {bth.pad} bytes of a payload of {len(payload)}")
        return cls(
            ip, bth, headers, payload, sport, ethernet, checksum, inner[-ICRC_SIZE:], trailer
        )


def _ethernet(frame: bytes) -> tuple[Ethernet, int, bytes]:
    if len(frame) < 14:
        raise SpecError(f"an Ethernet frame has a header of 14 bytes, got {len(frame)}")
    at, vlans = 12, []
    (kind,) = struct.unpack_from(">H", frame, at)
    while kind in _TAGS:
        if len(frame) < at + 6:
            raise SpecError("the frame ends within its VLAN tag")
        tci, inner = struct.unpack_from(">HH", frame, at + 2)
        vlans.append(Vlan(tci & 0xFFF, tci >> 13, bool(tci >> 12 & 1), kind))
        at, kind = at + 4, inner
    if kind not in (_IPV4, _IPV6):
        raise SpecError(f"RoCEv2 is in IPv4 or IPv6, got Ethernet type 0x{kind:04x}")
    macs = (frame[:6].hex(":"), frame[6:12].hex(":"))
    return Ethernet(*macs, tuple(vlans)), kind, frame[at + 2 :]


def _ipv4(data: bytes) -> tuple[IPv4, int, int]:
    """The header, its size, and the size of the whole packet."""
    if len(data) < 20:
        raise SpecError(f"the frame ends within its IPv4 header: {len(data)} of 20 bytes")
    first, tos, length, ident, fragment, ttl, protocol, check = struct.unpack_from(
        ">BBHHHBBH", data
    )
    size = (first & 15) * 4
    if first >> 4 != 4 or not 20 <= size <= length:
        raise SpecError(
            f"an IPv4 header of 20 to 60 bytes within its packet expected, got version "
            f"{first >> 4}, header {size}, packet {length} bytes"
        )
    if length > len(data):
        raise SpecError(f"truncated: IPv4 says {length} bytes, the frame holds {len(data)}")
    if fragment & 0x3FFF:
        raise SpecError("a fragment carries no whole RoCEv2 packet")
    _only_udp(protocol)
    source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    flags, options = fragment >> 13, data[20:size]
    made = IPv4(source, destination, tos >> 2, tos & 3, ttl, ident, flags, options, check)
    return made, size, length


def _ipv6(data: bytes) -> tuple[IPv6, int, int]:
    if len(data) < 40:
        raise SpecError(f"the frame ends within its IPv6 header: {len(data)} of 40 bytes")
    first, length, following, hops = struct.unpack_from(">IHBB", data)
    if first >> 28 != 6:
        raise SpecError(f"an IPv6 header expected, got version {first >> 28}")
    if length + 40 > len(data):
        raise SpecError(f"truncated: IPv6 says {length + 40} bytes, the frame holds {len(data)}")
    _only_udp(following)
    source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    made = IPv6(source, destination, first >> 22 & 63, first >> 20 & 3, first & 0xFFFFF, hops)
    return made, 40, 40 + length


def _only_udp(protocol: int) -> None:
    if protocol != _UDP:
        raise SpecError(f"RoCEv2 has UDP (17) right after its IP header, got protocol {protocol}")


def _udp(data: bytes) -> tuple[int, int]:
    if len(data) < 8:
        raise SpecError(f"the packet ends within its UDP header: {len(data)} of 8 bytes")
    sport, dport, length, checksum = struct.unpack_from(">HHHH", data)
    if dport != PORT:
        raise SpecError(f"RoCEv2 goes to UDP port {PORT}, got {dport}")
    if length != len(data):
        raise SpecError(f"UDP says {length} bytes, IP has {len(data)} for it")
    return sport, checksum
