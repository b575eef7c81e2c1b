"""`*.clab.yml` → `Fabric`, as Containerlab reads it; pure, but for reading the named files."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link, Node, Port
from chaos.shipped import fabric_names, fabric_path

_VAR = re.compile(r"\$\{(\w+)(?::?[-=]([^}]*))?\}")


def load(name: str, *, environ: Mapping[str, str] | None = None) -> Fabric:
    """The fabric of a topology file, or of a shipped fabric named `name`."""
    path = fabric_path(name) or Path(name)
    if not path.is_file():
        raise SpecError(f"no topology file {name!r}; {near(name, fabric_names())}")
    env = os.environ if environ is None else environ
    text = _VAR.sub(lambda m: env.get(m[1]) or m[2] or f"${m[1]}", path.read_text())
    data = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - text only
    topology = data["topology"]
    nodes = {n: _node(n, body or {}, topology, path) for n, body in topology["nodes"].items()}
    links = tuple(_link(item) for item in topology.get("links") or ())
    return Fabric(data["name"], nodes, links, str(path), data.get("prefix", "clab"))


def _node(name: str, body: dict[str, Any], topology: dict[str, Any], path: Path) -> Node:
    defaults = topology.get("defaults") or {}
    group = body.get("group") or defaults.get("group") or ""
    in_group = (topology.get("groups") or {}).get(group) or {}
    kind = body.get("kind") or in_group.get("kind") or defaults.get("kind") or ""
    in_kind = (topology.get("kinds") or {}).get(kind) or {}
    settings: dict[str, Any] = {}
    for level in (defaults, in_kind, in_group, body):
        for key, value in level.items():
            if isinstance(value, list):
                settings[key] = [*settings.get(key, []), *value]
            elif isinstance(value, dict):
                settings[key] = {**settings.get(key, {}), **value}
            else:
                settings[key] = value
    binds = []
    for bind in settings.get("binds", ()):
        source, rest = bind.replace("__clabNodeName__", name).split(":", 1)
        binds.append(f"{(path.resolve().parent / source)}:{rest}")
    settings["binds"] = binds
    labels = settings.get("labels", {})
    addresses: dict[str, list[str]] = {}
    for line in settings.get("exec", ()):
        words = shlex.split(line)
        if words[:3] == ["ip", "addr", "add"] and words[4:5] == ["dev"]:
            addresses.setdefault(words[5], []).append(str(ipaddress.ip_interface(words[3])))
    role = labels.get("role") or group or re.sub(r"[\d-].*$", "", name)
    runs = (
        "bridge" if kind == "bridge" else "frr" if "frr" in settings.get("image", "") else "shell"
    )
    ports = {port: tuple(found) for port, found in addresses.items()}
    return Node(name, kind, role, runs, group, labels, ports, settings)


def _link(item: dict[str, Any]) -> Link:
    ends = sorted(Port(*end.split(":", 1)) for end in item["endpoints"])
    labels = item.get("labels", {})
    return Link(ends[0], ends[1], int(item.get("mtu", 9500)), labels=labels)
