"""Transport headers of InfiniBand as values: `read` from bytes, `write` to bytes, nothing lost.

Names and widths are those of IBTA volume 1, chapter 9. Reserved bits are fields as well, so that
writing what was read gives the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from chaos.errors import SpecError
from chaos.roce.opcodes import CNP, OPCODES, SIZES, Header, opcode


def limit(name: str, value: int, bits: int) -> None:
    """Refuse a number that its field cannot hold."""
    if not 0 <= value < 1 << bits:
        raise SpecError(f"{name} must be 0 to {(1 << bits) - 1} ({bits} bits), got {value}")


class Packed:
    """A header of fixed width: fields from the first bit to the last, widths in `WIDTHS`."""

    __slots__ = ()
    WIDTHS: ClassVar[tuple[int, ...]]

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for item, bits in zip(fields(self), self.WIDTHS, strict=True):  # type: ignore[arg-type]
            limit(f"{kind} {item.name}", getattr(self, item.name), bits)

    @classmethod
    def size(cls) -> int:
        """Bytes on the wire."""
        return sum(cls.WIDTHS) // 8

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From exactly `size()` bytes."""
        if len(data) != cls.size():
            raise SpecError(f"{cls.__name__} is {cls.size()} bytes long, got {len(data)}")
        value = int.from_bytes(data)
        found = []
        for bits in reversed(cls.WIDTHS):
            found.append(value & ((1 << bits) - 1))
            value >>= bits
        return cls(*reversed(found))

    def write(self) -> bytes:
        """The bytes on the wire."""
        value = 0
        for item, bits in zip(fields(self), self.WIDTHS, strict=True):  # type: ignore[arg-type]
            value = value << bits | getattr(self, item.name)
        return value.to_bytes(self.size())


