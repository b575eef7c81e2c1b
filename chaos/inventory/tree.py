"""YAML and JSON text → plain values, with the line of every field; stricter than PyYAML.

A key given twice is refused. Words and numbers mean what they mean to Ansible, but for the two
traps of YAML 1.1: `2222:22` and dates stay text. A value under `!vault` becomes `VAULT`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from chaos.errors import SpecError
from chaos.inventory.model import Source
from chaos.topology import yamltree
from chaos.topology.schema import dotted
from chaos.topology.text import read_text

At: TypeAlias = tuple[str | int, ...]

_MOST_VALUES = 500_000
_LARGE = 2_000_000
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_WHOLE = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)")
_REAL = re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?")
_TEXT_TAGS = ("tag:yaml.org,2002:str", "!unsafe")


class _Vault:
    """Stands for a value that is encrypted."""

    def __repr__(self) -> str:
        return "an encrypted value"


VAULT = _Vault()


@dataclass(frozen=True, slots=True)
class Page:
    """One file, read.

    Attributes:
        file: Its name, for messages.
        value: Mappings, lists and scalars.
        lines: Line per field, counted from 1; empty for very large JSON.
    """

    file: str
    value: Any
    lines: Mapping[At, int] = field(default_factory=dict)

    def source(self, *at: str | int) -> Source:
        """Where a field stands, or the nearest field around it."""
        while at and at not in self.lines:
            at = at[:-1]
        return Source(self.file, self.lines.get(at, 0))

    def wrong(self, message: str, *at: str | int) -> SpecError:
        """The refusal of one field, with file and line."""
        return self.source(*at).wrong(message, dotted(at) or "")

    def mapping(self, *at: str | int) -> dict[str, Any]:
        """The mapping at a field; nothing there is an empty one.

        Raises:
            SpecError: something else stands there.
        """
        value = self.value
        for part in at:
            value = value.get(part) if isinstance(value, dict) else value[part]
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(f"found {shown(value)}, wanted a mapping", *at)
        return value


def shown(value: Any) -> str:
    """A value for a sentence.

    Examples:
        >>> shown([1, 2]), shown({}), shown(None), shown("x"), shown(True)
        ('a list', 'a mapping', 'nothing', "'x'", 'true')
    """
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a mapping"
    if value is None or value == "":
        return "nothing"
    return json.dumps(value) if isinstance(value, bool | int | float) else repr(value)


def read_file(path: Path) -> Page:
    """A YAML or JSON file.

    Raises:
        SpecError: unreadable, empty, or not understood; with file and line.
    """
    text = read_text(path).removeprefix("\ufeff")
    if not text.strip():
        size = "0 bytes" if not text else "only blanks"
        raise SpecError(f"found {size}, wanted an inventory", file=str(path), line=1)
    if text.lstrip().startswith(("{", "[")) and path.suffix not in (".yml", ".yaml"):
        return parse_json(text, str(path))
    return parse_yaml(text, str(path))


def parse_json(text: str, file: str) -> Page:
    """JSON in which no key is given twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise SpecError(f"found {key!r} twice in one object; write it once", file=file)
            found[key] = value
        return found

    try:
        value = _open_marks(json.loads(text, object_pairs_hook=once))
        return Page(file, value, _lines(text, file))
    except json.JSONDecodeError as error:
        message = f"found text that is not JSON: {error.msg.lower()}"
        raise SpecError(message, file=file, line=error.lineno) from None
    except RecursionError:
        raise SpecError("found JSON nested too deeply for an inventory", file=file) from None


def _lines(text: str, file: str) -> Mapping[At, int]:
    """JSON is YAML too, whose reader knows lines; none for a very large file."""
    if len(text) > _LARGE:
        return {}
    try:
        return parse_yaml(text, file).lines
    except SpecError:
        return {}


def _open_marks(value: Any) -> Any:
    if isinstance(value, dict):
        if "__ansible_vault" in value:
            return VAULT
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _open_marks(one) for key, one in value.items()}
    return [_open_marks(one) for one in value] if isinstance(value, list) else value


def parse_yaml(text: str, file: str) -> Page:
    """The first YAML document."""
    tree = yamltree.compose(text, file=file)
    if tree is None:
        raise SpecError("found only comments, wanted an inventory", file=file, line=1)
    reader = _Reader(file)
    return Page(file, reader.value(tree, ()), reader.lines)


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[At, int] = {}
        self._left = _MOST_VALUES
        self._inside: list[int] = []

    def wrong(self, message: str, line: int, at: At) -> SpecError:
        return SpecError(message, file=self.file, line=line, field=dotted(at))

    def value(self, tree: yamltree.Tree, at: At) -> Any:
        self._left -= 1
        if self._left < 0 or len(at) > 100:
            message = f"aliases unfold to more than {_MOST_VALUES} values or 100 levels"
            raise self.wrong(message, tree.line, at[:8])
        self.lines.setdefault(at, tree.line)
        if isinstance(tree, yamltree.Alias):
            return self.alias(tree, at)
        if isinstance(tree, yamltree.Scalar):
            return self.scalar(tree, at)
        if isinstance(tree, yamltree.Sequence):
            return [self.value(item, (*at, index)) for index, item in enumerate(tree.items)]
        return self.mapping(tree, at)

    def alias(self, tree: yamltree.Alias, at: At) -> Any:
        if id(tree.target) in self._inside:
            raise self.wrong(f"anchor {tree.name!r} holds itself", tree.line, at)
        self._inside.append(id(tree.target))
        found = self.value(tree.target, at)
        self._inside.pop()
        return found

    def scalar(self, tree: yamltree.Scalar, at: At) -> Any:
        if tree.tag in ("!vault", "!vault-encrypted"):
            return VAULT
        if tree.tag and tree.tag not in _TEXT_TAGS:
            tag = tree.tag.replace("tag:yaml.org,2002:", "!!")
            raise self.wrong(f"found the tag {tag}, which is not read; leave it out", tree.line, at)
        return typed(tree.text) if tree.plain and not tree.tag else tree.text

    def mapping(self, tree: yamltree.Mapping_, at: At) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[tuple[yamltree.Tree, At]] = []
        for key, value in tree.pairs:
            while isinstance(key, yamltree.Alias):
                key = key.target
            if not isinstance(key, yamltree.Scalar):
                raise self.wrong("found a list or mapping as a key, wanted text", key.line, at)
            inner = (*at, key.text)
            if key.text == "<<" and key.plain:
                merged += [(one, at) for one in getattr(value, "items", [value])]
                continue
            if key.text in found:
                first = self.lines[inner]
                message = f"found {key.text!r} a second time, first in line {first}; write it once"
                raise self.wrong(message, key.line, inner)
            self.lines[inner] = key.line
            found[key.text] = self.value(value, inner)
        for one, where in merged:
            below = self.value(one, where)
            if not isinstance(below, dict):
                raise self.wrong("found something else under <<, wanted a mapping", one.line, at)
            found = {**below, **found}
        return found


def typed(text: str) -> Any:
    """None, bool, int, float or text.

    Examples:
        >>> [typed(one) for one in ("yes", "022", "2222:22", "2024-01-02", "1.10", "y", "~")]
        [True, 18, '2222:22', '2024-01-02', 1.1, 'y', None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 40:
        return text
    plain = text.replace("_", "")
    if _WHOLE.fullmatch(text):
        digits = plain.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
        return int(plain, 8) if octal else int(plain, 0)
    return float(plain) if _REAL.fullmatch(text) else text
