"""Which links a packet crosses, by the kernels' own route look-ups, and the counters that prove it.

The look-up is packed by hand: a library that does not know RTA_SPORT, RTA_DPORT or RTA_IP_PROTO
leaves them out and answers for another flow, without an error.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from chaos.errors import FabricError, SpecError
from chaos.fabric import Crossing, Fabric, Link, Port
from chaos.netlink import RTM_GETLINK, RTM_GETROUTE, Netlink, NetlinkError, attr, attrs, ifinfo, u32
from chaos.netns import inside

_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY = 1, 2, 3, 4, 5
_RTA_MARK, _RTA_VIA, _RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 16, 18, 27, 28, 29
_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_LOCAL = 2
_WHY = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "no route, or one of kind unreachable",
    errno.EINVAL: "a blackhole route, or an address that cannot be",
    errno.EACCES: "a route of kind prohibit",
    errno.EXDEV: "the source does not fit the incoming interface (rp_filter)",
}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
MAX_HOPS = 64


@dataclass(frozen=True, slots=True)
class NextHop:
    """A kernel's answer to a look-up.

    Attributes:
        ifindex: Interface the packet would leave by.
        gateway: Address of the next router (IPv6 also for IPv4 packets); empty on-link.
        local: The packet is for this node itself.
    """

    ifindex: int
    gateway: str = ""
    local: bool = False


class Counters(NamedTuple):
    """Counters of one port, as its node sees them."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


def lookup(
    namespace: Netlink | str,
    dst: str,
    src: str = "",
    *,
    proto: str | int = "udp",
    sport: int = 0,
    dport: int = 0,
    iif: int = 0,
    mark: int = 0,
) -> NextHop:
    """Ask the kernel of a namespace where it would send one packet.

    Args:
        namespace: A warm socket, or the path of a namespace (a socket is opened for this answer).
        dst: Destination address.
        src: Source address; needed when `iif` is given.
        proto: `udp`, `tcp` or a protocol number.
        sport: Source port.
        dport: Destination port.
        iif: Interface index the packet came in by; 0 for a packet of the node's own.
        mark: Firewall mark.

    Raises:
        NetlinkError: the kernel has no route, or one that rejects; see `_WHY`.
    """
    if isinstance(namespace, str):
        warm = inside(namespace, Netlink.open)
        try:
            return lookup(warm, dst, src, proto=proto, sport=sport, dport=dport, iif=iif, mark=mark)
        finally:
            warm.close()
    answer = namespace.ask(RTM_GETROUTE, request(dst, src, proto, sport, dport, iif, mark))
    found = attrs(answer.body, 12)
    kind = answer.body[7]
    return NextHop(
        ifindex=struct.unpack("=I", found[_RTA_OIF])[0] if _RTA_OIF in found else 0,
        gateway=_gateway(found),
        local=kind == _LOCAL,
    )


def request(
    dst: str, src: str, proto: str | int, sport: int, dport: int, iif: int, mark: int
) -> bytes:
    """The body of the RTM_GETROUTE message."""
    number = proto if isinstance(proto, int) else _PROTOCOLS.get(proto)
    if number is None:
        raise SpecError(f"protocol must be {', '.join(_PROTOCOLS)} or a number, got {proto!r}")
    to = ipaddress.ip_address(dst)
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    bits = to.max_prefixlen
    parts = [attr(_RTA_DST, to.packed)]
    if src:
        parts.append(attr(_RTA_SRC, ipaddress.ip_address(src).packed))
    if iif:
        parts.append(u32(_RTA_IIF, iif))
    if mark:
        parts.append(u32(_RTA_MARK, mark))
    parts.append(attr(_RTA_IP_PROTO, bytes([number])))
    for kind, port in ((_RTA_SPORT, sport), (_RTA_DPORT, dport)):
        if port:
            parts.append(attr(kind, struct.pack("!H", port)))
    header = struct.pack("=BBBBBBBBI", family, bits, bits if src else 0, 0, 0, 0, 0, 0, 0)
    return header + b"".join(parts)


def _gateway(found: Mapping[int, bytes]) -> str:
    raw = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]
    return str(ipaddress.ip_address(raw)) if raw else ""


