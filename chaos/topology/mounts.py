"""Binds, volumes and ports: their short texts, checked and put in order."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable


class Wrong(Exception):
    """A text that Containerlab refuses; `text` is the culprit, so that its line can be found."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        self.text = text


def binds(texts: Iterable[str]) -> list[str]:
    """Keyed by destination, later wins, sorted by their whole text."""
    found: dict[str, str] = {}
    for text in texts:
        parts = text.split(":")
        if len(parts) == 1 and parts[0]:
            raise Wrong(
                text,
                f"found the bind {text!r} without a source; write SOURCE:{text} or use volumes",
            )
        if not 2 <= len(parts) <= 3:
            raise Wrong(text, f"found the bind {text!r}, wanted SOURCE:DESTINATION[:MODE]")
        found[parts[1]] = text.removeprefix(":").removesuffix(":" if len(parts) == 3 else "\0")
    return sorted(found.values())


def volumes(texts: Iterable[str]) -> list[str]:
    """Like binds, for volumes that the container runtime keeps."""
    found: dict[str, str] = {}
    for text in texts:
        parts = text.split(":")
        if len(parts) == 1 and parts[0]:
            found[text] = text
            continue
        if parts[0].startswith("/"):
            raise Wrong(text, f"found the volume {text!r} with a path of the host; put it in binds")
        if not 2 <= len(parts) <= 3:
            raise Wrong(text, f"found the volume {text!r}, wanted [NAME:]DESTINATION[:MODE]")
        found[parts[1]] = text
    return sorted(found.values())


def resolve_path(path: str, base: str, home: str) -> str:
    """`~` is the home folder, a relative path starts at `base`, an absolute one stays as it is."""
    if not path or path.startswith("/"):
        return path
    if path == "~" or path.startswith("~/"):
        return os.path.normpath(home + path[1:])
    return os.path.normpath(os.path.join(base, path))


def ports(texts: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Port bindings as the container runtime gets them.

    Examples:
        >>> ports(["2222:22", "127.0.0.1:53:53/udp"])["53/udp"]
        [{'HostIp': '127.0.0.1', 'HostPort': '53'}]
    """
    found: dict[str, list[dict[str, str]]] = {}
    for text in texts:
        for port, host in _port(text):
            found.setdefault(port, []).append(host)
    return found


def _port(text: str) -> list[tuple[str, dict[str, str]]]:
    front, _, inside = text.rpartition(":")
    address, _, outside = front.rpartition(":")
    inside, _, protocol = inside.partition("/")
    protocol = (protocol or "tcp").lower()
    wanted = "wanted [[ADDRESS:]HOST-PORT:]PORT[/PROTOCOL]"
    bare = address.removeprefix("[").removesuffix("]")
    try:
        if bare:
            ipaddress.ip_address(bare)
        low, high = _range(inside)
        host_low, host_high = _range(outside) if outside else (0, 0)
    except ValueError:
        raise Wrong(text, f"found the port {text!r}, {wanted}") from None
    if protocol not in ("tcp", "udp", "sctp"):
        raise Wrong(text, f"found the port {text!r} with protocol {protocol!r}, wanted tcp or udp")
    if outside and high - low != host_high - host_low and high != low:
        raise Wrong(text, f"found the port {text!r}, wanted ranges of equal length")
    out = []
    for at in range(high - low + 1):
        host = str(host_low + at) if outside else ""
        if outside and high == low and host_low != host_high:
            host = f"{host_low}-{host_high}"
        out.append((f"{low + at}/{protocol}", {"HostIp": bare, "HostPort": host}))
    return out


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    for number in (low, high if dash else low):
        if not number.isdecimal() or int(number) > 65535:
            raise ValueError(text)
    if dash and int(high) < int(low):
        raise ValueError(text)
    return int(low), int(high if dash else low)
