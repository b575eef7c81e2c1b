"""What an experiment breaks, from YAML: faults with their times, arrivals, a trace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from chaos.arrivals import Arrivals, Rate, undrawn
from chaos.document import Document, join
from chaos.errors import SpecError
from chaos.experiment_values import quoted
from chaos.fields import convert, shown
from chaos.registry import FAULTS, build
from chaos.timing import Range, Timing
from chaos.trace import Trace
from chaos.trace import load as load_trace
from chaos.units import Duration
from chaos.worded import fields_from

_LABEL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def faults(
    document: Document, top: Mapping[str, Any]
) -> tuple[tuple[Any, ...], tuple[Timing, ...]]:
    """The faults, and when each of them is; no timings where none is written.

    Raises:
        SpecError: with file, line and field.
    """
    if "fault" in top and "faults" in top:
        raise document.wrong("give either fault or faults", "faults")
    many, places = top.get("faults", []), []
    if not isinstance(many, list):
        raise document.wrong(f"a list expected, got {shown(many)}", "faults")
    places = [f"faults[{at}]" for at in range(len(many))]
    if top.get("fault") is not None:
        many, places = [top["fault"]], ["fault"]
    found = [_fault(document, one, at) for one, at in zip(many, places, strict=True)]
    timings = tuple(timing for _, timing in found)
    plain = all(timing == Timing() for timing in timings)
    return tuple(fault for fault, _ in found), () if plain else timings


def _fault(document: Document, value: Any, at: str) -> tuple[Any, Timing]:
    if isinstance(value, str):
        value = {value: {}}
    given = dict(value) if isinstance(value, dict) else {}
    times = {word: given.pop(word) for word in ("at", "for", "after") if word in given}
    if len(given) != 1:
        raise document.wrong(
            f"one fault and its fields expected, such as link_down: {{link: in-use}}; "
            f"got {shown(value)}",
            at,
        )
    ((key, values),) = given.items()
    name, slash, label = key.partition("/")
    if slash and not _LABEL.fullmatch(label):
        raise document.wrong(
            f"a label is lower case letters and digits after /, got {key!r}", join(at, key)
        )
    fault = built(document, FAULTS, "fault", name, values, join(at, key))
    made: dict[str, Any] = {"label": label}
    for word, kind in (("at", Duration), ("for", Duration), ("after", str)):
        if word in times:
            field = "length" if word == "for" else word
            made[field] = converted(document, kind, times[word], join(at, word))
    try:
        return fault, Timing(**made)
    except SpecError as error:
        raise document.locate(error, at) from None


def arrivals(document: Document, value: Any) -> tuple[Arrivals, ...]:
    """One kind of arrivals, or a list of them.

    Raises:
        SpecError: with file, line and field.
    """
    many = value if isinstance(value, list) else [value]
    made = []
    for index, one in enumerate(many):
        at = f"arrivals[{index}]" if isinstance(value, list) else "arrivals"
        known = ("of", "over", "rate", "compress", "for", "population")
        given = document.mapping(one, at, known, "arrivals")
        for word in known[:-1]:
            if word not in given:
                raise document.wrong(f"arrivals need {word}", at)
        over = converted(document, str, given["over"], f"{at}.over")
        fields_ = {
            "rate": converted(document, Rate, given["rate"], f"{at}.rate"),
            "compress": converted(document, float, given["compress"], f"{at}.compress"),
            "length": converted(document, Range, given["for"], f"{at}.for"),
        }
        if "population" in given:
            fields_["population"] = converted(
                document, int, given["population"], f"{at}.population"
            )
        fault = _drawn(document, given["of"], over, f"{at}.of")
        try:
            made.append(Arrivals(fault, over, **fields_))
        except SpecError as error:
            raise document.locate(error, at) from None
    return tuple(made)


def _drawn(document: Document, value: Any, over: str, at: str) -> Any:
    """A fault whose element is drawn; `over` stands where it will be."""
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise document.wrong(
            f"one fault and its fields expected, such as link_down: {{mode: carrier}}; "
            f"got {shown(value)}",
            at,
        )
    ((name, values),) = value.items()
    if name in FAULTS and isinstance(values, dict):
        try:
            values = undrawn(FAULTS[name], values, over)
        except SpecError as error:
            raise document.locate(error, join(at, name)) from None
    return built(document, FAULTS, "fault", name, values, join(at, name))


def trace(document: Document, value: Any) -> Trace:
    """The trace that a file holds; its path is relative to the experiment's.

    Raises:
        SpecError: with file and line, of the experiment or of the trace.
    """
    given = document.mapping(value, "trace", ("file", "compress"), "a trace")
    for word in ("file", "compress"):
        if word not in given:
            raise document.wrong(f"a trace needs {word}", "trace")
    name = converted(document, str, given["file"], "trace.file")
    compress = converted(document, float, given["compress"], "trace.compress")
    if not 0 < compress <= 1e12:
        raise document.wrong(
            f"above 0 and at most 1e12 expected, got {compress:g}", "trace.compress"
        )
    path = Path(document.file).parent / name
    if "\0" in name or not path.is_file():
        raise document.wrong(f"no such file {str(path)!r}", "trace.file")
    return load_trace(path, compress, traced)


def traced(text: str, element: str) -> Any:
    """A fault of a trace: its name and fields in one cell, and what it strikes in another.

    Raises:
        SpecError: no such fault, a wrong field, or no rank where one is meant.
    """
    name, *words = text.split() or [""]
    cls = FAULTS.get(name)
    values = fields_from(cls, words)
    known = set() if cls is None else {item.name for item in fields(cls)}
    for word in ("link", "node", "rank"):
        if word in known:
            tail = element.removeprefix("rank")
            if word == "rank" and not tail.isdecimal():
                raise SpecError(f"a rank such as rank3 expected, got {element!r}")
            values[word] = int(tail) if word == "rank" else element
            break
    return build(FAULTS, "fault", name, values)


def built(
    document: Document, table: dict[str, Any], what: str, name: str, values: Any, at: str
) -> Any:
    """A fault or probe of its name and fields.

    Raises:
        SpecError: with file, line and field.
    """
    values = {} if values is None else values
    try:
        if name in table and not isinstance(values, dict):
            raise SpecError(f"fields of {what} {name} expected, got {shown(values)}")
        return build(table, what, name, values)
    except SpecError as error:
        inner = error.field or quoted(values if isinstance(values, dict) else {}, error.reason)
        raise document.wrong(error.reason, join(at, inner)) from None


def converted(document: Document, kind: Any, value: Any, at: str) -> Any:
    """A value as that kind.

    Raises:
        SpecError: with file, line and field.
    """
    try:
        return convert(kind, value)
    except SpecError as error:
        raise document.locate(error, at) from None
