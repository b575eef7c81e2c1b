"""Every key that Containerlab 0.79 knows, and the type of its value."""

from __future__ import annotations

from chaos.errors import near
from chaos.topology.decode import Decoder
from chaos.topology.schema import (
    Bool,
    Chosen,
    Free,
    ListOf,
    MapOf,
    Number,
    Path,
    Span,
    Struct,
    Text,
    Type,
)
from chaos.topology.yamltree import Alias, Mapping_, Sequence, Tree

TEXTS = ListOf(Text())
TEXT_MAP = MapOf(Text())
COUNT = Number(low=0)
INTEGER = Number()

_STAGE = Struct(
    "a stage",
    {
        "wait-for": ListOf(Struct("a wait-for", {"node": Text(), "stage": Text()})),
        "exec": ListOf(
            Struct("a stage exec", {"command": Text(), "target": Text(), "phase": Text()})
        ),
    },
)
STAGES = ("create", "create-links", "configure", "healthy", "exit")

_MDA = ListOf(Struct("an mda", {"slot": INTEGER, "type": Text()}))
_XIOM = ListOf(Struct("a xiom", {"slot": INTEGER, "type": Text(), "mda": _MDA}))

NODE = Struct(
    "a node",
    {
        **dict.fromkeys(
            (
                *("kind", "group", "type", "startup-config", "restart-policy", "image"),
                *("image-pull-policy", "license", "position", "hostname", "entrypoint", "cmd"),
                *("cgroupns-mode", "cgroup-parent", "pid-mode", "shm-size", "mgmt-ipv4"),
                *("mgmt-ipv6", "user", "network-mode", "runtime", "cpu-set", "memory"),
                *("link-apply-mode", "username", "password"),
            ),
            Text(),
        ),
        **dict.fromkeys(
            (
                *("exec", "binds", "volumes", "devices", "cap-add", "security-opts", "ports"),
                *("env-files", "aliases"),
            ),
            TEXTS,
        ),
        **dict.fromkeys(("tmpfs", "env", "labels", "sysctls"), TEXT_MAP),
        **dict.fromkeys(
            ("enforce-startup-config", "suppress-startup-config", "auto-remove", "privileged"),
            Bool(),
        ),
        "startup-delay": COUNT,
        "cpu": Number(whole=False),
        "config": Struct("config", {"vars": MapOf(Free())}),
        "extras": Struct(
            "extras",
            {
                "srl-agents": TEXTS,
                "mysocket-proxy": Text(),
                "ceos-copy-to-flash": TEXTS,
                "k8s_kind": Struct(
                    "k8s_kind",
                    {"deploy": Struct("deploy", {"kubeconfig": Text(), "wait": Text()})},
                ),
                # containerlab 0.80 and newer, with kind frr
                "frr": Struct("frr", {"daemons": TEXTS}),
            },
        ),
        "stages": Struct("stages", dict.fromkeys(STAGES, _STAGE)),
        "dns": Struct("dns", {"servers": TEXTS, "options": TEXTS, "search": TEXTS}),
        "certificate": Struct(
            "certificate",
            {"issue": Bool(), "key-size": INTEGER, "validity-duration": Span(), "sans": TEXTS},
        ),
        "healthcheck": Struct(
            "healthcheck",
            {
                "test": TEXTS,
                **dict.fromkeys(("interval", "timeout", "retries", "start-period"), INTEGER),
            },
        ),
        "credentials": Struct(
            "credentials", dict.fromkeys(("username", "password", "identity-file"), Text())
        ),
        "components": ListOf(
            Struct(
                "a component",
                {
                    **dict.fromkeys(("slot", "type", "sfm"), Text()),
                    "env": TEXT_MAP,
                    "xiom": _XIOM,
                    "mda": _MDA,
                },
            )
        ),
    },
)

