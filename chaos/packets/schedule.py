"""When a rule acts: on which of the packets that its selector means, counted from 0.

A schedule is a pure function of ordinals (`Psn`: of packet sequence numbers), and says how the
kernel's counters do the same: `gates`, each a counter of the packets that reach it, taken modulo
its period, and the residues that it lets through to the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from chaos.errors import SpecError
from chaos.packets import plain
from chaos.packets.numbers import Numbers
from chaos.units import Percent

#: nftables counts modulo this much at most; after so many packets a schedule begins again.
MOST = (1 << 32) - 1
#: Kinds by the word that begins their YAML form.
KINDS: dict[str, type[Schedule]] = {}


@dataclass(frozen=True, slots=True)
class Gate:
    """A counter of packets modulo `period`, and what it lets through."""

    period: int
    through: Numbers


@dataclass(frozen=True, slots=True)
class Schedule(ABC):
    """When a rule acts. `All`, `First`, `After`, `Every`, `Chance`, `Psn` and `Bursts` are some."""

    #: The word that begins the YAML form.
    word: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if cls.word:
            KINDS[cls.word] = cls

    @abstractmethod
    def gates(self) -> tuple[Gate, ...]:
        """How counters do it, first to last."""

    @abstractmethod
    def acts(self) -> Callable[[int], bool]:
        """A function that says whether the packet of an ordinal is acted on."""

    def ordinals(self, count: int) -> tuple[int, ...]:
        """Which of the first `count` selected packets are acted on."""
        acts = self.acts()
        return tuple(ordinal for ordinal in range(count) if acts(ordinal))

    def chosen(self, psns: Sequence[int]) -> tuple[int, ...]:
        """Ordinals acted on, when the selected packets have these sequence numbers."""
        return self.ordinals(len(psns))

    def towards(self, direction: int) -> Self:
        """The same for another direction of a link: what is drawn is drawn anew."""
        seed = getattr(self, "seed", None)
        if seed is None:
            return self
        return replace(self, **{"seed": seed * 2 + direction})

    @staticmethod
    def parse(value: Any) -> Schedule:
        """Read `all`, one line such as `every=100 offset=5`, or a mapping of the same words.

        Raises:
            SpecError: with the word as its field.

        Examples:
            >>> Schedule.parse({"every": 100, "offset": 5}).ordinals(300)
            (5, 105, 205)
            >>> Schedule.parse("first=0")
            Traceback (most recent call last):
            chaos.errors.SpecError: .first: 1 to 4294967294 expected, got '0'
        """
        if isinstance(value, Schedule):
            return value
        if value == "all":
            return All()
        given = plain.words(value, "when", "all, or first=3")
        kind = next((KINDS[key] for key in given if key in KINDS), None)
        if kind is None:
            plain.refuse_unknown(given, {**KINDS, "all": All}, "when")
            raise SpecError(f"when needs one of all, {', '.join(KINDS)}")
        for key in given:
            if key in KINDS and KINDS[key] is not kind:
                raise SpecError(f"{kind.word} and {key} cannot both be", field=f".{key}")
        plain.refuse_unknown(given, dict.fromkeys(kind.words()), f"when {kind.word}")
        return kind.read(given)

    @classmethod
    def words(cls) -> tuple[str, ...]:
        """Those of this kind, the one that begins its YAML form first."""
        return (cls.word, *(item.name for item in fields(cls) if item.name not in ("of", cls.word)))

    @classmethod
    @abstractmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """From the words of this kind."""

    def plain(self) -> Any:
        """As YAML has it."""
        made = {}
        for item in fields(self):
            one = getattr(self, item.name)
            if item.name in (self.word, "of") or one != item.default:
                key = self.word if item.name == "of" else item.name
                made[key] = _written(one)
        return made

    def __str__(self) -> str:
        made = {key: _text(one) for key, one in self.plain().items()}
        return " ".join(f"{key}={one}" for key, one in made.items())

    @staticmethod
    def schema() -> Mapping[str, Any]:
        """What `parse` accepts, as JSON schema."""
        some = {"type": ["integer", "number", "string", "array"]}
        kinds = []
        for word, kind in KINDS.items():
            properties = dict.fromkeys(kind.words(), some)
            table = {"type": "object", "additionalProperties": False, "properties": properties}
            kinds.append({**table, "required": [word]})
        return {"anyOf": [{"type": "string"}, *kinds]}


def _written(one: Any) -> Any:
    if isinstance(one, Percent):
        return str(one)
    return list(one) if isinstance(one, tuple) else one


def _text(one: Any) -> str:
    return ",".join(map(str, one)) if isinstance(one, list) else str(one).replace(" ", "")


@dataclass(frozen=True, slots=True)
class All(Schedule):
    """Every selected packet."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """It has no words."""
        return cls()

    def gates(self) -> tuple[Gate, ...]:
        """None are needed."""
        return ()

    def acts(self) -> Callable[[int], bool]:
        """Always."""
        return lambda ordinal: True

    def plain(self) -> Any:
        """One word."""
        return "all"

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True, slots=True)
class First(Schedule):
    """The first packets, and no more."""

    word: ClassVar[str] = "first"
    of: int

    def __post_init__(self) -> None:
        plain.whole(self.of, "first", 1, MOST - 1)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`first`."""
        return cls(plain.whole(given["first"], "first", 1, MOST - 1))

    def gates(self) -> tuple[Gate, ...]:
        """One counter that never comes round."""
        return (Gate(MOST, Numbers(((0, self.of - 1),))),)

    def acts(self) -> Callable[[int], bool]:
        """Below."""
        return lambda ordinal: ordinal < self.of


