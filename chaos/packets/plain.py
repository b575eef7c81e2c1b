"""What the parts of a rule share: one line of `word=value`, or a mapping of the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chaos.errors import SpecError, near
from chaos.fields import convert


def words(value: Any, what: str, example: str) -> dict[str, Any]:
    """The words of one part, from a mapping or from one line.

    Examples:
        >>> words("every=100 offset=5", "when", "first=3")
        {'every': '100', 'offset': '5'}
    """
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    if not isinstance(value, str):
        raise SpecError(f"{what}: words expected, such as {example}, got {value!r}")
    made: dict[str, Any] = {}
    for part in value.split():
        key, equals, text = part.partition("=")
        if not equals or not text:
            rest = f"; no blank within a value: {last}{part}" if (last := _last(made)) else ""
            raise SpecError(f"{what}: word=value expected, such as {example}, got {part!r}{rest}")
        if key in made:
            raise SpecError(f"{what}: {key} is given twice", field=f".{key}")
        made[key] = text
    return made


def _last(made: Mapping[str, str]) -> str:
    return "".join(f"{key}={text}" for key, text in list(made.items())[-1:])


def refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    """Refuse a word that the part does not have, with near ones."""
    for key in given:
        if key not in known:
            raise SpecError(f"{what} has no {key!r}; {near(key, known)}", field=f".{key}")


def whole(value: Any, key: str, low: int, high: int) -> int:
    """A whole number between two limits."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.isdecimal():
        text = int(text)
    if type(text) is not int or not low <= text <= high:
        raise SpecError(f"{low} to {high} expected, got {value!r}", field=f".{key}")
    return text


def typed(wanted: Any, value: Any, key: str) -> Any:
    """A value as its annotation asks; the refusal names the field."""
    try:
        return convert(wanted, value)
    except SpecError as error:
        raise SpecError(error.reason, field=f".{key}{error.field or ''}") from None
