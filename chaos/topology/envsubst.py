"""Environment substitution over the whole text of a topology file, as Containerlab does it.

Containerlab hands the text to the library envsubst with "leave unset names alone" and "ignore names
that start with a digit". This keeps its odd corners, for a file must mean the same here:

| written | result |
|---|---|
| `$A`, `${A}` | the value; when unset or empty it stays, as `$A` |
| `${A:-x}`, `${A:=x}` | `x` when unset or empty; `x` is text or one `$B` |
| `${A-x}`, `${A=x}` | `x` when unset; when set but empty it becomes `$A` |
| `${A+x}`, `${A:+x}` | `x` when set, else nothing |
| `$$A` | `$A` |
| `$1`, `${1}` | untouched |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from chaos.errors import SpecError

_OPERATORS = {":-": "or", ":=": "or", ":+": "alt", "+": "alt", "-": "unset", "=": "unset"}
_END_OF_LINE = "\r\n"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, variable, open, close, operator
    text: str


def substitute(text: str, environ: Mapping[str, str], *, file: str = "") -> str:
    """Replace `$NAME` and `${NAME…}` in `text` by values of `environ`.

    Raises:
        SpecError: a `${` is not closed on its line.

    Examples:
        >>> substitute("${A:=x} $A $$A ${B}", {"B": "b"})
        'x $A $A b'
    """
    tokens = list(_lex(text, file))
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind == "variable":
            out.append(_value(token.text.removeprefix("$"), environ))
        elif token.kind == "open" and at < len(tokens) and tokens[at].kind == "variable":
            found, at = _braces(tokens, at, environ)
            out.append(found)
        else:
            out.append(token.text)
    return "".join(out)


def _value(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name, "") or f"${name}"


def _braces(tokens: list[_Token], at: int, environ: Mapping[str, str]) -> tuple[str, int]:
    """What `${NAME operator default}` becomes; `at` points at NAME."""
    name = tokens[at].text
    operator, default = "", None
    at += 1
    while tokens[at].kind != "close":
        token = tokens[at]
        at += 1
        if token.kind == "operator":
            operator = token.text
        elif token.kind == "variable":
            default = _value(token.text.removeprefix("$"), environ)
        else:
            default = token.text
            while tokens[at].kind != "close":
                default += tokens[at].text
                at += 1
    return _choose(name, _OPERATORS.get(operator, ""), default, environ), at + 1


def _choose(name: str, rule: str, default: str | None, environ: Mapping[str, str]) -> str:
    value = _value(name, environ)
    if default is None or not rule:
        return value
    if rule == "or":
        return default if value == f"${name}" else value
    if rule == "alt":
        return default if name in environ else ""
    return value if name in environ else default


def _lex(text: str, file: str) -> Iterator[_Token]:
    at = start = 0
    while (at := text.find("$", at)) >= 0:
        after = text[at + 1 : at + 2]
        if after == "$":
            if at > start:
                yield _Token("text", text[start:at])
            yield _Token("text", "$")
            at = start = at + 2
        elif after == "{" and not text[at + 2 : at + 3].isdigit():
            if at > start:
                yield _Token("text", text[start:at])
            inside, at = _lex_braces(text, at, file)
            yield from inside
            start = at
        elif _is_word(after) and not after.isdigit():
            if at > start:
                yield _Token("text", text[start:at])
            end = _end_of_word(text, at + 1)
            kind = "text" if text[at:end] == "$_" else "variable"
            yield _Token(kind, text[at:end])
            at = start = end
        else:
            at += 1
    if start < len(text):
        yield _Token("text", text[start:])


def _lex_braces(text: str, opened: int, file: str) -> tuple[list[_Token], int]:
    """The tokens from `${` to its `}`; a name counts only right after the `${` or a `$`."""
    tokens = [_Token("open", "${")]
    at = opened + 2
    while True:
        char = text[at : at + 1]
        if not char or char in _END_OF_LINE:
            line = text.count("\n", 0, opened) + 1
            raise SpecError(
                f"found {text[opened:at]!r} without its closing brace; write "
                "${NAME} or ${NAME:=default} on one line, or $$ for a dollar sign",
                file=file or None,
                line=line,
            )
        if char == "}":
            tokens.append(_Token("close", "}"))
            return tokens, at + 1
        if char == "$" or (_is_word(char) and tokens[-1].kind == "open"):
            end = _end_of_word(text, at + 1)
            kind = "text" if text[at:end] in ("_", "$_") else "variable"
            tokens.append(_Token(kind, text[at:end]))
        elif char == ":":
            end = at + 2
            operator = text[at:end]
            tokens.append(_Token("operator" if operator in _OPERATORS else "text", operator))
            if operator[1:] in tuple(_END_OF_LINE):
                end = at + 1  # reported by the next turn
        else:
            end = at + 1
            tokens.append(_Token("operator" if char in _OPERATORS else "text", char))
        at = end


def _is_word(char: str) -> bool:
    return char == "_" or char.isalnum()


def _end_of_word(text: str, at: int) -> int:
    while at < len(text) and _is_word(text[at]):
        at += 1
    return at
