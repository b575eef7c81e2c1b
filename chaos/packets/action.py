"""What a rule does to the packets it acts on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from chaos.errors import SpecError, near
from chaos.packets import plain
from chaos.packets.numbers import Numbers
from chaos.packets.words import DSCP

Deed = Literal["drop", "ce", "bleach", "dscp"]
#: Deeds that nftables cannot do, and what can.
ELSEWHERE = {
    **dict.fromkeys(
        ("delay", "jitter", "reorder"),
        "nftables cannot hold a packet back; that takes netem behind a mark, or a worker on an "
        "NFQUEUE",
    ),
    "duplicate": "a second copy needs the egress hook and a mark that keeps it from being copied "
    "again",
    "rate": "a rate takes a shaping queue (tbf or htb)",
    **dict.fromkeys(
        ("fecn", "becn", "corrupt", "forge"),
        "nftables can overwrite bytes but computes no ICRC; that takes a worker on an NFQUEUE",
    ),
}
_RULES: dict[Deed, tuple[str, ...]] = {
    "drop": ("drop",),
    "ce": ("ip ecn set ce", "ip6 ecn set ce"),
    "bleach": ("ip ecn set not-ect", "ip6 ecn set not-ect"),
}


@dataclass(frozen=True, slots=True)
class Action:
    """Drop a packet, or rewrite what no ICRC covers.

    Attributes:
        deed: `drop`; `ce`: mark congestion experienced, whatever the ECN field was; `bleach`: set
            it to not-ECT; `dscp`: set the code point.
        value: The code point of `dscp`; else 0.

    Examples:
        >>> str(Action.parse({"dscp": "af31"}))
        'dscp=26'
        >>> Action.parse("delay=1ms")
        Traceback (most recent call last):
        chaos.errors.SpecError: .delay: nftables cannot hold a packet back; that takes netem \
behind a mark, or a worker on an NFQUEUE; not there yet (there are drop, ce, bleach, dscp)
    """

    deed: Deed = "drop"
    value: int = 0

    def __post_init__(self) -> None:
        if self.deed not in get_args(Deed):
            raise SpecError(f"no deed {self.deed!r}; {near(self.deed, get_args(Deed))}")
        if not 0 <= self.value < 64 or (self.value and self.deed != "dscp"):
            raise SpecError(f"dscp must be 0 to 63, and has no place elsewhere, got {self.value}")

    @property
    def rewrites(self) -> bool:
        """The packet goes on, with another IP header."""
        return self.deed != "drop"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `drop`, `ce`, `bleach`, `dscp=af31`, or a mapping with `dscp`.

        Raises:
            SpecError: with the word as its field.
        """
        if isinstance(value, cls):
            return value
        if value in ("drop", "ce", "bleach"):
            return cls(value)
        bare = isinstance(value, str) and "=" not in value
        given = {value: None} if bare else plain.words(value, "then", "drop, or dscp=af31")
        for key in given:
            if key in ELSEWHERE:
                known = ", ".join(get_args(Deed))
                raise SpecError(
                    f"{ELSEWHERE[key]}; not there yet (there are {known})", field=f".{key}"
                )
        plain.refuse_unknown(given, {one: 0 for one in get_args(Deed)}, "then")
        if list(given) != ["dscp"]:
            raise SpecError(f"one of drop, ce, bleach or dscp=N expected, got {value!r}")
        try:
            found = Numbers.parse(given["dscp"], bits=6, what="dscp", names=DSCP)
        except SpecError as error:
            raise SpecError(error.reason, field=".dscp") from None
        (low, high), *more = found.spans
        if more or low != high:
            raise SpecError(f"one code point expected, got {found}", field=".dscp")
        return cls("dscp", low)

    def plain(self) -> Any:
        """As YAML has it."""
        return {"dscp": self.value} if self.deed == "dscp" else self.deed

    def nft(self) -> tuple[str, ...]:
        """As nftables has it, a rule each."""
        return _RULES.get(self.deed, (f"ip dscp set {self.value}", f"ip6 dscp set {self.value}"))

    def __str__(self) -> str:
        return f"dscp={self.value}" if self.deed == "dscp" else self.deed

    @staticmethod
    def schema() -> Mapping[str, Any]:
        """What `parse` accepts, as JSON schema."""
        point = {"type": ["integer", "string", "array"]}
        table = {"type": "object", "additionalProperties": False, "required": ["dscp"]}
        return {"anyOf": [{"type": "string"}, {**table, "properties": {"dscp": point}}]}


DROP = Action()
