"""`lab_json`: the resolved lab as plain JSON values, for `railbreak show FILE --json`.

The shape is the one that Containerlab's own structures have, so that answers can be compared: empty
fields are left out, what Containerlab adds by itself stands apart in `auto_env` and `auto_labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chaos.topology.checks import is_root
from chaos.topology.lab import Endpoint, Lab, LabLink, LabNode

_RENAMED = {
    "cpu-set": "cpuset",
    "network-mode": "networkmode",
    "pid-mode": "pidmode",
    "mgmt-ipv4": "mgmt-ipv4-address",
    "mgmt-ipv6": "mgmt-ipv6-address",
    "port-bindings": "portbindings",
}
_APART = (
    *("ports", "binds-resolved", "volumes-resolved", "startup-config-text", "license-text"),
    *("env-files", "components", "certificate", "config", "stages", "healthcheck", "dns", "extras"),
    *("env", "labels"),
)
_STAGES = {
    "create": "Create",
    "create-links": "CreateLinks",
    "configure": "Configure",
    "healthy": "Healthy",
    "exit": "Exit",
}
_EXTRAS = {
    "srl-agents": "SRLAgents",
    "mysocket-proxy": "MysocketProxy",
    "ceos-copy-to-flash": "CeosCopyToFlash",
    "k8s_kind": "K8sKind",
    "frr": "FRR",
}
_HEALTH = {
    "test": "Test",
    "interval": "Interval",
    "timeout": "Timeout",
    "retries": "Retries",
    "start-period": "StartPeriod",
}


def lab_json(lab: Lab) -> dict[str, Any]:
    """Name, prefix, mgmt, nodes and links; `binds_resolved`, `warnings` and `refusals` beside them.

    The keys `lab`-wise are Containerlab's; `warnings` and `refusals` are sentences.
    """
    return {
        "name": lab.name,
        "prefix": lab.prefix,
        "mgmt": dict(lab.mgmt),
        "nodes": {name: _node(lab, node) for name, node in lab.nodes.items()},
        "links": [_link(link) for link in lab.links],
        "binds_resolved": _resolved(lab, "binds"),
        "volumes_resolved": _resolved(lab, "volumes"),
        "deploy_checks": [f"{check.name}: {check.error}" for check in lab.checks],
        "warnings": list(lab.warnings),
        "refusals": [str(error) for error in lab.refusals],
    }


def _resolved(lab: Lab, name: str) -> dict[str, list[str]]:
    field = f"{name}-resolved"
    found = {node.name: list(node.fields.get(field, ())) for node in lab.nodes.values()}
    return {name: texts for name, texts in found.items() if texts}


def _node(lab: Lab, node: LabNode) -> dict[str, Any]:
    found: dict[str, Any] = {
        "shortname": node.name,
        "longname": node.longname,
        "fqdn": f"{node.name}.{lab.name}.io",
        "kind": node.kind,
        "group": node.group,
        "index": node.index,
        "labdir": node.labdir,
    }
    for key, value in node.fields.items():
        if key not in _APART:
            found[_RENAMED.get(key, key)] = value
    found |= _split("env", node.fields.get("env", {}), _is_auto_env)
    found |= _split("labels", node.fields.get("labels", {}), _is_auto_label)
    found["config_vars"] = node.fields.get("config", {})
    found["stages"] = _stages(node.fields.get("stages", {}))
    found["dns"] = _named(node.fields.get("dns"), str.capitalize)
    found["extras"] = _named(node.fields.get("extras"), _EXTRAS.__getitem__)
    found["IsRootNamespaceBased"] = is_root(node)
    found["SkipUniquenessCheck"] = node.kind == "ext-container"
    kept = {key: value for key, value in found.items() if not _is_empty(value)}
    if "healthcheck" in node.fields:
        kept["Healthcheck"] = _named(node.fields["healthcheck"], _HEALTH.__getitem__)
    return kept


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0, [], {})


def _split(name: str, values: Mapping[str, str], is_auto: Any) -> dict[str, dict[str, str]]:
    return {
        name: {key: value for key, value in values.items() if not is_auto(key)},
        f"auto_{name}": {key: value for key, value in values.items() if is_auto(key)},
    }


def _is_auto_env(name: str) -> bool:
    return name.startswith("CLAB_") or name in ("no_proxy", "NO_PROXY")


def _is_auto_label(name: str) -> bool:
    return name == "containerlab" or name.startswith("clab-")


def _stages(stages: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, stage in stages.items():
        execs = [
            {"Command": item["command"], "Target": item["target"], "Phase": item["phase"]}
            for item in stage["exec"]
        ]
        shaped = {"WaitFor": list(stage["wait-for"]), "Execs": execs}
        found[_STAGES[name]] = {key: value for key, value in shaped.items() if value}
    return found


def _named(values: Mapping[str, Any] | None, rename: Any) -> dict[str, Any]:
    return {rename(key): value for key, value in (values or {}).items() if not _is_empty(value)}


def _link(link: LabLink) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": link.index,
        "type": link.type,
        "mtu": link.mtu,
        "endpoints": [_endpoint(end) for end in link.endpoints],
    }
    if link.vars:
        found["vars"] = dict(link.vars)
    if link.labels:
        found["labels"] = dict(link.labels)
    return found


def _endpoint(end: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {"node": end.node, "interface": end.interface}
    for key in ("mac", "ipv4", "ipv6", "vars"):
        value = getattr(end, key)
        if value:
            found[key] = dict(value) if key == "vars" else value
    return found
