"""Go's text/template: a file's text → nodes. `goeval` runs them, `gofuncs` holds the functions.

Every topology file is such a template for Containerlab, plain ones too. This is the part that
topologies use: range, if, with, else, define, template, block, break, continue, variables, pipes,
comments and trim marks. What is missing is refused with a way out.
"""

from __future__ import annotations

import re
from typing import Any

from chaos.errors import SpecError
from chaos.topology.gonodes import (
    Assign,
    Block,
    Call,
    Chain,
    Dot,
    Function,
    Jump,
    Literal,
    Node,
    Pipe,
    Print,
    Raw,
    Term,
    Variable,
)

CURE = (
    "render the file with `containerlab deploy --dry-run --export-rendered FILE` and use the result"
)


def parse(text: str, *, name: str, known: frozenset[str]) -> dict[str, list[Node]]:
    """Templates by name: `name` itself and what it defines.

    Args:
        text: The file's text.
        name: What the template is called, also in refusals.
        known: Names of functions that exist.

    Raises:
        SpecError: not a template, or one that uses what this subset does not have.
    """
    return _Parser(text, name, known).run()


_ACTION = re.compile(r"\{\{(?:-(?=\s))?")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    |(?P<char>'(?:\\.|[^'\\\n])+')
    |(?P<number>[+-]?(?:0[xXbBoO][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][+-]?\d+)?))
    |(?P<field>\.[A-Za-z_]\w*)
    |(?P<variable>\$\w*)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>:=|[=|(),.])""",
    re.VERBOSE,
)
_NAMESPACES = ("strings", "conv", "net")


class _Parser:
    def __init__(self, text: str, name: str, known: frozenset[str]) -> None:
        self.text, self.name, self.known = text, name, known
        self.templates: dict[str, list[Node]] = {}
        self.line = 1
        self.tokens: list[tuple[str, str]] = []
        self.at = 0

    def run(self) -> dict[str, list[Node]]:
        top: list[Node] = []
        self.templates[self.name] = top
        #: open blocks: kind, the list that text goes to, the block itself
        self.open: list[tuple[str, list[Node], Block | None]] = [("", top, None)]
        at, trim = 0, False
        while (found := _ACTION.search(self.text, at)) is not None:
            self._raw(self.text[at : found.start()], trim, found.group().endswith("-"))
            self.line = self.text.count("\n", 0, found.start()) + 1
            at, trim = self._action(found.end())
        self._raw(self.text[at:], trim, False)
        if len(self.open) > 1:
            block = self.open[-1][2]
            self.line = block.pipe.line if block else self.line
            raise self.error(f"{self.open[-1][0]} without its {{{{ end }}}}")
        return self.templates

    def error(self, said: str) -> SpecError:
        return SpecError(f"found a template with {said}; {CURE}", file=self.name, line=self.line)

    def _raw(self, text: str, trim_left: bool, trim_right: bool) -> None:
        text = text.lstrip(" \t\r\n") if trim_left else text
        text = text.rstrip(" \t\r\n") if trim_right else text
        if text:
            self.open[-1][1].append(Raw(text))

    def _action(self, at: int) -> tuple[int, bool]:
        comment = re.compile(r"\s*/\*.*?\*/\s*?(\s-)?\}\}", re.DOTALL).match(self.text, at)
        if comment:
            return comment.end(), bool(comment[1])
        self.tokens, self.at = [], 0
        while True:
            closing = re.compile(r"\s*?(\s-)?\}\}").match(self.text, at)
            if closing:
                self._statement()
                return closing.end(), bool(closing[1])
            found = _TOKEN.match(self.text, at)
            if found is None:
                rest = self.text[at : at + 10].split("\n")[0]
                raise self.error(f"an action that is not closed or not understood at {rest!r}")
            if found.lastgroup == "field" and self._glued(at):
                self.tokens.append(("chain", found.group()[1:]))
            else:
                self.tokens.append((found.lastgroup or "", found.group()))
            at = found.end()

    def _glued(self, at: int) -> bool:
        """Whether a `.name` continues the term before it."""
        return (
            bool(self.tokens) and self.tokens[-1][0] != "space" and self.text[at - 1] not in "(|="
        )

    def _peek(self) -> tuple[str, str]:
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "space":
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self.at += 1
        return token

    def _statement(self) -> None:
        kind, word = self._peek()
        handler = getattr(self, f"_do_{word}", None) if kind == "word" else None
        if handler is not None:
            self.at += 1
            handler()
        else:
            names, declares = self._names()
            pipe = self._pipe()
            node: Node = Assign(names, pipe, declares) if names else Print(pipe)
            self.open[-1][1].append(node)
        if self._peek()[0] != "end":
            raise self.error(f"the unexpected {self._peek()[1]!r}")

    def _do_if(self, kind: str = "if") -> None:
        if self._peek()[0] == "end":
            raise self.error(f"a missing value for {kind}")
        names, declares = self._names(2 if kind == "range" else 1)
        block = Block(kind, self._pipe(), names, declares)
        self.open[-1][1].append(block)
        self.open.append((kind, block.body, block))

    def _do_with(self) -> None:
        self._do_if("with")

    def _do_range(self) -> None:
        self._do_if("range")

    def _do_else(self) -> None:
        kind, _, block = self.open[-1]
        if block is None or kind.startswith("else"):
            raise self.error("an {{ else }} that belongs to nothing")
        self.open[-1] = (f"else of {kind}", block.otherwise, block)
        if self._peek() == ("word", "if") or self._peek() == ("word", "with"):
            word = self._next()[1]
            self._do_if(word)
            self.open[-1] = (f"chained {word}", self.open[-1][1], self.open[-1][2])

    def _do_end(self) -> None:
        if len(self.open) == 1:
            raise self.error("an {{ end }} that closes nothing")
        kind = self.open.pop()[0]
        while "chained" in kind:  # `else if` shares the `end` of its `if`
            kind = self.open.pop()[0]

    def _do_define(self) -> None:
        body: list[Node] = []
        self.templates[self._string("define")] = body
        self.open.append(("define", body, None))

    def _do_block(self) -> None:
        name = self._string("block")
        self.open[-1][1].append(Call(name, self._pipe(), self.line))
        body: list[Node] = []
        self.templates[name] = body
        self.open.append(("block", body, None))

    def _do_template(self) -> None:
        name = self._string("template")
        pipe = None if self._peek()[0] == "end" else self._pipe()
        self.open[-1][1].append(Call(name, pipe, self.line))

    def _do_break(self, kind: str = "break") -> None:
        if not any("range" in opened for opened, _, _ in self.open):
            raise self.error(f"a {kind} outside of a range")
        self.open[-1][1].append(Jump(kind))

    def _do_continue(self) -> None:
        self._do_break("continue")

    def _string(self, after: str) -> str:
        kind, text = self._next()
        if kind != "string":
            raise self.error(f"a missing name after {after}")
        return str(_unquote(text))

    def _names(self, most: int = 1) -> tuple[tuple[str, ...], bool]:
        """`$i, $x :=` at the start of a pipe, if there."""
        start = self.at
        names: list[str] = []
        while self._peek()[0] == "variable" and len(names) < most:
            names.append(self._next()[1])
            kind, sign = self._peek()
            if sign in (":=", "=") and kind == "sign":
                self.at += 1
                return tuple(names), sign == ":="
            if sign != ",":
                break
            self.at += 1
        self.at = start
        return (), False

    def _pipe(self) -> Pipe:
        commands = [self._command()]
        while self._peek() == ("sign", "|"):
            self.at += 1
            commands.append(self._command())
        return Pipe(tuple(commands), self.line)

    def _command(self) -> tuple[Term, ...]:
        terms = []
        while self._peek()[0] != "end" and self._peek()[1] not in ("|", ")"):
            terms.append(self._term())
        if not terms:
            raise self.error("a missing value")
        return tuple(terms)

    def _term(self) -> Term:
        term = self._simple(*self._next())
        fields = []
        while self.at < len(self.tokens) and self.tokens[self.at][0] == "chain":
            fields.append(self.tokens[self.at][1])
            self.at += 1
        if isinstance(term, Function) and term.name in _NAMESPACES and fields:
            return self._function(f"{term.name}.{fields[0]}")
        return Chain(term, tuple(fields)) if fields else term

    def _simple(self, kind: str, text: str) -> Term:
        if kind in ("string", "char", "number"):
            return Literal(self._literal(kind, text))
        if kind == "field":
            return Chain(Dot(), (text[1:],))
        if kind == "variable":
            return Variable(text)
        if kind == "word":
            words = {"true": True, "false": False, "nil": None}
            if text in words or text in _NAMESPACES:
                return Literal(words[text]) if text in words else Function(text)
            return self._function(text)
        if text == ".":
            return Dot()
        if text == "(":
            pipe = self._pipe()
            if self._next()[1] != ")":
                raise self.error("an unclosed (")
            return pipe
        raise self.error(f"the unexpected {text!r}")

    def _function(self, name: str) -> Function:
        if name not in self.known:
            raise self.error(f"the unknown function {name!r}")
        return Function(name)

    def _literal(self, kind: str, text: str) -> Any:
        try:
            if kind == "number":
                plain = text.replace("_", "")
                return _integer(plain) if _looks_whole(plain) else float(plain)
            return ord(_unquote(text)) if kind == "char" else _unquote(text)
        except (ValueError, TypeError):
            raise self.error(f"the constant {text} that is not understood") from None


def _looks_whole(text: str) -> bool:
    return text.lower().lstrip("+-")[:2] in ("0x", "0b", "0o") or not re.search(r"[.eE]", text)


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return sign * int(digits, 8 if octal else 0)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)


def _unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]

    def plain(found: re.Match[str]) -> str:
        word = found[1]
        if word[0] in "xuU" and len(word) > 1:
            return chr(int(word[1:], 16))
        if len(word) == 3:
            return chr(int(word, 8))
        if word not in _ESCAPES and word not in "\\\"'":
            raise ValueError(word)
        return _ESCAPES.get(word, word)

    return _ESCAPE.sub(plain, text[1:-1])
