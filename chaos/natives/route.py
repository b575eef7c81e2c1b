"""`OwnRoute`: one message adds the route, one deletes it."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from chaos import netlink as nl
from chaos.change import Hits, OwnRoute, Where
from chaos.changes.route import METRIC, PROTOCOL
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Netlink
from chaos.saved import raw_attrs
from chaos.saved_words import legs, route

_DST, _OIF, _GATEWAY, _METRIC, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 9, 15, 18
_MAIN, _ONLINK, _UNICAST, _CLONED = 254, 0x4, 1, 0x200
_KINDS = {"blackhole": 6, "unreachable": 7, "prohibit": 8}
_NTF_ROUTER, _FAILED = 0x80, 0x20


@dataclass(slots=True)
class Routed:
    """`OwnRoute`: worked out before the deed, with the next hops that the kernel has then."""

    change: OwnRoute
    link: Netlink
    saved: Mapping[str, Any]
    acted: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: OwnRoute, where: Where, saved: Mapping[str, Any] | None) -> Routed:
        """Called inside the namespace."""
        link = Netlink.open()
        try:
            if saved is None:
                if _ours(link, change):
                    raise BlockedError(
                        f"{change.place.node}: a route of protocol {PROTOCOL} and metric {METRIC} "
                        f"to {change.prefix} is there already: a leftover or another run "
                        "(railbreak undo takes it back)"
                    )
                body = _body(link, change, where)
                names = _names(link)
                words = () if change.to in _KINDS else _command(body, names)
                saved = {"body": body.hex(), "command": list(words)}
        except BaseException:
            link.close()
            raise
        return cls(change, link, saved)

    def do(self) -> None:
        """Add it."""
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        body = bytes.fromhex(self.saved["body"])
        try:
            self.link.send(nl.message(nl.RTM_NEWROUTE, flags, body))
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Delete it; nothing where it is not there."""
        self.acted += self.in_force()
        head, target = _head(self.change, 0), nl.u32(_METRIC, METRIC)
        body = head + _target(self.change) + target
        try:
            self.link.send(nl.message(nl.RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK, body))
        except OSError as error:
            if error.errno != errno.ESRCH:
                return (f"delete route {self.change.prefix}: {error}",)
        return ()

    def in_force(self) -> bool:
        """Whether the route is there."""
        return _ours(self.link, self.change)

    def hits(self) -> Hits:
        """How many times it was seen in force; a kernel does not count packets per route."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def _family(change: OwnRoute) -> int:
    return socket.AF_INET if change.family == 4 else socket.AF_INET6


def _head(change: OwnRoute, kind: int, flags: int = 0) -> bytes:
    length, scope = ip_network(change.prefix).prefixlen, 0 if kind else 255  # 255: any, to delete
    return struct.pack(
        "=BBBBBBBBI", _family(change), length, 0, 0, _MAIN, PROTOCOL, scope, kind, flags
    )


def _target(change: OwnRoute) -> bytes:
    network = ip_network(change.prefix)
    return nl.attr(_DST, network.network_address.packed) if network.prefixlen else b""


def _body(link: Netlink, change: OwnRoute, where: Where) -> bytes:
    """The message that adds the route."""
    ours = _target(change) + nl.u32(_METRIC, METRIC)
    if change.to in _KINDS:
        return _head(change, _KINDS[change.to]) + ours
    if change.to == "leg":
        hop, flags = _next_hop(link, change, where)
        return _head(change, _UNICAST, flags) + ours + hop + nl.u32(_OIF, where.ifindex)
    return _as_is(link, change, ours)


def _as_is(link: Netlink, change: OwnRoute, ours: bytes) -> bytes:
    best: tuple[int, bytes] | None = None
    target = _bare_target(change)
    for body, got in _routes(link, _family(change)):
        metric = _number(got.get(_METRIC, bytes(4)))
        if body[1] == body_length(change) and got.get(_DST, b"") == target and body[7] == _UNICAST:
            best = min(best or (metric, body), (metric, body))
    if best is None:
        raise FabricError(
            f"{change.place.node} has no route to {change.prefix} whose legs could be kept"
        )
    (flags,) = struct.unpack_from("=I", best[1], 8)
    kept = [raw for kind, raw in raw_attrs(best[1], 12) if kind in (_OIF, _GATEWAY, _VIA)]
    for kind, raw in raw_attrs(best[1], 12):
        if kind == _MULTIPATH:
            multipath = bytearray(raw[4:])
            for at, leg_flags, *_ in legs(raw[4:]):
                multipath[at + 2] = leg_flags & _ONLINK
            kept.append(nl.attr(_MULTIPATH, bytes(multipath)))
    return _head(change, _UNICAST, flags & _ONLINK) + ours + b"".join(kept)


def _next_hop(link: Netlink, change: OwnRoute, where: Where) -> tuple[bytes, int]:
    """Attribute of the next hop on an interface, and the route's flags.

    By the kernel's own routes there; else the other address of a subnet of two; else a neighbour
    that said it is a router.
    """
    wanted = {_family(change), socket.AF_INET6}  # IPv4 may go to an IPv6 next hop
    for family in (socket.AF_INET, socket.AF_INET6):
        for body, got in _routes(link, family):
            (flags,) = struct.unpack_from("=I", body, 8)
            listed = [(flags, _number(got.get(_OIF, bytes(4))), got)]
            for _, more, _, index, inner in legs(got.get(_MULTIPATH, b"")):
                listed.append((more, index, nl.attrs(inner, 0)))
            for leg_flags, index, inside in listed:
                hop = _hop(family, inside)
                if index == where.ifindex and hop and hop[0] in wanted:
                    return _as_attr(_family(change), hop), leg_flags & _ONLINK
    found = next(_others(link, where.ifindex, wanted), None)
    if found is None:
        raise FabricError(
            f"{change.place}: no next hop is known there: no route uses the interface, its subnet "
            "has more than two addresses, and no router has told of itself"
        )
    return _as_attr(_family(change), found), 0


def _hop(family: int, got: Mapping[int, bytes]) -> tuple[int, bytes] | None:
    if _GATEWAY in got:
        return family, got[_GATEWAY]
    if _VIA in got:
        return struct.unpack_from("=H", got[_VIA])[0], got[_VIA][2:]
    return None


def _as_attr(family: int, hop: tuple[int, bytes]) -> bytes:
    if hop[0] == family:
        return nl.attr(_GATEWAY, hop[1])
    return nl.attr(_VIA, struct.pack("=H", hop[0]) + hop[1])


def _others(link: Netlink, index: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    for one in link.dump(nl.RTM_GETADDR, bytes(8)):
        family, length, _, _, at = struct.unpack_from("=BBBBI", one.body)
        got = nl.attrs(one.body, 8)
        whole = 32 if family == socket.AF_INET else 128
        if at == index and family in wanted and whole - length in (1, 2):
            mine = ip_interface((got.get(2, got[1]), length))
            usable = list(mine.network.hosts())
            yield from (
                (family, socket.inet_pton(family, str(other)))
                for other in usable
                if other != mine.ip
            )
    head = struct.pack("=BBHiHBB", socket.AF_INET6, 0, 0, 0, 0, 0, 0)
    for one in link.dump(nl.RTM_GETNEIGH, head):
        at, state, flags = struct.unpack_from("=iHB", one.body, 4)
        if at == index and flags & _NTF_ROUTER and state and not state & _FAILED:
            yield socket.AF_INET6, nl.attrs(one.body, 12)[1]


def _routes(link: Netlink, family: int) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    """Routes of the main table that are not ours."""
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
    for one in link.dump(nl.RTM_GETROUTE, head):
        got = nl.attrs(one.body, 12)
        table = _number(got[_TABLE]) if _TABLE in got else one.body[4]
        cloned = struct.unpack_from("=I", one.body, 8)[0] & _CLONED
        if table == _MAIN and not cloned and one.body[5] != PROTOCOL:
            yield one.body, got


def _ours(link: Netlink, change: OwnRoute) -> bool:
    head = struct.pack("=BBBBBBBBI", _family(change), 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        found = link.dump(nl.RTM_GETROUTE, head)
    except OSError as error:
        raise FabricError(f"{change.place.node}: routes cannot be read: {error}") from None
    for one in found:
        if one.body[1] != body_length(change) or one.body[5] != PROTOCOL:
            continue
        got = nl.attrs(one.body, 12)
        metric = _number(got.get(_METRIC, bytes(4)))
        if got.get(_DST, b"") == _bare_target(change) and metric == METRIC:
            return True
    return False


def body_length(change: OwnRoute) -> int:
    """Length of the prefix in bits."""
    return ip_network(change.prefix).prefixlen


def _bare_target(change: OwnRoute) -> bytes:
    network = ip_network(change.prefix)
    return network.network_address.packed if network.prefixlen else b""


def _names(link: Netlink) -> dict[int, str]:
    found = {}
    for one in link.dump(nl.RTM_GETLINK, nl.ifinfo()):
        (index,) = struct.unpack_from("=i", one.body, 4)
        found[index] = nl.attrs(one.body, 16)[3].rstrip(b"\0").decode()
    return found


def _command(body: bytes, names: Mapping[int, str]) -> tuple[str, ...]:
    argv = route(body, names)
    at = argv.index("append")
    return (*argv[:at], "add", *argv[at + 1 :])


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])
