"""The opcodes of a base transport header: what each is called and what follows it.

The upper three bits name the transport (RC, UC, RD, UD), the lower five the operation, as in IBTA
volume 1, table "OpCode field"; 0x81 is RoCEv2's congestion notification packet (annex A17).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.errors import SpecError, near

Transport = Literal["RC", "UC", "RD", "UD", "CNP"]
Header = Literal["RDETH", "DETH", "RETH", "AtomicETH", "AETH", "AtomicAckETH", "ImmDt", "IETH"]

#: Bytes of each header that may follow the base transport header.
SIZES: dict[Header, int] = {
    "RDETH": 4,
    "DETH": 8,
    "RETH": 16,
    "AtomicETH": 28,
    "AETH": 4,
    "AtomicAckETH": 8,
    "ImmDt": 4,
    "IETH": 4,
}
CNP = 0x81
BTH_SIZE = 12


@dataclass(frozen=True, slots=True)
class Opcode:
    """One opcode.

    Attributes:
        number: The byte on the wire.
        name: As IBTA has it, in lower case: `rc_rdma_write_first`.
        transport: RC, UC, RD, UD; CNP stands alone.
        headers: What follows the base transport header, in order.
        payload: Whether payload may follow them.
    """

    number: int
    name: str
    transport: Transport
    headers: tuple[Header, ...]
    payload: bool

    @property
    def operation(self) -> str:
        """The name without its transport: `rdma_write_first`; a CNP's is `cnp`."""
        return self.name if self.transport == "CNP" else self.name.partition("_")[2]

    @property
    def aeth_at(self) -> int | None:
        """Offset of the AETH from the base transport header, in bytes; None without one."""
        if "AETH" not in self.headers:
            return None
        before = self.headers[: self.headers.index("AETH")]
        return BTH_SIZE + sum(SIZES[one] for one in before)


#: Operation, its number, the headers it has under RC and UC, whether payload follows.
_OPERATIONS: tuple[tuple[int, str, tuple[Header, ...], bool], ...] = (
    (0x00, "send_first", (), True),
    (0x01, "send_middle", (), True),
    (0x02, "send_last", (), True),
    (0x03, "send_last_with_immediate", ("ImmDt",), True),
    (0x04, "send_only", (), True),
    (0x05, "send_only_with_immediate", ("ImmDt",), True),
    (0x06, "rdma_write_first", ("RETH",), True),
    (0x07, "rdma_write_middle", (), True),
    (0x08, "rdma_write_last", (), True),
    (0x09, "rdma_write_last_with_immediate", ("ImmDt",), True),
    (0x0A, "rdma_write_only", ("RETH",), True),
    (0x0B, "rdma_write_only_with_immediate", ("RETH", "ImmDt"), True),
    (0x0C, "rdma_read_request", ("RETH",), False),
    (0x0D, "rdma_read_response_first", ("AETH",), True),
    (0x0E, "rdma_read_response_middle", (), True),
    (0x0F, "rdma_read_response_last", ("AETH",), True),
    (0x10, "rdma_read_response_only", ("AETH",), True),
    (0x11, "acknowledge", ("AETH",), False),
    (0x12, "atomic_acknowledge", ("AETH", "AtomicAckETH"), False),
    (0x13, "compare_swap", ("AtomicETH",), False),
    (0x14, "fetch_add", ("AtomicETH",), False),
    (0x15, "resync", (), False),  # RD only
    (0x16, "send_last_with_invalidate", ("IETH",), True),  # RC only
    (0x17, "send_only_with_invalidate", ("IETH",), True),  # RC only
)
_BASE: dict[Transport, int] = {"RC": 0x00, "UC": 0x20, "RD": 0x40, "UD": 0x60}
_ANSWERS = frozenset(range(0x0D, 0x13))


def _has(transport: Transport, low: int) -> bool:
    match transport:
        case "RC":
            return low != 0x15
        case "UC":
            return low <= 0x0B
        case "RD":
            return low <= 0x15
        case _:
            return low in (0x04, 0x05)


def _headers(transport: Transport, low: int, own: tuple[Header, ...]) -> tuple[Header, ...]:
    """Datagrams say who they are from: RD requests by RDETH and DETH, its answers by RDETH."""
    if transport == "RD":
        return ("RDETH", *own) if low in _ANSWERS else ("RDETH", "DETH", *own)
    return ("DETH", *own) if transport == "UD" else own


def _all() -> dict[int, Opcode]:
    made = [
        Opcode(
            base | low, f"{transport.lower()}_{name}", transport, _headers(transport, low, own), pay
        )
        for transport, base in _BASE.items()
        for low, name, own, pay in _OPERATIONS
        if _has(transport, low)
    ]
    made.append(Opcode(CNP, "cnp", "CNP", (), True))
    return {one.number: one for one in made}


#: Every opcode by its number.
OPCODES: dict[int, Opcode] = _all()
BY_NAME: dict[str, Opcode] = {one.name: one for one in OPCODES.values()}


def opcode(name: str) -> Opcode:
    """The opcode of that name.

    Raises:
        SpecError: no such opcode; near names are offered.

    Examples:
        >>> hex(opcode("rc_rdma_read_response_only").number)
        '0x10'
        >>> opcode("rd_acknowledge").aeth_at
        16
    """
    if name not in BY_NAME:
        raise SpecError(f"no opcode {name!r}; {near(name, BY_NAME)}")
    return BY_NAME[name]
