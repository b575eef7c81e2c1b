"""A plan's lines as a person reads them: long lists and scripts cut, what is left out counted."""

from __future__ import annotations

import re

#: Of a set of numbers in a rule, and of a script: how much is shown.
_NUMBERS, _SCRIPT = 6, 60
_LIST = re.compile(r"(?<=\{ )\d[\d-]*(?:, \d[\d-]*){12,}(?= \})")
_SHELL = re.compile(r"""(?<=\bsh -c ')(?:[^']|'"'"'){160,}(?=')""")


def abridged(line: str) -> str:
    """One line of a plan, in which nothing is too long to be read.

    Examples:
        >>> abridged("numgen inc mod 99 { 1, 2, 3, 5-7, 9, 12, 14, 20, 31, 44, 52, 61, 77 } drop")
        'numgen inc mod 99 { 1, 2, 3, 5-7, 9, 12, … 7 more } drop'
        >>> abridged("undo [leaf1] ip link set eth1 up")
        'undo [leaf1] ip link set eth1 up'
    """
    return _SHELL.sub(_first_words, _LIST.sub(_first_numbers, line))


def _first_numbers(found: re.Match[str]) -> str:
    numbers = found[0].split(", ")
    return f"{', '.join(numbers[:_NUMBERS])}, … {len(numbers) - _NUMBERS} more"


def _first_words(found: re.Match[str]) -> str:
    head = found[0][:_SCRIPT].rpartition(" ")[0]
    return f"{head} … {len(found[0]) - len(head)} characters more"
