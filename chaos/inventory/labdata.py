"""Containerlab's `topology-data.json`, with the Ansible inventory that lies beside it.

The file is right only after a first deploy: while a deploy runs, and after an interrupted one, it
has 0 bytes; a deploy of a lab that is already up writes empty addresses and invented MACs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.fabric import Port
from chaos.inventory.ansible_plain import read_plain
from chaos.inventory.model import Cable, Host, Inventory
from chaos.inventory.roles import role_of
from chaos.inventory.settings import host_of
from chaos.inventory.tree import Page, parse_json, shown
from chaos.topology.lab import WITHOUT_CONTAINER
from chaos.topology.text import read_text

NAME = "topology-data.json"
_BESIDE = "ansible-inventory.yml"
_AGAIN = "destroy the lab and deploy it once, or attach to the running lab by its name"
#: Kinds that are plain Linux, whatever they are called.
_LINUX = frozenset({"linux", "frr"})


def read_lab(path: Path, roles: Mapping[str, str] | None = None) -> Inventory:
    """The hosts and cables of a deployed lab.

    Raises:
        SpecError: empty, no lab's file, or written by something else than a first deploy.
    """
    text = read_text(path)
    if not text.strip():
        message = "found 0 bytes: a deploy is running, or was interrupted; wait, or destroy the lab"
        raise SpecError(f"{message} and deploy it again", file=str(path))
    page = parse_json(text.removeprefix("\ufeff"), str(path))
    if not isinstance(page.value, dict) or "nodes" not in page.value:
        raise page.wrong(f"found {shown(page.value)}, wanted the name, nodes and links of a lab")
    name = page.value.get("name") or path.parent.name
    nodes = {key: page.mapping("nodes", key) for key in page.mapping("nodes")}
    hosts = {
        key: _host(page, key, body, roles)
        for key, body in nodes.items()
        if body.get("kind") not in WITHOUT_CONTAINER
    }
    hosts, warnings = _merged(path.parent / _BESIDE, nodes, hosts)
    cables: list[Cable] = []
    for at, link in enumerate(page.value.get("links") or []):
        cable, left_out = _cable(page, at, link, hosts)
        cables += [cable] if cable else []
        warnings += [left_out] if left_out else []
    return Inventory(str(name), hosts, tuple(cables), tuple(warnings), str(path))


def _host(page: Page, name: str, body: dict[str, Any], roles: Mapping[str, str] | None) -> Host:
    address = body.get("mgmt-ipv4-address") or body.get("mgmt-ipv6-address") or ""
    if not isinstance(address, str) or address in ("", "N/A"):
        message = (
            "found no management address: the node has none, or the file was written by a second "
            f"deploy, which empties it; {_AGAIN}"
        )
        raise page.wrong(message, "nodes", name, "mgmt-ipv4-address")
    kind, labels = str(body.get("kind") or "linux"), body.get("labels") or {}
    platform = "" if kind in _LINUX else kind
    groups = tuple(one for one in (body.get("group"), kind) if one)
    role = str(labels.get("role") or "").strip() or role_of(name, groups, platform, roles)
    own = {key: one for key, one in labels.items() if not key.startswith("clab-")}
    own.pop("containerlab", None)
    rail = str(labels.get("rail") or "")
    return Host(
        name=name,
        node=name,
        address=address,
        platform=platform,
        groups=groups,
        role=role,
        rail=rail,
        vars={"labels": own, "longname": body.get("longname") or name},
        source=page.source("nodes", name),
    )


def _merged(
    path: Path, nodes: Mapping[str, dict[str, Any]], hosts: dict[str, Host]
) -> tuple[dict[str, Host], list[str]]:
    """The hosts with what the Ansible inventory beside says of how to log in."""
    if not path.is_file():
        return hosts, [f"{path}: not there; logins are left to ssh_config"]
    if not read_text(path).strip():
        raise SpecError(f"found 0 bytes: a deploy was interrupted; {_AGAIN}", file=str(path))
    plain, found = read_plain(path), dict(hosts)
    for name, host in hosts.items():
        raw = plain.hosts.get(str(nodes[name].get("longname") or name))
        if raw is None:
            continue
        other = host_of(raw)
        if other.address not in (host.address, str(nodes[name].get("mgmt-ipv6-address"))):
            message = f"found the address {other.address}, but {host.source} says {host.address}"
            raise raw.wrong(f"{message} for {name}; {_AGAIN}", "ansible_host")
        taken = ("port", "user", "key_file", "ssh_args", "connection", "python", "secrets")
        more = {field: getattr(other, field) for field in taken}
        more |= {one: getattr(other, one) for one in ("become", "become_user", "become_method")}
        platform = other.platform or host.platform
        found[name] = replace(host, **more, platform=platform)
    return found, list(plain.warnings)


def _cable(page: Page, at: int, link: Any, hosts: Mapping[str, Host]) -> tuple[Cable | None, str]:
    """A cable, or why it is none. Before 0.71 both ends lay one level higher."""
    ends = link.get("endpoints", link) if isinstance(link, dict) else None
    if not isinstance(ends, dict) or not isinstance(ends.get("a"), dict):
        raise page.wrong("found no end `a`, wanted ends a and z", "links", at)
    both = [ends["a"], ends.get("z") or {}]
    ports = [Port(str(end.get("node") or ""), str(end.get("interface") or "")) for end in both]
    if not all(port.node in hosts and port.name for port in ports):
        shown_ends = " and ".join(str(port) for port in ports if port.node) or "nothing"
        return None, f"{page.file}: links[{at}] ({shown_ends}) is no cable between two nodes"
    macs = (str(both[0].get("mac") or ""), str(both[1].get("mac") or ""))
    free = link.get("vars") or {}
    source = page.source("links", at)
    return Cable.between(ports[0], ports[1], macs, vars=dict(free), sources=(source,)), ""
