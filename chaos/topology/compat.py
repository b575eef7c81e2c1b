"""What the embedded fabric does with each Containerlab field: supports, leaves out, or refuses it.

`review` answers for a whole lab: one warning per field with the nodes that set it, and every
refusal. The loader itself takes all that Containerlab takes; a driver for real Containerlab has no
use for this room.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from chaos.errors import SpecError
from chaos.topology.lab import Lab, LabLink, LabNode
from chaos.topology.schema import Path

_SUPPORTED_KINDS = ("linux", "frr", "bridge")
#: commands of an `exec` line that fetch software; the tools come from the machine instead
INSTALLERS = ("apk", "apt", "apt-get", "yum", "dnf", "microdnf", "pip", "pip3")
_SHELL_IMAGES = re.compile(
    r"multitool|netshoot|alpine|debian|ubuntu|fedora|busybox|iperf|python|host|nginx|frr|clab-"
)
_CAPABILITIES = {"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}
_LEFT_OUT = {
    "type": "it has no meaning here",
    "position": "it only places the node in a picture",
    "license": "no node runs licensed software",
    "components": "they belong to vendor kinds",
    "config": "config.vars are for Containerlab's config engine",
    "certificate": "no certificate is made",
    "credentials": "nodes are reached without a login",
    "link-apply-mode": "links are not changed in place",
    "runtime": "there is no container runtime",
    "auto-remove": "there is no container",
    "restart-policy": "a node that ends stays ended",
    "shm-size": "there is no container",
    "devices": "nodes see the machine's devices",
    "security-opts": "there is no container",
    "cgroupns-mode": "there is no container",
    "cgroup-parent": "there is no container",
    "pid-mode": "there is no container",
    "tmpfs": "nodes share the machine's folders, but for binds",
    "volumes": "there is no container runtime to keep them",
    "user": "commands run as the user that made the fabric",
    "ports": "nothing is published; use the node's address inside the fabric",
    "cpu": "no limit is set",
    "cpu-set": "no limit is set",
    "memory": "no limit is set",
    "mgmt-ipv4": "there is no management network",
    "mgmt-ipv6": "there is no management network",
    "aliases": "there is no management network",
    "startup-delay": "nodes start at once",
    "stages": "nodes start at once; exec lines run when every link is there",
    "healthcheck": "readiness is read from the kernel",
    "hostname": "nodes keep their short name",
    "dns": "nodes use the machine's resolver",
}


def review(lab: Lab, config: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[SpecError, ...]]:
    """Warnings and refusals for the embedded fabric.

    Args:
        lab: The resolved lab with its deploy checks.
        config: The decoded file.
    """
    warnings = [*_file_warnings(config), *_node_warnings(lab), *_link_warnings(lab)]
    refusals = [*(check.error for check in lab.checks), *_node_refusals(lab), *_link_refusals(lab)]
    refusals.sort(key=lambda error: error.line or 0)
    return tuple(warnings), tuple(refusals)


def _file_warnings(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("mgmt"):
        fields = ", ".join(sorted(config["mgmt"]))
        yield f"mgmt ({fields}): left out, there is no management network"
    for name in ("settings", "debug"):
        if config.get(name):
            yield f"{name}: left out, it has no meaning here"


def _node_warnings(lab: Lab) -> Iterator[str]:
    nodes = lab.nodes.values()
    for field, why in _LEFT_OUT.items():
        yield from _told(field, why, (node for node in nodes if field in node.explicit))
    for field, why, says in _JUDGED:
        yield from _told(field, why, (node for node in nodes if says(node)))


def _told(field: str, why: str, nodes: Iterable[LabNode]) -> Iterator[str]:
    names = [node.name for node in nodes]
    if names:
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        yield f"{field}: left out on {shown}: {why}"


def _has_other_image(node: LabNode) -> bool:
    image = str(node.fields.get("image", ""))
    return node.kind == "linux" and bool(image) and not _SHELL_IMAGES.search(image.lower())


def _has_other_network(node: LabNode) -> bool:
    mode = str(node.fields.get("network-mode", ""))
    known = mode.lower() in ("", "none", "host") or mode.startswith("container:")
    return node.kind != "bridge" and not known


def _has_other_capability(node: LabNode) -> bool:
    return bool(set(node.fields.get("cap-add", ())) - _CAPABILITIES)


def is_installer(line: str) -> bool:
    """Whether an `exec` line only fetches software.

    Examples:
        >>> [is_installer(line) for line in ("apk add iperf3", "ip link set eth1 up")]
        [True, False]
    """
    return line.split(maxsplit=1)[0] in INSTALLERS if line.split() else False


_JUDGED: tuple[tuple[str, str, Callable[[LabNode], bool]], ...] = (
    (
        "startup-config",
        "kind linux does not read it, in Containerlab either",
        lambda node: node.kind == "linux" and "startup-config" in node.explicit,
    ),
    (
        "image",
        "not a name we know; the node becomes a plain shell node with the machine's programs",
        _has_other_image,
    ),
    (
        "image-pull-policy",
        "no image is ever pulled",
        lambda node: node.fields["image-pull-policy"] == "Always",
    ),
    (
        "privileged",
        "nodes have the rights of the user that made the fabric",
        lambda node: "privileged" in node.explicit and bool(node.fields["privileged"]),
    ),
    (
        "cap-add",
        "nodes have the rights of the user that made the fabric",
        _has_other_capability,
    ),
    ("network-mode", "every node has a network of its own", _has_other_network),
    (
        "exec (apk, apt-get, …)",
        "programs come from the machine; install them there",
        lambda node: any(is_installer(line) for line in node.fields.get("exec", ())),
    ),
    (
        "sysctls outside of net.*",
        "they belong to the whole machine",
        lambda node: any(not key.startswith("net.") for key in node.fields.get("sysctls", {})),
    ),
    (
        "enforce-startup-config, suppress-startup-config",
        "there is no lab folder that keeps an older one",
        lambda node: bool({"enforce-startup-config", "suppress-startup-config"} & node.explicit),
    ),
    (
        "extras",
        "they belong to vendor kinds",
        lambda node: node.kind != "frr" and "extras" in node.explicit,
    ),
)


def _node_refusals(lab: Lab) -> Iterator[SpecError]:
    for node in lab.nodes.values():
        said = _kind_refusal(node)
        if said:
            yield lab.source.error(node.where("kind", lab.source.lines), said)
        mode = str(node.fields.get("network-mode", ""))
        path = node.where("network-mode", lab.source.lines)
        if mode == "host" and node.kind not in ("host", "bridge"):
            said = "would run in the machine's own network; remove it or use containerlab"
            yield lab.source.error(path, f"found network-mode host on {node.name}: it {said}")
        elif mode.startswith("container:"):
            said = "every node has a network of its own here; use containerlab"
            yield lab.source.error(path, f"found network-mode {mode} on {node.name}: {said}")
        if node.kind == "frr" and "startup-config-text" in node.fields:
            path = node.where("startup-config", lab.source.lines)
            said = "inside the topology; put it in a file beside it and name that"
            yield lab.source.error(path, f"found the startup-config of {node.name} {said}")
        if any("docker.sock" in bind for bind in node.fields.get("binds-resolved", ())):
            said = "there is no container runtime behind it"
            path = node.where("binds", lab.source.lines)
            yield lab.source.error(path, f"found a bind of docker.sock on {node.name}: {said}")
        yield from _stage_refusals(lab, node)


def _kind_refusal(node: LabNode) -> str:
    found = f"found kind {node.kind} on {node.name}: "
    if node.kind in _SUPPORTED_KINDS:
        return ""
    if node.kind == "host":
        return found + "its commands would run on this machine itself; use containerlab for it"
    if node.kind == "ovs-bridge":
        return found + "use kind bridge, or containerlab"
    if node.kind in ("ext-container", "k8s-kind"):
        return found + "it needs a container runtime; use containerlab for it"
    return found + "a vendor's system needs its image; use containerlab, or kind linux with FRR"


def _stage_refusals(lab: Lab, node: LabNode) -> Iterator[SpecError]:
    for stage, content in node.fields.get("stages", {}).items():
        if any(item["target"] == "host" for item in content["exec"]):
            path = node.where("stages", lab.source.lines)
            said = f"found a stage exec with target host on {node.name} ({stage}): it would run "
            yield lab.source.error(path, said + "on this machine itself; use target container")


def _link_warnings(lab: Lab) -> Iterator[str]:
    addressed = [link for link in lab.links if any(end.ipv4 or end.ipv6 for end in link.endpoints)]
    if addressed:
        yield (
            f"ipv4, ipv6 of {len(addressed)} links: left out, for kind linux Containerlab leaves "
            "them out as well; use exec: ip addr add …"
        )


def _link_refusals(lab: Lab) -> Iterator[SpecError]:
    for link in lab.links:
        said = _link_refusal(link)
        if said:
            yield lab.source.error(link.path, said)
        else:
            yield from _interface_refusals(lab, link, link.path)


def _link_refusal(link: LabLink) -> str:
    found = f"found a link of type {link.written}: "
    if link.written in ("macvlan", "vxlan", "vxlan-stitch"):
        return found + "it would leave this machine's fabric; use containerlab for it"
    outside = [end.node for end in link.endpoints if end.node in ("host", "mgmt-net")]
    if link.written in ("host", "mgmt-net") or (outside and link.type != "dummy"):
        return found + "it would reach the machine's own network; use containerlab for it"
    if link.type != "dummy" and len(link.endpoints) != 2:
        return found + f"it has {len(link.endpoints)} endpoints, wanted 2"
    return ""


def _interface_refusals(lab: Lab, link: LabLink, path: Path) -> Iterator[SpecError]:
    for end in link.endpoints:
        name = end.interface
        if not name or len(name) > 15 or re.search(r"[\s/:]", name) or name in (".", "..", "lo"):
            wanted = "wanted 1 to 15 characters without space, slash or colon, not lo"
            yield lab.source.error(
                path, f"found the interface name {name!r} on {end.node}, {wanted}"
            )
    if link.mtu and not 68 <= link.mtu <= 65535:
        yield lab.source.error(path, f"found the mtu {link.mtu}, wanted 68 to 65535")
