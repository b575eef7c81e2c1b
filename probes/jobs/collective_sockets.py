"""The job's own TCP connections, looked at and cut from inside the process. Linux only.

A connection is watched on the library's own descriptor, never on a duplicate: a duplicate would
keep it open after the library closed it, and the peers would not hear that it is gone. The inode
tells whether a descriptor still is the same socket.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TCP_INFO, TCP_CONGESTION = 11, 13
_SIOCGIFADDR = 0x8915
_INFO = 232


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """A part of the kernel's `struct tcp_info`.

    Attributes:
        retransmits: Timeouts in a row without an answer.
        backoff: Doublings of the timeout.
        rto_us: Retransmission timeout.
        unacked: Segments on their way.
        last_received_ms: Since the last data came.
        total_retrans: Segments sent again since the connection began.
        bytes_sent: Payload sent, repeats included.
    """

    retransmits: int
    backoff: int
    rto_us: int
    unacked: int
    last_received_ms: int
    total_retrans: int
    bytes_sent: int

    @classmethod
    def unpack(cls, raw: bytes) -> TcpInfo:
        """Read the struct; a short answer of an old kernel is padded with zeros."""
        raw = raw.ljust(_INFO, b"\0")

        def word(offset: int) -> int:
            return int(struct.unpack_from("=I", raw, offset)[0])

        sent = int(struct.unpack_from("=Q", raw, 200)[0])
        return cls(raw[2], raw[4], word(8), word(24), word(52), word(100), sent)


@dataclass(frozen=True, slots=True)
class Connection:
    """One live TCP connection of this process."""

    fd: int
    inode: int
    local: tuple[str, int]
    peer: tuple[str, int]

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[socket.socket | None]:
        try:
            same = os.fstat(self.fd).st_ino == self.inode
            sock = socket.socket(fileno=self.fd) if same else None
        except OSError:
            sock = None
        try:
            yield sock
        finally:
            if sock is not None:
                sock.detach()

    def info(self) -> TcpInfo | None:
        """What the kernel says about it now; None when it was closed."""
        with self._borrowed() as sock:
            try:
                raw = sock and sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _INFO)
            except OSError:
                return None
            return TcpInfo.unpack(raw) if raw else None

    def congestion_control(self) -> str:
        """Name of its congestion control, such as `cubic`; empty when it was closed."""
        with self._borrowed() as sock:
            try:
                raw = sock.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, 16) if sock else b""
            except OSError:
                return ""
            return raw.split(b"\0")[0].decode()


def connections() -> tuple[Connection, ...]:
    """Every connected TCP socket of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            fd = int(name)
            inode = os.fstat(fd).st_ino
            sock = socket.socket(fileno=os.dup(fd))
            with sock:
                if sock.type == socket.SOCK_STREAM and sock.family in (
                    socket.AF_INET,
                    socket.AF_INET6,
                ):
                    local, peer = sock.getsockname()[:2], sock.getpeername()[:2]
                    found.append(Connection(fd, inode, (local[0], local[1]), (peer[0], peer[1])))
    return tuple(found)


def sever(targets: tuple[Connection, ...]) -> int:
    """Shut down connections, whoever waits on them; how many were cut.

    The one abort that works on gloo: its own `abort` and `shutdown` return without effect.
    """
    cut = 0
    for target in targets:
        with contextlib.suppress(OSError):
            if os.fstat(target.fd).st_ino != target.inode:
                continue
            with socket.socket(fileno=os.dup(target.fd)) as sock:
                sock.shutdown(socket.SHUT_RDWR)
                cut += 1
    return cut


def address_of(interface: str) -> str:
    """The IPv4 address of an interface in this namespace, else its first global IPv6 address.

    Raises:
        OSError: it has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("256s", interface.encode()[:15])
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(fcntl.ioctl(sock, _SIOCGIFADDR, request)[20:24])
    with open("/proc/thread-self/net/if_inet6") as table:
        for line in table:
            raw, _, _, scope, _, name = line.split()
            if name == interface and scope == "00":
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))
    raise OSError(f"{interface} has no address")


def describe(found: tuple[Connection, ...], ranks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Connections as plain values; `ranks` gives the rank behind an address, where unique."""
    made = []
    for item in found:
        info = item.info()
        made.append(
            {
                "local": list(item.local),
                "peer": list(item.peer),
                "peer_rank": ranks.get(item.peer[0], -1),
                "cc": item.congestion_control(),
                "rto_ms": info.rto_us / 1e3 if info else None,
                "bytes_sent": info.bytes_sent if info else None,
            }
        )
    return made
