"""Cables from files: a twin `*.clab.yml`, or a table with the columns of sonic-mgmt."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.errors import SpecError, near
from chaos.fabric import Port
from chaos.inventory.model import Cable, Host, Source
from chaos.inventory.roles import role_of
from chaos.inventory.tree import read_file, shown
from chaos.topology.links import resolve_links
from chaos.topology.text import read_config, read_text

#: Columns that a table must have, and those whose meaning is known.
NEEDED = ("StartDevice", "StartPort", "EndDevice", "EndPort")
SPEED = "BandWidth"
#: The word for "this node of the twin is no host of the inventory, and nobody logs in to it".
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a file of links says, in the inventory's own names.

    Attributes:
        name: Name of the fabric; empty for a table.
        cables: In file order.
        nodes: Name in the fabric per inventory host.
        strangers: Nodes that nobody logs in to.
        warnings: What is no cable.
    """

    name: str = ""
    cables: tuple[Cable, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)
    strangers: Mapping[str, Host] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_links(path: Path, hosts: Mapping[str, Host], named: Mapping[str, str]) -> Drawn:
    """A twin or a table, by content.

    Args:
        path: The file.
        hosts: The inventory's hosts.
        named: Inventory host per name in the file, before any other rule; `none` for nobody.

    Raises:
        SpecError: a name that is no host, a port used twice, a missing column, …; with the line.
    """
    if path.suffix in (".yml", ".yaml") and "topology:" in read_text(path):
        return _Twin(path, hosts, named).read()
    if path.suffix in (".yml", ".yaml", ".json"):
        message = "found no topology in it, wanted a *.clab.yml or a table"
        raise SpecError(f"{message} with {', '.join(NEEDED)}", file=str(path))
    return _table(path, _Names(hosts, named))


def read_names(path: Path) -> dict[str, str]:
    """A mapping file: one `name in the link files: inventory host` per line.

    Raises:
        SpecError: something else than a mapping of text to text.
    """
    page = read_file(path)
    found = page.mapping()
    for name, host in found.items():
        if not isinstance(host, str) or not host:
            wanted = f"wanted the inventory host that {name} is, or {NOBODY}"
            raise page.wrong(f"found {shown(host)}, {wanted}", name)
    return found


class _Names:
    """Names of a link file → inventory hosts."""

    def __init__(self, hosts: Mapping[str, Host], named: Mapping[str, str]) -> None:
        self.hosts, self.named = hosts, named
        self.hardware = {host.hardware: name for name, host in hosts.items() if host.hardware}

    def find(self, name: str, source: Source, field: str, label: str = "") -> str:
        """The inventory host of a name; empty where nobody logs in to it."""
        wanted = self.named.get(name, label or name)
        if wanted == NOBODY:
            return ""
        if wanted in self.hosts:
            return wanted
        if wanted in self.hardware:
            return self.hardware[wanted]
        said = f"{name!r}" if wanted == name else f"{wanted!r} (for {name})"
        cure = f"give it a label hw-host, or {name}: HOST in a mapping file"
        known = near(wanted, {*self.hosts, *self.hardware})
        raise source.wrong(
            f"found {said}, which is no host of the inventory; {known}; {cure}", field
        )


class _Twin:
    def __init__(self, path: Path, hosts: Mapping[str, Host], named: Mapping[str, str]) -> None:
        self.config, self.source = read_config(path, os.environ)
        self.names, self.path = _Names(hosts, named), path
        self.hosts = hosts

    def place(self, *at: str | int) -> Source:
        """Where a field stands."""
        error = self.source.error(at, "")
        return Source(str(self.path), error.line or 0)

    def read(self) -> Drawn:
        topology = self.config.get("topology") or {}
        bodies = topology.get("nodes") or {}
        own: dict[str, str] = {}
        strangers: dict[str, Host] = {}
        taken: dict[str, str] = {}
        for node, body in bodies.items():
            labels = (body or {}).get("labels") or {}
            label = labels.get("hw-host", "")
            place = self.place("topology", "nodes", node)
            host = self.names.find(node, place, f"topology.nodes.{node}", label)
            own[node] = host or node
            if not host:
                role = labels.get("role") or role_of(node, (), "")
                strangers[node] = Host(node, node, role=role, source=place)
            elif host in taken:
                message = f"found {node} for the host {host}, which {taken[host]} is already"
                raise place.wrong(message, f"topology.nodes.{node}")
            taken[own[node]] = node
        links = resolve_links(topology.get("links") or [], bodies, self.source)
        cables, warnings = [], []
        for link in links:
            at = link.path
            source = self.place(*at)
            ends = [end for end in link.endpoints if end.node in bodies]
            if len(ends) != 2 or link.written not in ("brief", "veth", "veth-stitch"):
                warnings.append(f"{source}: a {link.written} link is no cable; left out")
                continue
            ports = [self.port(own[end.node], end.interface) for end in ends]
            speed = _speed(link.vars.get("speed"), source, f"links[{link.index}].vars.speed")
            free = {key: one for key, one in link.vars.items() if key != "speed"}
            macs = (ends[0].mac, ends[1].mac)
            cables.append(
                Cable.between(
                    ports[0], ports[1], macs, speed_mbps=speed, vars=free, sources=(source,)
                )
            )
        _once(cables, "topology.links")
        nodes = {host: node for node, host in own.items() if node not in strangers}
        name = str(self.config.get("name") or "")
        return Drawn(name, tuple(cables), nodes, strangers, tuple(warnings))

    def port(self, host: str, interface: str) -> Port:
        known = self.hosts.get(host)
        return Port(host, known.interface(interface) if known else interface)


