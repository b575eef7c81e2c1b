"""A frame as the kernel's packet filter sees it at ingress, and whether a selector means it.

This follows the kernel, not a protocol: one VLAN tag is taken off before the hook; the transport
header lies behind IPv6 extension headers, but not behind an authentication header; what a filter
would read beyond the end of the frame, or in a later fragment, is not there, and so no selector
that looks at it matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

from chaos.packets.selector import Network, Selector, aeth_at, numbers
from chaos.packets.words import ANSWERS

_FAMILIES = {0x0800: 4, 0x86DD: 6}
_TAGS = (0x8100, 0x88A8)
_HOPS, _ROUTING, _FRAGMENT, _OPTIONS = 0, 43, 44, 60
_UDP, _TCP = 17, 6


@dataclass(frozen=True, slots=True)
class View:
    """Where things lie in a frame.

    Attributes:
        data: From the network header to the end.
        family: 4 or 6; 0 for what is no IP.
        protocol: Transport protocol; -1 where it cannot be told.
        at: Offset of the transport header; -1 in a later fragment.
    """

    data: bytes
    family: int = 0
    protocol: int = -1
    at: int = -1

    @classmethod
    def of(cls, frame: bytes) -> Self:
        """Look at an Ethernet frame."""
        start = 14
        if int.from_bytes(frame[12:14]) in _TAGS:
            start = 18
        data = frame[start:]
        family = _FAMILIES.get(int.from_bytes(frame[start - 2 : start]), 0)
        found = {4: _ipv4, 6: _ipv6}[family](data) if family else None
        return cls(data, family, *(found or (-1, -1)))

    def transport(self, at: int, size: int) -> int | None:
        """A number in the transport header, by bytes; None where there is none."""
        if self.at < 0 or self.at + at + size > len(self.data):
            return None
        return int.from_bytes(self.data[self.at + at : self.at + at + size])


def _ipv4(data: bytes) -> tuple[int, int] | None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return None
    size, length = (data[0] & 15) * 4, int.from_bytes(data[2:4])
    if size < 20 or not size <= length <= len(data):
        return None
    later = int.from_bytes(data[6:8]) & 0x1FFF
    return data[9], -1 if later else size


def _ipv6(data: bytes) -> tuple[int, int] | None:
    if len(data) < 40 or data[0] >> 4 != 6 or int.from_bytes(data[4:6]) + 40 > len(data):
        return None
    following, at = data[6], 40
    while following in (_HOPS, _ROUTING, _FRAGMENT, _OPTIONS):
        if at + 2 > len(data):
            return None
        inner, words = data[at], data[at + 1]
        size = (words + 1) * 8
        if following == _FRAGMENT:
            if at + 8 > len(data):
                return None
            size = 8
            if int.from_bytes(data[at + 2 : at + 4]) & ~7:
                return inner, -1
        following, at = inner, at + size
    return following, at


def breakable(frame: bytes) -> bool:
    """Whether an IP frame has a checksum that can be broken: IPv6 itself has none."""
    seen = View.of(frame)
    return seen.family == 4 or (seen.protocol in (_UDP, _TCP) and seen.transport(0, 3) is not None)


def matches(selector: Selector, frame: bytes, *, only_ip: bool = False) -> bool:
    """Whether a selector means a frame.

    Args:
        selector: Which packets.
        frame: From the Ethernet header on.
        only_ip: Also ask that it is IPv4 or IPv6.
    """
    seen = View.of(frame)
    one = selector
    if (only_ip or one.family or one.source or one.destination) and seen.family not in one.families:
        return False
    if not _network(one, seen):
        return False
    if one.protocol or one.is_roce:
        wanted = _TCP if one.protocol == "tcp" else _UDP
        if seen.protocol != wanted:
            return False
    for asked, at in ((one.sport, 0), (one.dport, 2)):
        if asked and seen.transport(at, 2) not in asked:
            return False
    return not one.is_roce or _roce(one, seen)


def _network(one: Selector, seen: View) -> bool:
    data = seen.data
    source, size = (12, 4) if seen.family == 4 else (8, 16)
    for networks, at in ((one.source, source), (one.destination, source + size)):
        if networks and not _inside(data[at : at + size], networks):
            return False
    if one.dscp or one.ecn:
        if not seen.family or len(data) < 2:
            return False
        tos = data[1] if seen.family == 4 else int.from_bytes(data[:2]) >> 4 & 0xFF
        if (one.dscp and tos >> 2 not in one.dscp) or (one.ecn and tos & 3 not in one.ecn):
            return False
    return True


def _inside(raw: bytes, networks: tuple[Network, ...]) -> bool:
    return len(raw) in (4, 16) and any(ip_address(raw) in one for one in networks)


def _roce(one: Selector, seen: View) -> bool:
    if seen.transport(2, 2) != 4791:
        return False
    if one.dest_qp and seen.transport(13, 3) not in one.dest_qp:
        return False
    if one.psn and seen.transport(17, 3) not in one.psn:
        return False
    if one.ack_request is not None:
        byte = seen.transport(16, 1)
        if byte is None or bool(byte >> 7) != one.ack_request:
            return False
    number = seen.transport(8, 1)
    if not one.opcode and not one.syndrome:
        return True
    if number is None:
        return False
    answer = aeth_at(number)
    syndrome = seen.transport(8 + answer, 1) if answer else None
    if one.syndrome and syndrome not in one.syndrome:
        return False
    return not one.opcode or any(_means(item, number, syndrome) for item in one.opcode)


def _means(item: str | int, number: int, syndrome: int | None) -> bool:
    if number not in numbers(item):
        return False
    return item not in ANSWERS or syndrome in ANSWERS[str(item)]