@dataclass(frozen=True, slots=True)
class BTH:
    """Base transport header.

    Attributes:
        opcode: See `chaos.roce.opcodes.OPCODES`; unknown ones are kept as they are.
        dest_qp: Destination queue pair, 24 bits.
        psn: Packet sequence number, 24 bits.
        ack_request: The sender wants an acknowledgement.
        solicited: Solicited event.
        migrated: MigReq bit: the connection is in its migrated state.
        pad: Bytes of padding at the end of the payload, 0 to 3.
        version: Transport header version; 0 is the only one defined.
        pkey: Partition key.
        fecn: Forward explicit congestion notification; masked in the ICRC.
        becn: Backward explicit congestion notification; masked in the ICRC.
        reserved6: The six bits after BECN; masked in the ICRC.
        reserved7: The seven bits after the ack-request bit.
    """

    opcode: int
    dest_qp: int
    psn: int
    ack_request: bool = False
    solicited: bool = False
    migrated: bool = False
    pad: int = 0
    version: int = 0
    pkey: int = 0xFFFF
    fecn: bool = False
    becn: bool = False
    reserved6: int = 0
    reserved7: int = 0

    def __post_init__(self) -> None:
        for name, bits in _BTH_BITS:
            limit(f"BTH {name}", getattr(self, name), bits)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From exactly 12 bytes."""
        if len(data) != 12:
            raise SpecError(f"BTH is 12 bytes long, got {len(data)}")
        number, flags, pkey, word, last = struct.unpack(">BBHII", data)
        return cls(
            opcode=number,
            dest_qp=word & 0xFFFFFF,
            psn=last & 0xFFFFFF,
            ack_request=bool(last >> 31),
            solicited=bool(flags >> 7),
            migrated=bool(flags >> 6 & 1),
            pad=flags >> 4 & 3,
            version=flags & 15,
            pkey=pkey,
            fecn=bool(word >> 31),
            becn=bool(word >> 30 & 1),
            reserved6=word >> 24 & 63,
            reserved7=last >> 24 & 127,
        )

    def write(self) -> bytes:
        """The bytes on the wire."""
        flags = self.solicited << 7 | self.migrated << 6 | self.pad << 4 | self.version
        congestion = self.fecn << 7 | self.becn << 6 | self.reserved6
        last = self.ack_request << 31 | self.reserved7 << 24 | self.psn
        return struct.pack(
            ">BBHII", self.opcode, flags, self.pkey, congestion << 24 | self.dest_qp, last
        )

    def __str__(self) -> str:
        known = OPCODES.get(self.opcode)
        name = known.name if known else f"opcode 0x{self.opcode:02x}"
        return f"{name} QP 0x{self.dest_qp:x} PSN {self.psn}"


_BTH_BITS = (
    ("opcode", 8),
    ("dest_qp", 24),
    ("psn", 24),
    ("pad", 2),
    ("version", 4),
    ("pkey", 16),
    ("reserved6", 6),
    ("reserved7", 7),
)


@dataclass(frozen=True, slots=True)
class RDETH(Packed):
    """Reliable datagram extended transport header: the end-to-end context."""

    WIDTHS: ClassVar[tuple[int, ...]] = (8, 24)
    reserved: int
    context: int


@dataclass(frozen=True, slots=True)
class DETH(Packed):
    """Datagram extended transport header: who sends, and the key that lets it."""

    WIDTHS: ClassVar[tuple[int, ...]] = (32, 8, 24)
    qkey: int
    reserved: int
    source_qp: int


@dataclass(frozen=True, slots=True)
class RETH(Packed):
    """RDMA extended transport header: where in remote memory, and how much."""

    WIDTHS: ClassVar[tuple[int, ...]] = (64, 32, 32)
    address: int
    rkey: int
    length: int


@dataclass(frozen=True, slots=True)
class AtomicETH(Packed):
    """Atomic extended transport header: the operands of a compare-swap or fetch-add."""

    WIDTHS: ClassVar[tuple[int, ...]] = (64, 32, 64, 64)
    address: int
    rkey: int
    swap_or_add: int
    compare: int


@dataclass(frozen=True, slots=True)
class AETH(Packed):
    """ACK extended transport header.

    Attributes:
        syndrome: What became of the message; `chaos.roce.syndromes` reads it.
        msn: Message sequence number, 24 bits.
    """

    WIDTHS: ClassVar[tuple[int, ...]] = (8, 24)
    syndrome: int
    msn: int


@dataclass(frozen=True, slots=True)
class AtomicAckETH(Packed):
    """Atomic acknowledge: what the memory held before."""

    WIDTHS: ClassVar[tuple[int, ...]] = (64,)
    original: int


@dataclass(frozen=True, slots=True)
class ImmDt(Packed):
    """Immediate data."""

    WIDTHS: ClassVar[tuple[int, ...]] = (32,)
    data: int


@dataclass(frozen=True, slots=True)
class IETH(Packed):
    """Invalidate extended transport header: the key that the receiver shall invalidate."""

    WIDTHS: ClassVar[tuple[int, ...]] = (32,)
    rkey: int


Extended = RDETH | DETH | RETH | AtomicETH | AETH | AtomicAckETH | ImmDt | IETH
KINDS: dict[Header, type[Extended]] = {
    "RDETH": RDETH,
    "DETH": DETH,
    "RETH": RETH,
    "AtomicETH": AtomicETH,
    "AETH": AETH,
    "AtomicAckETH": AtomicAckETH,
    "ImmDt": ImmDt,
    "IETH": IETH,
}


def split(number: int, data: bytes) -> tuple[tuple[Extended, ...], bytes]:
    """What follows a base transport header of that opcode: its headers, and the rest.

    Raises:
        SpecError: the packet ends within a header.
    """
    found: list[Extended] = []
    known = OPCODES.get(number)
    for name in known.headers if known else ():
        size = SIZES[name]
        if len(data) < size:
            raise SpecError(
                f"{known.name if known else number} ends within its {name}: "
                f"{len(data)} of {size} bytes"
            )
        found.append(KINDS[name].read(data[:size]))
        data = data[size:]
    return tuple(found), data


def bth(name: str, dest_qp: int, psn: int, *, pad: int = 0, ack_request: bool = False) -> BTH:
    """A base transport header by the name of its opcode.

    Examples:
        >>> str(bth("rc_send_only", 0x11, 7))
        'rc_send_only QP 0x11 PSN 7'
    """
    return BTH(opcode(name).number, dest_qp, psn, ack_request, pad=pad)


def cnp(dest_qp: int) -> tuple[BTH, bytes]:
    """A congestion notification packet: BECN set, and sixteen bytes of zero as payload."""
    return BTH(CNP, dest_qp, 0, becn=True), bytes(16)
