"""RoCEv2 packets at a host's own interfaces: sent through UDP, taken with their IP header.

A requester and a responder send through an unconnected UDP socket with don't-fragment set, so the
kernel fills the IP header in one way only (identification 0) and the ICRC can be computed before.
They take packets by a packet socket whose filter passes UDP port 4791 alone: the IP header is
needed to check the ICRC, and its ECN field is what congestion marks.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from typing import NamedTuple

from chaos.roce import AETH, BTH, PORT, icrc

_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SO_NO_CHECK = 26, 33, 35, 11
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IPV6_MTU_DISCOVER, _UDP_NO_CHECK6_TX = 10, 2, 23, 101
_SOL_UDP, _SOL_PACKET, _PACKET_STATISTICS = 17, 263, 6
_ETH_IP, _ETH_IPV6 = 0x0800, 0x86DD
BUFFER_BYTES = 32 << 20
ECT0, CE = 2, 3
#: Classic BPF: (code, jump if true, jump if false, value).
_ONLY_ROCE4 = (
    (0x30, 0, 0, 9),
    (0x15, 0, 4, 17),
    (0xB1, 0, 0, 0),
    (0x48, 0, 0, 2),
    (0x15, 0, 1, PORT),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)
_ONLY_ROCE6 = (
    (0x30, 0, 0, 6),
    (0x15, 0, 3, 17),
    (0x28, 0, 0, 42),
    (0x15, 0, 1, PORT),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)


class Met(NamedTuple):
    """A packet as it arrived.

    Attributes:
        source: Its sender's address.
        ecn: Two bits of the IP header.
        dscp: Six bits of the IP header.
        intact: Whether IP checksum and ICRC are right.
        bth: Base transport header.
        rest: What follows it, without the ICRC.
    """

    source: str
    ecn: int
    dscp: int
    intact: bool
    bth: BTH
    rest: bytes


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_taker(address: str) -> socket.socket:
    """Takes every RoCEv2 packet that an interface of this namespace receives, stamped."""
    six = family_of(address) == socket.AF_INET6
    kind = _ETH_IPV6 if six else _ETH_IP
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(kind))
    program = b"".join(struct.pack("=HBBI", *one) for one in (_ONLY_ROCE6 if six else _ONLY_ROCE4))
    held = ctypes.create_string_buffer(program, len(program))
    told = struct.pack("HL", len(program) // 8, ctypes.addressof(held))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:  # what came in before there was a filter
            sock.recv(1)
    return sock


def overflowed(sock: socket.socket) -> int:
    """Packets that a packet socket dropped for want of buffer since this was asked last."""
    return int(struct.unpack("=II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1])


def open_giver(address: str, sport: int, ecn: int = ECT0) -> socket.socket:
    """Sends RoCEv2 packets from an address of this host; UDP checksum 0, as RoCEv2 does."""
    family = family_of(address)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ecn)
        sock.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_DO)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, ecn)
        sock.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_TX, 1)
    sock.setblocking(False)
    sock.bind((address, sport))
    return sock


def open_sink(address: str) -> socket.socket:
    """Holds port 4791, so that the kernel answers no packet with `port unreachable`."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind(("", PORT))
    return sock


def sealed(source: str, target: str, sport: int, body: bytes) -> bytes:
    """What to send through `open_giver`: a BTH and what follows it, closed by its ICRC."""
    length = 8 + len(body) + 4
    udp = struct.pack(">HHHH", sport, PORT, length, 0)
    if family_of(source) == socket.AF_INET:
        ends = socket.inet_pton(socket.AF_INET, source) + socket.inet_pton(socket.AF_INET, target)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 17, 0) + ends
    else:
        ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
        ip = struct.pack(">IHBB", 6 << 28, length, 17, 64) + ends
    return body + icrc(ip + udp + body)


def met(data: bytes) -> Met | None:
    """Read what `open_taker` took; None for what is too short to be RoCEv2."""
    four = data[0] >> 4 == 4
    head = (data[0] & 15) * 4 if four else 40
    length = struct.unpack_from(">H", data, 2 if four else 4)[0] + (0 if four else 40)
    data = data[:length]
    if len(data) < head + 8 + 12 + 4:
        return None
    traffic = data[1] if four else (data[0] << 4 | data[1] >> 4) & 0xFF
    source = socket.inet_ntop(
        socket.AF_INET if four else socket.AF_INET6, data[12:16] if four else data[8:24]
    )
    body = data[head + 8 : -4]
    intact = (not four or _sums(data[:head])) and icrc(data[:-4]) == data[-4:]
    return Met(source, traffic & 3, traffic >> 2, intact, BTH.read(body[:12]), body[12:])


def _sums(head: bytes) -> bool:
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    return (total & 0xFFFF) + (total >> 16) == 0xFFFF


def answer(code: int, psn: int, qp: int, msn: int) -> bytes:
    """An acknowledgement: BTH and AETH with that syndrome."""
    return BTH(0x11, qp, psn).write() + AETH(code, msn & 0xFFFFFF).write()
