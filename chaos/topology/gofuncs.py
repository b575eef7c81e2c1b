"""The functions that Containerlab gives to templates, and those of Go that topologies use."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from chaos.topology.gotext import go_text

_MOST_NUMBERS = 100_000
_WIDEST = 1_000


class Refusal(Exception):
    """A function cannot do what was asked; the sentence says why."""


def to_text(value: Any) -> str:
    """A value as Containerlab turns it into text."""
    return "nil" if value is None else go_text(value)


def _number(value: Any) -> float | int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        plain = value.replace(",", "")
        for read in (_base_prefixed, float):
            try:
                return read(plain)
            except ValueError:
                continue
    raise Refusal(f"expected a number, got {to_text(value)!r}")


def _base_prefixed(text: str) -> int:
    if re.fullmatch(r"[+-]?0[0-7_]+", text):
        return int(text, 8)
    return int(text, 0)


def _whole(value: Any) -> int:
    try:
        return int(_number(value))
    except (OverflowError, ValueError):
        raise Refusal(f"expected a whole number, got {to_text(value)!r}") from None


def _arithmetic(work: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def run(a: Any, b: Any) -> Any:
        x, y = _number(a), _number(b)
        if isinstance(x, float) or isinstance(y, float):
            return float(work(float(x), float(y)))
        return (work(x, y) + 2**63) % 2**64 - 2**63  # as a 64-bit number wraps

    return run


def _div(a: Any, b: Any) -> float:
    if _number(b) == 0:
        raise Refusal("division by 0")
    return float(_number(a)) / float(_number(b))


def _idiv(a: Any, b: Any) -> int:
    x, y = _whole(a), _whole(b)
    if y == 0:
        raise Refusal("division by 0")
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _rem(a: Any, b: Any) -> int:
    return _whole(a) - _idiv(a, b) * _whole(b)


def _seq(*numbers: Any) -> list[int]:
    if not 1 <= len(numbers) <= 3:
        raise Refusal(f"seq takes 1 to 3 numbers, got {len(numbers)}")
    values = [_whole(number) for number in numbers]
    start, end = (1, values[0]) if len(values) == 1 else (values[0], values[1])
    step = abs(values[2]) if len(values) == 3 else 1
    if step == 0:
        return []
    if abs(end - start) // step > _MOST_NUMBERS:
        raise Refusal(f"seq of more than {_MOST_NUMBERS} numbers")
    return list(range(start, end + 1, step)) if end >= start else list(range(start, end - 1, -step))


def _json(value: Any) -> str:
    text = json.dumps(_jsonable(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _json_pretty(value: Any, prefix: Any, indent: Any) -> str:
    text = json.dumps(_jsonable(value), indent=to_text(indent), sort_keys=True, ensure_ascii=False)
    return text.replace("\n", f"\n{to_text(prefix)}")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {go_text(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _split(separator: Any, text: Any) -> list[str]:
    words = to_text(text)
    return words.split(to_text(separator)) if to_text(separator) else list(words)


def _replace(old: Any, new: Any, text: Any) -> str:
    if text is None and to_text(old):
        return ""
    return to_text(text).replace(to_text(old), to_text(new)) if to_text(old) else to_text(text)


def _join(items: Any, separator: Any) -> str:
    if not isinstance(items, list):
        raise Refusal(f"input to Join must be a list, got {to_text(items)!r}")
    return to_text(separator).join(to_text(item) for item in items)


def _cidr_host(number: Any, prefix: Any) -> str:
    try:
        network = ipaddress.ip_network(to_text(prefix), strict=False)
    except ValueError as error:
        raise Refusal(str(error)) from None
    at = _whole(number)
    size = network.num_addresses
    if not -size <= at < size:
        raise Refusal(f"prefix {network} has no host number {at}")
    return str(network.network_address + (at if at >= 0 else size + at))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise Refusal(f"index {key} out of range, there are {len(value)}")
            value = value[key] if isinstance(value, list) else ord(value[key])
        else:
            raise Refusal(f"cannot index {to_text(value)!r} with {to_text(key)!r}")
    return value


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict):
        return len(value)
    raise Refusal(f"len of {to_text(value)!r}")


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise Refusal("eq needs something to compare with")
    return any(_same(first, other) for other in others)


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is None and b is None
    if _kind(a) != _kind(b):
        raise Refusal(f"incompatible types for comparison: {to_text(a)!r} and {to_text(b)!r}")
    return bool(a == b)


def _kind(value: Any) -> type:
    return type(value)


def _less(a: Any, b: Any) -> bool:
    if _kind(a) != _kind(b) or not isinstance(a, int | float | str) or isinstance(a, bool):
        raise Refusal(f"cannot order {to_text(a)!r} and {to_text(b)!r}")
    return bool(a < b)


def truth(value: Any) -> bool:
    """Go's idea of true: not the zero value, not empty."""
    return bool(value)


