"""The state that faults may touch, per node: taken before and after; the difference is a finding.

Compared: links (up, carrier, MTU, master, MAC), permanent addresses, routes, queueing disciplines,
nftables rules, permanent neighbours, nexthop objects that no daemon owns, and the settings that
faults write (forwarding per interface, the multipath hash). Left out is what moves
without a fault: counters, ages, dynamic neighbours, learned addresses, the order of ECMP legs, the
kernel's own local routes, handles.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chaos import netlink as nl
from chaos.errors import FabricError
from chaos.netlink import Netlink, NetlinkError
from chaos.netns import inside
from chaos.nft import Compiler
from chaos.saved import DAEMONS
from chaos.saved_words import legs

_AT_ONCE = 8
_PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 11: "zebra", 186: "bgp", 188: "ospf"}
_KINDS = {1: "", 6: "blackhole ", 7: "unreachable ", 8: "prohibit ", 9: "throw "}
_COUNTS = re.compile(r"\s+packets \d+ bytes \d+")
_DEAD, _LINKDOWN = 0x1, 0x10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State per node: sorted lines, each one fact in words."""

    nodes: Mapping[str, frozenset[str]]


def take(namespaces: Mapping[str, str], touched: Collection[str] | None = None) -> Snapshot:
    """Read the state of nodes, several at once; changes nothing.

    Args:
        namespaces: Path of the network namespace per node.
        touched: Only these nodes; all by default.

    Raises:
        FabricError: a namespace is gone or does not answer.
    """
    wanted = [name for name in namespaces if touched is None or name in touched]
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="snapshot") as pool:
        read = pool.map(lambda name: inside(namespaces[name], _read), wanted)
        return Snapshot(dict(zip(wanted, read, strict=True)))


def difference(before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """One sentence per fact that is missing or new, node by node."""
    sentences = []
    for node in sorted(before.nodes.keys() | after.nodes.keys()):
        old, new = (one.nodes.get(node, frozenset()) for one in (before, after))
        sentences += [f"{node}: {fact}: missing" for fact in sorted(old - new)]
        sentences += [f"{node}: {fact}: new" for fact in sorted(new - old)]
    return tuple(sentences)


async def settle(
    namespaces: Mapping[str, str], before: Snapshot, deadline_s: float = 20.0
) -> tuple[str, ...]:
    """`settled` for the namespaces of this machine that `before` was taken of."""

    async def again() -> Snapshot:
        return await asyncio.to_thread(take, namespaces, before.nodes.keys())

    return await settled(again, before, deadline_s)


async def settled(
    again: Callable[[], Awaitable[Snapshot]], before: Snapshot, deadline_s: float = 20.0
) -> tuple[str, ...]:
    """Read again until the state is as before or time is up; what then still differs.

    Routing needs time after healing, so differences on the way are no findings.

    Args:
        again: Reads the state now.
        before: What it was.
        deadline_s: Seconds that the state may take.
    """
    until, pause = time.monotonic() + deadline_s, 0.05
    while True:
        found = difference(before, await again())
        if not found or time.monotonic() >= until:
            return found
        await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(pause * 1.5, 0.5)


def _read() -> frozenset[str]:
    link = Netlink.open()
    try:
        names, facts = _links(link)
        for part in (_addresses, _routes, _qdiscs, _neighbours, _nexthops):
            facts |= set(part(link, names))
    except OSError as error:
        raise FabricError(f"the state of a node cannot be read: {error}") from None
    finally:
        link.close()
    return frozenset(facts | set(_rules()) | set(_settings(names)))


def _links(link: Netlink) -> tuple[dict[int, str], set[str]]:
    names: dict[int, str] = {}
    found = []
    for one in link.dump(nl.RTM_GETLINK, nl.ifinfo()):
        index, flags = struct.unpack_from("=iI", one.body, 4)
        got = nl.attrs(one.body, 16)
        names[index] = got[3].rstrip(b"\0").decode()
        found.append((index, flags, got))
    facts = set()
    for index, flags, got in found:
        carrier = "carrier" if flags & nl.IFF_LOWER_UP else "no carrier"
        words = [f"link {names[index]}", "up" if flags & nl.IFF_UP else "down", carrier]
        words += [f"mtu {_number(got[4])}", got.get(1, b"").hex(":")]
        words += [f"master {names.get(_number(got[10]), '?')}"] if 10 in got else []
        facts.add(" ".join(words))
    return names, facts


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])


