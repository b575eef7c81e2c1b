"""From a path to an inventory: the form is told by the content, not by the name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.errors import SpecError, near
from chaos.inventory.ansible import from_list, needs_tool, read_ansible
from chaos.inventory.evidence import gather
from chaos.inventory.labdata import NAME, read_lab
from chaos.inventory.links import read_links, with_nodes
from chaos.inventory.lldp import Neighbour
from chaos.inventory.merge import discovered, merge
from chaos.inventory.model import Host, Inventory
from chaos.inventory.nornir import WORDS, read_nornir
from chaos.inventory.record import KEY, from_json
from chaos.inventory.settings import host_of
from chaos.inventory.ssh_words import read_ssh_words
from chaos.inventory.tree import Page, read_file, shown

FORMS = ("ansible", "ansible-list", "nornir", "containerlab", "railbreak")
_GROUP = ("hosts", "children", "vars")
_NORNIR_FILES = ("hosts.yaml", "hosts.yml")


def load(
    path: Path,
    links: Iterable[Path] = (),
    *,
    form: str = "",
    roles: Mapping[str, str] | None = None,
    named: Mapping[str, str] | None = None,
    heard: Mapping[str, Iterable[Neighbour]] | None = None,
    tool: str | None = None,
) -> Inventory:
    """An inventory with the cables of its link files.

    Args:
        path: Ansible inventory (or the saved output of `ansible-inventory --list`), Nornir hosts
            file, Containerlab's topology-data.json, JSON of `to_json`, or a folder with one.
        links: Twins (`*.clab.yml`) and tables, in order.
        form: One of `FORMS`, where the content could be two.
        roles: Role per group name, before the words that are known.
        named: Inventory host per name in the link files.
        heard: LLDP as a further source of cables.
        tool: Path of `ansible-inventory`; None looks on PATH, the empty text does without.

    Raises:
        SpecError: something is wrong in a file, or two files contradict each other.
    """
    path = within(path)
    form = form or form_of(path)
    if form not in FORMS:
        raise SpecError(f"found the form {form!r}; {near(form, FORMS)}")
    found = _ssh_words_told(_secrets_told(_read(path, form, roles, tool)))
    _check(found, roles)
    cables, warnings, name = [found.cables], list(found.warnings), found.name
    hosts = dict(found.hosts)
    for file in links:
        drawn = read_links(file, found.hosts, named or {})
        hosts = with_nodes(hosts, drawn)
        cables.append(drawn.cables)
        warnings += drawn.warnings
        name = drawn.name or name
    if heard:
        told, more = discovered(gather(hosts, heard, merge(*cables)))
        cables.append(told)
        warnings += more
    return replace(found, name=name, hosts=hosts, cables=merge(*cables), warnings=tuple(warnings))


def within(path: Path) -> Path:
    """The file in a folder that the inventory begins with; a file is itself."""
    if not path.exists():
        raise SpecError("there is no such file", file=str(path))
    if not path.is_dir():
        return path
    if (path / NAME).is_file():
        return path / NAME
    for name in _NORNIR_FILES:
        others = [path / f"{word}{Path(name).suffix}" for word in ("groups", "defaults")]
        if (path / name).is_file() and any(other.is_file() for other in others):
            return path / name
    return path


def form_of(path: Path) -> str:
    """The form of an inventory.

    Raises:
        SpecError: none of ours.
    """
    if path.name == NAME:
        return "containerlab"
    if path.is_dir() or needs_tool(path):
        return "ansible"
    return _form(read_file(path))


def _form(page: Page) -> str:
    value = page.value
    if not isinstance(value, dict):
        raise page.wrong(f"found {shown(value)}, wanted an inventory")
    if KEY in value:
        return "railbreak"
    if "_meta" in value:
        return "ansible-list"
    if "nodes" in value and value.get("type") == "clab":
        return "containerlab"
    if "topology" in value:
        message = "found a topology, wanted an inventory of hosts"
        raise page.wrong(f"{message}; give it as --links FILE", "topology")
    bodies = [body for body in value.values() if isinstance(body, dict)]
    groups = "all" in value or value.get("plugin") or _any(bodies, _GROUP)
    hosts = _any(bodies, WORDS)
    if groups and not hosts:
        return "ansible"
    if hosts and not groups:
        return "nornir"
    what = "words of both Ansible and Nornir" if hosts else "no word of any inventory"
    message = f"found {what}, wanted groups with hosts, children, vars (Ansible), or hosts with"
    raise page.wrong(f"{message} hostname, groups, platform (Nornir); or name the form")


def _any(bodies: list[dict[str, Any]], words: Iterable[str]) -> bool:
    return any(word in body for body in bodies for word in words)


def _read(path: Path, form: str, roles: Mapping[str, str] | None, tool: str | None) -> Inventory:
    if form == "containerlab":
        return read_lab(path, roles)
    if form == "railbreak":
        return from_json(read_file(path))
    if form == "nornir":
        hosts, warnings = read_nornir(path, roles)
    else:
        if form == "ansible-list":
            raws, warnings = from_list((read_file(path), ()))
        else:
            raws, warnings = read_ansible(path, tool)
        hosts = [host_of(raw, roles) for raw in raws]
    name = path.name.removesuffix(path.suffix)
    return Inventory(name, {host.name: host for host in hosts}, (), tuple(warnings), str(path))


def _check(found: Inventory, roles: Mapping[str, str] | None) -> None:
    if not found.hosts:
        raise SpecError("found no host, wanted at least one", file=found.source)
    groups = {group for host in found.hosts.values() for group in host.groups}
    for group in roles or {}:
        if group not in groups:
            message = f"found a role for the group {group!r}, which has no host"
            raise SpecError(f"{message}; {near(group, groups)}", file=found.source)
    seen: dict[tuple[Any, ...], Host] = {}
    for host in found.hosts.values():
        key = (host.address.lower(), host.port, host.ssh_args)
        first = seen.setdefault(key, host)
        if host.address and first is not host:
            shown_port = f" port {host.port}" if host.port else ""
            message = f"found the address {host.address}{shown_port}, but {first.source} gives it"
            raise host.source.wrong(
                f"{message} to {first.name}; one machine is one host", f"{host.name}.address"
            )


def _secrets_told(found: Inventory) -> Inventory:
    """The inventory with one warning about the secrets that were not read."""
    names = {host.name: host.secrets for host in found.hosts.values() if host.secrets}
    if not names:
        return found
    kinds = ", ".join(dict.fromkeys(one for each in names.values() for one in each))
    hosts = ", ".join([*names][:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    message = f"{found.source}: {kinds} of {hosts} are not used; keys, the agent and ssh_config are"
    if any(found.hosts[name].platform.lower() not in ("", "linux", "host") for name in names):
        message += ", and for a switch the environment (RAILBREAK_SWITCH_PASSWORD)"
    return replace(found, warnings=(*found.warnings, message))


def _ssh_words_told(found: Inventory) -> Inventory:
    """The inventory with a warning per word of ssh that is not followed."""
    told: dict[str, list[str]] = {}
    for host in found.hosts.values():
        for word in read_ssh_words(host.ssh_args).ignored:
            told.setdefault(word, []).append(host.name)
    more = tuple(
        f"{found.source}: {word} of {names[0]}"
        + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        + " is not followed"
        + ("; host keys are checked" if "hostkey" in word.lower() else "; use ssh_config")
        for word, names in told.items()
    )
    return replace(found, warnings=(*found.warnings, *more))