_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")


def _printf(shape: Any, *values: Any) -> str:
    rest = list(values)

    def one(found: re.Match[str]) -> str:
        flags, width, places, verb = found.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        if max(int(width or 0), int(places or 0)) > _WIDEST:
            raise Refusal(f"a width of more than {_WIDEST}")
        text = _formatted(verb, rest.pop(0), places, flags)
        if "-" in flags:
            return text.ljust(int(width or 0))
        if "0" in flags and verb in "dxXobfeg":
            return text.zfill(int(width or 0))
        return text.rjust(int(width or 0))

    out = _VERB.sub(one, to_text(shape))
    if rest:
        extra = ", ".join(f"{_go_type(value)}={go_text(value)}" for value in rest)
        return f"{out}%!(EXTRA {extra})"
    return out


def _formatted(verb: str, value: Any, places: str | None, flags: str) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    plus = "+" if "+" in flags and isinstance(value, int | float) and value >= 0 else ""
    if verb in "dxXob" and whole:
        return plus + format(value, verb)
    if verb in "feEgG" and isinstance(value, float):
        return plus + format(value, f".{places or 6}{verb}" if verb in "feE" else verb)
    if verb == "s" and isinstance(value, str):
        return value[: int(places)] if places else value
    if verb == "q" and isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if verb == "t" and isinstance(value, bool):
        return go_text(value)
    if verb == "v":
        return plus + go_text(value)
    if verb == "c" and whole and 0 <= value < 0x110000:
        return chr(value)
    if verb == "x" and isinstance(value, str):
        return value.encode().hex()
    return f"%!{verb}({_go_type(value)}={go_text(value)})"


def _go_type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "<nil>" if value is None else "map[string]interface {}")


def _print(*values: Any) -> str:
    out = ""
    for at, value in enumerate(values):
        both_plain = at and not isinstance(value, str) and not isinstance(values[at - 1], str)
        out += (" " if both_plain else "") + go_text(value)
    return out


def _println(*values: Any) -> str:
    return " ".join(go_text(value) for value in values) + "\n"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _arithmetic(lambda a, b: a + b),
    "subtract": _arithmetic(lambda a, b: a - b),
    "mul": _arithmetic(lambda a, b: a * b),
    "div": _div,
    "idiv": _idiv,
    "rem": _rem,
    "seq": _seq,
    "slice": lambda *items: list(items),
    "ToJSON": _json,
    "ToJSONPretty": _json_pretty,
    "strings.Split": _split,
    "strings.ReplaceAll": _replace,
    "conv.Join": _join,
    "conv.ToInt": _whole,
    "net.CIDRHost": _cidr_host,
    "index": _index,
    "len": _len,
    "eq": _eq,
    "ne": lambda a, b: not _same(a, b),
    "lt": _less,
    "gt": lambda a, b: _less(b, a),
    "le": lambda a, b: not _less(b, a),
    "ge": lambda a, b: not _less(a, b),
    "not": lambda value: not truth(value),
    "printf": _printf,
    "print": _print,
    "println": _println,
}
#: names the parser may meet; `and` and `or` stop early, so the evaluator does them
KNOWN = frozenset(FUNCTIONS) | {"and", "or"}
