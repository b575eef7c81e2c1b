"""`field=value` words of the command line → fields, typed by the plugin's own annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from chaos.errors import SpecError
from chaos.registry import field_type

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def fields_from(cls: type[Any] | None, words: Sequence[str]) -> dict[str, Any]:
    """Values by field name; numbers and truth values where the field wants them, else text.

    Raises:
        SpecError: a word without `=`, a field given twice, a number that is none.
    """
    known = {item.name for item in fields(cls)} if cls is not None else set()
    made: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise SpecError(f"field=value expected, such as link=leaf1--spine1, got {word!r}")
        if name in made:
            raise SpecError(f"{name} is given twice", field=name)
        before = list(made.items())[-1:]
        if cls is not None and name not in known and before and "=" in str(before[0][1]):
            whole = f"{before[0][0]}={before[0][1]} {word}"
            raise SpecError(
                f"no field {name!r}; several words of one field go in quotes: '{whole}'"
            )
        made[name] = _typed(field_type(cls, name), name, value) if cls and name in known else value
    return made


def _typed(wanted: Any, name: str, value: str) -> Any:
    if wanted is bool:
        if value.lower() not in _TRUTH:
            raise SpecError(f"true or false expected, got {value!r}", field=name)
        return _TRUTH[value.lower()]
    if wanted in (int, float):
        try:
            return wanted(value)
        except ValueError:
            kind = "a whole number" if wanted is int else "a number"
            raise SpecError(f"{kind} expected, got {value!r}", field=name) from None
    if getattr(wanted, "__origin__", None) is tuple:
        return [_typed(wanted.__args__[0], name, one) for one in value.split(",")]
    return value