@dataclass(slots=True)
class _Eye:
    """A warm socket in one node, and that node's interface names."""

    sock: Netlink
    names: dict[int, str] = field(default_factory=dict)

    def read_names(self) -> None:
        self.names.clear()
        for answer in self.sock.dump(RTM_GETLINK, ifinfo()):
            (index,) = struct.unpack_from("=i", answer.body, 4)
            name = attrs(answer.body, 16).get(_IFLA_IFNAME, b"")
            self.names[index] = name.rstrip(b"\0").decode()

    def name(self, index: int) -> str:
        if index not in self.names:
            self.read_names()
        return self.names.get(index, f"interface {index}")

    def index(self, name: str) -> int:
        for again in (False, True):
            if again:
                self.read_names()
            for index, known in self.names.items():
                if known == name:
                    return index
        return 0


class Tracer:
    """Walks packets through a running fabric with one warm socket per node.

    Examples:
        >>> Tracer(Fabric("empty", {}), {}).counters([])
        {}
    """

    def __init__(self, fabric: Fabric, namespaces: Mapping[str, str]) -> None:
        self.fabric, self.namespaces = fabric, namespaces
        self._eyes: dict[str, _Eye] = {}
        self._links = {port: link for link in fabric.links for port in link.ports}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket."""
        for eye in self._eyes.values():
            eye.sock.close()
        self._eyes.clear()

    def crossings(
        self,
        source: str,
        source_ip: str,
        target_ip: str,
        proto: str | int = "udp",
        sport: int = 0,
        dport: int = 0,
    ) -> tuple[Crossing, ...]:
        """Links that a packet of `source` crosses on its way to `target_ip`, in order.

        Each router is asked with the interface by which the packet comes in, so its policy rules
        and its own hash decide.

        Raises:
            FabricError: a node has no route, the path loops, or it leaves the fabric's links.
        """
        node, iif, taken = source, 0, list[Crossing]()
        been: set[tuple[str, int]] = set()
        flow = f"{source_ip}:{sport} -> {target_ip}:{dport} {proto}"
        while (node, iif) not in been and len(taken) < MAX_HOPS:
            been.add((node, iif))
            eye = self._eye(node)
            try:
                hop = lookup(
                    eye.sock, target_ip, source_ip, proto=proto, sport=sport, dport=dport, iif=iif
                )
            except NetlinkError as error:
                why = _WHY.get(error.errno or 0, str(error.strerror))
                raise FabricError(f"{node} has no way for {flow} ({why}){_so_far(taken)}") from None
            if hop.local:
                return tuple(taken)
            crossing = self._cross(node, eye.name(hop.ifindex), flow)
            taken.append(crossing)
            node = crossing.target
            iif = self._eye(node).index(crossing.link.port_of(node).name)
        raise FabricError(f"{flow} loops{_so_far(taken)}")

    def _cross(self, node: str, ifname: str, flow: str) -> Crossing:
        port = Port(node, ifname)
        link = self._links.get(port)
        if link is None or len(link.ports) < 2:
            raise FabricError(f"{flow} leaves {node} by {ifname}, which is no link of the fabric")
        return Crossing(link, node, link.other(port).node)

    def port_counters(self, ports: Iterable[Port]) -> dict[Port, Counters]:
        """Packet and byte counters of ports, read in their nodes."""
        found = {}
        for port in ports:
            eye = self._eye(port.node)
            index = eye.index(port.name)
            if not index:
                raise FabricError(
                    f"{port} is not there; {port.node} has {sorted(eye.names.values())}"
                )
            answer = eye.sock.ask(RTM_GETLINK, ifinfo(index))
            stats = attrs(answer.body, 16)[_IFLA_STATS64]
            found[port] = Counters(*struct.unpack_from("=4Q", stats))
        return found

    def counters(self, links: Iterable[Link]) -> dict[Port, Counters]:
        """Counters of both ends of links."""
        return self.port_counters(port for link in links for port in link.ports)

    def _eye(self, node: str) -> _Eye:
        if node not in self._eyes:
            path = self.namespaces.get(node)
            if path is None:
                raise FabricError(f"{node} has no network namespace on this machine to ask")
            eye = _Eye(inside(path, Netlink.open))
            eye.read_names()
            self._eyes[node] = eye
        return self._eyes[node]


def _so_far(taken: list[Crossing]) -> str:
    return "; it came by " + ", ".join(str(crossing) for crossing in taken) if taken else ""
