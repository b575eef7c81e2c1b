"""What a template is made of, once parsed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

Node: TypeAlias = "Raw | Print | Assign | Block | Call | Jump"
Term: TypeAlias = "Literal | Dot | Variable | Function | Pipe | Chain"


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; nil is None."""

    value: Any


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`, the current value."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`; `$` alone is the value the template was started with."""

    name: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`.a.b` behind another term."""

    base: Term
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands joined by `|`; each is a term with its arguments."""

    commands: tuple[tuple[Term, ...], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Raw:
    """Text outside of actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Print:
    """`{{ pipe }}`."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Assign:
    """`{{ $x := pipe }}`, or `=` for a variable that is there."""

    names: tuple[str, ...]
    pipe: Pipe
    declares: bool


@dataclass(slots=True)
class Block:
    """`if`, `with` or `range` with its body and its else."""

    kind: str
    pipe: Pipe
    names: tuple[str, ...]
    declares: bool
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """`{{ template "name" pipe }}`."""

    name: str
    pipe: Pipe | None
    line: int


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: str
