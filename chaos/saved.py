"""What the kernel drops when an interface is set down and never brings back; saved before the deed.

Gone with an admin down: routes over the interface (IPv4 and IPv6, also those of VLANs on top of
it), nexthop objects and their groups, IPv6 addresses, permanent neighbours and proxy entries, the
up state of VLANs. Multipath routes come back with their legs unless the last leg went.
What a daemon owns (routing protocols, router advertisements) is left to the daemon.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chaos import netlink as nl
from chaos import saved_words as words
from chaos.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    Netlink,
    NetlinkError,
)

#: Route protocols whose owner puts its routes back by itself: redirect, kernel routing daemons
#: (gated … bird, xorp), babel, openr, FRR's own range.
DAEMONS = frozenset({1, 8, 9, 10, 11, 12, 13, 14, 15, 18, 42, 99, *range(186, 200)})
_CLONED = 0x200
_ONLINK_PERVASIVE = 0x4 | 0x2
_LOCAL_TABLE, _UNICAST = 255, 1
_PERMANENT_ADDRESS, _TEMPORARY, _LOST_FLAGS = 0x80, 0x01, 0x80 | 0x40 | 0x20 | 0x08
_PERMANENT_NEIGHBOUR, _PROXY = 0x80, 0x8
_KEPT_NEXTHOP_ATTRS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12})


@dataclass(frozen=True, slots=True)
class Saved:
    """State to be put back, as netlink messages and as commands of `ip`.

    Attributes:
        messages: Ready to send, in order; each with NLM_F_ACK.
        commands: The same for people and for targets without Python.
    """

    messages: tuple[bytes, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the journal."""
        return {
            "messages": [one.hex() for one in self.messages],
            "commands": [list(argv) for argv in self.commands],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Saved:
        """Read what `to_json` wrote."""
        return cls(
            tuple(bytes.fromhex(one) for one in data.get("messages", ())),
            tuple(tuple(argv) for argv in data.get("commands", ())),
        )


def save(link: Netlink, index: int) -> Saved:
    """What would be lost by setting the interface `index` down now; changes nothing."""
    names, stacked = _stack(link, index)
    lost = {index, *stacked}
    objects = list(_nexthops(link, lost))
    ids = {struct.unpack("=I", nl.attrs(body, 8)[1])[0] for _, body in objects}
    messages = [nl.set_updown(one, True) for one in stacked]
    commands = [words.link_up(names[one]) for one in stacked]
    for body in _addresses(link, lost):
        messages.append(_add(nl.RTM_NEWADDR, body))
        commands.append(words.address(body, names))
    for is_group, body in objects:
        flags = NLM_F_REPLACE if is_group else NLM_F_EXCL
        messages.append(_add(nl.RTM_NEWNEXTHOP, body, flags))
        commands.append(words.nexthop(body, names))
    for body in _routes(link, lost, ids):
        messages.append(_add(nl.RTM_NEWROUTE, body, NLM_F_APPEND))
        commands.append(words.route(body, names))
    for body in _neighbours(link, lost):
        messages.append(_add(nl.RTM_NEWNEIGH, body))
        commands.append(words.neighbour(body, names))
    return Saved(tuple(messages), tuple(commands))


# Routes are appended: EXCL would refuse one whose prefix another interface has too, and REPLACE
# would take that other one away (fe80::/64 is on every interface). An equal route is refused.


def put_back(link: Netlink, saved: Saved) -> tuple[str, ...]:
    """Send what was saved; what is there already stays. Sentences for what the kernel refused."""
    refused = []
    for at, one in enumerate(saved.messages):
        try:
            link.send(one)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                refused.append(f"{' '.join(saved.commands[at])}: {error.strerror}")
    return tuple(refused)


def _add(kind: int, body: bytes, flags: int = NLM_F_EXCL) -> bytes:
    return nl.message(kind, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | flags, body)


def _stack(link: Netlink, index: int) -> tuple[dict[int, str], list[int]]:
    """Names by index, and the VLANs above `index` that are up, lowest first."""
    names: dict[int, str] = {}
    below: dict[int, int] = {}
    for one in link.dump(nl.RTM_GETLINK, nl.ifinfo()):
        at, flags = struct.unpack_from("=iI", one.body, 4)
        got = nl.attrs(one.body, 16)
        names[at] = got[3].rstrip(b"\0").decode()
        info = nl.attrs(got.get(18, b""), 0)
        if flags & nl.IFF_UP and info.get(1, b"").rstrip(b"\0") == b"vlan" and 5 in got:
            below[at] = struct.unpack("=I", got[5])[0]
    stacked: list[int] = []
    layer = {index}
    while layer:
        layer = {at for at, lower in below.items() if lower in layer and at not in stacked}
        stacked += sorted(layer)
    return names, stacked


def raw_attrs(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Attributes with their padding and flag bits, as they stand."""
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, body[offset : offset + ((length + 3) & ~3)]
        offset += (length + 3) & ~3


def _without(body: bytes, offset: int, unwanted: frozenset[int]) -> bytes:
    return b"".join(raw for kind, raw in raw_attrs(body, offset) if kind not in unwanted)


def _addresses(link: Netlink, lost: set[int]) -> Iterator[bytes]:
    for one in link.dump(nl.RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET6, 0, 0, 0, 0)):
        family, prefix, short, scope, index = struct.unpack_from("=BBBBI", one.body)
        if family != socket.AF_INET6 or index not in lost:
            continue
        got = nl.attrs(one.body, 8)
        flags = struct.unpack("=I", got[8])[0] if 8 in got else short
        if not flags & _PERMANENT_ADDRESS or flags & _TEMPORARY:
            continue
        kept = flags & ~_LOST_FLAGS
        head = struct.pack("=BBBBI", family, prefix, kept & 0xFF, scope, index)
        yield head + _without(one.body, 8, frozenset({6, 8})) + nl.u32(8, kept)


def _nexthops(link: Netlink, lost: set[int]) -> Iterator[tuple[bool, bytes]]:
    """Nexthop objects over lost interfaces, then groups that hold them: (is a group, body)."""
    gone: set[int] = set()
    groups = []
    try:
        found = link.dump(nl.RTM_GETNEXTHOP, bytes(8))
    except NetlinkError:  # a kernel before 5.3 has no nexthop objects, so none is lost
        return
    for one in found:
        got = nl.attrs(one.body, 8)
        if one.body[2] in DAEMONS:
            continue
        (flags,) = struct.unpack_from("=I", one.body, 4)
        head = struct.pack("=BBBBI", one.body[0], 0, one.body[2], 0, flags & 0x4)  # 4: onlink
        body = head + b"".join(
            raw for kind, raw in raw_attrs(one.body, 8) if kind in _KEPT_NEXTHOP_ATTRS
        )
        if 2 in got:
            groups.append((body, got[2]))
        elif 5 in got and struct.unpack("=I", got[5])[0] in lost:
            gone.add(struct.unpack("=I", got[1])[0])
            yield False, body
    for body, members in groups:
        if any(
            struct.unpack_from("=I", members, at)[0] in gone for at in range(0, len(members), 8)
        ):
            yield True, body


def _routes(link: Netlink, lost: set[int], nexthops: set[int]) -> Iterator[bytes]:
    """Routes over lost interfaces; those without a gateway first, since the others need them."""
    direct: list[bytes] = []
    via: list[bytes] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for one in link.dump(nl.RTM_GETROUTE, head):
            got = nl.attrs(one.body, 12)
            if not _is_lost(one.body, got, lost, nexthops):
                continue
            far = 5 in got or 18 in got or 9 in got or 30 in got
            (via if far else direct).append(_rebuilt(one.body, got))
    yield from direct
    yield from via


def _is_lost(body: bytes, got: Mapping[int, bytes], lost: set[int], nexthops: set[int]) -> bool:
    table, proto, kind = body[4], body[5], body[7]
    (flags,) = struct.unpack_from("=I", body, 8)
    if flags & _CLONED or proto in DAEMONS:
        return False
    if kind != _UNICAST or (table == _LOCAL_TABLE and proto == 2):
        return False  # the kernel makes its local, broadcast and multicast routes itself
    if 30 in got:
        return struct.unpack("=I", got[30])[0] in nexthops
    over = {struct.unpack("=I", got[4])[0]} if 4 in got else set()
    over |= {index for _, _, _, index, _ in words.legs(got.get(9, b""))}
    return bool(over & lost)


def _rebuilt(body: bytes, got: Mapping[int, bytes]) -> bytes:
    """The message that makes this route again: without state, ages and the kernel's own marks."""
    (flags,) = struct.unpack_from("=I", body, 8)
    head = body[:8] + struct.pack("=I", flags & _ONLINK_PERVASIVE)
    unwanted = {12, 23, 9}  # cache info, expiry, multipath (rebuilt below)
    if 30 in got:
        unwanted |= {4, 5, 18}  # the nexthop object says interface and gateway
        return head + _without(body, 12, frozenset(unwanted))
    made = head + _without(body, 12, frozenset(unwanted))
    if 9 in got:
        multipath = bytearray(got[9])
        for at, leg_flags, *_ in words.legs(got[9]):
            multipath[at + 2] = leg_flags & 0x4
        made += nl.attr(9, bytes(multipath))
    return made


def _neighbours(link: Netlink, lost: set[int]) -> Iterator[bytes]:
    for family in (socket.AF_INET, socket.AF_INET6):
        for proxy in (0, _PROXY):
            head = struct.pack("=BBHiHBB", family, 0, 0, 0, 0, proxy, 0)
            for one in link.dump(nl.RTM_GETNEIGH, head):
                index, state, flags = struct.unpack_from("=iHB", one.body, 4)
                owner = nl.attrs(one.body, 12).get(12, b"\0")[0]
                wanted = flags & _PROXY if proxy else state & _PERMANENT_NEIGHBOUR
                if index in lost and wanted and owner not in DAEMONS:
                    yield one.body[:12] + _without(one.body, 12, frozenset({3, 4}))
