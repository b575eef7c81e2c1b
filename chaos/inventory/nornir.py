"""Nornir's SimpleInventory: hosts.yaml, with groups.yaml and defaults.yaml beside it.

A group that no file defines is taken as a bare name (Containerlab writes such files; Nornir itself
stops with a KeyError).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.inventory.model import Host, Source
from chaos.inventory.settings import OURS, Raw, host_of
from chaos.inventory.tree import VAULT, At, Page, read_file, shown

WORDS = frozenset(
    ("hostname", "port", "username", "password", "platform", "groups", "data", "connection_options")
)
#: Connections that are SSH, the first that a host has decides.
_SSH = ("ssh", "asyncssh", "paramiko", "netmiko", "scrapli")
#: Nornir's word, and Ansible's for the same.
_AS_ANSIBLE = {
    "hostname": "ansible_host",
    "port": "ansible_port",
    "username": "ansible_user",
    "password": "ansible_password",
    "platform": "ansible_network_os",
}
_KEYS = ("key_file", "ssh_private_key_file", "key_filename", "auth_private_key", "client_keys")


@dataclass(frozen=True, slots=True)
class _Part:
    """A host, a group or the defaults, as written."""

    page: Page
    at: At
    body: Mapping[str, Any]
    groups: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    hosts: Page
    groups: dict[str, _Part] = field(default_factory=dict)
    defaults: _Part | None = None
    unknown: dict[str, None] = field(default_factory=dict)


def read_nornir(
    hosts: Path, roles: Mapping[str, str] | None = None
) -> tuple[list[Host], tuple[str, ...]]:
    """Every host, and warnings.

    Args:
        hosts: The hosts file; `groups` and `defaults` of the same ending are read beside it.
        roles: Role per group name.

    Raises:
        SpecError: not the form of SimpleInventory; with file, line and field.
    """
    reader = _Reader(read_file(hosts))
    groups, defaults = _beside(hosts, "groups"), _beside(hosts, "defaults")
    if groups is not None:
        reader.groups = {name: _part(groups, (name,)) for name in groups.mapping()}
    if defaults is not None:
        reader.defaults = _part(defaults, ())
    found = [_host(reader, name, roles) for name in reader.hosts.mapping()]
    told = [
        f"{hosts}: no file defines the group {name}; it is taken as a bare name"
        for name in reader.unknown
    ]
    return found, tuple(told)


def _beside(hosts: Path, word: str) -> Page | None:
    path = hosts.with_name(word + hosts.suffix)
    if not path.is_file() or not path.read_bytes().strip():
        return None
    return read_file(path)


def _part(page: Page, at: At) -> _Part:
    body = page.mapping(*at)
    for key in body:
        if key not in WORDS:
            raise page.wrong(_unknown(key), *at, key)
    groups = body.get("groups") or []
    if not isinstance(groups, list) or not all(isinstance(one, str) for one in groups):
        message = f"found {shown(groups)}, wanted a list of group names"
        raise page.wrong(message, *at, "groups")
    return _Part(page, at, body, tuple(groups))


def _unknown(key: str) -> str:
    known = ", ".join(sorted(WORDS))
    return f"found the unknown field {key!r}, wanted {known} (free values go under data)"


def _host(reader: _Reader, name: str, roles: Mapping[str, str] | None) -> Host:
    own = _part(reader.hosts, (name,))
    order = _extended(reader, own, ())
    groups = tuple(order)
    parts = [own, *(reader.groups[one] for one in order if one in reader.groups)]
    if reader.defaults is not None:
        parts.append(reader.defaults)
    raw = Raw(name, {}, groups, reader.hosts.source(name))
    values: dict[str, Any] = dict(_data(parts))
    places: dict[str, Source] = {}
    for part in parts:
        if OURS in (part.body.get("data") or {}):
            places.setdefault(OURS, part.page.source(*part.at, "data", OURS))
    for word, known in _AS_ANSIBLE.items():
        giver = next((one for one in parts if one.body.get(word) is not None), None)
        if giver is not None:
            values[known] = VAULT if word == "password" else giver.body[word]
            places[known] = giver.page.source(*giver.at, word)
    values, places, connection = _connection(parts, values, places)
    raw = replace(raw, vars=values, places=places)
    if values.get("ansible_host") is None and "ansible_host" not in places:
        for part in parts:
            if "hostname" in part.body:  # given, and empty
                raise part.page.wrong("found no address, wanted one", *part.at, "hostname")
    return replace(host_of(raw, roles), connection=connection)


def _extended(reader: _Reader, part: _Part, above: tuple[str, ...]) -> dict[str, None]:
    """Groups in the order in which Nornir asks them."""
    found: dict[str, None] = {}
    for name in part.groups:
        if name in above:
            circle = " under ".join((name, *reversed(above)))
            message = f"found the group {circle}; groups must not go in a circle"
            raise part.page.wrong(message, *part.at, "groups")
        found.setdefault(name)
        if name in reader.groups:
            for inner in _extended(reader, reader.groups[name], (*above, name)):
                found.setdefault(inner)
        else:
            reader.unknown.setdefault(name)
    return found


def _data(parts: list[_Part]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in reversed(parts):
        found |= part.page.mapping(*part.at, "data") if part.body.get("data") else {}
    return found


def _connection(
    parts: list[_Part], values: dict[str, Any], places: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What the host's SSH connection says beyond its own words; that wins, as in Nornir."""
    options = [_options(part) for part in parts]
    kind = next((one for one in _SSH if any(one in each for each in options)), "")
    for part, each in reversed([*zip(parts, options, strict=True)]):
        if kind not in each:
            continue
        at = (*part.at, "connection_options", kind)
        body = part.page.mapping(*at)
        for word, known in _AS_ANSIBLE.items():
            if body.get(word) is not None:
                values[known] = VAULT if word == "password" else body[word]
                places[known] = part.page.source(*at, word)
        extras = part.page.mapping(*at, "extras") if body.get("extras") else {}
        for key in _KEYS:
            if isinstance(extras.get(key), str):
                values["ansible_ssh_private_key_file"] = extras[key]
                places["ansible_ssh_private_key_file"] = part.page.source(*at, "extras", key)
    return values, places, kind


def _options(part: _Part) -> dict[str, Any]:
    return part.page.mapping(*part.at, "connection_options") if _has(part) else {}


def _has(part: _Part) -> bool:
    return bool(part.body.get("connection_options"))
