"""What a rule does to the packets it acts on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, cast, get_args

from chaos.errors import SpecError, near
from chaos.packets import plain
from chaos.packets.how import HOWS, Forge, How
from chaos.packets.numbers import Numbers
from chaos.packets.words import DSCP

Deed = Literal[
    "drop", "ce", "bleach", "dscp", "fecn", "becn", "corrupt", "duplicate",
    "delay", "reorder", "rate", "forge",
]  # fmt: skip
#: Deeds that need no further word.
ALONE = ("drop", "ce", "bleach", "fecn", "becn", "corrupt", "duplicate")


@dataclass(frozen=True, slots=True)
class Action:
    """What becomes of a packet. Whatever it is, `hit` counts it.

    Attributes:
        deed: `drop`; `ce`: mark congestion experienced, whatever the ECN field was; `bleach`: set
            it to not-ECT; `dscp`: set the code point; `fecn`, `becn`: set that bit of a RoCEv2
            packet; `corrupt`: break a checksum, so that a receiver throws it away; `duplicate`:
            it comes twice; `delay`, `reorder`, `rate`, `forge`, and `corrupt` with a word: `how`.
        value: The code point of `dscp`; else 0.
        how: The words of the deed, where it has any.

    Examples:
        >>> str(Action.parse({"dscp": "af31"}))
        'dscp=26'
        >>> str(Action.parse("delay=10ms jitter=2ms"))
        'delay=10ms jitter=2ms'
        >>> Action.parse("delay")
        Traceback (most recent call last):
        chaos.errors.SpecError: .delay: delay needs a value, such as delay=10ms
    """

    deed: Deed = "drop"
    value: int = 0
    how: How | None = None

    def __post_init__(self) -> None:
        if self.deed not in get_args(Deed):
            raise SpecError(f"no deed {self.deed!r}; {near(self.deed, get_args(Deed))}")
        if not 0 <= self.value < 64 or (self.value and self.deed != "dscp"):
            raise SpecError(f"dscp must be 0 to 63, and has no place elsewhere, got {self.value}")
        wanted = HOWS.get(self.deed, type(None))
        if not isinstance(self.how, wanted) and not (self.deed == "corrupt" and self.how is None):
            raise SpecError(f"{self.deed} has no words {self.how}")

    @property
    def rewrites(self) -> bool:
        """The packet must be IP, and goes on with another header."""
        return self.deed in ("ce", "bleach", "dscp", "fecn", "becn", "corrupt", "forge")

    @property
    def takes(self) -> bool:
        """The packet does not go on."""
        return self.deed == "drop"

    @property
    def answers(self) -> bool:
        """The packet goes on untouched, and its sender gets a packet that nobody sent."""
        return isinstance(self.how, Forge) and self.how.of == "cnp"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `drop`, `dscp=af31`, `delay=10ms jitter=2ms`, or a mapping of the same words.

        Raises:
            SpecError: with the word as its field.
        """
        if isinstance(value, cls):
            return value
        if value in ALONE:
            return cls(value)
        bare = isinstance(value, str) and "=" not in value
        given = {value: None} if bare else plain.words(value, "then", "drop, or dscp=af31")
        deeds = [key for key in given if key in get_args(Deed)]
        if not deeds:
            own = {one: 0 for kind in HOWS.values() for one in _names(kind)}
            plain.refuse_unknown(given, {one: 0 for one in get_args(Deed)} | own, "then")
            raise SpecError(f"then needs one of {', '.join(get_args(Deed))}, got {value!r}")
        if len(deeds) > 1:
            raise SpecError(f"{deeds[0]} and {deeds[1]} cannot both be", field=f".{deeds[1]}")
        deed = deeds[0]
        if bare:
            example = {"dscp": "dscp=af31", "delay": "delay=10ms", "reorder": "reorder=3"}
            example |= {"rate": "rate=10Mbit/s", "forge": "forge=remote_access_error"}
            raise SpecError(f"{deed} needs a value, such as {example[deed]}", field=f".{deed}")
        if deed in HOWS:
            return cls(cast(Deed, deed), 0, HOWS[deed].parse(given))
        plain.refuse_unknown(given, {deed: 0}, f"then {deed}")
        if deed != "dscp":
            got = "an empty one" if given[deed] is None else repr(given[deed])
            raise SpecError(
                f"{deed} has no value, got {got}; write `then: {deed}`", field=f".{deed}"
            )
        return cls("dscp", _point(given["dscp"]))

    def towards(self, direction: int) -> Self:
        """The same for another direction of a link: what is drawn is drawn anew."""
        return self if self.how is None else replace(self, how=self.how.towards(direction))

    def plain(self) -> Any:
        """As YAML has it."""
        if self.how is not None:
            return self.how.plain()
        return {"dscp": self.value} if self.deed == "dscp" else self.deed

    def __str__(self) -> str:
        if self.how is not None:
            return str(self.how)
        return f"dscp={self.value}" if self.deed == "dscp" else self.deed

    @staticmethod
    def schema() -> Mapping[str, Any]:
        """What `parse` accepts, as JSON schema."""
        some = {"type": ["integer", "string", "array"]}
        kinds = [("dscp", ("dscp",)), *((word, _names(kind)) for word, kind in HOWS.items())]
        table = {"type": "object", "additionalProperties": False}
        tables = [
            {**table, "properties": dict.fromkeys(names, some), "required": [word]}
            for word, names in kinds
        ]
        return {"anyOf": [{"type": "string"}, *tables]}


def _names(kind: type[How]) -> tuple[str, ...]:
    own = (item.name for item in fields(kind))
    return tuple(kind.word if name == "of" else name for name in own)


def _point(value: Any) -> int:
    try:
        found = Numbers.parse(value, bits=6, what="dscp", names=DSCP)
    except SpecError as error:
        raise SpecError(error.reason, field=".dscp") from None
    (low, high), *more = found.spans
    if more or low != high:
        raise SpecError(f"one code point expected, got {found}", field=".dscp")
    return low


DROP = Action()