def _speed(value: Any, source: Source, field: str) -> int:
    """Mbit/s; sonic-mgmt writes whole Mbit/s."""
    text = str(value if value is not None else "").strip()
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000_000:
        raise source.wrong(f"found {text!r}, wanted whole Mbit/s such as 100000", field)
    return int(text)


def _once(cables: list[Cable], field: str) -> None:
    """Refuse a port that stands in two cables of one file."""
    seen: dict[Port, Cable] = {}
    for cable in cables:
        if cable.a == cable.b:
            raise cable.sources[0].wrong(f"found a cable from {cable.a} to itself", field)
        for port in cable.ends:
            if port in seen:
                first = seen[port]
                message = f"found the port {port} again, first in line {first.sources[0].line}"
                raise cable.sources[0].wrong(f"{message} ({first}); a port has one cable", field)
            seen[port] = cable


def _table(path: Path, names: _Names) -> Drawn:
    cables: list[Cable] = []
    strangers: dict[str, Host] = {}
    for source, row in _rows(path):
        ends = []
        for device, port in (NEEDED[:2], NEEDED[2:]):
            for column in (device, port):
                if not row[column]:
                    raise source.wrong(f"found nothing in {column}, wanted a name", column)
            host = names.find(row[device], source, device)
            if not host:
                host = row[device]
                role = role_of(host, (), "")
                strangers.setdefault(host, Host(host, host, role=role, source=source))
            known = names.hosts.get(host)
            ends.append(Port(host, known.interface(row[port]) if known else row[port]))
        free = {key: one for key, one in row.items() if key not in (*NEEDED, SPEED) and one}
        speed = _speed(row.get(SPEED), source, SPEED)
        cables.append(
            Cable.between(ends[0], ends[1], speed_mbps=speed, vars=free, sources=(source,))
        )
    _once(cables, "StartPort, EndPort")
    return Drawn("", tuple(cables), {}, strangers)


def _rows(path: Path) -> Iterator[tuple[Source, dict[str, str]]]:
    """Every row with its line, blanks around the texts taken off; empty and `#` rows left out."""
    text = read_text(path).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    before = 0
    try:
        for row in reader:
            source, before = Source(str(path), before + 1), reader.line_num
            texts = [one.strip() for one in row]
            if not any(texts) or texts[0].startswith("#"):
                continue
            if not columns:
                columns = _columns(texts, source)
            elif len(texts) != len(columns):
                message = f"found {len(texts)} fields, wanted {len(columns)} as in the heading"
                raise source.wrong(message)
            else:
                yield source, dict(zip(columns, texts, strict=True))
    except csv.Error as error:
        raise SpecError(f"found no table: {error}", file=str(path), line=reader.line_num) from None
    if not columns:
        message = f"found an empty file, wanted a heading with {', '.join(NEEDED)}"
        raise SpecError(message, file=str(path), line=1)


def _columns(texts: list[str], source: Source) -> list[str]:
    known = {name.lower(): name for name in (*NEEDED, SPEED)}
    columns = [known.get(text.lower(), text) for text in texts]
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        found = ", ".join(texts)
        raise source.wrong(f"found the columns {found}, wanted {', '.join(missing)} as well")
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise source.wrong(f"found the column {twice!r} twice, wanted it once")
    return columns


def with_nodes(hosts: Mapping[str, Host], drawn: Drawn) -> dict[str, Host]:
    """The hosts under the names of a twin, strangers added."""
    found = {
        name: replace(host, node=drawn.nodes.get(name, host.node)) for name, host in hosts.items()
    }
    return {**found, **{name: one for name, one in drawn.strangers.items() if name not in found}}
