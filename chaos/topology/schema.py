"""What a field may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from chaos.topology.yamltree import Tree

if TYPE_CHECKING:
    from chaos.topology.decode import Decoder

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text; null becomes the empty text, or None where `nullable`."""

    nullable: bool = False

    @property
    def wanted(self) -> str:
        """For refusals."""
        return "text"


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number or, with `whole` false, any number; `low` is the least allowed."""

    whole: bool = True
    low: float = -(2**63)
    high: float = 2**63 - 1

    @property
    def wanted(self) -> str:
        """For refusals."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} of at least 0" if self.low == 0 else kind


@dataclass(frozen=True, slots=True)
class Bool:
    """true or false; null means unset."""

    wanted = "true or false"


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time in Go's spelling (`1h30m`) or whole nanoseconds."""

    wanted = "a time such as 1h30m"


@dataclass(frozen=True, slots=True)
class Free:
    """Any value, typed as YAML 1.1."""

    wanted = "any value"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list."""

    item: Type

    @property
    def wanted(self) -> str:
        """For refusals."""
        return "a list of texts" if isinstance(self.item, Text) else "a list"


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map with text keys."""

    value: Type

    @property
    def wanted(self) -> str:
        """For refusals."""
        return "a map of text to text" if isinstance(self.value, Text) else "a map"


@dataclass(frozen=True, slots=True)
class Struct:
    """A map with known keys; `name` is what a refusal calls it."""

    name: str
    fields: Mapping[str, Type]

    @property
    def wanted(self) -> str:
        """For refusals."""
        return f"a map ({self.name})"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A value whose type depends on the value, such as a link."""

    choose: Callable[[Decoder, Tree, Path], Type]
    wanted: str


Type: TypeAlias = "Text | Number | Bool | Span | Free | ListOf | MapOf | Struct | Chosen"


def dotted(path: Path) -> str | None:
    """`topology.links[0].mtu`; None for the top."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out or None
