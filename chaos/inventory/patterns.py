"""Ansible's host ranges: `leaf[1:4]`, `db-[a:f]`, `[01:10:2]`, also several in one name."""

from __future__ import annotations

import re
import string

from chaos.errors import SpecError

_MOST = 10_000
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_HOST_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_BRACKETED = re.compile(r"\[([^\[\]]+)\]:([0-9]+)")


def split_port(pattern: str) -> tuple[str, int | None]:
    """A host name or pattern, and the port behind its last colon.

    Examples:
        >>> split_port("leaf[1:4]:2222"), split_port("[2001:db8::1]:22"), split_port("2001:db8::1")
        (('leaf[1:4]', 2222), ('2001:db8::1', 22), ('2001:db8::1', None))
    """
    if found := _BRACKETED.fullmatch(pattern):
        return found[1], int(found[2])
    if found := _HOST_PORT.fullmatch(pattern):
        return found[1], int(found[2])
    return pattern, None


def expand(pattern: str) -> tuple[str, ...]:
    """Every name that a pattern stands for, in order.

    Raises:
        SpecError: a range that Ansible would refuse too, or more than 10000 names.

    Examples:
        >>> expand("leaf[1:3]"), expand("[a:b][08:10:2]"), expand("leaf1")
        (('leaf1', 'leaf2', 'leaf3'), ('a08', 'a10', 'b08', 'b10'), ('leaf1',))
    """
    found = _RANGE.search(pattern)
    if found is None:
        if "[" in pattern or "]" in pattern:
            raise SpecError(f"found the host pattern {pattern!r}, wanted both brackets of a range")
        return (pattern,)
    head, tail = pattern[: found.start()], pattern[found.end() :]
    values = _values(found[1], pattern)
    tails = expand(tail)
    if len(values) * len(tails) > _MOST:
        raise SpecError(f"found the host pattern {pattern!r}, which is more than {_MOST} names")
    return tuple(f"{head}{value}{rest}" for value in values for rest in tails)


def _values(text: str, pattern: str) -> list[str]:
    bounds = text.split(":")
    wanted = "wanted one such as leaf[1:4], leaf[01:16:2] or leaf[a:d]"
    wrong = SpecError(f"found the host range [{text}] in {pattern!r}, {wanted}")
    if len(bounds) not in (2, 3) or not bounds[1]:
        raise wrong
    begin, end, step = bounds[0] or "0", bounds[1], bounds[2] if len(bounds) == 3 else "1"
    if not re.fullmatch(r"[1-9][0-9]{0,5}", step):
        raise wrong
    letters = string.ascii_letters
    if begin.isalpha() and end.isalpha() and begin in letters and end in letters:
        first, last = letters.index(begin), letters.index(end)
        found = list(letters[first : last + 1 : int(step)])
    elif re.fullmatch(r"[0-9]{1,9}", begin) and re.fullmatch(r"[0-9]{1,9}", end):
        width = len(begin) if begin[0] == "0" and len(begin) > 1 else 0
        if width and width != len(end):
            raise SpecError(
                f"found the host range [{text}] in {pattern!r}, wanted both ends equally long"
            )
        numbers = range(int(begin), int(end) + 1, int(step))
        if len(numbers) > _MOST:
            raise SpecError(f"found the host pattern {pattern!r}, which is more than {_MOST} names")
        found = [str(number).zfill(width) for number in numbers]
    else:
        raise wrong
    if not found:
        raise SpecError(f"found the host range [{text}] in {pattern!r}, wanted begin before end")
    return found
