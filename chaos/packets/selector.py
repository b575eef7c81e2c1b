"""Which packets a rule is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import (
    IPv4Network,
    IPv6Network,
    collapse_addresses,
    ip_network,
)
from typing import Any, Self

from chaos.errors import SpecError, near
from chaos.packets import plain
from chaos.packets.numbers import Numbers
from chaos.packets.words import ANSWERS, CLASSES, DSCP, ECN, SYNDROMES
from chaos.roce import BY_NAME, OPCODES

Network = IPv4Network | IPv6Network
ANY = Numbers()
_EVERYTHING = "everything"

#: Words of other tools that no nftables expression can stand for, and why.
IMPOSSIBLE = {
    "extension_header": "nftables finds an IPv6 extension header by its kind, but has no base from "
    "which to read bits inside it; select by addresses, ports or RoCE words, which it reads behind "
    "any extension headers",
    "icrc": "nftables computes no CRC, so it cannot tell a good ICRC from a bad one; select by "
    "addresses, ports or RoCE words",
    "retransmission": "nftables does not remember which PSNs it has seen; a PSN's first packet "
    "alone is: when: {psn: N}",
    "payload": "the payload begins behind headers whose length the opcode decides; nftables reads "
    "at fixed offsets only; select by opcode",
    "fragment": "only a datagram's first fragment has a UDP header; nftables does not put "
    "fragments together, and RoCEv2 is never fragmented",
}


@dataclass(frozen=True, slots=True)
class Selector:
    """Packets that share all the properties given; without any, every frame.

    Each word of RoCE (`opcode` to `syndrome`) means RoCEv2 packets only: UDP destination port 4791.

    Attributes:
        family: 4 or 6; None for both.
        source: Networks that the sender is in.
        destination: Networks that the receiver is in.
        protocol: `udp` or `tcp`; empty for any.
        sport: Ports of the sender.
        dport: Ports of the receiver.
        dscp: Code points, or names such as `af31`.
        ecn: `not-ect`, `ect0`, `ect1`, `ect` (both), `ce`, or numbers.
        roce: RoCEv2 only.
        opcode: Opcodes by name, number or class (data, first, middle, last, only, send, write,
            read, atomic, ack, nak, rnr_nak, cnp); several mean any of them.
        dest_qp: Destination queue pairs.
        psn: Packet sequence numbers.
        ack_request: Only with, or only without, the ack-request bit.
        syndrome: Syndromes of an AETH: ack, nak, rnr_nak, psn_sequence_error, …, or numbers.

    Examples:
        >>> str(Selector.parse({"opcode": ["first", "last"], "dest_qp": 17, "psn": "100-200"}))
        'opcode=first,last dest_qp=17 psn=100-200'
        >>> Selector.parse("dest_qp=0x1000000")
        Traceback (most recent call last):
        chaos.errors.SpecError: .dest_qp: dest_qp must be 0 to 16777215, got 16777216
    """

    family: int | None = None
    source: tuple[Network, ...] = ()
    destination: tuple[Network, ...] = ()
    protocol: str = ""
    sport: Numbers = ANY
    dport: Numbers = ANY
    dscp: Numbers = ANY
    ecn: Numbers = ANY
    roce: bool = False
    opcode: tuple[str | int, ...] = ()
    dest_qp: Numbers = ANY
    psn: Numbers = ANY
    ack_request: bool | None = None
    syndrome: Numbers = ANY

    def __post_init__(self) -> None:
        if self.is_roce and self.protocol not in ("", "udp"):
            raise SpecError(f"RoCEv2 is in udp, got {self.protocol}", field=".protocol")
        if self.is_roce and self.dport and 4791 not in self.dport:
            raise SpecError(f"RoCEv2 goes to port 4791, got {self.dport}", field=".dport")
        if (self.sport or self.dport) and not (self.protocol or self.is_roce):
            raise SpecError("ports are udp's or tcp's; give protocol", field=".protocol")
        for item in self.opcode:
            if item not in CLASSES and item not in BY_NAME and not isinstance(item, int):
                known = near(str(item), {**CLASSES, **BY_NAME})
                raise SpecError(f"no opcode or class {item!r}; {known}", field=".opcode")
        if not self.families:
            raise SpecError("no packet has addresses of two families", field=".family")
        if self.syndrome and not self.answers():
            raise SpecError(
                f"none of {', '.join(map(str, self.opcode))} has an AETH with syndrome "
                f"{self.syndrome}; acknowledgements, NAKs and read responses have one",
                field=".syndrome",
            )

    @property
    def is_roce(self) -> bool:
        """Whether only RoCEv2 packets are meant."""
        words = (self.roce, self.opcode, self.dest_qp, self.psn, self.syndrome)
        return any(words) or self.ack_request is not None

    @property
    def families(self) -> tuple[int, ...]:
        """IP versions that its packets may have; empty where addresses contradict each other."""
        found = {4, 6} if self.family is None else {self.family}
        for networks in (self.source, self.destination):
            if networks:
                found &= {one.version for one in networks}
        return tuple(sorted(found))

    def answers(self) -> list[tuple[str | int, Numbers]]:
        """Per item of `opcode`, the syndromes it lets through; without those that let none."""
        items = self.opcode or tuple(n for n, one in OPCODES.items() if one.aeth_at is not None)
        found: list[tuple[str | int, Numbers]] = []
        for item in items:
            allowed = ANSWERS.get(item, ANY) if isinstance(item, str) else ANY
            if self.syndrome:
                allowed = allowed & self.syndrome if allowed else self.syndrome
                if not allowed or not any(aeth_at(number) for number in numbers(item)):
                    continue
            found.append((item, allowed))
        return found

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a mapping of the words above, one line of them, or `everything`.

        Raises:
            SpecError: with the word as its field.
        """
        if isinstance(value, cls):
            return value
        if value is None or value in ("", _EVERYTHING):
            return cls()
        given = plain.words(value, "select", "opcode=first dest_qp=17")
        for key in given:
            if key in IMPOSSIBLE:
                raise SpecError(f"{key} cannot be selected: {IMPOSSIBLE[key]}", field=f".{key}")
        plain.refuse_unknown(given, {item.name: 0 for item in fields(cls)}, "select")
        made = {}
        for key, one in given.items():
            try:
                made[key] = _read(key, one)
            except SpecError as error:
                raise SpecError(error.reason, field=error.field or f".{key}") from None
        return cls(**made)

    def plain(self) -> dict[str, Any]:
        """As YAML has it."""
        return {key: _written(one) for key, one in self._given()}

    def __str__(self) -> str:
        told = [f"{key}={_text(one)}" for key, one in self._given()]
        return " ".join(told) or _EVERYTHING

    def _given(self) -> list[tuple[str, Any]]:
        found = [(item, getattr(self, item.name)) for item in fields(self)]
        return [(item.name, one) for item, one in found if one != item.default]

    @staticmethod
    def schema() -> Mapping[str, Any]:
        """What `parse` accepts, as JSON schema."""
        simple = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
        some = {"anyOf": [*simple["anyOf"], {"type": "array", "items": simple}]}
        own: dict[str, Any] = {
            "family": {"enum": [4, 6, "4", "6"]},
            "protocol": {"enum": ["udp", "tcp"]},
            **{key: {"enum": [True, False, "true", "false"]} for key in ("roce", "ack_request")},
        }
        properties = {item.name: own.get(item.name, some) for item in fields(Selector)}
        table = {"type": "object", "additionalProperties": False, "properties": properties}
        return {"anyOf": [table, {"type": ["string", "null"]}]}


