"""HTML as nested calls: everything that is not `Markup` already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"meta", "link", "br", "input", "rect", "line", "circle", "path", "wbr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. `class_` and `for_` lose their underscore; `data_t` becomes `data-t`.

    Examples:
        >>> tag("p", "a < b", tag("b", 3), class_="note")
        '<p class="note">a &lt; b<b>3</b></p>'
    """
    parts = [f"<{element}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        parts.append(f" {word}" if value is True else f' {word}="{html.escape(str(value))}"')
    if element in VOID and not children:
        return Markup("".join(parts) + "/>")
    return Markup(f"{''.join(parts)}>{text(*children)}</{element}>")


def text(*children: Any) -> Markup:
    """Children as one piece of HTML; None is left out, lists are flattened."""
    made = []
    for child in children:
        if child is None or child is False:
            continue
        if isinstance(child, Markup):
            made.append(str(child))
        elif isinstance(child, Iterable) and not isinstance(child, str | bytes):
            made.append(text(*child))
        else:
            made.append(html.escape(str(child), quote=False))
    return Markup("".join(made))
