"""What Containerlab finds only when it deploys: the checks that need neither runtime nor host."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from chaos.errors import near
from chaos.topology.lab import WITHOUT_CONTAINER, Check, Lab, LabNode
from chaos.topology.schema import Path

_CONTAINER_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._-]+$")
_ROOT = ("bridge", "ovs-bridge", "host")


def deploy_checks(lab: Lab) -> tuple[Check, ...]:
    """Every complaint, in a fixed order."""
    every = (
        _endpoints(lab),
        _root_names(lab),
        _interfaces(lab),
        _files(lab),
        _names(lab),
        _images(lab),
        _addresses(lab),
        _dependencies(lab),
    )
    return tuple(check for found in every for check in found)


def _check(lab: Lab, name: str, path: Path, message: str) -> Check:
    return Check(name, lab.source.error(path, message))


def _at(lab: Lab, node: LabNode, field: str) -> Path:
    return node.where(field, lab.source.lines)


def _endpoints(lab: Lab) -> Iterator[Check]:
    seen: dict[str, int] = {}
    told: set[str] = set()
    for link in lab.links:
        for end in link.endpoints:
            if end.node not in lab.nodes or link.written.startswith("vxlan"):
                continue
            where = str(end)
            if where in seen and where not in told:
                told.add(where)
                message = (
                    f"found the endpoint {where} a second time (first in links[{seen[where]}])"
                )
                yield _check(lab, "endpoint-uniqueness", link.path, message)
            seen.setdefault(where, link.index)


def is_root(node: LabNode) -> bool:
    """Whether its interfaces lie in the machine's own network namespace."""
    if node.kind == "bridge":
        return bool(node.fields.get("network-mode", "host") == "host")
    return node.kind in _ROOT


def _root_names(lab: Lab) -> Iterator[Check]:
    roots = {name for name, node in lab.nodes.items() if is_root(node)} | {"host", "mgmt-net"}
    seen: dict[str, str] = {}
    for link in lab.links:
        for end in link.endpoints:
            if end.node not in roots or link.type not in ("veth", "veth-stitch"):
                continue
            if end.interface in seen:
                both = f"{seen[end.interface]} and {end.node}"
                message = f"found the interface {end.interface!r} of the machine twice, for {both}"
                yield _check(lab, "root-netns", link.path, message)
                return
            seen[end.interface] = end.node


def _interfaces(lab: Lab) -> Iterator[Check]:
    told: set[str] = set()
    for link in lab.links:
        for end in link.endpoints:
            node = lab.nodes.get(end.node)
            if end.interface != "eth0" or node is None or node.name in told:
                continue
            mode = node.fields.get("network-mode", "").lower()
            if node.kind in ("linux", "frr") and mode != "none":
                told.add(node.name)
                message = f"found {end} in a link, which needs network-mode: none on {end.node}"
                yield _check(lab, "interface-name", link.path, message)


def _files(lab: Lab) -> Iterator[Check]:
    for name in ("startup-config", "license"):
        for node in lab.nodes.values():
            path = str(node.fields.get(name, ""))
            if not path or f"{name}-text" in node.fields or "://" in path:
                continue
            if not os.path.isfile(path):
                message = f"found the {name} of {node.name}, but there is no {path}"
                yield _check(lab, name, _at(lab, node, name), message)


def _names(lab: Lab) -> Iterator[Check]:
    for node in lab.nodes.values():
        if node.kind in WITHOUT_CONTAINER or _CONTAINER_NAME.match(node.longname):
            continue
        wanted = "wanted letters, digits, '-', '.', '_', at least two, the first a letter or digit"
        message = f"found the container name {node.longname!r}, {wanted}"
        yield _check(lab, "container-name", ("topology", "nodes", node.name), message)


def _images(lab: Lab) -> Iterator[Check]:
    for node in lab.nodes.values():
        if node.kind not in WITHOUT_CONTAINER and not node.fields.get("image"):
            message = f"found no image for {node.name}, wanted one such as alpine:3"
            yield _check(lab, "image", ("topology", "nodes", node.name), message)


def _addresses(lab: Lab) -> Iterator[Check]:
    seen: dict[str, str] = {}
    for node in lab.nodes.values():
        for name in ("mgmt-ipv4", "mgmt-ipv6"):
            address = node.fields.get(name)
            if address and address in seen:
                message = f"found {address} on {node.name}, which {seen[address]} has already"
                yield _check(lab, "duplicate-mgmt-address", _at(lab, node, name), message)
                return
            if address:
                seen[address] = node.name


def _dependencies(lab: Lab) -> Iterator[Check]:
    waits: dict[str, set[str]] = {name: set() for name in lab.nodes}
    fixed = {name for name, node in lab.nodes.items() if _is_static(node)}
    for name, node in lab.nodes.items():
        for stage, content in node.fields.get("stages", {}).items():
            for wait in content["wait-for"]:
                if wait["node"] not in lab.nodes:
                    message = f"found the unknown node {wait['node']!r} in wait-for of {name}; "
                    path = ("topology", "nodes", name, "stages", stage)
                    yield _check(lab, "dependencies", path, message + near(wait["node"], lab.nodes))
                    return
                waits[name].add(wait["node"])
        shared = str(node.fields.get("network-mode", "")).removeprefix("container:")
        if shared in lab.nodes:
            waits[name].add(shared)
        if name not in fixed:
            waits[name] |= fixed
    circle = _circle(waits)
    if circle:
        message = f"found nodes that wait for each other: {' -> '.join(circle)}"
        yield _check(lab, "dependencies", ("topology", "nodes", circle[0], "stages"), message)


def _is_static(node: LabNode) -> bool:
    return bool(node.fields.get("mgmt-ipv4") or node.fields.get("mgmt-ipv6"))


def _circle(waits: dict[str, set[str]]) -> list[str]:
    """One circle of names, or nothing; without recursion, for labs may be long chains."""
    left = {name: set(others) for name, others in waits.items()}
    while ready := [name for name, others in left.items() if not others]:
        for name in ready:
            del left[name]
        for others in left.values():
            others.difference_update(ready)
    if not left:
        return []
    seen: list[str] = []
    at = min(left)
    while at not in seen:
        seen.append(at)
        at = min(left[at])
    return [*seen[seen.index(at) :], at]
