"""Sends numbered RoCEv2 sends on an absolute schedule, and records what is answered.

The n-th packet has PSN `n mod 2^24`; `message` packets make a message (first, middle …, last, or
only), the last of which asks for an acknowledgement. A slot that was skipped has no packet, hence
no PSN: it is no gap. Nothing is sent twice: the stream is counted,
it is no transport. Sends are told as `flow_sender` tells them.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import zlib
from typing import Any

from chaos.roce import BTH, CNP, NAKS, PORT, Syndrome, opcode
from chaos.timeline import now_ns
from probes.jobs.clock import clock_offset
from probes.jobs.flow_sender import FLUSH_NS, Batch, Pace
from probes.jobs.lines import Lines, be_punctual
from probes.jobs.roce_wire import Met, met, open_giver, open_sink, open_taker, sealed

DATA = struct.Struct(">4sQQ")  # token, slot, send time in ns; a CRC-32 of the payload ends it
_STAMP = struct.Struct("=qq")
_NAK_NAMES = {value: name for name, value in NAKS.items()}


def payload(token: bytes, slot: int, at_ns: int, size: int) -> bytes:
    """Data of `size` bytes that tells whether it arrived as it was sent."""
    bare = DATA.pack(token, slot, at_ns).ljust(size - 4, bytes([slot & 0xFF]))
    return bare + struct.pack(">I", zlib.crc32(bare))


def opcodes(message: int) -> list[int]:
    """Opcode per packet of a message of that many."""
    names = ["rc_send_only"]
    if message > 1:
        names = ["rc_send_first", *["rc_send_middle"] * (message - 2), "rc_send_last"]
    return [opcode(name).number for name in names]


class Answers:
    """What came back, by kind: when, in ns since `base`."""

    def __init__(self, lines: Lines, sock: socket.socket) -> None:
        self.lines, self.sock = lines, sock
        self.offset, _ = clock_offset()
        self.base, self.met = now_ns(), dict[str, list[int]]()

    def drain(self) -> None:
        """Everything that waits now."""
        while True:
            try:
                data, found, _, _ = self.sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            packet = met(data)
            if packet is not None:
                seconds, nanoseconds = _STAMP.unpack_from(found[0][2])
                at = seconds * 1_000_000_000 + nanoseconds - self.offset - self.base
                self.met.setdefault(kind_of(packet), []).append(at)

    def flush(self) -> None:
        """Print, and measure the clocks anew."""
        self.drain()
        self.lines.emit("answers", self.base, until=now_ns(), met=self.met)
        self.offset, _ = clock_offset()
        self.base, self.met = now_ns(), {}


def kind_of(packet: Met) -> str:
    """`ack`, `rnr_nak`, the name of a NAK's code, `cnp`, `icrc` for a broken one, or `other`."""
    if not packet.intact:
        return "icrc"
    if packet.bth.opcode == CNP:
        return "cnp"
    if packet.bth.opcode != opcode("rc_acknowledge").number or len(packet.rest) < 4:
        return "other"
    found = Syndrome.read(packet.rest[0])
    return _NAK_NAMES.get(found.value, "nak") if found.kind == "nak" else found.kind


def main() -> None:
    """Send until told to stop."""
    lines = Lines()
    config: dict[str, Any] = dict(lines.setup().config)
    token, qp, size = bytes.fromhex(config["token"]), int(config["qp"]), int(config["bytes"])
    source, target, sport = config["source"], config["address"], int(config["sport"])
    interval, kinds = round(1e9 / float(config["rate_pps"])), opcodes(int(config["message"]))
    sink, giver = open_sink(source), open_giver(source, sport)
    answers = Answers(lines, open_taker(source))
    realtime = be_punctual()
    start = now_ns() + 1_000_000
    lines.emit("ready", interval_ns=interval, start=start, realtime=realtime)
    batch, pace = Batch(0), Pace(start, interval)
    psn = sent = refused = 0
    while not lines.stopped:
        at = pace.wait(batch)
        slot = pace.slot
        place = psn % len(kinds)
        last = place == len(kinds) - 1
        bth = BTH(kinds[place], qp, psn & 0xFFFFFF, ack_request=last).write()
        body = bth + payload(token, slot, at, size)
        try:
            giver.sendto(sealed(source, target, sport, body), (target, PORT))
            sent += 1
        except OSError as error:
            batch.refused.append((slot, errno.errorcode.get(error.errno or 0, str(error))))
            refused += 1
        batch.at.append(at - batch.base)
        pace.slot += 1
        psn += 1
        if at - batch.base >= FLUSH_NS:
            batch = batch.flush(lines)
            answers.flush()
            lines.poll()
    batch.flush(lines)
    select.select([answers.sock], [], [], 0.05)
    answers.flush()
    lines.emit("end", sent=sent, skipped=pace.skipped, refused=refused, slots=pace.slot)
    sink.close()


if __name__ == "__main__":
    main()
