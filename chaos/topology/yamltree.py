"""YAML text → a tree whose leaves are still text and know their line.

Nothing is typed here: `2222:22`, `yes` and `0123` stay what was written, and the schema decides
what they are. `resolve` gives the meaning that Containerlab's YAML library gives to an untyped
scalar.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from chaos.errors import SpecError

Tree: TypeAlias = "Scalar | Sequence | Mapping_ | Alias"

_DEEPEST = 100


@dataclass(slots=True)
class Scalar:
    """Text as written; `plain` means without quotes and without a block marker."""

    text: str
    line: int
    plain: bool = True
    tag: str = ""

    @property
    def is_null(self) -> bool:
        """What Containerlab takes for "nothing here" even where an object is wanted."""
        return self.tag == "tag:yaml.org,2002:null" or (
            self.plain and not self.tag and self.text in ("", "~", "null")
        )


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Tree] = field(default_factory=list)


@dataclass(slots=True)
class Mapping_:
    """Pairs in the order written, duplicates included."""

    line: int
    pairs: list[tuple[Tree, Tree]] = field(default_factory=list)


@dataclass(slots=True)
class Alias:
    """`*name`; the target is the very tree of the anchor."""

    name: str
    line: int
    target: Tree


def compose(text: str, *, file: str = "") -> Tree | None:
    """The tree of the first document, or None when there is none; later documents are not read.

    Raises:
        SpecError: not YAML; with file and line.
    """
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or "not understood"
        if "'\\t'" in said or "\t" in _line(text, mark.line if mark else 0)[:1]:
            said += "; indent with spaces, not tabs"
        message = f"found text that is not YAML: {said}"
        raise SpecError(message, file=file or None, line=mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise SpecError(f"found text that is not YAML: {error}", file=file or None) from None


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number] if number < len(lines) else ""


def _not_yaml(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _Composer:
    def __init__(self, text: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events = yaml.parse(text.removeprefix("\ufeff"), Loader=loader)
        self._anchors: dict[str, Tree] = {}

    def document(self) -> Tree | None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                return self._tree(next(self._events), 0)
            if isinstance(event, yaml.StreamEndEvent):
                break
        return None

    def _tree(self, event: Any, depth: int) -> Tree:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _not_yaml(f"unknown anchor {event.anchor!r} referenced", event)
            return Alias(event.anchor, line, self._anchors[event.anchor])
        if depth > _DEEPEST:
            raise _not_yaml(f"nested deeper than {_DEEPEST} levels", event)
        if isinstance(event, yaml.ScalarEvent):
            tag = "" if event.tag in (None, "!") else str(event.tag)
            plain = bool(event.implicit[0]) if not tag else event.style in (None, "")
            return self._anchored(event, Scalar(event.value, line, plain, tag))
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = Sequence(line)
            self._anchored(event, sequence)
            while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                sequence.items.append(self._tree(inner, depth + 1))
            return sequence
        mapping = Mapping_(line)
        self._anchored(event, mapping)
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key = self._tree(inner, depth + 1)
            mapping.pairs.append((key, self._tree(next(self._events), depth + 1)))
        return mapping

    def _anchored(self, event: Any, tree: Tree) -> Tree:
        if event.anchor:
            self._anchors[event.anchor] = tree
        return tree


_WORDS: dict[str, Any] = {
    **dict.fromkeys(
        ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True
    ),
    **dict.fromkeys(
        ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False
    ),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_INTEGER = re.compile(r"^[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)$")


def resolve(scalar: Scalar) -> Any:
    """None, bool, int, float or text: YAML 1.1 with Containerlab's extras.

    Examples:
        >>> [resolve(Scalar(t, 1)) for t in ("0123", "0o17", "1_0", "yes", "2222:22", "1e1")]
        [83, 15, 10, True, '2222:22', 10.0]
        >>> resolve(Scalar("5", 1, plain=False))
        '5'
    """
    text = scalar.text
    if scalar.tag == "tag:yaml.org,2002:str" or not (scalar.plain or scalar.tag):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "") if text[0] != "." else text
    if text[0] != "." and _INTEGER.match(plain) and -(2**63) <= (found := _integer(plain)) < 2**64:
        return found
    return float(plain) if _FLOAT.match(plain) else text


def _integer(plain: str) -> int:
    sign, digits = (-1, plain[1:]) if plain[0] == "-" else (1, plain.removeprefix("+"))
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)
