"""Runs a parsed template over its variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from chaos.errors import SpecError
from chaos.topology.gofuncs import FUNCTIONS, KNOWN, Refusal, truth
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
from chaos.topology.gotemplate import CURE, parse
from chaos.topology.gotext import go_text

_MOST_STEPS = 300_000
_MOST_TEXT = 16_000_000
_DEEPEST = 60
_MISSING = object()


def render(text: str, data: Any, *, name: str, others: Mapping[str, str] | None = None) -> str:
    """`text` as a template over `data`.

    Args:
        text: The file's text.
        data: The template's variables; None when there are none.
        name: The file, for refusals.
        others: Text of sub-templates by name.

    Raises:
        SpecError: a mistake in the template, or something this subset does not have.

    Examples:
        >>> render("{{ range seq 3 }}h{{ . }} {{ end }}{{ .none }}", None, name="x")
        'h1 h2 h3 <no value>'
    """
    templates: dict[str, list[Node]] = {}
    for other, body in (others or {}).items():
        templates |= parse(body, name=other, known=KNOWN)
    templates |= parse(text, name=name, known=KNOWN)
    run = _Run(templates, name)
    run.nodes(templates[name], data, [{"$": data}])
    return "".join(run.out)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    def __init__(self, templates: dict[str, list[Node]], name: str) -> None:
        self.templates, self.name = templates, name
        self.out: list[str] = []
        self.written = self.steps = self.depth = 0
        self.line = 1

    def fail(self, said: str) -> NoReturn:
        raise SpecError(f"template: {said}; {CURE}", file=self.name, line=self.line)

    def write(self, text: str) -> None:
        self.written += len(text)
        if self.written > _MOST_TEXT:
            self.fail(f"writes more than {_MOST_TEXT} characters")
        self.out.append(text)

    def nodes(self, nodes: Iterable[Node], dot: Any, scopes: list[dict[str, Any]]) -> None:
        for node in nodes:
            self.steps += 1
            if self.steps > _MOST_STEPS:
                self.fail(f"takes more than {_MOST_STEPS} steps")
            if isinstance(node, Raw):
                self.write(node.text)
            elif isinstance(node, Print):
                value = self.pipe(node.pipe, dot, scopes)
                self.write("<no value>" if value is None or value is _MISSING else go_text(value))
            elif isinstance(node, Assign):
                value = self.pipe(node.pipe, dot, scopes)
                self.assign(node.names[0], value, node.declares, scopes)
            elif isinstance(node, Block):
                self.block(node, dot, scopes)
            elif isinstance(node, Call):
                self.call(node, dot, scopes)
            elif isinstance(node, Jump):
                raise _Break if node.kind == "break" else _Continue

    def assign(self, name: str, value: Any, declares: bool, scopes: list[dict[str, Any]]) -> None:
        value = None if value is _MISSING else value
        if declares:
            scopes[-1][name] = value
            return
        for scope in reversed(scopes):
            if name in scope:
                scope[name] = value
                return
        self.fail(f"undefined variable {name!r}")

    def block(self, node: Block, dot: Any, scopes: list[dict[str, Any]]) -> None:
        inner: list[dict[str, Any]] = [*scopes, {}]
        value = self.pipe(node.pipe, dot, inner)
        value = None if value is _MISSING else value
        if node.kind == "range":
            self.range(node, value, dot, inner)
            return
        for name in node.names:
            self.assign(name, value, node.declares, inner)
        if truth(value):
            self.nodes(node.body, value if node.kind == "with" else dot, [*inner, {}])
        else:
            self.nodes(node.otherwise, dot, [*inner, {}])

    def range(self, node: Block, value: Any, dot: Any, scopes: list[dict[str, Any]]) -> None:
        pairs = self.pairs(value)
        for key, item in pairs:
            inner = [*scopes, {}]
            bound = (item,) if len(node.names) == 1 else (key, item)
            for name, what in zip(node.names, bound, strict=False):
                self.assign(name, what, node.declares, inner)
            try:
                self.nodes(node.body, item, inner)
            except _Continue:
                continue
            except _Break:
                break
        if not pairs:
            self.nodes(node.otherwise, dot, [*scopes, {}])

    def pairs(self, value: Any) -> list[tuple[Any, Any]]:
        if value is None:
            return []
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, dict):
            return sorted(value.items(), key=lambda pair: go_text(pair[0]))
        if isinstance(value, int) and not isinstance(value, bool):
            if value > _MOST_STEPS:
                self.fail(f"range over {value}")
            return [(number, number) for number in range(value)]
        self.fail(f"range can't iterate over {go_text(value)}")

    def call(self, node: Call, dot: Any, scopes: list[dict[str, Any]]) -> None:
        self.line = node.line
        if node.name not in self.templates:
            self.fail(f"template {node.name!r} is not defined")
        if self.depth >= _DEEPEST:
            self.fail(f"templates call each other more than {_DEEPEST} deep")
        value = self.pipe(node.pipe, dot, scopes) if node.pipe else None
        value = None if value is _MISSING else value
        self.depth += 1
        self.nodes(self.templates[node.name], value, [{"$": value}])
        self.depth -= 1

    def pipe(self, pipe: Pipe, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        self.line = pipe.line
        value: Any = _MISSING
        for at, command in enumerate(pipe.commands):
            final = () if at == 0 else (value,)
            value = self.command(command, dot, scopes, final)
        return value

    def command(
        self,
        terms: tuple[Term, ...],
        dot: Any,
        scopes: list[dict[str, Any]],
        final: tuple[Any, ...],
    ) -> Any:
        head = terms[0]
        if not isinstance(head, Function):
            if len(terms) > 1 or final:
                self.fail("arguments given to something that is not a function")
            return self.term(head, dot, scopes)
        if head.name in ("and", "or"):
            return self.lazy(head.name, terms[1:], dot, scopes, final)
        values = [self.term(term, dot, scopes) for term in terms[1:]] + list(final)
        values = [None if value is _MISSING else value for value in values]
        try:
            found = FUNCTIONS[head.name](*values)
            if isinstance(found, str) and len(found) > _MOST_TEXT:
                raise Refusal(f"more than {_MOST_TEXT} characters")
            return found
        except (Refusal, OverflowError) as error:
            self.fail(f"error calling {head.name}: {error}")
        except TypeError:
            self.fail(f"{head.name} does not take {len(values)} such arguments")

    def lazy(
        self,
        name: str,
        terms: tuple[Term, ...],
        dot: Any,
        scopes: list[dict[str, Any]],
        final: tuple[Any, ...],
    ) -> Any:
        value: Any = _MISSING
        for term in (*terms, *(Literal(item) for item in final)):
            value = self.term(term, dot, scopes)
            if truth(None if value is _MISSING else value) == (name == "or"):
                return value
        if value is _MISSING and not terms and not final:
            self.fail(f"{name} needs an argument")
        return value

    def term(self, term: Term, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        if isinstance(term, Literal):
            return term.value
        if isinstance(term, Dot):
            return dot
        if isinstance(term, Variable):
            for scope in reversed(scopes):
                if term.name in scope:
                    return scope[term.name]
            self.fail(f"undefined variable {term.name!r}")
        if isinstance(term, Pipe):
            return self.pipe(term, dot, scopes)
        if isinstance(term, Function):
            return self.command((term,), dot, scopes, ())
        return self.fields(term, dot, scopes)

    def fields(self, chain: Chain, dot: Any, scopes: list[dict[str, Any]]) -> Any:
        value = self.term(chain.base, dot, scopes)
        for name in chain.fields:
            if value is None or value is _MISSING:
                return _MISSING
            if not isinstance(value, dict):
                self.fail(f"can't evaluate field {name} in {go_text(value)!r}")
            value = value.get(name, _MISSING)
        return value
