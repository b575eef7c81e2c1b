"""How a running lab is cabled, read from the kernel: both ends of every link, and what joins them.

A plain veth has both ends in nodes. A stitched link is two veths whose outer ends lie on the
machine and pass packets on to each other; taking down the outer end that faces a node takes the
carrier from that node, and nothing in it changes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from chaos import netlink as nl
from chaos.drivers.audit import Interface, read_interfaces, shared_indexes
from chaos.errors import FabricError, SpecError, near
from chaos.fabric import Fabric, Link, Port
from chaos.netns import inside

#: Kinds of links of a running lab (`Link.kind`); `veth` is one that is still to be deployed.
STITCHED, PLAIN = "veth-stitch", "veth-plain"
#: The network namespace of this machine's own interfaces.
HERE = "/proc/self/ns/net"
_IFLA_IFNAME, _IFLA_LINK, _PROPS, _ALT = 3, 5, 52, 53


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link.

    Attributes:
        port: The fabric's port.
        ifindex: Index of the interface in the node.
        outer: Index of the device on the machine that faces it; 0 where the link is plain.
        outer_name: Name of that device.
    """

    port: Port
    ifindex: int
    outer: int = 0
    outer_name: str = ""


@dataclass(frozen=True, slots=True)
class Outer:
    """A device on the machine: its name, its other names, and its peer's index."""

    name: str
    others: frozenset[str]
    peer: int


@dataclass(frozen=True, slots=True)
class Cabling:
    """What was found.

    Attributes:
        ends: By port.
        findings: One sentence per link that is not as the file says.
        warnings: One sentence per end whose carrier events come late.
    """

    ends: Mapping[Port, End]
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def ends_of(self, fabric: Fabric, node: str) -> tuple[End, ...]:
        """Ends at a node, in the order of the links."""
        ports = [p for link in fabric.links for p in link.ports if p.node == node]
        return tuple(self.ends[port] for port in ports if port in self.ends)

    def end(self, port: Port) -> End:
        """The end plugged into `port`.

        Raises:
            SpecError: there is no such port.
        """
        if port not in self.ends:
            known = [one.id for one in self.ends]
            raise SpecError(f"no port {port.id!r} in this fabric; {near(port.id, known)}")
        return self.ends[port]

    def kind(self, link: Link) -> str:
        """How a link is made."""
        if link.kind == "dummy":
            return link.kind
        ends = [self.ends[port] for port in link.ports if port in self.ends]
        return STITCHED if ends and all(end.outer for end in ends) else PLAIN


def read(fabric: Fabric, namespaces: Mapping[str, str], lab: str) -> Cabling:
    """Look at every node and at the machine's own devices; changes nothing.

    Args:
        fabric: What the file says.
        namespaces: Path per node that has a network of its own.
        lab: Name of the lab, which stitched devices carry.

    Raises:
        FabricError: a node's namespace is gone.
    """
    own = {name: inside(path, read_interfaces) for name, path in namespaces.items()}
    return join(fabric, own, inside(HERE, read_outers), lab)


def join(
    fabric: Fabric,
    own: Mapping[str, Mapping[int, Interface]],
    outers: Mapping[int, Outer],
    lab: str,
) -> Cabling:
    """The same, from what was read; pure."""
    ends: dict[Port, End] = {}
    findings: list[str] = []
    for link in fabric.links:
        found = [_end(port, link, own, outers, lab) for port in link.ports if port.node in own]
        for port, end in zip([p for p in link.ports if p.node in own], found, strict=True):
            if isinstance(end, str):
                findings.append(end)
            else:
                ends[port] = end
    for link in fabric.links:
        if all(port in ends for port in link.ports) and len(link.ports) == 2:
            wrong = _joined(link, ends, own)
            findings += [wrong] if wrong else []
    return Cabling(ends, tuple(findings), tuple(shared_indexes(_on_links(own, ends))))


def _end(
    port: Port,
    link: Link,
    own: Mapping[str, Mapping[int, Interface]],
    outers: Mapping[int, Outer],
    lab: str,
) -> End | str:
    index = next((i for i, one in own[port.node].items() if one.name == port.name), 0)
    if not index:
        return f"link {link.id}: {port.node} has no interface {port.name}"
    end = End(port, index)
    peer = own[port.node][index].peer
    outer = outers.get(peer)
    if outer is None or outer.peer != index or len(link.ports) < 2:
        return end
    far = link.other(port)
    if f"clab-stitch-{lab}-{far.node}-{far.name}" not in outer.others:
        return end
    return replace(end, outer=peer, outer_name=outer.name)


def _joined(
    link: Link, ends: Mapping[Port, End], own: Mapping[str, Mapping[int, Interface]]
) -> str:
    a, b = (ends[port] for port in link.ports)
    if a.outer and b.outer:
        return ""
    peers = [own[end.port.node][end.ifindex].peer for end in (a, b)]
    if not a.outer and not b.outer and peers == [b.ifindex, a.ifindex]:
        return ""
    return f"link {link.id}: its ends are not joined to each other"


def _on_links(
    own: Mapping[str, Mapping[int, Interface]], ends: Mapping[Port, End]
) -> dict[str, dict[int, Interface]]:
    found: dict[str, dict[int, Interface]] = {}
    for port, end in ends.items():
        found.setdefault(port.node, {})[end.ifindex] = own[port.node][end.ifindex]
    return found


def with_kinds(fabric: Fabric, cabling: Cabling) -> Fabric:
    """The fabric with each link's kind as it was found."""
    links = tuple(replace(link, kind=cabling.kind(link)) for link in fabric.links)
    return replace(fabric, links=links)


def read_outers() -> dict[int, Outer]:
    """Devices of the calling thread's network namespace, with their other names."""
    kernel = nl.Netlink.open()
    try:
        found = {}
        for got in kernel.dump(nl.RTM_GETLINK, nl.ifinfo()):
            (index,) = struct.unpack_from("=i", got.body, 4)
            attrs = nl.attrs(got.body, 16)
            peer = struct.unpack("=I", attrs.get(_IFLA_LINK, bytes(4)))[0]
            others = frozenset(_texts(attrs.get(_PROPS, b"")))
            found[index] = Outer(_text(attrs[_IFLA_IFNAME]), others, peer)
        return found
    finally:
        kernel.close()


def _texts(data: bytes) -> Iterator[str]:
    """Every other name in a list of properties, where one kind occurs many times."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        if kind & 0x3FFF == _ALT:
            yield _text(data[at + 4 : at + length])
        at += (length + 3) & ~3


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def refuse(findings: Sequence[str], lab: str) -> None:
    """Raise what is wrong with the cabling.

    Raises:
        FabricError: something is.
    """
    if findings:
        more = f" (and {len(findings) - 4} more)" if len(findings) > 4 else ""
        raise FabricError(f"lab {lab}: {'; '.join(findings[:4])}{more}")
