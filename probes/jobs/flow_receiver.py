"""Receives what `flow_sender` sends and records the kernel's own time stamp of every packet.

SO_TIMESTAMPNS stamps a packet when the receiving interface hands it to the stack, by
CLOCK_REALTIME. It is turned into CLOCK_MONOTONIC by an offset measured anew for every batch; half
the width of that measurement (some hundred nanoseconds) is its error, recorded as `clock_error`.
A step of the wall clock shows as a change of offset between batches.
"""

from __future__ import annotations

import select
import socket
import struct
import zlib
from pathlib import Path

from chaos.timeline import now_ns
from probes.jobs.clock import clock_offset
from probes.jobs.flow_sender import HEADER
from probes.jobs.lines import Lines, be_punctual

FLUSH_NS = 100_000_000
BUFFER_BYTES = 32 << 20
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS, _SO_MEMINFO = 33, 35, 55
_MEMINFO_DROPS = 8
_STAMP = struct.Struct("=qq")


def open_socket(address: str, dport: int) -> socket.socket:
    """Bound, with a large buffer and kernel time stamps."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setblocking(False)
    sock.bind(("", dport))
    return sock


def dropped(sock: socket.socket) -> int:
    """Packets this socket dropped: buffer full, or a wrong checksum."""
    info = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    return int(struct.unpack_from("=I", info, 4 * _MEMINFO_DROPS)[0])


def buffer_errors() -> int:
    """UDP packets this namespace dropped for want of buffer, both families."""
    total = 0
    names: list[str] = []
    for line in Path("/proc/thread-self/net/snmp").read_text().splitlines():
        if line.startswith("Udp:"):
            names, values = (names, line.split()) if names else (line.split(), [])
            total += int(values[names.index("RcvbufErrors")]) if values else 0
    for line in Path("/proc/thread-self/net/snmp6").read_text().splitlines():
        if line.startswith("Udp6RcvbufErrors"):
            total += int(line.split()[1])
    return total


class Receiver:
    """Takes packets off the socket and prints them in batches."""

    def __init__(self, lines: Lines, sock: socket.socket, token: bytes) -> None:
        self.lines, self.sock, self.token = lines, sock, token
        self.offset, self.clock_error = clock_offset()
        self.slots: list[int] = []
        self.at: list[int] = []
        self.base = self.seen = now_ns()
        self.total = self.foreign = self.corrupted = 0
        self.errors_before = buffer_errors()

    def drain(self) -> None:
        """Everything that waits now; what came before `seen` is certainly taken."""
        self.seen = now_ns()
        while True:
            try:
                data, found, _, _ = self.sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            self._one(data, found)

    def _one(self, data: bytes, found: list[tuple[int, int, bytes]]) -> None:
        if len(data) < HEADER.size or data[:4] != self.token:
            self.foreign += 1
            return
        _, slot, _, check = HEADER.unpack_from(data)
        if zlib.crc32(data[: HEADER.size - 4]) != check:
            self.corrupted += 1
            return
        seconds, nanoseconds = _STAMP.unpack_from(found[0][2])
        self.slots.append(slot)
        self.at.append(seconds * 1_000_000_000 + nanoseconds - self.offset - self.base)
        self.total += 1

    def overflow(self) -> int:
        """Packets lost for want of buffer since the start."""
        return buffer_errors() - self.errors_before

    def flush(self) -> None:
        """Print the batch and measure the clocks anew."""
        self.lines.emit(
            "got",
            self.base,
            until=self.seen,
            received=self.total,
            slots=self.slots,
            at=self.at,
            dropped=dropped(self.sock),
            buffer_errors=self.overflow(),
            clock_offset=self.offset,
            clock_error=self.clock_error,
            foreign=self.foreign,
            corrupted=self.corrupted,
        )
        self.slots, self.at = [], []
        self.offset, self.clock_error = clock_offset()
        self.base = now_ns()

    def serve(self) -> None:
        """Receive until told to stop; what waits then is still taken."""
        while not self.lines.stopped:
            fds = [self.sock.fileno(), self.lines.read_fd]
            ready, _, _ = select.select(fds, [], [], 0.1)
            self.drain()
            if self.lines.read_fd in ready:
                self.lines.take()
            if now_ns() - self.base >= FLUSH_NS:
                self.flush()
        self.drain()
        self.flush()
        self.lines.emit("end", received=self.total)


def main() -> None:
    """Receive until told to stop; what waits then is still taken."""
    lines = Lines()
    config = lines.setup().config
    sock = open_socket(config["address"], int(config["dport"]))
    realtime = be_punctual()
    receiver = Receiver(lines, sock, bytes.fromhex(config["token"]))
    lines.emit(
        "ready", realtime=realtime, buffer=sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    )
    receiver.serve()


if __name__ == "__main__":
    main()
