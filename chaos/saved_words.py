"""Netlink messages of saved state as `ip` commands, for people and for targets without Python."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping

from chaos import netlink as nl

Argv = tuple[str, ...]
Names = Mapping[int, str]
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_METRICS = {2: "mtu", 3: "window", 8: "advmss", 10: "hoplimit", 11: "initcwnd", 14: "initrwnd"}


def _ip(family: int, raw: bytes) -> str:
    return socket.inet_ntop(family, raw)


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])


def link_up(name: str) -> Argv:
    """Set an interface up."""
    return ("ip", "link", "set", "dev", name, "up")


def address(body: bytes, names: Names) -> Argv:
    """`ip addr replace`."""
    family, prefix, _, _, index = struct.unpack_from("=BBBBI", body)
    got = nl.attrs(body, 8)
    own = got.get(2, got[1])
    argv = ["ip", "addr", "replace", f"{_ip(family, own)}"]
    if own != got[1]:
        argv += ["peer", f"{_ip(family, got[1])}"]
    argv[-1] += f"/{prefix}"
    argv += ["dev", names[index]]
    flags = _number(got[8]) if 8 in got else 0
    argv += ["nodad"] * bool(flags & 0x2) + ["noprefixroute"] * bool(flags & 0x200)
    argv += ["metric", str(_number(got[9]))] if 9 in got else []
    return tuple(argv)


def route(body: bytes, names: Names) -> Argv:
    """`ip route append`: unlike `replace` it leaves the same prefix on other interfaces alone."""
    family, length, table, proto = body[0], body[1], body[4], body[5]
    got = nl.attrs(body, 12)
    target = f"{_ip(family, got[1])}/{length}" if 1 in got else "default"
    argv = ["ip", "-4" if family == socket.AF_INET else "-6", "route", "append", target]
    argv += ["proto", str(proto), "table", str(_number(got[15]) if 15 in got else table)]
    argv += ["tos", str(body[3])] if body[3] else []
    argv += ["metric", str(_number(got[6]))] if 6 in got else []
    argv += ["src", _ip(family, got[7])] if 7 in got else []
    argv += _metrics(got.get(8, b""))
    if 30 in got:
        return (*argv, "nhid", str(_number(got[30])))
    if family == socket.AF_INET and 9 not in got:
        argv += ["scope", _SCOPES.get(body[6], str(body[6]))]
    argv += _hop(family, got)
    argv += ["dev", names[_number(got[4])]] if 4 in got else []
    argv += ["onlink"] if struct.unpack_from("=I", body, 8)[0] & 0x4 else []
    for _, flags, hops, index, attrs in legs(got.get(9, b"")):
        argv += ["nexthop", *_hop(family, nl.attrs(attrs, 0)), "dev", names[index]]
        argv += ["weight", str(hops + 1)] + ["onlink"] * bool(flags & 0x4)
    return tuple(argv)


def _metrics(raw: bytes) -> list[str]:
    """Route metrics in words; those counted in the kernel's own units are left out."""
    found = nl.attrs(raw, 0)
    locked = _number(found[1]) if 1 in found else 0
    argv = []
    for kind, name in _METRICS.items():
        if kind in found:
            argv += [name, *(["lock"] if locked >> kind & 1 else []), str(_number(found[kind]))]
    return argv


def _hop(family: int, got: Mapping[int, bytes]) -> list[str]:
    if 5 in got:
        return ["via", _ip(family, got[5])]
    if 18 in got:  # RTA_VIA: an IPv4 route whose gateway is IPv6
        other = struct.unpack_from("=H", got[18])[0]
        return ["via", "inet6" if other == socket.AF_INET6 else "inet", _ip(other, got[18][2:])]
    return []


def legs(multipath: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Legs of RTA_MULTIPATH: offset, flags, weight - 1, interface index, attributes."""
    at = 0
    while at + 8 <= len(multipath):
        length, flags, hops, index = struct.unpack_from("=HBBi", multipath, at)
        if length < 8:
            return
        yield at, flags, hops, index, multipath[at + 8 : at + length]
        at += (length + 3) & ~3


def nexthop(body: bytes, names: Names) -> Argv:
    """`ip nexthop replace`."""
    got = nl.attrs(body, 8)
    argv = ["ip", "nexthop", "replace", "id", str(_number(got[1]))]
    if 2 in got:
        members = struct.iter_unpack("=IBBH", got[2])
        return (*argv, "group", "/".join(f"{one},{weight + 1}" for one, weight, *_ in members))
    argv += ["via", _ip(body[0], got[6])] if 6 in got else []
    argv += ["dev", names[_number(got[5])]] if 5 in got else []
    return (*argv, "proto", str(body[2]))


def neighbour(body: bytes, names: Names) -> Argv:
    """`ip neigh replace`."""
    (index,) = struct.unpack_from("=i", body, 4)
    got = nl.attrs(body, 12)
    target = _ip(body[0], got[1])
    if body[10] & 0x8:
        return ("ip", "neigh", "replace", "proxy", target, "dev", names[index])
    mac = got.get(2, b"").hex(":")
    lladdr = ("lladdr", mac) if mac else ()
    return ("ip", "neigh", "replace", target, *lladdr, "dev", names[index], "nud", "permanent")
