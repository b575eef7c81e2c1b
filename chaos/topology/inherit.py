"""What a node gets from defaults, kind and group, exactly as Containerlab resolves it.

A node with a null body (`n1:`) is not a node with an empty one (`n1: {}`): it skips the group set
on its kind, sees only `defaults` for booleans, and has no config vars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chaos.topology.fields import STAGES
from chaos.topology.gotext import go_text
from chaos.topology.schema import Path

Body = dict[str, Any]

REPLACED = (
    *("image", "image-pull-policy", "license", "position", "hostname", "entrypoint", "cmd"),
    *("user", "network-mode", "link-apply-mode", "runtime", "cpu", "cpu-set", "memory"),
    *("startup-config", "startup-delay", "restart-policy", "shm-size", "cgroupns-mode"),
    *("cgroup-parent", "pid-mode", "ports", "components"),
)
SWITCHES = ("privileged", "auto-remove", "enforce-startup-config", "suppress-startup-config")
OBJECTS = ("extras", "dns", "healthcheck")
UNIONS = ("exec", "env-files", "devices", "cap-add", "security-opts", "binds", "volumes")
MERGED = ("env", "labels", "sysctls", "tmpfs")
OWN = ("mgmt-ipv4", "mgmt-ipv6", "aliases")


@dataclass(frozen=True, slots=True)
class Levels:
    """The four bodies that make a node; `node` and `group` are None where there is none."""

    name: str
    kind_name: str
    group_name: str
    node: Body | None
    group: Body | None
    kind: Body
    defaults: Body

    @property
    def least_first(self) -> tuple[Body, ...]:
        """defaults, kind, group, node."""
        bodies = (self.defaults, self.kind, self.group, self.node)
        return tuple(body if body is not None else {} for body in bodies)

    def paths(self) -> tuple[Path, ...]:
        """Where a value may come from, the most specific first."""
        return (
            ("topology", "nodes", self.name),
            ("topology", "groups", self.group_name),
            ("topology", "kinds", self.kind_name),
            ("topology", "defaults"),
        )


def levels(name: str, topology: Mapping[str, Any]) -> Levels:
    """The bodies of a node; kind and group are looked up as they are written, not lower-cased."""
    node: Body | None = topology["nodes"][name]
    defaults: Body = topology.get("defaults") or {}
    kinds: Mapping[str, Body] = topology.get("kinds") or {}
    groups: Mapping[str, Body | None] = topology.get("groups") or {}
    kind = _kind(node, groups, defaults)
    group = _group(node, kinds, kind, defaults)
    found = groups.get(group)
    return Levels(name, kind, group, node, found, kinds.get(kind) or {}, defaults)


def _kind(node: Body | None, groups: Mapping[str, Body | None], defaults: Body) -> str:
    if node is not None:
        if node.get("kind"):
            return str(node["kind"])
        group = groups.get(node.get("group") or "")
        if group and group.get("kind"):
            return str(group["kind"])
    group = groups.get(defaults.get("group") or "")
    if group and group.get("kind"):
        return str(group["kind"])
    return str(defaults.get("kind") or "")


def _group(node: Body | None, kinds: Mapping[str, Body], kind: str, defaults: Body) -> str:
    if node is None:
        return str(defaults.get("group") or "")
    of_kind = (kinds.get(kind) or {}).get("group") if kind else ""
    return str(node.get("group") or of_kind or defaults.get("group") or "")


def inherit(at: Levels) -> Body:
    """Every field of the node; what nobody sets is absent."""
    found: Body = {name: _first(at, name) for name in REPLACED}
    found |= {name: _switch(at, name) for name in SWITCHES}
    found |= {name: _object(at, name) for name in OBJECTS}
    found |= {name: _union(at, name) for name in UNIONS}
    found |= {name: _merged(at, name) for name in MERGED}
    found |= {name: (at.node or {}).get(name) for name in OWN}
    found["type"] = _type(at)
    found["stages"] = _stages(at)
    found["credentials"] = _credentials(at)
    if at.node is not None:
        found["config"] = _config(at)
    kept = {key: value for key, value in found.items() if value not in (None, "", [], 0, {})}
    kept |= {name: found[name] for name in OBJECTS if found[name] is not None}
    return kept | {name: found[name] for name in SWITCHES if found[name] is not None}


def _first(at: Levels, name: str) -> Any:
    return next((body[name] for body in reversed(at.least_first) if body.get(name)), None)


def _type(at: Levels) -> str:
    for body in reversed(at.least_first[1:]):
        if body.get("type"):
            return str(body["type"]).strip()
    return str(at.defaults.get("type") or "")


def _switch(at: Levels, name: str) -> bool | None:
    bodies = [at.defaults] if at.node is None else list(reversed(at.least_first))
    values = [body[name] for body in bodies if body.get(name) is not None]
    return bool(values[0]) if values else None


def _object(at: Levels, name: str) -> Any:
    bodies = reversed(at.least_first)
    return next((body[name] for body in bodies if body.get(name) is not None), None)


def _union(at: Levels, name: str) -> list[str]:
    every = [text for body in at.least_first for text in body.get(name) or ()]
    return list(dict.fromkeys(every))


def _merged(at: Levels, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for body in at.least_first:
        found |= body.get(name) or {}
    return found


def _stages(at: Levels) -> dict[str, Any]:
    """wait-for without duplicates, exec one after the other; empty stages are left out."""
    found: dict[str, Any] = {}
    for stage in STAGES:
        waits: list[Body] = []
        execs: list[Body] = []
        for body in at.least_first:
            own = (body.get("stages") or {}).get(stage) or {}
            for wait in own.get("wait-for") or ():
                plain = {"node": wait.get("node") or "", "stage": wait.get("stage") or ""}
                if plain not in waits:
                    waits.append(plain)
            execs += [_stage_exec(item) for item in own.get("exec") or ()]
        if waits or execs:
            found[stage] = {"wait-for": waits, "exec": execs}
    return found


def _stage_exec(item: Body) -> Body:
    return {
        "command": item.get("command") or "",
        "target": item.get("target") or "container",
        "phase": item.get("phase") or "on-enter",
    }


def _credentials(at: Levels) -> dict[str, str]:
    """The pair from the level that sets either half; the key file on its own."""
    bodies = [_with_old_names(body) for body in reversed(at.least_first)]
    pairs = (body for body in bodies if body.get("username") or body.get("password"))
    pair = next(pairs, {})
    keys = (body["identity-file"] for body in bodies if body.get("identity-file"))
    found = {"username": pair.get("username"), "password": pair.get("password")}
    found["identity-file"] = next(keys, None)
    return {key: value for key, value in found.items() if value}


def _with_old_names(body: Body) -> Body:
    own = body.get("credentials") or {}
    names = ("username", "password", "identity-file")
    old = {name: body.get(name) for name in names[:2]}
    return {name: own.get(name) or old.get(name) for name in names}


def _config(at: Levels) -> dict[str, Any]:
    """config.vars, merged deeply."""
    found: dict[str, Any] = {}
    for body in at.least_first:
        found = merge_deep(found, (body.get("config") or {}).get("vars") or {})
    return found


def merge_deep(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[str, Any]:
    """`above` wins; maps on both sides are merged; keys become text."""
    found: dict[str, Any] = {go_text(key): value for key, value in below.items()}
    for raw, value in above.items():
        key = go_text(raw)
        mine = found.get(key)
        both = isinstance(mine, dict) and isinstance(value, dict)
        if isinstance(value, dict):
            value = merge_deep(mine if both and isinstance(mine, dict) else {}, value)
        found[key] = value
    return found
