"""Sets of numbers as people write them: one, a range, or a list of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from chaos.errors import SpecError, near

_NUMBER = r"0[xX][0-9a-fA-F]+|\d+"
_SPAN = re.compile(rf"\s*({_NUMBER})\s*(?:-\s*({_NUMBER})\s*)?")


@dataclass(frozen=True, slots=True)
class Numbers:
    """A set of whole numbers: ranges in rising order, never touching; none means any number.

    Examples:
        >>> str(Numbers.parse([7, "1-3", 4], bits=8, what="ecn"))
        '1-4,7'
        >>> 5 in Numbers.parse("0x5", bits=8, what="ecn")
        True
        >>> Numbers.parse("300", bits=8, what="opcode")
        Traceback (most recent call last):
        chaos.errors.SpecError: opcode must be 0 to 255, got 300
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Self:
        """From ranges in any order, both ends included."""
        joined: list[tuple[int, int]] = []
        for low, high in sorted(spans):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], high))
            else:
                joined.append((low, high))
        return cls(tuple(joined))

    @classmethod
    def parse(
        cls, value: Any, *, bits: int, what: str, names: Mapping[str, Self] | None = None
    ) -> Self:
        """Read a number, `0x11`, `100-200`, a name, a list of these, or text joined by commas.

        Args:
            value: As YAML, Python or a command line gave it.
            bits: Width of the field it is for.
            what: Name of that field, for refusals.
            names: Words for some numbers.
        """
        if isinstance(value, cls):
            return value
        items = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, str):
            items = value.split(",")
        if not items:
            raise SpecError(f"{what} needs one number at least, got an empty list")
        spans: list[tuple[int, int]] = []
        for item in items:
            spans += cls._one(item, bits, what, names or {})
        return cls.of(spans)

    @classmethod
    def _one(
        cls, item: Any, bits: int, what: str, names: Mapping[str, Self]
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(item, str) and item.strip() in names:
            return names[item.strip()].spans
        found = _SPAN.fullmatch(str(item)) if isinstance(item, int | str) else None
        if found is None or isinstance(item, bool):
            known = f", or a name; {near(str(item), names)}" if names else ""
            raise SpecError(
                f"{what}: a number, 0x11 or a range such as 100-200 expected{known}, got {item!r}"
            )
        low = _whole(found[1])
        high = _whole(found[2]) if found[2] else low
        for end in (low, high):
            if end >= 1 << bits:
                raise SpecError(f"{what} must be 0 to {(1 << bits) - 1}, got {end}")
        if high < low:
            raise SpecError(f"{what}: a range goes up, got {low}-{high}")
        return ((low, high),)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and any(low <= number <= high for low, high in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __and__(self, other: Numbers) -> Numbers:
        return Numbers.of(
            (max(a, c), min(b, d))
            for a, b in self.spans
            for c, d in other.spans
            if max(a, c) <= min(b, d)
        )

    def __iter__(self) -> Any:
        return (number for low, high in self.spans for number in range(low, high + 1))

    def __str__(self) -> str:
        return ",".join(self._words())

    def plain(self) -> Any:
        """As YAML has it: a number, a range, or a list."""
        made = [low if low == high else f"{low}-{high}" for low, high in self.spans]
        return made[0] if len(made) == 1 else made

    def nft(self) -> str:
        """As nftables has it."""
        words = self._words()
        return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"

    def _words(self) -> list[str]:
        return [str(low) if low == high else f"{low}-{high}" for low, high in self.spans]


def _whole(text: str) -> int:
    return int(text, 16 if text[:2].lower() == "0x" else 10)
