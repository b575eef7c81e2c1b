"""Typed fields of faults, probes and objectives: read, and described, by their annotation.

One annotation gives the reader and the JSON schema, so that the two cannot drift apart.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from chaos.errors import SpecError, near
from chaos.units import Bitrate, Duration, Hertz, Percent, Pps, Size

_NUMBER = r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_JSON = {int: "integer", float: "number", bool: "boolean", str: "string"}

#: Per unit type: the units its text ends in.
UNITS: dict[Any, str] = {
    Duration: "(ns|us|µs|ms|s|m|h)",
    Percent: "%",
    Size: "(B|kB|KB|MB|GB|KiB|MiB|GiB)",
    Pps: "(pps|kpps|Mpps)",
    Hertz: "(Hz|kHz)",
    Bitrate: "([kMG]?bit/s)",
}


def convert(wanted: Any, value: Any) -> Any:
    """`value`, as YAML or Python gave it, as the annotation `wanted` asks.

    Lists become tuples. Text that looks like a number is no number, and the other way round.

    Raises:
        SpecError: what was expected and what was found; `field` is set to the place inside a list
            or mapping, such as `[2]`.

    Examples:
        >>> convert(tuple[Duration, ...], ["1 s", "20 ms"])
        (Duration(ns=1000000000), Duration(ns=20000000))
        >>> convert(int | None, None) is None
        True
    """
    origin = get_origin(wanted)
    if wanted in UNITS:
        return _unit(wanted, value)
    if wanted in _WORDS:
        return _plain(wanted, value)
    if origin is Literal:
        return _choice(get_args(wanted), value)
    if origin in (Union, types.UnionType):
        return _either(get_args(wanted), value)
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return _list(wanted, value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _table(get_args(wanted), value)
    if hasattr(wanted, "parse"):
        return wanted.parse(value)
    return tuple(value) if isinstance(value, list) else value


def _unit(wanted: Any, value: Any) -> Any:
    if not isinstance(value, wanted | str | int | float):
        raise SpecError(f"{_a(wanted)} expected, got {shown(value)}")
    try:
        made = wanted.parse(value)
    except OverflowError:
        made = None
    if made is None or getattr(made, "value", 0) == float("inf"):
        raise SpecError(f"{_a(wanted)} expected, got {shown(value)}, which is too large")
    return made


def _a(wanted: Any) -> str:
    examples = {Duration: "a time, such as 250 ms", Percent: "a share, such as 10 %"}
    examples |= {Size: "a size, such as 4 MiB", Pps: "a packet rate, such as 2 kpps"}
    examples[Bitrate] = "a bit rate, such as 100 Mbit/s"
    return examples.get(wanted, "a frequency, such as 10 Hz")


def _plain(wanted: Any, value: Any) -> Any:
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise SpecError(f"a number expected, got {shown(value)}, too large") from None
    if type(value) is wanted:
        return value
    raise SpecError(f"{_WORDS[wanted]} expected, got {shown(value)}")


def _choice(known: tuple[Any, ...], value: Any) -> Any:
    if any(type(value) is type(one) and value == one for one in known):
        return value
    hint = ""
    if isinstance(value, str) and (close := near(value, map(str, known))).startswith("did"):
        hint = f"; {close}"
    raise SpecError(f"one of {', '.join(map(str, known))} expected, got {shown(value)}{hint}")


def _either(arms: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in arms:
        return None
    problems = []
    for arm in arms:
        if arm is type(None):
            continue
        try:
            return convert(arm, value)
        except SpecError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    wanted = ", or ".join(dict.fromkeys(p.reason.partition(" expected")[0] for p in problems))
    raise SpecError(f"{wanted} expected, got {shown(value)}")


def _list(wanted: Any, value: Any) -> tuple[Any, ...]:
    arms = get_args(wanted)
    if not isinstance(value, list | tuple):
        raise SpecError(f"a list expected, got {shown(value)}")
    many = (len(arms) == 2 and arms[1] is Ellipsis) or get_origin(wanted) is not tuple
    if not many and len(value) != len(arms):
        raise SpecError(f"a list of {len(arms)} expected, got {shown(value)}")
    kinds = [arms[0]] * len(value) if many else list(arms)
    return tuple(
        _inside(f"[{at}]", kind, one)
        for at, (kind, one) in enumerate(zip(kinds, value, strict=True))
    )


def _table(arms: tuple[Any, ...], value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"a mapping expected, got {shown(value)}")
    return {str(key): _inside(f".{key}", arms[1], one) for key, one in value.items()}


def _inside(place: str, wanted: Any, value: Any) -> Any:
    try:
        return convert(wanted, value)
    except SpecError as error:
        raise SpecError(error.reason, field=place + (error.field or "")) from None


def shown(value: Any) -> str:
    """A found value as a refusal prints it: as in YAML, and never longer than a line.

    Examples:
        >>> shown(None), shown(True), shown([1, 2]), shown("x")
        ('nothing', 'true', 'a list of 2', "'x'")
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping" + (f" with {', '.join(map(str, list(value)[:4]))}" if value else "")
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # an integer too long to print
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "…'"


def schema(wanted: Any) -> dict[str, Any]:
    """What `convert` accepts, as JSON schema (draft 2020-12).

    Examples:
        >>> schema(int | None)
        {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    origin, arms = get_origin(wanted), get_args(wanted)
    if wanted in UNITS:
        return _unit_schema(wanted)
    if wanted in _JSON:
        return {"type": _JSON[wanted]}
    if wanted is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(arms)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(arm) for arm in arms]}
    if origin is tuple and arms[-1] is not Ellipsis:
        size = len(arms)
        return {
            "type": "array",
            "prefixItems": [schema(arm) for arm in arms],
            "minItems": size,
            "maxItems": size,
        }
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return {"type": "array", "items": schema(arms[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema(arms[1])}
    described: dict[str, Any] = wanted.schema() if hasattr(wanted, "schema") else {}
    return described


def _unit_schema(wanted: Any) -> dict[str, Any]:
    text = {"type": "string", "pattern": rf"^\s*({_NUMBER})\s*{UNITS[wanted]}\s*$"}
    return {"anyOf": [text, {"const": 0}]}
