"""`to_fabric`: the resolved lab → railbreak's nodes, roles, links and addresses."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chaos.fabric import Fabric, Link, Node, Port
from chaos.topology.compat import is_installer
from chaos.topology.lab import Lab, LabLink, LabNode

#: words for a role at the start of a name or as a group, and the role they stand for
_ROLE_WORDS = {
    **{word: word for word in ("superspine", "spine", "leaf", "host", "router", "switch")},
    **dict.fromkeys(("tor", "tor-switch"), "leaf"),
    **dict.fromkeys(("gpu", "server", "srv", "client", "pc", "worker", "compute"), "host"),
    **dict.fromkeys(("core", "border", "edge", "rtr"), "router"),
    "sw": "switch",
}
_LONGEST_FIRST = sorted(_ROLE_WORDS, key=len, reverse=True)
_STARTS_FRR = re.compile(r"frr|watchfrr|zebra")


def to_fabric(lab: Lab) -> Fabric:
    """The fabric of a lab: its nodes, and the links between two of them.

    Links into the machine and links that Containerlab alone can make are left out; whether they
    matter is `Lab.refusals`.
    """
    counts = _interfaces(lab)
    nodes = {name: _node(node, counts.get(name, 0)) for name, node in lab.nodes.items()}
    links = tuple(_links(lab))
    return Fabric(lab.name, nodes, links, lab.source.file, lab.prefix)


def _interfaces(lab: Lab) -> dict[str, int]:
    counts: dict[str, int] = {}
    for link in lab.links:
        for end in link.endpoints:
            counts[end.node] = counts.get(end.node, 0) + 1
    return counts


def _node(node: LabNode, interfaces: int) -> Node:
    own = ("containerlab", "clab-")
    labels = {k: v for k, v in node.fields.get("labels", {}).items() if not k.startswith(own)}
    settings = _settings(node, interfaces)
    return Node(
        node.name,
        node.kind,
        role_of(node, labels),
        runs_as(node),
        node.group,
        labels,
        addresses_in(settings.get("exec", ())),
        settings,
    )


def _settings(node: LabNode, interfaces: int) -> dict[str, Any]:
    """The resolved fields for a driver; binds with absolute sources, exec without installers."""
    left_out = ("binds-resolved", "volumes-resolved", "port-bindings", "labels")
    found = {key: value for key, value in node.fields.items() if key not in left_out}
    found["binds"] = list(node.fields.get("binds-resolved", ()))
    found["env"] = {**node.fields.get("env", {}), "CLAB_INTFS": str(interfaces)}
    lines = node.fields.get("exec", ())
    found["exec"] = [line for line in lines if not is_installer(line)]
    return found


def role_of(node: LabNode, labels: Mapping[str, str]) -> str:
    """The role: label `role`, else the group, else the name, else what the node runs."""
    if labels.get("role", "").strip():
        return labels["role"].strip()
    for word in re.split(r"[,;\s]+", node.group.lower()):
        for form in (word, word.removesuffix("s"), word.removesuffix("es"), _singular(word)):
            if form in _ROLE_WORDS:
                return _ROLE_WORDS[form]
    name = node.name.lower()
    for word in _LONGEST_FIRST:
        if re.match(rf"{word}(?![a-z])", name):
            return _ROLE_WORDS[word]
    if node.kind == "bridge":
        return "switch"
    return "router" if runs_as(node) == "frr" else "host"


def _singular(word: str) -> str:
    return "leaf" if word == "leaves" else word


def runs_as(node: LabNode) -> str:
    """`bridge`, `frr` or `shell`.

    A node runs FRR when its image is one of FRR's or a file is bound under /etc/frr, unless it is
    given another command.
    """
    if node.kind in ("bridge", "frr"):
        return node.kind
    started = f"{node.fields.get('entrypoint', '')} {node.fields.get('cmd', '')}".strip()
    if started:
        return "frr" if _STARTS_FRR.search(started) else "shell"
    image = re.split(r"[:@]", str(node.fields.get("image", "")).rsplit("/", 1)[-1])[0]
    bound = (bind.split(":")[1] for bind in node.fields.get("binds-resolved", ()))
    in_etc = any(destination.startswith("/etc/frr") for destination in bound)
    return "frr" if "frr" in image.lower() or in_etc else "shell"


def addresses_in(lines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Addresses with prefix length per interface, as `ip addr add` lines give them.

    Examples:
        >>> addresses_in(["ip -4 a add 10.0.0.1/31 dev eth1", "sh -c 'ip a a fd00::1/64 dev eth2'"])
        {'eth1': ('10.0.0.1/31',), 'eth2': ('fd00::1/64',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for words in _commands(lines):
        for interface, address in _addresses(words):
            if address not in found.get(interface, ()):
                found[interface] = (*found.get(interface, ()), address)
    return found


def _commands(lines: Sequence[str], depth: int = 0) -> Iterator[list[str]]:
    for line in lines:
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        if depth < 3 and len(words) >= 3 and words[0].rsplit("/", 1)[-1] in ("sh", "bash", "ash"):
            if words[1].startswith("-") and words[1].endswith("c"):
                yield from _commands(re.split(r"&&|\|\||;|\n", words[2]), depth + 1)
            continue
        yield words


def _addresses(words: list[str]) -> Iterator[tuple[str, str]]:
    if words[:1] == ["ifconfig"] and len(words) >= 3:
        candidates, interface = words[2:3], words[1]
    elif words[:1] and words[0].rsplit("/", 1)[-1] == "ip":
        rest = [word for word in words[1:] if not word.startswith("-")]
        verbs = ("add", "a", "ad", "replace", "repl", "change")
        if len(rest) < 3 or not "address".startswith(rest[0]) or rest[1] not in verbs:
            return
        if "dev" not in rest[:-1]:
            return
        interface = rest[rest.index("dev") + 1]
        candidates = [rest[2]] if rest[2] not in ("dev", "local") else []
        candidates += [rest[at + 1] for at in range(len(rest) - 1) if rest[at] == "local"]
        candidates += rest[4:5] if rest[2] == "dev" else []
    else:
        return
    for text in candidates:
        try:
            yield interface, ipaddress.ip_interface(text).with_prefixlen
        except ValueError:
            continue


def _links(lab: Lab) -> Iterator[Link]:
    for link in lab.links:
        inside = all(end.node in lab.nodes for end in link.endpoints)
        between = link.written in ("brief", "veth", "veth-stitch") and len(link.endpoints) == 2
        if inside and (between or link.type == "dummy"):
            yield _link(link, "dummy" if link.type == "dummy" else "veth")


def _link(link: LabLink, kind: str) -> Link:
    ends = sorted(link.endpoints, key=lambda end: (end.node, end.interface))
    ports = [Port(end.node, end.interface) for end in ends] + [Port("", "")]
    macs = [end.mac for end in ends] + [""]
    shared = {f"{end}": dict(end.vars) for end in ends if end.vars}
    values = {**link.vars, **({"endpoints": shared} if shared else {})}
    return Link(ports[0], ports[1], link.mtu, (macs[0], macs[1]), values, dict(link.labels), kind)
