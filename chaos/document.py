"""YAML text → plain values, with the line of every field.

Stricter than YAML 1.1: a key given twice, an alias, a tag or a second document is refused. Only
`true`, `false`, `null` and decimal numbers are anything but text (`on`, `0123`, `2:30` stay text).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from chaos.errors import SpecError, near
from chaos.fields import shown

_INT = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_CORE = tuple(f"tag:yaml.org,2002:{word}" for word in ("map", "seq", "str"))


@dataclass(frozen=True)
class Document:
    """One YAML file, read.

    Attributes:
        file: Its name, for messages.
        text: As it was read.
        value: Mappings, lists and scalars.
        lines: Line per dotted field (`faults[1].link_down.link`), counted from 1.
    """

    file: str
    text: str
    value: Any = None
    lines: Mapping[str, int] = field(default_factory=dict)

    def wrong(self, message: str, at: str = "") -> SpecError:
        """The refusal of one field, with file and line."""
        return SpecError(message, file=self.file, line=self.line(at), field=at or None)

    def locate(self, error: SpecError, at: str = "") -> SpecError:
        """The same refusal with file and line; its own field is taken as inside `at`."""
        if error.file is not None:
            return error
        return self.wrong(error.reason, join(at, error.field or ""))

    def line(self, at: str) -> int:
        """Line of a field, or of the nearest field around it."""
        while at and at not in self.lines:
            at = re.sub(r"(\.?[^.\[]*|\[\d*\]?)$", "", at) if at[-1] != "." else at[:-1]
        return self.lines.get(at, 1)

    def mapping(self, value: Any, at: str, known: Iterable[str], what: str) -> dict[str, Any]:
        """`value` as a mapping with known keys only."""
        names = list(known)
        if not isinstance(value, dict):
            found = shown(value)
            raise self.wrong(f"{what} is a mapping of {', '.join(names)}; got {found}", at)
        for key in value:
            if key not in names:
                raise self.wrong(f"no field {key!r} in {what}; {near(key, names)}", join(at, key))
        return value


def join(outer: str, inner: str) -> str:
    """Two parts of a dotted field.

    Examples:
        >>> join("faults[0]", "link"), join("hosts", "[1]"), join("", "seed")
        ('faults[0].link', 'hosts[1]', 'seed')
    """
    if not outer or not inner or inner[0] in "[.":
        return outer + inner
    return f"{outer}.{inner}"


def read(text: str, file: str) -> Document:
    """Read one YAML document.

    Raises:
        SpecError: it is no YAML, or uses more of YAML than an experiment needs.
    """
    document = Document(file, text)
    try:
        node = _Composer(text).get_single_node()
    except _AliasError as error:
        line = error.args[0]
        raise SpecError(
            "an alias (*name) is not read here; write the value out", file=file, line=line
        ) from None
    except yaml.YAMLError as error:
        raise _unreadable(error, document) from None
    except RecursionError:
        raise SpecError("nested too deeply to be an experiment", file=file, line=1) from None
    if node is None:
        raise SpecError("the file is empty", file=file, line=1)
    lines: dict[str, int] = {}
    value = _plain(node, "", lines, document)
    return Document(file, text, value, lines)


class _AliasError(Exception):
    """Raised out of the composer, with the line."""


class _Composer(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _AliasError(event.start_mark.line + 1)
        return super().compose_node(parent, index)


def _unreadable(error: yaml.YAMLError, document: Document) -> SpecError:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # a character that YAML does not allow
        position = int(getattr(error, "position", 0))
        line = document.text.count("\n", 0, position) + 1
        code = ord(document.text[position])
        return SpecError(f"not YAML: character U+{code:04X}", file=document.file, line=line)
    problem = str(getattr(error, "problem", "") or getattr(error, "context", ""))
    if "expected a single document" in str(error):
        problem = "one document expected, a second one begins here"
    elif "\\t" in problem:
        problem = "a tab cannot indent YAML; use spaces"
    opened = getattr(error, "context_mark", None)
    if opened is not None and opened.line != mark.line:
        problem += f" (in what opens in line {opened.line + 1})"
    return SpecError(f"not YAML: {problem}", file=document.file, line=mark.line + 1)


def _plain(node: Any, at: str, lines: dict[str, int], document: Document) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, at, line, document)
    if node.tag not in _CORE:
        raise _refused(document, line, at, f"the tag {_tag(node)} is not read here; leave it out")
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(one, f"{at}[{index}]", lines, document) for index, one in enumerate(node.value)
        ]
    found: dict[str, Any] = {}
    for key, value in node.value:
        key_line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _refused(document, key_line, at, "a key must be a word")
        name, inner = key.value, join(at, key.value)
        if name in found:
            first = lines[inner]
            raise _refused(document, key_line, inner, f"given twice, first in line {first}")
        lines[inner] = key_line
        found[name] = _plain(value, inner, lines, document)
    return found


def _scalar(node: Any, at: str, line: int, document: Document) -> Any:
    text = str(node.value)
    if node.style in ("'", '"', "|", ">"):
        return text
    explicit = document.text[node.start_mark.index : node.start_mark.index + 1] == "!"
    if explicit:
        raise _refused(document, line, at, f"the tag {_tag(node)} is not read here; leave it out")
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 40:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[+-]?0\d+", text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise _refused(document, line, at, f"the number {text} is too large")
        return number
    return text


def _refused(document: Document, line: int, at: str, message: str) -> SpecError:
    return SpecError(message, file=document.file, line=line, field=at or None)


def _tag(node: Any) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")
