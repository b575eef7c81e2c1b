"""RoCEv2 frames made into others whose checks all hold: pure, frame in, frame out."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace

from chaos.errors import SpecError
from chaos.packets.how import Corrupt, Forge
from chaos.roce import AETH, Ethernet, IPv4, IPv6, Packet, cnp

#: Code point that adapters send congestion notifications with, unless told otherwise.
_CNP_DSCP = 48
_UDP = 17

#: A frame and whether its UDP checksum is still to be completed by the kernel → a frame; None where
#: it is not of the kind that can be rewritten.
Rewrite = Callable[[bytes, bool], bytes | None]


def silently(how: Corrupt) -> Rewrite:
    """One bit of the payload is another; the n-th packet's is drawn by the seed."""
    rng = random.Random(how.seed)

    def rewrite(frame: bytes, partial: bool) -> bytes | None:
        share, bit = rng.random(), rng.randrange(8)  # drawn for every packet met
        packet = _read(frame)
        if packet is None or not packet.data:
            return None
        at = int(share * len(packet.data))
        changed = bytearray(packet.payload)
        changed[at] ^= 1 << bit
        return finished(replace(packet, payload=bytes(changed)), partial)

    return rewrite


def answered(how: Forge) -> Rewrite:
    """The syndrome of its AETH is another."""
    syndrome = how.syndrome

    def rewrite(frame: bytes, partial: bool) -> bytes | None:
        packet = _read(frame)
        if packet is None or not any(isinstance(one, AETH) for one in packet.headers):
            return None
        headers = tuple(
            replace(one, syndrome=syndrome) if isinstance(one, AETH) else one
            for one in packet.headers
        )
        return finished(replace(packet, headers=headers), partial)

    return rewrite


def notified(how: Forge) -> Rewrite:
    """A congestion notification for the sender of a frame, as its receiver would send it."""

    def rewrite(frame: bytes, partial: bool) -> bytes | None:
        packet = _read(frame)
        if packet is None:
            return None
        bth, payload = cnp(how.qp)
        ip: IPv4 | IPv6
        if isinstance(packet.ip, IPv4):
            ip = IPv4(packet.ip.destination, packet.ip.source, _CNP_DSCP, 0)
        else:
            ip = IPv6(packet.ip.destination, packet.ip.source, _CNP_DSCP, 0)
        seen = packet.ethernet
        back = Ethernet(seen.source, seen.destination, seen.vlans)
        made = Packet(ip, bth, (), payload, packet.sport, back, int(packet.checksum != 0))
        return finished(made, False)

    return rewrite


def finished(packet: Packet, partial: bool) -> bytes:
    """The frame, with an ICRC that fits, and a UDP checksum that fits where there was one."""
    sealed = packet.sealed()
    if partial or not sealed.checksum:
        return sealed.write()
    unsummed = replace(sealed, checksum=0)
    start = len(sealed.ethernet.write(0))
    data = unsummed.write()[start : len(unsummed.write()) - len(sealed.trailer)]
    return replace(sealed, checksum=_checksum(packet.ip, data)).write()


def _checksum(ip: IPv4 | IPv6, data: bytes) -> int:
    """Of UDP, over its pseudo header and all that follows; `data` is the packet from IP on."""
    udp = data[(20 + len(ip.options)) if isinstance(ip, IPv4) else 40 :]
    ends = ip.source.packed + ip.destination.packed
    padded = ends + struct.pack(">II", len(udp), _UDP) + udp + bytes(len(udp) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF) or 0xFFFF


def _read(frame: bytes) -> Packet | None:
    try:
        return Packet.read(frame)
    except SpecError:
        return None
