"""Our own reader of Ansible's plain YAML inventory: all, hosts, children, vars; no Jinja.

It gives what `ansible-inventory --list` gives, group_vars and host_vars beside the file included,
and it knows the line of everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.inventory.model import Source
from chaos.inventory.patterns import expand, split_port
from chaos.inventory.settings import USED, Raw, is_secret
from chaos.inventory.tree import At, Page, read_file, shown
from chaos.topology.text import read_text

_SECTIONS = ("hosts", "children", "vars")
_VAULTED = "$ANSIBLE_VAULT"


@dataclass(slots=True)
class _Group:
    name: str
    source: Source
    parents: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    hosts: dict[str, None] = field(default_factory=dict)
    vars: dict[str, tuple[Any, Source]] = field(default_factory=dict)
    priority: int = 1
    depth: int = 0


@dataclass(slots=True)
class _Host:
    source: Source
    vars: dict[str, tuple[Any, Source]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plain:
    """What the file says.

    Attributes:
        hosts: By name, in file order.
        conflicts: What Ansible would decide silently: a used variable given to one host twice.
        warnings: What Ansible skips.
        groups: Every group's name.
    """

    hosts: Mapping[str, Raw]
    conflicts: tuple[SpecError, ...]
    warnings: tuple[str, ...]
    groups: tuple[str, ...]


def read_plain(path: Path) -> Plain:
    """Read one YAML inventory file, and the group_vars and host_vars folders beside it.

    Raises:
        SpecError: no YAML, or not the plain form; with file, line and field.
    """
    return _Reader(read_file(path), path).read()


class _Reader:
    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.path = page, path
        self.groups = {"all": _Group("all", Source(page.file, 1))}
        self.groups["ungrouped"] = _Group("ungrouped", Source(page.file, 1))
        self.hosts: dict[str, _Host] = {}
        self.conflicts: list[SpecError] = []
        self.warnings: list[str] = []

    def read(self) -> Plain:
        value = self.page.value
        if not isinstance(value, dict):
            raise self.page.wrong(f"found {shown(value)}, wanted a mapping of groups")
        if value.get("plugin"):
            message = f"found the inventory plugin {value['plugin']!r}, which needs Ansible itself"
            raise self.page.wrong(f"{message}; install ansible-core", "plugin")
        for name in value:
            self.group(name, (name,))
        for group in self.groups.values():
            if group.name != "all" and not group.parents:
                self.child("all", group.name, (group.name,))
        self.depths()
        for name in self.groups.keys() & self.hosts.keys():
            self.warnings.append(f"{self.hosts[name].source}: {name} is both a group and a host")
        raws = {name: self.raw(name, host) for name, host in self.hosts.items()}
        return Plain(raws, tuple(self.conflicts), tuple(self.warnings), tuple(self.groups))

    def group(self, name: str, at: At) -> None:
        body = self.page.value
        for part in at:
            body = body[part]
        if not isinstance(body, dict | None):
            if len(at) > 1:
                raise self.page.wrong(f"found {shown(body)}, wanted a group", *at)
            self.skip(f"{name} is no group: {shown(body)}", at)
            return
        group = self.groups.setdefault(name, _Group(name, self.page.source(*at)))
        for section, inner in (body or {}).items():
            place = (*at, section)
            if section in _SECTIONS and isinstance(inner, str):
                inner = {inner: None}
            if section in _SECTIONS and not isinstance(inner, dict | None):
                wanted = f"wanted a mapping (write `{section}:` and `NAME:` under it)"
                raise self.page.wrong(f"found {shown(inner)}, {wanted}", *place)
            if section not in _SECTIONS or inner is None:
                if inner is not None:
                    self.skip("only hosts, children and vars are read in a group", place)
                continue
            self.section(group, section, inner, place)

    def section(self, group: _Group, section: str, body: dict[str, Any], at: At) -> None:
        for name, value in body.items():
            place = (*at, name)
            if section == "vars":
                self.group_var(group, name, value, place)
            elif section == "hosts":
                self.host(group, name, value, place)
            elif place in self.page.lines:
                self.group(name, place)
                self.child(group.name, name, place)
            else:  # `children: NAME`
                self.groups.setdefault(name, _Group(name, self.page.source(*place)))
                self.child(group.name, name, place)

    def group_var(self, group: _Group, name: str, value: Any, at: At) -> None:
        if name == "ansible_group_priority":
            if not isinstance(value, int) or isinstance(value, bool):
                raise self.page.wrong(f"found {shown(value)}, wanted a whole number", *at)
            group.priority = value
            return
        group.vars[name] = value, self.page.source(*at)

    def host(self, group: _Group, pattern: str, body: Any, at: At) -> None:
        if not isinstance(body, dict | None):
            raise self.page.wrong(f"found {shown(body)}, wanted variables of {pattern}", *at)
        if isinstance(self.page.value, dict) and not pattern.strip():
            raise self.page.wrong("found an empty host name", *at)
        names, port = split_port(pattern)
        try:
            every = expand(names)
        except SpecError as error:
            raise self.page.wrong(error.reason, *at) from None
        source = self.page.source(*at)
        for name in every:
            host = self.hosts.get(name)
            if host is None:
                host = self.hosts[name] = _Host(source)
                if port is not None:
                    host.vars["ansible_port"] = port, source
            group.hosts[name] = None
            for key, value in (body or {}).items():
                self.host_var(name, host, key, value, (*at, key))

    def host_var(self, name: str, host: _Host, key: str, value: Any, at: At) -> None:
        source = self.page.source(*at)
        if key in host.vars and key in USED and host.vars[key][0] != value:
            before, first = host.vars[key]
            said = f"found {shown(value)}" if not is_secret(key) else "found another value"
            message = f"{said}, but {first} gives {name} {shown(before)}; write it once"
            self.conflicts.append(source.wrong(message, f"{name}.{key}"))
        host.vars[key] = value, source

    def child(self, parent: str, name: str, at: At) -> None:
        if parent == name or parent in self.below(name):
            message = f"found the group {name} under {parent}, which is itself under {name}"
            if parent == name:
                message = f"found the group {name} under itself"
            raise self.page.wrong(f"{message}; groups must not go in a circle", *at)
        self.groups[parent].children[name] = None
        self.groups[name].parents[parent] = None

    def below(self, name: str) -> set[str]:
        found: set[str] = set()
        left = [name]
        while left:
            for child in self.groups[left.pop()].children:
                if child not in found:
                    found.add(child)
                    left.append(child)
        return found

    def depths(self) -> None:
        left = ["all"]
        while left:  # ends, as there is no circle
            group = self.groups[left.pop()]
            for child in group.children:
                if self.groups[child].depth <= group.depth:
                    self.groups[child].depth = group.depth + 1
                    left.append(child)

    def skip(self, message: str, at: At) -> None:
        self.warnings.append(f"{self.page.source(*at)}: left out: {message}")

    # ---- what applies to a host ------------------------------------------------------------------

    def raw(self, name: str, host: _Host) -> Raw:
        groups = self.groups_of(name)
        values: dict[str, tuple[Any, Source]] = {}
        for group in groups:
            values |= group.vars
        for group in groups:
            values |= self.beside("group_vars", group.name)
        values |= host.vars
        values |= self.beside("host_vars", name)
        nearest = tuple(group.name for group in reversed(groups) if group.name != "all")
        return Raw(
            name,
            {key: value for key, (value, _) in values.items()},
            nearest,
            host.source,
            {key: source for key, (_, source) in values.items()},
        )

    def groups_of(self, name: str) -> list[_Group]:
        """Every group of a host in the order in which variables are put over each other."""
        direct = [group for group in self.groups.values() if name in group.hosts]
        if all(group.name in ("all", "ungrouped") for group in direct):
            direct = [self.groups["ungrouped"]]
        else:
            direct = [group for group in direct if group.name != "ungrouped"]
        found = {group.name: group for group in direct}
        left = direct
        while left:
            left = [self.groups[one] for group in left for one in group.parents if one not in found]
            found |= {group.name: group for group in left}
        found["all"] = self.groups["all"]
        return sorted(found.values(), key=lambda one: (one.depth, one.priority, one.name))

    def beside(self, folder: str, name: str) -> dict[str, tuple[Any, Source]]:
        found: dict[str, tuple[Any, Source]] = {}
        for path in _files(self.path.parent / folder, name):
            if not (text := read_text(path)).strip():
                continue
            if text.startswith(_VAULTED):
                message = "found a file that ansible-vault has encrypted; install ansible-core"
                raise SpecError(f"{message}, or give its values in the open", file=str(path))
            page = read_file(path)
            found |= {key: (page.value[key], page.source(key)) for key in page.mapping()}
        return found


def _files(folder: Path, name: str) -> Iterator[Path]:
    """What Ansible would load for a name: a file, or every file in a folder of that name."""
    if name.startswith("/") or not folder.is_dir():
        return
    for ending in ("", ".yml", ".yaml", ".json"):
        path = folder / f"{name}{ending}"
        if path.is_dir() and not ending:
            yield from _inside(path)
            return
        if path.is_file():
            yield path
            return


def _inside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir():
            yield from _inside(path)
        elif path.suffix in ("", ".yml", ".yaml", ".json"):
            yield path
