"""What a namespace forwards by: its routes and addresses, read from the kernel."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chaos import netlink as nl

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 9, 15, 18
_RTN_UNICAST, _RT_TABLE_MAIN = 1, 254
_RTNH_F_DEAD, _RTNH_F_LINKDOWN = 0x1, 0x10
_FAMILY = {4: 2, 6: 10}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, order=True, slots=True)
class Leg:
    """One next hop of a route: interface index and gateway (empty when on link)."""

    ifindex: int
    gateway: str = ""


def read_fib(version: int = 4) -> dict[Network, frozenset[Leg]]:
    """Main table of the calling thread's network namespace: live legs per prefix."""
    kernel = nl.Netlink.open()
    try:
        body = struct.pack("=BBBBBBBBI", _FAMILY[version], 0, 0, 0, 0, 0, 0, 0, 0)
        found: dict[Network, set[Leg]] = {}
        for got in kernel.dump(nl.RTM_GETROUTE, body):
            route = _route(got.body, version)
            if route is not None:
                found.setdefault(route[0], set()).update(route[1])
        return {prefix: frozenset(legs) for prefix, legs in found.items()}
    finally:
        kernel.close()


def _route(body: bytes, version: int) -> tuple[Network, set[Leg]] | None:
    _, bits, _, _, table, _, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
    attrs = nl.attrs(body, 12)
    if _RTA_TABLE in attrs:
        (table,) = struct.unpack("=I", attrs[_RTA_TABLE])
    if kind != _RTN_UNICAST or table != _RT_TABLE_MAIN:
        return None
    size = 4 if version == 4 else 16
    network: type[ipaddress.IPv4Network] | type[ipaddress.IPv6Network]
    network = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    prefix = network((attrs.get(_RTA_DST, bytes(size)), bits))
    if _RTA_MULTIPATH in attrs:
        return prefix, set(_multipath(attrs[_RTA_MULTIPATH]))
    if flags & (_RTNH_F_DEAD | _RTNH_F_LINKDOWN) or _RTA_OIF not in attrs:
        return prefix, set()
    return prefix, {Leg(struct.unpack("=I", attrs[_RTA_OIF])[0], _gateway(attrs))}


def _multipath(data: bytes) -> Iterable[Leg]:
    at = 0
    while at + 8 <= len(data):
        length, flags, _, ifindex = struct.unpack_from("=HBBi", data, at)
        if length < 8:
            return
        if not flags & (_RTNH_F_DEAD | _RTNH_F_LINKDOWN):
            yield Leg(ifindex, _gateway(nl.attrs(data[at : at + length], 8)))
        at += (length + 3) & ~3


def _gateway(attrs: Mapping[int, bytes]) -> str:
    if _RTA_GATEWAY in attrs:
        return str(ipaddress.ip_address(attrs[_RTA_GATEWAY]))
    if _RTA_VIA in attrs:
        return str(ipaddress.ip_address(attrs[_RTA_VIA][2:]))
    return ""


def read_addresses() -> dict[int, list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]]:
    """Global addresses per interface index, in the calling thread's network namespace."""
    kernel = nl.Netlink.open()
    try:
        found: dict[int, list[ipaddress.IPv4Interface | ipaddress.IPv6Interface]] = {}
        for got in kernel.dump(nl.RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            _, bits, _, scope, index = struct.unpack_from("=BBBBI", got.body)
            attrs = nl.attrs(got.body, 8)
            raw = attrs.get(2, attrs.get(1))  # IFA_LOCAL, else IFA_ADDRESS
            if scope == 0 and raw is not None:
                found.setdefault(index, []).append(ipaddress.ip_interface((raw, bits)))
        return found
    finally:
        kernel.close()


def read_running() -> set[int]:
    """Indexes of interfaces that are up and have carrier, in the calling thread's namespace."""
    kernel = nl.Netlink.open()
    try:
        found = set()
        for got in kernel.dump(nl.RTM_GETLINK, nl.ifinfo()):
            index, flags = struct.unpack_from("=iI", got.body, 4)
            if flags & nl.IFF_UP and flags & nl.IFF_LOWER_UP:
                found.add(index)
        return found
    finally:
        kernel.close()
