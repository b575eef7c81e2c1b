"""`env-files` in dotenv syntax, as Containerlab's library reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chaos.errors import SpecError

_EXPAND = re.compile(r"(\\)?(\$)(\()?\{?([A-Z0-9_]+)?\}?")
_LINE_END = re.compile(r"[\r\n]")


def read_env(text: str, *, file: str) -> dict[str, str]:
    """Variables of one file, in order.

    Raises:
        SpecError: a line that is no `NAME=value`.

    Examples:
        >>> read_env("# c\\nexport A='x y'\\nB=${A}-1 # c\\n", file="f.env")
        {'A': 'x y', 'B': 'x y-1'}
    """
    found: dict[str, str] = {}
    at = 0
    while (at := _statement(text, at)) < len(text):
        line = text.count("\n", 0, at) + 1
        name, at = _name(text, at, file, line)
        found[name], at = _value(text, at, found, file, line)
    return found


def _statement(text: str, at: int) -> int:
    """Skip blank space and comments."""
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "#":
            end = _LINE_END.search(text, at)
            at = end.start() if end else len(text)
        else:
            break
    return at


def _name(text: str, at: int, file: str, line: int) -> tuple[str, int]:
    if text.startswith("export", at) and text[at + 6 : at + 7].isspace():
        at += 6
    for end in range(at, len(text)):
        char = text[end]
        if char in "=:":
            name = text[at:end].strip()
            if name:
                return name, end + 1
            break
        if char in "\r\n" or not (char.isspace() or char == "_" or char == "." or char.isalnum()):
            break
    said = text[at:].splitlines()[0][:40]
    raise SpecError(f"found {said!r}, wanted NAME=value", file=file, line=line)


def _value(text: str, at: int, known: Mapping[str, str], file: str, line: int) -> tuple[str, int]:
    while at < len(text) and text[at] in " \t":
        at += 1
    quote = text[at : at + 1]
    if quote in ("'", '"'):
        end = at + 1
        while end < len(text) and not (text[end] == quote and text[end - 1] != "\\"):
            end += 1
        if end >= len(text):
            raise SpecError(f"found a value whose {quote} is not closed", file=file, line=line)
        body = text[at + 1 : end]
        return (body if quote == "'" else _expand(_escapes(body), known)), end + 1
    ending = _LINE_END.search(text, at)
    end = ending.start() if ending else len(text)
    body = text[at:end]
    for place in range(1, len(body)):
        if body[place] == "#" and body[place - 1].isspace():
            body = body[:place]
            break
    return _expand(body.strip(), known), end


def _escapes(text: str) -> str:
    newlines = {"\\n": "\n", "\\r": "\r"}
    text = re.sub(r"\\.", lambda found: newlines.get(found[0], found[0]), text)
    return re.sub(r"\\([^$])", r"\1", text)


def _expand(text: str, known: Mapping[str, str]) -> str:
    def one(found: re.Match[str]) -> str:
        if found[1] or found[3]:
            return found[0][1:]
        return known.get(found[4], "") if found[4] else found[0]

    return _EXPAND.sub(one, text)
