"""Packets into this process and out of it: a tap, and a packet socket. No policy.

Both ends carry the kernel's own notes on each packet (a virtio-net header: segmentation still to be
done, a checksum still to be completed), so a packet leaves as it came: one super-packet of a
stream is one packet here, and stays one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time

from chaos import netlink as nl
from chaos.errors import ApplyError, BlockedError, CapabilityError

HEAD = 10  # bytes of a virtio-net header
NEEDS_CHECKSUM = 1  # bit of its first byte
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TAP, _NO_PI, _VNET_HDR = 0x2, 0x1000, 0x4000
#: Checksum, TCP over IPv4 and IPv6, ECN with it; UDP too where the kernel knows it (6.2).
_OFFLOADS = (0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40, 0x1 | 0x2 | 0x4 | 0x8)
_IFLA_ADDRESS, _IFLA_TXQLEN = 1, 13
_NOARP = 0x80
_SOL_PACKET, _PACKET_VNET_HDR, _SO_SNDBUFFORCE = 263, 15, 32
_LONGEST = HEAD + 14 + 4 + 65_535 + 100
#: Packets that may wait in the tap while this process does something else.
_QUEUE = 20_000
_TRIES, _PAUSE_S = 40, 0.0005


class Tap:
    """An interface whose packets this process reads; gone when it is closed.

    Args:
        name: Of the interface.

    Raises:
        CapabilityError: this machine has no taps, or does not let us.
        BlockedError: there is an interface of that name.
    """

    def __init__(self, name: str) -> None:
        try:
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CapabilityError(
                f"no taps here: /dev/net/tun: {error.strerror}; load it with modprobe tun"
            ) from None
        self.name = name
        self._room = bytearray(_LONGEST)
        try:
            request = struct.pack("16sH", name.encode(), _TAP | _NO_PI | _VNET_HDR)
            fcntl.ioctl(self.fd, _TUNSETIFF, request.ljust(40, b"\0"))
            self._whole_packets()
            self.mac = self._bring_up()
        except OSError as error:
            os.close(self.fd)
            if error.errno == errno.EBUSY:
                raise BlockedError(f"interface {name} is there already, with its worker") from None
            raise CapabilityError(f"a tap is refused here: {error.strerror}") from None

    def _whole_packets(self) -> None:
        for offloads in _OFFLOADS:
            try:
                fcntl.ioctl(self.fd, _TUNSETOFFLOAD, offloads)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise

    def _bring_up(self) -> bytes:
        """Address by the name, a long queue, up; its address."""
        mac = b"\x02" + self.name.encode().rjust(5, b"\0")[-5:]
        body = (
            nl.ifinfo(socket.if_nametoindex(self.name), nl.IFF_UP | _NOARP, nl.IFF_UP | _NOARP)
            + nl.attr(_IFLA_ADDRESS, mac)
            + nl.u32(_IFLA_TXQLEN, _QUEUE)
        )
        kernel = nl.Netlink.open()
        try:
            kernel.send(nl.message(nl.RTM_NEWLINK, nl.NLM_F_REQUEST | nl.NLM_F_ACK, body))
        finally:
            kernel.close()
        return mac

    def read(self) -> bytes | None:
        """The next packet, its virtio-net header in front; None while there is none."""
        try:
            size = os.readv(self.fd, [self._room])
        except BlockingIOError:
            return None
        return bytes(self._room[:size])

    def lost(self) -> int:
        """Packets for which there was no room."""
        with open("/proc/thread-self/net/dev", encoding="ascii") as file:
            for line in file:
                name, _, numbers = line.partition(":")
                if name.strip() == self.name:
                    return int(numbers.split()[11])
        return 0

    def close(self) -> None:
        """Take the interface away."""
        os.close(self.fd)


class Out:
    """Sends packets out of one interface, virtio-net header in front, through its queue.

    Args:
        ifname: The interface.
    """

    def __init__(self, ifname: str) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 32 << 20)
        try:
            self._socket.bind((ifname, 0))
        except OSError as error:
            self._socket.close()
            raise ApplyError(f"{ifname}: {error.strerror}") from None

    def send(self, packet: bytes) -> bool:
        """Whether it went out; a queue that is full is tried again for some milliseconds."""
        for _ in range(_TRIES):
            try:
                self._socket.send(packet)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                    return False  # the interface is down: what arrives there is lost anyway
                time.sleep(_PAUSE_S)
        return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
