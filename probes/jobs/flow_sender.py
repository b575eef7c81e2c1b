"""Sends sequence-numbered UDP packets on an absolute schedule and records every send.

Packet `slot` is due at `start + slot × interval`. It travels from source port
`first_source_port + slot mod ports`. A slot that could not be sent in time because this process was
held up is *skipped* and recorded as such: nobody may count it as lost.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
import zlib

from chaos.timeline import now_ns
from probes.jobs.lines import Lines, be_punctual

HEADER = struct.Struct("!4sQQI")  # token, slot, send time in ns, CRC-32 of those
FLUSH_NS = 100_000_000
LATE_NS = 5_000_000  # beyond it slots are skipped, not sent in a burst


def pack(token: bytes, slot: int, at_ns: int) -> bytes:
    """The head of a packet's payload."""
    bare = struct.pack("!4sQQ", token, slot, at_ns)
    return bare + struct.pack("!I", zlib.crc32(bare))


def open_sockets(
    address: str, dport: int, first_source_port: int, ports: int
) -> list[socket.socket]:
    """One bound socket per source port, none connected: each packet asks the route table anew."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets = []
    for port in range(first_source_port, first_source_port + ports):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.bind(("", port))
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


class Batch:
    """Sends of the last tenth of a second: `at` holds ns since `t`, or -1 for a skipped slot."""

    def __init__(self, first: int) -> None:
        self.first, self.base, self.at = first, now_ns(), list[int]()
        self.refused: list[tuple[int, str]] = []

    def flush(self, lines: Lines) -> Batch:
        """Print and begin the next."""
        if self.at:
            lines.emit("sent", self.base, first=self.first, at=self.at, refused=self.refused)
        return Batch(self.first + len(self.at))


class Pace:
    """When each slot is due; slots that could not be sent in time are skipped.

    Attributes:
        slot: The next one.
        skipped: How many were left out so far.
    """

    def __init__(self, start: int, interval: int) -> None:
        self.start, self.interval, self.slot, self.skipped = start, interval, 0, 0

    def wait(self, batch: Batch) -> int:
        """Return when the next slot is due, or at once when it was; the time. Skips are noted."""
        due = self.start + self.slot * self.interval
        wait = due - now_ns()
        if wait > 0:
            time.sleep(wait / 1e9)
        at = now_ns()
        if at - due > LATE_NS:
            missed = (at - due) // self.interval
            batch.at.extend([-1] * missed)
            self.skipped += missed
            self.slot += missed
        return at


def main() -> None:
    """Send until told to stop."""
    lines = Lines()
    config = lines.setup().config
    token = bytes.fromhex(config["token"])
    ports, interval = int(config["ports"]), round(1e9 / float(config["rate_pps"]))
    padding = bytes(max(0, int(config["bytes"]) - HEADER.size))
    target = (config["address"], int(config["dport"]))
    sockets = open_sockets(*target, int(config["first_source_port"]), ports)
    realtime = be_punctual()
    start = now_ns() + 1_000_000
    lines.emit("ready", interval_ns=interval, ports=ports, start=start, realtime=realtime)
    batch, pace = Batch(0), Pace(start, interval)
    sent = refused = 0
    while not lines.stopped:
        at = pace.wait(batch)
        slot = pace.slot
        try:
            sockets[slot % ports].sendto(pack(token, slot, at) + padding, target)
            sent += 1
        except OSError as error:
            batch.refused.append((slot, errno.errorcode.get(error.errno or 0, str(error))))
            refused += 1
        batch.at.append(at - batch.base)
        pace.slot += 1
        if at - batch.base >= FLUSH_NS:
            batch = batch.flush(lines)
            lines.poll()
    batch.flush(lines)
    lines.emit("end", sent=sent, skipped=pace.skipped, refused=refused, slots=pace.slot)


if __name__ == "__main__":
    main()
