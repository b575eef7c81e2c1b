"""Every node of a lab: inherited fields, magic variables, paths, environment, kind's defaults."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.errors import near
from chaos.topology import mounts
from chaos.topology.envfile import read_env
from chaos.topology.inherit import Levels, inherit, levels
from chaos.topology.lab import KINDS, Lab, LabNode
from chaos.topology.text import read_text

_NO_PROXY = ("localhost", "127.0.0.1", "::1", "*.local")
_APPLY_MODES = ("live", "restart", "recreate")
_PULL = {"always": "Always", "never": "Never"}
_URL = re.compile(r"^(https?|s3|ftp|scp|sftp)://", re.IGNORECASE)


@dataclass(slots=True)
class Nodes:
    """Makes every node of a lab."""

    lab: Lab
    topology: Mapping[str, Any]
    environ: Mapping[str, str]
    git: tuple[str, str]

    def all(self) -> dict[str, LabNode]:
        self._import_environment()
        order = sorted(self.topology["nodes"])
        made = {name: self.make(name, at) for at, name in enumerate(order)}
        return {name: made[name] for name in self.topology["nodes"]}

    def _import_environment(self) -> None:
        bodies = [self.topology.get("defaults")]
        for level in ("kinds", "groups", "nodes"):
            bodies += (self.topology.get(level) or {}).values()
        for body in bodies:
            env = (body or {}).get("env")
            if env and env.get("__IMPORT_ENVS") == "true":
                for name, value in self.environ.items():
                    env.setdefault(name, value)

    def make(self, name: str, index: int) -> LabNode:
        kinds = self.topology.get("kinds") or {}
        at = levels(name, self.topology)
        if at.kind_name in kinds and kinds[at.kind_name] is None:
            path = ("topology", "kinds", at.kind_name)
            self.lab.source.refuse(path, "found nothing, wanted fields under it, or no such key")
        fields = inherit(at)
        kind = at.kind_name.lower()
        explicit = frozenset(fields)
        labdir = os.path.normpath(os.path.join(self.lab.labdir, name))
        longname = self._longname(name)
        node = LabNode(
            name,
            name if kind == "ext-container" else longname,
            kind,
            at.group_name,
            index,
            labdir,
            fields,
            explicit,
            at.paths(),
        )
        self._check_words(node)
        self._paths(node, fields)
        self._mounts(node, fields)
        self._defaults(node, fields)
        self._environment(node, fields, at, longname)
        return node

    def _longname(self, name: str) -> str:
        prefix, lab = self.lab.prefix, self.lab.name
        if not prefix:
            return name
        return f"{lab}-{name}" if prefix == "__lab-name" else f"{prefix}-{lab}-{name}"

    def _refuse(self, node: LabNode, field: str, message: str, culprit: str = "") -> None:
        path = node.where(field, self.lab.source.lines)
        for level in node.paths if culprit else ():
            body: Any = {"topology": self.topology}
            for part in level:
                body = (body or {}).get(part)
            texts = (body or {}).get(field) or []
            if culprit in texts:
                path = (*level, field, texts.index(culprit))
                break
        self.lab.source.refuse(path, message)

    def _check_words(self, node: LabNode) -> None:
        if not node.kind:
            wanted = "wanted one such as linux on the node, in its group or in defaults"
            self._refuse(node, "kind", f"found no kind for node {node.name!r}, {wanted}")
        if node.kind not in KINDS:
            known = near(node.kind, KINDS)
            self._refuse(node, "kind", f"found the unknown kind {node.kind!r}; {known}")
        mode = node.fields.get("link-apply-mode")
        if mode and mode not in _APPLY_MODES:
            known = near(mode, _APPLY_MODES)
            self._refuse(node, "link-apply-mode", f"found the link-apply-mode {mode!r}; {known}")
        network = node.fields.get("network-mode", "host")
        shared, colon, _ = network.partition(":")
        if node.kind == "bridge" and network != "host" and (shared, colon) != ("container", ":"):
            wanted = "a bridge takes host or container:NODE only"
            self._refuse(node, "network-mode", f"found the network-mode {network!r}; {wanted}")

    def _magic(self, node: LabNode, text: str) -> str:
        words = {
            "__clabDir__": self.lab.labdir,
            "__clabLabName__": os.path.basename(self.lab.labdir),
            "__clabNodeDir__": node.labdir,
            "__clabNodeName__": node.name,
        }
        return re.sub("|".join(words), lambda found: words[found[0]], text)

    def _resolve(self, path: str) -> str:
        home = self.environ.get("HOME") or str(Path.home())
        return mounts.resolve_path(path, str(self.lab.folder), home)

    def _paths(self, node: LabNode, fields: dict[str, Any]) -> None:
        for name in ("startup-config", "license"):
            text = self._magic(node, fields.get(name, "")) if name == "startup-config" else ""
            text = text or fields.get(name, "")
            if not text:
                continue
            if "\n" in text:
                ending = "embedded.partial.cfg" if name == "startup-config" else "embedded.lic"
                fields[f"{name}-text"] = text
                temp = tempfile.gettempdir()
                text = f"{temp}/.clab/{self.lab.name}-{node.name}-{ending}"
            fields[name] = text if _URL.match(text) else self._resolve(text)
        keys = fields.get("credentials") or {}
        if keys.get("identity-file"):
            fields["credentials"] = keys | {"identity-file": self._resolve(keys["identity-file"])}
        if not fields.get("credentials"):
            fields.pop("credentials", None)
        target = fields.get("pid-mode", "").removeprefix("container:")
        if target != fields.get("pid-mode", "") and target in self.topology["nodes"]:
            fields["pid-mode"] = f"container:{self._longname(target)}"
        if "exec" in fields:
            fields["exec"] = [self._magic(node, line) for line in fields["exec"]]
        for stage in fields.get("stages", {}).values():
            for item in stage["exec"]:
                item["command"] = self._magic(node, item["command"])
        if fields.get("extras"):
            lists = ("srl-agents", "ceos-copy-to-flash")
            fields["extras"] = {
                key: [self._magic(node, text) for text in value or ()] if key in lists else value
                for key, value in fields["extras"].items()
            }

    def _mounts(self, node: LabNode, fields: dict[str, Any]) -> None:
        field = ""
        try:
            for field, read in (("binds", mounts.binds), ("volumes", mounts.volumes)):
                if field in fields:
                    fields[field] = read(fields[field])
            field = "ports"
            fields["port-bindings"] = mounts.ports(fields.get("ports", ()))
        except mounts.Wrong as wrong:
            self._refuse(node, field, str(wrong), wrong.text)
        fields["binds-resolved"] = [self._bind(node, text) for text in fields.get("binds", ())]
        fields["volumes-resolved"] = [
            ":".join((self._magic(node, text.split(":")[0]), *text.split(":")[1:]))
            if ":" in text
            else text
            for text in fields.get("volumes", ())
        ]

    def _bind(self, node: LabNode, text: str) -> str:
        source, *rest = text.split(":")
        path = self._resolve(self._magic(node, source))
        generated = (
            f"{self.lab.labdir}/ansible-inventory.yml",
            f"{self.lab.labdir}/topology-data.json",
        )
        missing = not os.path.exists(path) and path not in generated
        if missing and os.path.normpath(path) != f"{self.lab.labdir}/.tls/ca":
            message = f"found the bind {text!r}, but there is no {path}"
            self._refuse(node, "binds", message, text)
        return ":".join((path, *rest))

    def _defaults(self, node: LabNode, fields: dict[str, Any]) -> None:
        policy = fields.get("image-pull-policy", "").strip().lower()
        fields["image-pull-policy"] = _PULL.get(policy, "IfNotPresent")
        fields.setdefault("privileged", True)
        if node.kind == "linux":
            fields.setdefault("restart-policy", "always")
        if node.kind in ("linux", "frr") and fields.get("network-mode") != "host":
            fields["sysctls"] = fields.get("sysctls", {}) | {"net.ipv6.conf.all.disable_ipv6": "0"}

    def _environment(
        self, node: LabNode, fields: dict[str, Any], at: Levels, longname: str
    ) -> None:
        env: dict[str, str] = {}
        for text in fields.get("env-files", ()):
            path = self._resolve(text)
            if not os.path.isfile(path):
                message = f"found the env-file {text!r}, but there is no {path}"
                self._refuse(node, "env-files", message, text)
            env |= read_env(read_text(Path(path)), file=path)
        env |= fields.get("env") or {}
        proxy = self._no_proxy(env)
        labels = dict(fields.get("labels") or {}) | self._own_labels(node, fields)
        for name, value in (dict(labels) | {"clab-node-longname": longname}).items():
            env[f"CLAB_LABEL_{_env_key(name)}"] = value
        env[f"CLAB_LABEL_{_env_key('clab-node-longname')}"] = node.longname
        fields["env"] = env | {"no_proxy": proxy, "NO_PROXY": proxy}
        fields["labels"] = labels

    def _own_labels(self, node: LabNode, fields: Mapping[str, Any]) -> dict[str, str]:
        owner = self.environ.get("SUDO_USER") or self.environ.get("USER") or ""
        branch, commit = self.git
        labels = {
            "containerlab": self.lab.name,
            "clab-node-name": node.name,
            "clab-node-longname": node.longname,
            "clab-node-kind": node.kind,
            "clab-node-type": str(fields.get("type", "")),
            "clab-node-group": node.group,
            "clab-node-lab-dir": node.labdir,
            "clab-topo-file": str(self.lab.file),
            "clab-owner": owner,
        }
        if branch != "none":
            labels["clab-git-branch"] = branch
            if commit != "none":
                labels["clab-git-hash"] = commit
        return labels

    def _no_proxy(self, env: Mapping[str, str]) -> str:
        given = env.get("no_proxy", env.get("NO_PROXY"))
        text = ",".join(_NO_PROXY) if given is None else given
        for word in _NO_PROXY if given is not None else ():
            if word not in text:
                text += f",{word}"
        every: list[str] = []
        for name, body in self.topology["nodes"].items():
            every += [name, *((body or {}).get(key) or "" for key in ("mgmt-ipv4", "mgmt-ipv6"))]
        every += [self.lab.mgmt.get(key, "") for key in ("ipv4-subnet", "ipv6-subnet")]
        names = set(self.topology["nodes"])
        return ",".join((text, *sorted(word for word in every if word or word in names)))


def _env_key(label: str) -> str:
    plain = re.sub(r"[-+./]", "_", label)
    return re.sub(r"[^a-zA-Z0-9_]+", "", plain).upper()
