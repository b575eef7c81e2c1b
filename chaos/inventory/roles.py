"""The role of a host: its own setting, else its groups, else its name, else what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from chaos.errors import SpecError

#: Words for a role, as a group or at the start of a name. The topology room has the same words.
ROLE_WORDS: Mapping[str, str] = {
    **{word: word for word in ("superspine", "spine", "leaf", "host", "router", "switch")},
    **dict.fromkeys(("tor", "tor-switch"), "leaf"),
    **dict.fromkeys(("gpu", "server", "srv", "client", "pc", "worker", "compute"), "host"),
    **dict.fromkeys(("core", "border", "edge", "rtr"), "router"),
    "sw": "switch",
}
_GENERAL = ("switch", "router", "host")
_LONGEST_FIRST = sorted(ROLE_WORDS, key=len, reverse=True)


def role_of(
    name: str, groups: Sequence[str], platform: str, more: Mapping[str, str] | None = None
) -> str:
    """The role by groups, then by name, then `router` for a switch system and `host` for the rest.

    Args:
        name: Inventory name.
        groups: Every group of the host.
        platform: Its network operating system; empty for a Linux host.
        more: Role per group name, before all words known here.

    Raises:
        SpecError: its groups say two roles of the same weight.

    Examples:
        >>> role_of("a7", ["dc1", "leaves", "switches"], ""), role_of("gpu-03", [], "")
        ('leaf', 'host')
    """
    told = {more[group]: group for group in groups if more and group in more}
    if not told:
        told = {role: group for group in groups for role in [_word(group)] if role}
        if len(told) > 1:
            told = {role: group for role, group in told.items() if role not in _GENERAL} or told
    if len(told) > 1:
        both = " and ".join(f"{role} (group {group})" for role, group in sorted(told.items()))
        raise SpecError(f"found the roles {both} for {name}; set railbreak.role on it")
    if told:
        return next(iter(told))
    for word in _LONGEST_FIRST:
        if re.match(rf"{word}(?![a-z])", name.lower()):
            return ROLE_WORDS[word]
    return "router" if platform and platform.lower() not in ("linux", "host") else "host"


def _word(group: str) -> str:
    for form in (group.lower(), re.split(r"[_\-.\s]+", group.lower())[-1]):
        single = "leaf" if form == "leaves" else form
        for word in (single, single.removesuffix("s"), single.removesuffix("es")):
            if word in ROLE_WORDS:
                return ROLE_WORDS[word]
    return ""
