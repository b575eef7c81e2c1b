"""What hosts hear of their neighbours: the output of `lldpcli -f json0 show neighbors`.

`json0` keeps one structure whatever the count. A Linux host gives the MAC address as the id of its
port and the name as its description; switches give the name as the id, or the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.inventory.model import NOWHERE, Host, Source
from chaos.inventory.tree import Page, parse_json, shown
from chaos.topology.text import read_text

ARGV = ("lldpcli", "-f", "json0", "show", "neighbors")
_SPEED = re.compile(r"(\d+)\s*(g|gig)?base", re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One neighbour that an interface hears.

    Attributes:
        host: Inventory host that hears it.
        interface: Its interface, as it calls it.
        chassis: What the neighbour calls itself; its chassis id if it tells no name.
        port: Name of the neighbour's port; empty when only a MAC address is told.
        other: The other text that the port is told by: its description, or its id.
        mac: MAC address of the neighbour's port, lower case with colons; empty if not told.
        speed_mbps: What the neighbour's port runs at; 0 when not told.
        source: Where it stands.
    """

    host: str
    interface: str
    chassis: str
    port: str
    other: str = ""
    mac: str = ""
    speed_mbps: int = 0
    source: Source = NOWHERE


def read_neighbours(text: str, host: str, file: str) -> tuple[Neighbour, ...]:
    """The neighbours in one output.

    Args:
        text: The output.
        host: Inventory host that it is from.
        file: For messages.

    Raises:
        SpecError: no JSON, or not the form of `json0`.
    """
    if not text.strip():
        raise SpecError("found 0 bytes, wanted the output of " + " ".join(ARGV), file=file, line=1)
    return _neighbours(parse_json(text, file), (), host)


def _neighbours(page: Page, at: tuple[str | int, ...], host: str) -> tuple[Neighbour, ...]:
    body = page.value
    for part in at:
        body = body[part]
    lldp = body.get("lldp") if isinstance(body, dict) else None
    if isinstance(lldp, dict):
        message = "found the form of -f json, which changes with the count; use -f json0"
        raise page.wrong(message, *at, "lldp")
    if not isinstance(lldp, list):
        raise page.wrong(f"found {shown(body)} without lldp, wanted {' '.join(ARGV)}", *at)
    found: list[Neighbour] = []
    for number, one in enumerate(lldp):
        inner = (*at, "lldp", number, "interface")
        interfaces = one.get("interface", []) if isinstance(one, dict) else None
        if not isinstance(interfaces, list):
            raise page.wrong(f"found {shown(interfaces)}, wanted a list of interfaces", *inner)
        for index, interface in enumerate(interfaces):
            if not isinstance(interface, dict) or not isinstance(interface.get("name"), str):
                raise page.wrong("found an interface without a name", *inner, index)
            source = page.source(*inner, index, "name")
            found.append(_neighbour(interface, host, source))
    return tuple(found)


def _neighbour(body: Mapping[str, Any], host: str, source: Source) -> Neighbour:
    chassis, port = _first(body, "chassis"), _first(body, "port")
    kind, told = _typed(port)
    descr = _value(port, "descr")
    mac = _mac(told) if kind == "mac" else ""
    by_id = "" if mac or kind in ("mac", "ip") else told
    name, other = (by_id, descr) if kind == "ifname" and by_id else (descr or by_id, by_id)
    return Neighbour(
        host,
        body["name"],
        _value(chassis, "name") or _typed(chassis)[1],
        name,
        other if other != name else "",
        mac,
        _speed(port),
        source,
    )


def _first(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = body.get(key)
    found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, dict) else {}


def _value(body: Mapping[str, Any], key: str) -> str:
    return str(_first(body, key).get("value") or "").strip()


def _typed(body: Mapping[str, Any]) -> tuple[str, str]:
    return str(_first(body, "id").get("type") or ""), _value(body, "id")


def _mac(text: str) -> str:
    if not _MAC.fullmatch(text):
        return ""
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def _speed(port: Mapping[str, Any]) -> int:
    """From the medium that the port runs: `100GbaseCR4 …`, `1000BaseTFD …`."""
    found = _SPEED.search(_value(_first(port, "auto-negotiation"), "current"))
    if found is None:
        return 0
    return int(found[1]) * (1000 if found[2] else 1)


def read_heard(path: Path, hosts: Mapping[str, Host]) -> dict[str, tuple[Neighbour, ...]]:
    """Outputs from a folder with `HOST.json` per host, or from one file.

    One file is either such a `HOST.json`, or one object `{HOST: output, …}`.

    Raises:
        SpecError: a file of no host, or not understood.
    """
    callers = Callers(hosts)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise SpecError("found no HOST.json in the folder", file=str(path))
        return dict(_one(file, callers) for file in files)
    page = parse_json(_text(path), str(path))
    if not isinstance(page.value, dict) or "lldp" in page.value:
        return dict([_one(path, callers)])
    heard: dict[str, tuple[Neighbour, ...]] = {}
    for name in page.value:
        host = callers.find(name)
        if not host:
            raise page.wrong(f"found the output of {name!r}, which is no host", name)
        heard[host] = _neighbours(page, (name,), host)
    return heard


def _text(path: Path) -> str:
    text = read_text(path)
    if not text.strip():
        said = "found 0 bytes, wanted the output of " + " ".join(ARGV)
        raise SpecError(said, file=str(path), line=1)
    return text


def _one(path: Path, callers: Callers) -> tuple[str, tuple[Neighbour, ...]]:
    name = path.name.removesuffix(".json")
    host = callers.find(name)
    if not host:
        message = f"found the output of {name!r}, which is no host"
        raise SpecError(f"{message}; name each file HOST.json", file=str(path))
    return host, read_neighbours(_text(path), host, str(path))


class Callers:
    """Inventory names by what boxes call themselves, with or without a domain.

    Examples:
        >>> Callers({"leaf1": Host("leaf1")}).find("LEAF1.lab.example")
        'leaf1'
    """

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._whole: dict[str, set[str]] = {}
        self._short: dict[str, set[str]] = {}
        for name, host in hosts.items():
            for word in _calls(host):
                self._whole.setdefault(word, set()).add(name)
                self._short.setdefault(word.split(".")[0], set()).add(name)

    def find(self, name: str) -> str:
        """The inventory name of what calls itself `name`; empty for none, or for several."""
        for wanted in dict.fromkeys((name.lower(), name.lower().split(".")[0])):
            for known in (self._whole, self._short):
                found = known.get(wanted, set())
                if found:
                    return next(iter(found)) if len(found) == 1 else ""
        return ""


def _calls(host: Host) -> Iterator[str]:
    names = (host.name, host.hardware, host.node, str(host.vars.get("longname", "")))
    for name in (*names, host.address if re.search("[a-z]", host.address.lower()) else ""):
        if name:
            yield name.lower()
