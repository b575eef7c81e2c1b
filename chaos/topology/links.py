"""Links: brief and extended forms → endpoints, with Containerlab's refusals."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any

from chaos.errors import near
from chaos.topology.fields import link_type
from chaos.topology.inherit import merge_deep
from chaos.topology.lab import DEFAULT_MTU, Endpoint, LabLink, Source
from chaos.topology.schema import Path

Raw = Mapping[str, Any]

_SPECIAL = ("host", "mgmt-net", "macvlan")
_MACS = (
    r"[0-9a-f]{2}(:[0-9a-f]{2}){5}",
    r"[0-9a-f]{2}(-[0-9a-f]{2}){5}",
    r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}",
)
_MACVLAN_MODES = ("", "bridge", "private", "vepa", "passthru", "source")


def resolve_links(raws: list[Raw], nodes: Collection[str], source: Source) -> tuple[LabLink, ...]:
    """Every link of the file.

    Raises:
        SpecError: unknown node, wrong number of endpoints, address or MAC not understood.
    """
    return tuple(_Link(at, raw, nodes, source).resolve() for at, raw in enumerate(raws))


class _Link:
    def __init__(self, at: int, raw: Raw, nodes: Collection[str], source: Source) -> None:
        self.at, self.raw, self.nodes, self.source = at, raw, nodes, source
        self.path: Path = ("topology", "links", at)
        self.vars = merge_deep({}, raw.get("vars") or {})
        self.labels = dict(raw.get("labels") or {})

    def resolve(self) -> LabLink:
        written = link_type(self.raw.get("type"))
        if written == "brief":
            return self.brief()
        if written in ("veth", "veth-stitch"):
            return self.veth(written)
        return self.one_ended(written)

    def link(self, written: str, kind: str, ends: tuple[Endpoint, ...], mtu: int | None) -> LabLink:
        mtu = (self.raw.get("mtu") or DEFAULT_MTU) if mtu is None else mtu
        return LabLink(self.at, written, kind, ends, mtu, self.vars, self.labels)

    def brief(self) -> LabLink:
        texts = self.raw.get("endpoints") or []
        if len(texts) != 2:
            wanted = "wanted exactly 2, such as ['leaf1:eth1', 'spine1:eth1']"
            self.source.refuse(self.path, f"found {len(texts)} endpoints, {wanted}")
        ends = [self.split(text, place) for place, text in enumerate(texts)]
        for place, (node, interface) in enumerate(ends):
            special = node.strip().lower()
            if special in _SPECIAL:
                other_node, other_interface = ends[1 - place]
                end = self.end({"node": other_node, "interface": other_interface}, self.path)
                return self.special(special, end, interface)
        addresses = self.brief_addresses()
        both = tuple(
            self.end({"node": node, "interface": interface, **addresses[place]}, self.path)
            for place, (node, interface) in enumerate(ends)
        )
        return self.link("brief", "veth", both, None)

    def split(self, text: str, place: int) -> tuple[str, str]:
        node, colon, interface = text.partition(":")
        if not colon:
            path = (*self.path, "endpoints", place)
            self.source.refuse(path, f"found the endpoint {text!r}, wanted NODE:INTERFACE")
        return node, interface

    def brief_addresses(self) -> tuple[dict[str, str], dict[str, str]]:
        found: tuple[dict[str, str], dict[str, str]] = ({}, {})
        for family in ("ipv4", "ipv6"):
            texts = self.raw.get(family) or []
            if len(texts) > 2:
                path = (*self.path, family)
                self.source.refuse(path, f"found {len(texts)} addresses, wanted at most 2")
            for place, text in enumerate(texts):
                if text.strip():
                    found[place][family] = text.strip()
        return found

    def veth(self, written: str) -> LabLink:
        raws = self.raw.get("endpoints") or []
        if written == "veth-stitch" and len(raws) != 2:
            message = f"found {len(raws)} endpoints, wanted exactly 2 in a veth-stitch link"
            self.source.refuse(self.path, message)
        paths = [(*self.path, "endpoints", place) for place in range(len(raws))]
        ends = tuple(self.end(raw, path) for raw, path in zip(raws, paths, strict=True))
        return self.link(written, written, ends, None)

    def one_ended(self, written: str) -> LabLink:
        raw = self.raw.get("endpoint")
        if raw is None:
            message = f"found no endpoint in a {written} link, wanted endpoint: {{node: …}}"
            self.source.refuse(self.path, message)
        end = self.end(raw, (*self.path, "endpoint"))
        if written == "dummy":
            return self.link("dummy", "dummy", (end,), None)
        if written.startswith("vxlan"):
            host = Endpoint("host", "", end.mac)
            return self.link(written, written, (end, host), self.raw.get("mtu") or 0)
        return self.special(written, end, self.raw.get("host-interface") or "")

    def special(self, kind: str, end: Endpoint, outside: str) -> LabLink:
        """A link into the machine: `host`, `mgmt-net`, `macvlan`."""
        if kind == "mgmt-net":
            return self.link(kind, "veth", (Endpoint("mgmt-net", outside), end), None)
        if kind == "host":
            return self.link(kind, "veth", (end, Endpoint("host", outside)), None)
        mode = self.raw.get("mode") or ""
        if mode not in _MACVLAN_MODES:
            known = near(mode, _MACVLAN_MODES[1:])
            self.source.refuse((*self.path, "mode"), f"found the macvlan mode {mode!r}; {known}")
        return self.link(kind, "macvlan", (end, Endpoint("host", outside)), 0)

    def end(self, raw: Raw, path: Path) -> Endpoint:
        node = raw.get("node") or ""
        if node not in self.nodes and node not in ("host", "mgmt-net"):
            known = near(node, self.nodes)
            self.source.refuse(path, f"found the unknown node {node!r}; {known}")
        return Endpoint(
            node,
            raw.get("interface") or "",
            self.mac(raw.get("mac") or "", path),
            self.address("ipv4", raw.get("ipv4") or "", path),
            self.address("ipv6", raw.get("ipv6") or "", path),
            merge_deep({}, raw.get("vars") or {}),
        )

    def address(self, family: str, text: str, path: Path) -> str:
        if not text:
            return ""
        try:
            prefix = _prefix(text)
        except ValueError:
            message = f"found the {family} address {text!r}, wanted ADDRESS/BITS"
            self.source.refuse((*path, family), message)
        if prefix.version != int(family[-1]):
            message = f"found the address {text!r} under {family}, wanted one of IPv{family[-1]}"
            self.source.refuse((*path, family), message)
        return f"{prefix.ip}/{prefix.network.prefixlen}"

    def mac(self, text: str, path: Path) -> str:
        if not text:
            return ""
        if any(re.fullmatch(shape, text.lower()) for shape in _MACS):
            digits = re.sub(r"[^0-9a-f]", "", text.lower())
            return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
        message = f"found the MAC address {text!r}, wanted six pairs such as 02:00:00:00:00:01"
        self.source.refuse((*path, "mac"), message)


def _prefix(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    address, slash, bits = text.partition("/")
    if not slash or not re.fullmatch(r"0|[1-9]\d{0,2}", bits) or "%" in address:
        raise ValueError(text)
    return ipaddress.ip_interface(f"{address}/{bits}")
