"""The syndrome byte of an AETH: an ACK with credits, an RNR NAK with a timer, a NAK with a code.

Bit 7 is reserved; bits 6 and 5 say which kind it is; the lower five are its value (IBTA volume 1,
section 9.7.5.1.2 and table "RNR NAK timer").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from chaos.errors import SpecError, near
from chaos.units import Duration

Kind = Literal["ack", "rnr_nak", "reserved", "nak"]
_KINDS: tuple[Kind, ...] = ("ack", "rnr_nak", "reserved", "nak")

#: The codes of a NAK.
NAKS: dict[str, int] = {
    "psn_sequence_error": 0,
    "invalid_request": 1,
    "remote_access_error": 2,
    "remote_operational_error": 3,
    "invalid_rd_request": 4,
}
#: Milliseconds that an RNR NAK asks the sender to wait, by its timer field; 0 is the longest.
RNR_MS = (
    655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28,
    1.92, 2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84,
    245.76, 327.68, 491.52,
)  # fmt: skip
#: The credit field that says: credits are not used.
NO_CREDITS = 31


@dataclass(frozen=True, slots=True)
class Syndrome:
    """A syndrome byte, read.

    Attributes:
        kind: `ack`, `rnr_nak`, `nak`, or `reserved`.
        value: Credit field of an ACK, timer field of an RNR NAK, code of a NAK; 0 to 31.
        top: The reserved bit 7.
    """

    kind: Kind
    value: int
    top: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.value < 32:
            raise SpecError(f"a syndrome's value must be 0 to 31 (5 bits), got {self.value}")

    @classmethod
    def read(cls, byte: int) -> Self:
        """From the byte on the wire."""
        if not 0 <= byte < 256:
            raise SpecError(f"a syndrome must be 0 to 255 (8 bits), got {byte}")
        return cls(_KINDS[byte >> 5 & 3], byte & 31, bool(byte >> 7))

    @classmethod
    def nak(cls, name: str) -> Self:
        """A NAK by the name of its code.

        Examples:
            >>> hex(Syndrome.nak("remote_access_error").write())
            '0x62'
        """
        if name not in NAKS:
            raise SpecError(f"no NAK {name!r}; {near(name, NAKS)}")
        return cls("nak", NAKS[name])

    @classmethod
    def rnr(cls, wait: Duration) -> Self:
        """The RNR NAK that asks for the shortest wait of at least `wait`.

        Examples:
            >>> Syndrome.rnr(Duration.parse("50 us"))
            Syndrome(kind='rnr_nak', value=5, top=False)
        """
        able = [(ms, at) for at, ms in enumerate(RNR_MS) if ms >= wait.ms]
        if not able:
            raise SpecError(f"an RNR NAK asks for at most 655.36 ms, got {wait}")
        return cls("rnr_nak", min(able)[1])

    def write(self) -> int:
        """The byte on the wire."""
        return self.top << 7 | _KINDS.index(self.kind) << 5 | self.value

    @property
    def credits(self) -> int | None:
        """Messages that an ACK allows to be sent; None where it says nothing of it.

        Credits are coded: 0, 1, 2, 3, 4, 6, 8, 12, …: two steps per power of two.
        """
        if self.kind != "ack" or self.value == NO_CREDITS:
            return None
        half, odd = divmod(self.value, 2)
        return self.value if self.value < 2 else (2 + odd) << (half - 1)

    @property
    def wait(self) -> Duration | None:
        """How long an RNR NAK asks the sender to wait."""
        return Duration(round(RNR_MS[self.value] * 1e6)) if self.kind == "rnr_nak" else None

    def __str__(self) -> str:
        if self.kind == "ack":
            return "ACK" + ("" if self.credits is None else f" with {self.credits} credits")
        if self.kind == "rnr_nak":
            return f"RNR NAK, wait {self.wait}"
        names = {code: name for name, code in NAKS.items()}
        name = names.get(self.value, f"reserved code {self.value}")
        return f"NAK {name.replace('_', ' ')}" if self.kind == "nak" else "reserved syndrome"
