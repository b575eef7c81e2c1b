"""The names that packets, code points and syndromes go by."""

from __future__ import annotations

from collections.abc import Callable

from chaos.packets.numbers import Numbers
from chaos.roce import NAKS, Opcode


def _one(number: int) -> Numbers:
    return Numbers(((number, number),))


#: Code points by their names (RFC 2474, 2597, 3246, 5865, 8622).
DSCP: dict[str, Numbers] = {
    "default": _one(0),
    "ef": _one(46),
    "va": _one(44),
    "le": _one(1),
    **{f"cs{n}": _one(8 * n) for n in range(8)},
    **{f"af{n}{m}": _one(8 * n + 2 * m) for n in range(1, 5) for m in range(1, 4)},
}

#: The two bits of explicit congestion notification (RFC 3168).
ECN: dict[str, Numbers] = {
    "not-ect": _one(0),
    "ect1": _one(1),
    "ect0": _one(2),
    "ce": _one(3),
    "ect": Numbers(((1, 2),)),
}


def _kind(number: int) -> Numbers:
    """A syndrome's kind, whatever its reserved upper bit."""
    return Numbers(tuple((top | number << 5, top | number << 5 | 31) for top in (0, 0x80)))


#: Syndromes of an AETH: three kinds, and the codes of a NAK.
SYNDROMES: dict[str, Numbers] = {
    "ack": _kind(0),
    "rnr_nak": _kind(1),
    "nak": _kind(3),
    **{name: _one(0x60 | code) for name, code in NAKS.items()},
}


def _part(part: str) -> Callable[[Opcode], bool]:
    return lambda one: part in one.operation.split("_")


def _data(one: Opcode) -> bool:
    return one.payload and one.transport != "CNP"


def _acknowledge(one: Opcode) -> bool:
    return one.operation == "acknowledge"


#: Classes of opcodes.
CLASSES: dict[str, Callable[[Opcode], bool]] = {
    "data": _data,
    "first": _part("first"),
    "middle": _part("middle"),
    "last": _part("last"),
    "only": _part("only"),
    "send": _part("send"),
    "write": _part("write"),
    "read": _part("read"),
    "atomic": lambda one: "AtomicETH" in one.headers or "AtomicAckETH" in one.headers,
    "cnp": lambda one: one.transport == "CNP",
    "ack": _acknowledge,
    "nak": _acknowledge,
    "rnr_nak": _acknowledge,
}
#: Classes that also look at the syndrome.
ANSWERS: dict[str, Numbers] = {name: SYNDROMES[name] for name in ("ack", "nak", "rnr_nak")}
