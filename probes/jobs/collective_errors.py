"""What a collective's error was, from the library's words. Pure."""

from __future__ import annotations

import re

_KINDS = {
    r"timed out waiting": "op_dead",
    r"connection reset": "conn_reset",
    r"connection closed|pair closure|broken pipe": "conn_closed",
    r"connection timed out|timed out connecting": "conn_timeout",
    r"unreachable|no route": "unreachable",
    r"connectfullmesh|rendezvous": "init",
    r"store": "store",
}


def kind_of(message: str) -> str:
    """The class of an error, from the library's words."""
    low = message.lower()
    return next((kind for words, kind in _KINDS.items() if re.search(words, low)), "other")
