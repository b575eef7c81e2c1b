"""The decoder that turns a tree into plain Python by a schema.

It does what Containerlab's strict decoder does: unknown and repeated keys are errors, text stays
text, quoted numbers are not numbers, merge keys write their pairs where they stand. Every value's
line is kept under its path, so that a later room can still say where a value came from.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from chaos.errors import SpecError, near
from chaos.topology.gotext import go_text
from chaos.topology.schema import (
    Bool,
    Chosen,
    Free,
    ListOf,
    MapOf,
    Number,
    Path,
    Span,
    Struct,
    Text,
    Type,
    dotted,
)
from chaos.topology.yamltree import Alias, Mapping_, Scalar, Sequence, Tree, resolve

_MOST_STEPS = 300_000
_DEEPEST = 150


@dataclass(slots=True)
class Decoder:
    """Decodes one document; collects every mistake and reports them together."""

    file: str
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[SpecError] = field(default_factory=list)
    _steps: int = 0
    _inside: list[int] = field(default_factory=list)

    def wrong(self, message: str, line: int, path: Path) -> None:
        """Note a mistake."""
        self.mistakes.append(SpecError(message, file=self.file, line=line, field=dotted(path)))

    def finish(self) -> None:
        """Raise what was noted: the first by line, with the lines of the others."""
        if not self.mistakes:
            return
        first, *others = sorted(self.mistakes, key=lambda error: error.line or 0)
        if not others:
            raise first
        lines = ", ".join(str(error.line) for error in others[:8])
        more = f"{first.reason} (and {len(others)} more: line{'s'[: len(others) - 1]} {lines})"
        raise SpecError(more, file=first.file, line=first.line, field=first.field)

    def decode(self, tree: Tree, kind: Type, path: Path, into: Any = None) -> Any:
        """`tree` as a `kind`; `into` is what a merge key has put there before."""
        self._steps += 1
        if self._steps > _MOST_STEPS or len(path) + len(self._inside) > _DEEPEST:
            message = f"aliases unfold to more than {_MOST_STEPS} values or {_DEEPEST} levels"
            raise SpecError(message, file=self.file, line=tree.line, field=dotted(path[:8]))
        if isinstance(tree, Alias):
            return self._alias(tree, kind, path, into)
        self.lines[path] = tree.line
        if isinstance(kind, Chosen):
            kind = kind.choose(self, tree, path)
        if isinstance(tree, Scalar):
            return self._scalar(tree, kind, path, into)
        if isinstance(kind, Free):
            return self._free(tree, path)
        if isinstance(tree, Sequence) and isinstance(kind, ListOf):
            return self._list(tree, kind.item, path)
        if isinstance(tree, Mapping_) and isinstance(kind, MapOf | Struct):
            found = into if isinstance(into, dict) else {}
            self._mapping(tree, kind, path, found)
            return found
        shape = "a list" if isinstance(tree, Sequence) else "a map"
        self.wrong(f"found {shape}, wanted {kind.wanted}", tree.line, path)
        return into

    def text(self, tree: Tree) -> str | None:
        """A key as text, or None for what cannot be one."""
        while isinstance(tree, Alias):
            tree = tree.target
        if not isinstance(tree, Scalar):
            return None
        return "" if resolve(tree) is None else tree.text

    def _list(self, tree: Sequence, kind: Type, path: Path) -> list[Any]:
        found = []
        for at, item in enumerate(tree.items):
            value = self.decode(item, kind, (*path, at))
            if value is None and isinstance(kind, Struct | Chosen):
                self.wrong(
                    f"found nothing in the list, wanted {kind.wanted}", item.line, (*path, at)
                )
            found.append(value)
        return found

    def _alias(self, tree: Alias, kind: Type, path: Path, into: Any) -> Any:
        if id(tree.target) in self._inside:
            message = f"anchor {tree.name!r} holds itself"
            raise SpecError(message, file=self.file, line=tree.line, field=dotted(path))
        self._inside.append(id(tree.target))
        found = self.decode(tree.target, kind, path, into)
        self._inside.pop()
        return found

    def _scalar(self, tree: Scalar, kind: Type, path: Path, into: Any) -> Any:
        value = resolve(tree)
        if isinstance(kind, Text):
            nothing = None if kind.nullable and tree.is_null else ""
            return nothing if value is None else tree.text
        if isinstance(kind, Free):
            return value
        if value is None:
            return {} if isinstance(kind, Struct) and not tree.is_null else None
        if isinstance(kind, Bool) and isinstance(value, bool):
            return value
        if isinstance(kind, Number) and isinstance(value, int | float) and _fits(value, kind):
            return int(value) if kind.whole else value
        if isinstance(kind, Span) and (found := _span(value)) is not None:
            return found
        cure = ""
        if not tree.plain and not isinstance(resolve(Scalar(tree.text, tree.line)), str):
            cure = "; leave out the quotes"
        self.wrong(f"found {_shown(tree)}, wanted {kind.wanted}{cure}", tree.line, path)
        return into

    def _free(self, tree: Sequence | Mapping_, path: Path) -> Any:
        if isinstance(tree, Sequence):
            return [self.decode(item, Free(), (*path, at)) for at, item in enumerate(tree.items)]
        found: dict[Any, Any] = {}
        self._mapping(tree, MapOf(Free()), path, found, free=True)
        return found

    def _mapping(
        self,
        tree: Mapping_,
        kind: MapOf | Struct,
        path: Path,
        found: dict[Any, Any],
        free: bool = False,
    ) -> None:
        seen: set[str] = set()
        for key_tree, value_tree in tree.pairs:
            if _is_merge(key_tree):
                self._merge(value_tree, kind, path, found)
                continue
            key = self._key(key_tree, free)
            if key is None:
                self.wrong("found a list or a map as a key, wanted text", key_tree.line, path)
                continue
            where = (*path, str(key))
            if isinstance(kind, MapOf):
                value = self.decode(value_tree, kind.value, where)
                if key in found:
                    self._repeated(str(key), value_tree.line, path)
                else:
                    found[key] = value
            elif key not in kind.fields:
                known = near(str(key), kind.fields)
                message = f"found the unknown field {key!r} in {kind.name}; {known}"
                self.wrong(message, key_tree.line, path)
            elif key in seen:
                self._repeated(str(key), key_tree.line, path)
            else:
                seen.add(str(key))
                found[key] = self.decode(value_tree, kind.fields[key], where, found.get(key))

    def _repeated(self, key: str, line: int, path: Path) -> None:
        self.wrong(f"found {key!r} a second time; write it once", line, path)

    def _key(self, tree: Tree, free: bool) -> Any:
        while isinstance(tree, Alias):
            tree = tree.target
        if not isinstance(tree, Scalar):
            return None
        return go_text(resolve(tree)) if free else self.text(tree)

    def _merge(self, tree: Tree, kind: Type, path: Path, found: dict[Any, Any]) -> None:
        parts = tree.items[::-1] if isinstance(tree, Sequence) else [tree]
        for part in parts:
            target = part.target if isinstance(part, Alias) else part
            if not isinstance(target, Mapping_):
                message = "found a merge key (<<) of something else, wanted a map or a list of maps"
                raise SpecError(message, file=self.file, line=part.line, field=dotted(path))
            self.decode(part, kind, path, found)


def _is_merge(tree: Tree) -> bool:
    if not isinstance(tree, Scalar) or tree.text != "<<":
        return False
    return tree.tag == "tag:yaml.org,2002:merge" or (tree.plain and not tree.tag)


def _fits(value: float, kind: Number) -> bool:
    if isinstance(value, bool):
        return False
    if not kind.whole:
        return True
    return math.isfinite(value) and kind.low <= value <= kind.high


def _shown(tree: Scalar) -> str:
    text = tree.text if len(tree.text) <= 40 else tree.text[:37] + "…"
    if isinstance(resolve(tree), str) and not tree.plain:
        return f'the quoted text "{text}"'
    return repr(text)


_SPAN = re.compile(r"^[-+]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$")
_SPAN_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SPAN_UNITS = {
    "ns": 1,
    "us": 1e3,
    "µs": 1e3,
    "μs": 1e3,
    "ms": 1e6,
    "s": 1e9,
    "m": 6e10,
    "h": 3.6e12,
}


def _span(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str) or not (value == "0" or _SPAN.match(value)):
        return None
    parts = _SPAN_PART.findall(value)
    total = sum(float(number) * _SPAN_UNITS[unit] for number, unit in parts)
    return round(-total if value.startswith("-") else total)