def _addresses(link: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for one in link.dump(nl.RTM_GETADDR, bytes(8)):
        family, prefix, short, _, index = struct.unpack_from("=BBBBI", one.body)
        got = nl.attrs(one.body, 8)
        flags = _number(got[8]) if 8 in got else short
        if family in (socket.AF_INET, socket.AF_INET6) and flags & 0x80:
            own = socket.inet_ntop(family, got.get(2, got[1]))
            peer = socket.inet_ntop(family, got[1])
            peer = f" peer {peer}" if peer != own else ""
            yield f"address {own}/{prefix}{peer} on {names.get(index, index)}"


def _routes(link: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for family in (socket.AF_INET, socket.AF_INET6):
        head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for one in link.dump(nl.RTM_GETROUTE, head):
            (flags,) = struct.unpack_from("=I", one.body, 8)
            proto, kind = one.body[5], one.body[7]
            got = nl.attrs(one.body, 12)
            table = _number(got[15]) if 15 in got else one.body[4]
            own = table == 255 or (proto == 2 and kind != 1)  # local, broadcast, anycast, multicast
            if flags & 0x200 or kind not in _KINDS or own or proto in (1, 9) or 23 in got:
                continue
            yield _route(family, one.body, got, table, names)


def _route(
    family: int, body: bytes, got: Mapping[int, bytes], table: int, names: Mapping[int, str]
) -> str:
    target = f"{socket.inet_ntop(family, got[1])}/{body[1]}" if 1 in got else "default"
    if family == socket.AF_INET6 and target == "default":
        target = "default (IPv6)"
    proto = _PROTOCOLS.get(body[5], str(body[5]))
    words = [f"route {_KINDS[body[7]]}{target}", f"proto {proto}"]
    words += [f"table {table}"] if table != 254 else []
    words += [f"metric {_number(got[6])}"] if 6 in got and body[5] not in DAEMONS else []
    words += [f"src {socket.inet_ntop(family, got[7])}"] if 7 in got else []
    (flags,) = struct.unpack_from("=I", body, 8)
    hops = [_hop(family, flags, 0, _number(got[4]), got, names)] if 4 in got else []
    for _, leg_flags, more, index, attrs in legs(got.get(9, b"")):
        hops.append(_hop(family, leg_flags, more, index, nl.attrs(attrs, 0), names))
    return " ".join((*words, *sorted(hops)))


def _hop(
    family: int,
    flags: int,
    more: int,
    index: int,
    got: Mapping[int, bytes],
    names: Mapping[int, str],
) -> str:
    via = ""
    if 5 in got:
        via = f"via {socket.inet_ntop(family, got[5])} "
    elif 18 in got:
        other = struct.unpack_from("=H", got[18])[0]
        via = f"via {socket.inet_ntop(other, got[18][2:])} "
    weight = f" weight {more + 1}" if more else ""
    dead = " dead" * bool(flags & _DEAD) + " linkdown" * bool(flags & _LINKDOWN)
    return f"[{via}dev {names.get(index, index)}{weight}{dead}]"


def _qdiscs(link: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for one in link.dump(nl.RTM_GETQDISC, bytes(20)):
        index, _, parent = struct.unpack_from("=iII", one.body, 4)
        got = nl.attrs(one.body, 20)
        kind, options = got[1].rstrip(b"\0").decode(), got.get(2, b"")
        if kind == "htb":  # without the last word of TCA_HTB_INIT, which counts packets
            options = nl.attrs(options, 0).get(2, b"")[:16]
        yield f"qdisc {kind} on {names.get(index, index)} parent {parent:x} {options.hex()}"


def _neighbours(link: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for proxy in (0, 8):
            head = struct.pack("=BBHiHBB", family, 0, 0, 0, 0, proxy, 0)
            for one in link.dump(nl.RTM_GETNEIGH, head):
                index, state, flags = struct.unpack_from("=iHB", one.body, 4)
                got = nl.attrs(one.body, 12)
                if not (flags & 8 if proxy else state & 0x80):
                    continue
                kind = "proxy neighbour" if proxy else "neighbour"
                target = socket.inet_ntop(family, got[1])
                yield f"{kind} {target} {got.get(2, b'').hex(':')} on {names.get(index, index)}"


def _nexthops(link: Netlink, names: Mapping[int, str]) -> Iterator[str]:
    try:
        found = link.dump(nl.RTM_GETNEXTHOP, bytes(8))
    except NetlinkError:  # a kernel before 5.3 has no such objects
        return
    for one in found:
        if one.body[2] in DAEMONS:
            continue
        got = nl.attrs(one.body, 8)
        if 2 in got:
            members = struct.iter_unpack("=IBBH", got[2])
            shown = " ".join(sorted(f"{member}*{weight + 1}" for member, weight, *_ in members))
            yield f"nexthop {_number(got[1])} group {shown}"
            continue
        via = f" via {socket.inet_ntop(one.body[0], got[6])}" if 6 in got else ""
        dev = f" dev {names.get(_number(got[5]), '?')}" if 5 in got else ""
        yield f"nexthop {_number(got[1])}{via}{dev}"


def _rules() -> Iterator[str]:
    """nftables rules without counts, one fact per table."""
    compiler = Compiler()
    try:
        text = _COUNTS.sub("", compiler.run("list ruleset"))
    finally:
        compiler.close()
    for table in text.split("\ntable "):
        body = table.removeprefix("table ").strip()
        if body:
            yield f"nftables table {' '.join(body.split())}"


def _settings(names: Mapping[int, str]) -> Iterator[str]:
    """Settings that faults write, of the calling thread's namespace; those that there are."""
    keys = [f"{family}/fib_multipath_hash_policy" for family in ("ipv4", "ipv6")]
    keys += ["ipv4/fib_multipath_hash_fields"]
    keys += [
        f"{family}/conf/{name}/forwarding" for name in names.values() for family in ("ipv4", "ipv6")
    ]
    for key in keys:
        try:
            with open(f"/proc/sys/net/{key}", encoding="ascii") as file:
                yield f"sysctl net/{key} = {file.read().strip()}"
        except OSError:  # IPv6 is off, or the interface went meanwhile
            continue