_ENDPOINT = Struct(
    "an endpoint",
    {
        **dict.fromkeys(("node", "interface", "mac", "ipv4", "ipv6"), Text()),
        "vars": MapOf(Free()),
    },
)
_LINK: dict[str, Type] = {
    "type": Text(),
    "mtu": INTEGER,
    "labels": TEXT_MAP,
    "ipv4": TEXTS,
    "ipv6": TEXTS,
    "vars": MapOf(Free()),
    "deploymentstate": Number(low=0, high=255),
}
_ONE_END: dict[str, Type] = {"endpoint": _ENDPOINT, "host-interface": Text()}
_VXLAN: dict[str, Type] = {
    "endpoint": _ENDPOINT,
    **dict.fromkeys(("remote", "parent-interface", "linktype"), Text()),
    **dict.fromkeys(("vni", "udp-port", "dst-port", "src-port"), INTEGER),
}

LINK_TYPES: dict[str, Struct] = {
    "brief": Struct("a link", {**_LINK, "endpoints": TEXTS}),
    "veth": Struct("a veth link", {**_LINK, "endpoints": ListOf(_ENDPOINT)}),
    "veth-stitch": Struct("a veth-stitch link", {**_LINK, "endpoints": ListOf(_ENDPOINT)}),
    "host": Struct("a host link", {**_LINK, **_ONE_END}),
    "mgmt-net": Struct("a mgmt-net link", {**_LINK, **_ONE_END}),
    "macvlan": Struct("a macvlan link", {**_LINK, **_ONE_END, "mode": Text()}),
    "dummy": Struct("a dummy link", {**_LINK, "endpoint": _ENDPOINT}),
    "vxlan": Struct("a vxlan link", {**_LINK, **_VXLAN}),
    "vxlan-stitch": Struct("a vxlan-stitch link", {**_LINK, **_VXLAN}),
}


def link_type(written: str | None) -> str:
    """`" VETH "` → `veth`; nothing → `brief`; unknown words as they are."""
    return (written or "").strip().lower() if written else "brief"


def _choose_link(decoder: Decoder, tree: Tree, path: Path) -> Type:
    written = _peek(decoder, tree, "type") or ""
    chosen = link_type(written)
    if chosen not in LINK_TYPES:
        message = f"found the unknown link type {written!r}; {near(chosen, LINK_TYPES)}"
        decoder.wrong(message, tree.line, (*path, "type"))
        return Free()
    return LINK_TYPES[chosen]


def _peek(decoder: Decoder, tree: Tree, wanted: str, depth: int = 0) -> str | None:
    """The text under `wanted`, merge keys followed, the later line winning."""
    while isinstance(tree, Alias):
        tree = tree.target
    if isinstance(tree, Sequence) and depth:
        found = [_peek(decoder, item, wanted, depth + 1) for item in tree.items[::-1]]
        return next((text for text in found[::-1] if text is not None), None)
    if not isinstance(tree, Mapping_) or depth > 20:
        return None
    answer = None
    for key, value in tree.pairs:
        word = decoder.text(key)
        if word == "<<":
            answer = _peek(decoder, value, wanted, depth + 1) or answer
        elif word == wanted:
            answer = decoder.text(value)
    return answer


LINK = Chosen(_choose_link, "a link (a map with endpoints)")

CONFIG = Struct(
    "the file",
    {
        "name": Text(),
        "prefix": Text(nullable=True),
        "mgmt": Struct(
            "mgmt",
            {
                **dict.fromkeys(
                    (
                        *("network", "bridge", "ipv4-subnet", "ipv4-gw", "ipv4-range"),
                        *("ipv6-subnet", "ipv6-gw", "ipv6-range", "ipv4_subnet", "ipv6_subnet"),
                    ),
                    Text(),
                ),
                "mtu": INTEGER,
                "external-access": Bool(),
                "skip-when-unused": Bool(),
                "driver-opts": TEXT_MAP,
            },
        ),
        "settings": Struct(
            "settings",
            {
                "certificate-authority": Struct(
                    "certificate-authority",
                    {
                        "cert": Text(),
                        "key": Text(),
                        "key-size": INTEGER,
                        "validity-duration": Span(),
                    },
                )
            },
        ),
        "topology": Struct(
            "topology",
            {
                "defaults": NODE,
                "kinds": MapOf(NODE),
                "groups": MapOf(NODE),
                "nodes": MapOf(NODE),
                "links": ListOf(LINK),
            },
        ),
        "debug": Bool(),
    },
)