EVERYTHING = Selector()


def select(**words: Any) -> Selector:
    """A selector in Python, by the words of the YAML form.

    Examples:
        >>> select(opcode="nak").is_roce
        True
    """
    return Selector.parse(words)


def numbers(item: str | int) -> tuple[int, ...]:
    """The opcodes that an item of `opcode` means.

    Examples:
        >>> [hex(number) for number in numbers("ack")]
        ['0x11', '0x51']
    """
    if isinstance(item, int):
        return (item,)
    if item in CLASSES:
        return tuple(number for number, one in OPCODES.items() if CLASSES[item](one))
    return (BY_NAME[item].number,)


def aeth_at(number: int) -> int | None:
    """Offset of the AETH from the BTH; None for opcodes without one."""
    return OPCODES[number].aeth_at if number in OPCODES else None


_WIDTHS = {"sport": 16, "dport": 16, "dscp": 6, "ecn": 2, "dest_qp": 24, "psn": 24, "syndrome": 8}
_NAMES = {"dscp": DSCP, "ecn": ECN, "syndrome": SYNDROMES}


def _read(key: str, value: Any) -> Any:
    if key in _WIDTHS:
        return Numbers.parse(value, bits=_WIDTHS[key], what=key, names=_NAMES.get(key))
    match key:
        case "family":
            if value not in (4, 6, "4", "6") or isinstance(value, bool):
                raise SpecError(f"4 or 6 expected, got {value!r}")
            return int(value)
        case "source" | "destination":
            return _networks(value)
        case "protocol":
            if value not in ("udp", "tcp"):
                raise SpecError(f"udp or tcp expected, got {value!r}")
            return value
        case "opcode":
            return _opcodes(value)
        case _:
            truth = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
            if not isinstance(truth, bool):
                raise SpecError(f"true or false expected, got {value!r}")
            return truth


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [one.strip() for one in value.split(",")]
    made = list(value) if isinstance(value, list | tuple) else [value]
    if not made:
        raise SpecError("one at least expected, got an empty list")
    return made


def _networks(value: Any) -> tuple[Network, ...]:
    found: list[Network] = []
    for one in _listed(value):
        if isinstance(one, IPv4Network | IPv6Network):
            found.append(one)
            continue
        try:
            found.append(ip_network(one if isinstance(one, str) else repr(one)))
        except ValueError as error:
            raise SpecError(
                f"an address or a prefix such as 10.0.0.0/24 expected: {error}"
            ) from None
    four = collapse_addresses([one for one in found if isinstance(one, IPv4Network)])
    six = collapse_addresses([one for one in found if isinstance(one, IPv6Network)])
    return (*four, *six)


def _opcodes(value: Any) -> tuple[str | int, ...]:
    made: list[str | int] = []
    for one in _listed(value):
        if (isinstance(one, int) and not isinstance(one, bool)) or (
            isinstance(one, str) and one[:1].isdecimal()
        ):
            made += list(Numbers.parse(one, bits=8, what="opcode"))
        elif isinstance(one, str):
            made.append(one)
        else:
            raise SpecError(f"an opcode's name, number or class expected, got {one!r}")
    return tuple(dict.fromkeys(made))


def _written(value: Any) -> Any:
    if isinstance(value, Numbers):
        return value.plain()
    if isinstance(value, tuple):
        return [one if isinstance(one, int) else str(one) for one in value]
    return value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
