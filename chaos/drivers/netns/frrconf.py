"""An integrated frr.conf cut into one file per daemon, where every line's owner is certain.

A daemon that reads its file at its start has all of it before the first event. Through `vtysh` the
same lines reach a running daemon one by one, sessions restart under way, and the fabric converges
one to three seconds later. So the cut is the fast way; a file with any line whose owner is not
known here goes through `vtysh`, which knows them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: First words of a stanza or line -> the daemon that owns it.
_OWNERS = {
    "router bgp": "bgpd",
    "bgp": "bgpd",
    "router ospf": "ospfd",
    "router ospf6": "ospf6d",
    "router isis": "isisd",
    "bfd": "bfdd",
    "ip route": "staticd",
    "ipv6 route": "staticd",
    "interface": "zebra",
    "zebra": "zebra",
    "ip forwarding": "zebra",
    "ipv6 forwarding": "zebra",
    "ip router-id": "zebra",
    "ip nht": "zebra",
    "ipv6 nht": "zebra",
}
_EVERYONE = ("frr version", "frr defaults", "hostname", "log", "password", "enable password")
_NOBODY = ("service integrated-vtysh-config", "line vty", "exit", "end")
#: Lines inside `interface` that are not zebra's.
_IN_INTERFACE = {
    "ip ospf": "ospfd",
    "ipv6 ospf6": "ospf6d",
    "ip router isis": "isisd",
    "ipv6 router isis": "isisd",
    "isis": "isisd",
}
_ZEBRA_IN_INTERFACE = ("ip address", "ipv6 address", "ipv6 nd", "description", "shutdown")


def split(config: str, daemons: Iterable[str]) -> dict[str, str] | None:
    """Text per daemon; None where a line's owner is not certain, or does not run.

    Examples:
        >>> split("hostname r1\\nrouter bgp 1\\n timers bgp 1 3\\n", ["zebra", "bgpd"])
        {'zebra': 'hostname r1\\n', 'bgpd': 'hostname r1\\nrouter bgp 1\\n timers bgp 1 3\\n'}
        >>> split("route-map x permit 1\\n", ["zebra", "bgpd"]) is None
        True
    """
    texts: dict[str, list[str]] = {name: [] for name in daemons}
    owner = ""
    header: str | None = None
    for line in config.splitlines():
        words = line.split()
        if not words or words[0].startswith(("!", "#")):
            continue
        if line[0].isspace():
            mine = _inner(words, owner, header is not None)
            if mine not in texts:
                return None
            if header is not None and header not in _stanza(texts[mine]):
                texts[mine].append(header)
            texts[mine].append(line)
            continue
        owner, header = "", None
        if _starts(words, _NOBODY):
            continue
        if _starts(words, _EVERYONE):
            for text in texts.values():
                text.append(line)
            continue
        owner = _owner(words)
        if owner not in texts:
            return None
        if words[0] == "interface":
            header = line
        texts[owner].append(line)
    return {name: "".join(f"{line}\n" for line in text) for name, text in texts.items()}


def _stanza(text: list[str]) -> list[str]:
    """The header of the stanza that the text ends in."""
    return next(([line] for line in reversed(text) if not line[0].isspace()), [])


def _starts(words: list[str], heads: Iterable[str]) -> bool:
    text = " ".join(words) + " "
    return any(text.startswith(head + " ") for head in heads)


def _owner(words: list[str]) -> str:
    plain = words[1:] if words[0] == "no" else words
    found = [head for head in _OWNERS if _starts(plain, (head,))]
    return _OWNERS[max(found, key=len)] if found else "?"


def _inner(words: list[str], owner: str, in_interface: bool) -> str:
    """Owner of an indented line."""
    if not in_interface:
        return owner
    plain = words[1:] if words[0] == "no" else words
    for head, name in _IN_INTERFACE.items():
        if _starts(plain, (head,)):
            return name
    return "zebra" if _starts(plain, (*_ZEBRA_IN_INTERFACE, "exit")) else "?"


def bgp_stanzas(config: str) -> list[str]:
    """Header lines of the BGP instances in a configuration."""
    return [found.rstrip() for found in re.findall(r"^router bgp .*$", config, re.M)]