@dataclass(frozen=True, slots=True)
class After(Schedule):
    """All but the first packets."""

    word: ClassVar[str] = "after"
    of: int

    def __post_init__(self) -> None:
        plain.whole(self.of, "after", 1, MOST - 1)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`after`."""
        return cls(plain.whole(given["after"], "after", 1, MOST - 1))

    def gates(self) -> tuple[Gate, ...]:
        """One counter that never comes round."""
        return (Gate(MOST, Numbers(((self.of, MOST - 1),))),)

    def acts(self) -> Callable[[int], bool]:
        """From there on."""
        return lambda ordinal: ordinal >= self.of


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """Every so many packets, beginning with the packet of ordinal `offset`.

    Without an offset the last of every stretch: `every=100` means the 100th, the 200th, ….
    """

    word: ClassVar[str] = "every"
    of: int
    offset: int | None = None

    def __post_init__(self) -> None:
        plain.whole(self.of, "every", 1, MOST)
        if self.offset is not None:
            plain.whole(self.offset, "offset", 0, MOST - 1)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`every`, `offset`."""
        offset = given.get("offset")
        return cls(
            plain.whole(given["every"], "every", 1, MOST),
            None if offset is None else plain.whole(offset, "offset", 0, MOST - 1),
        )

    @property
    def begin(self) -> int:
        """Ordinal of the first packet acted on."""
        return self.of - 1 if self.offset is None else self.offset

    def gates(self) -> tuple[Gate, ...]:
        """One counter; where the offset is longer than the stride, one more before it."""
        if self.of == 1 and not self.begin:
            return ()
        if self.begin < self.of:
            return (Gate(self.of, Numbers(((self.begin, self.begin),))),)
        wait = Gate(MOST, Numbers(((self.begin, MOST - 1),)))
        return (wait, Gate(self.of, Numbers(((0, 0),))))

    def acts(self) -> Callable[[int], bool]:
        """By the remainder."""
        return lambda ordinal: ordinal >= self.begin and (ordinal - self.begin) % self.of == 0


@dataclass(frozen=True, slots=True)
class Psn(Schedule):
    """The first packet of each of some sequence numbers, once: not when it is sent again."""

    word: ClassVar[str] = "psn"
    of: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.of)) <= 64:
            raise SpecError(f"1 to 64 sequence numbers expected, got {len(self.of)}", field=".psn")
        for one in self.of:
            plain.whole(one, "psn", 0, (1 << 24) - 1)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`psn`."""
        try:
            found = Numbers.parse(given["psn"], bits=24, what="psn")
        except SpecError as error:
            raise SpecError(error.reason, field=".psn") from None
        if sum(high - low + 1 for low, high in found.spans) > 64:
            raise SpecError(f"1 to 64 sequence numbers expected, got {found}", field=".psn")
        return cls(tuple(found))

    def gates(self) -> tuple[Gate, ...]:
        """Of one sequence number: the first that comes."""
        return (Gate(MOST, Numbers(((0, 0),))),)

    def acts(self) -> Callable[[int], bool]:
        """Refused: ordinals alone do not tell."""
        raise SpecError("a schedule by psn depends on the packets; ask chosen(psns)", field=".psn")

    def chosen(self, psns: Sequence[int]) -> tuple[int, ...]:
        """The ordinal at which each first comes."""
        found = {psns.index(one) for one in self.of if one in psns}
        return tuple(sorted(found))


ALWAYS = All()
