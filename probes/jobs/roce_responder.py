"""Takes what `roce_requester` sends, checks it as a NIC would, and answers.

A packet whose IP checksum or ICRC is wrong is counted and dropped. One whose PSN is ahead of the
expected is answered by one NAK (PSN sequence error), and the stream goes on from there. The last
packet of a message is acknowledged. A packet that is marked congestion experienced is answered by a
CNP, at most one in 50 microseconds (as notification points do). Arrivals are told as
`flow_receiver` tells them; beside them, per batch: times of what was odd.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

from chaos.roce import PORT, Syndrome, cnp
from chaos.timeline import now_ns
from probes.jobs.flow_receiver import Receiver
from probes.jobs.lines import Lines, be_punctual
from probes.jobs.roce_requester import DATA
from probes.jobs.roce_wire import (
    BUFFER_BYTES,
    CE,
    Met,
    answer,
    met,
    open_giver,
    open_sink,
    open_taker,
    overflowed,
    sealed,
)

CNP_INTERVAL_NS = 50_000
_STAMP = struct.Struct("=qq")
_ACK = Syndrome("ack", 31).write()
_NAK = Syndrome.nak("psn_sequence_error").write()
_ODD = ("icrc", "data", "ce", "dscp", "fecn", "becn", "nak", "cnp")


class Responder(Receiver):
    """A receiver that answers."""

    def __init__(self, lines: Lines, config: dict[str, Any]) -> None:
        self.address, self.qp = config["address"], int(config["qp"])
        super().__init__(lines, open_taker(self.address), bytes.fromhex(config["token"]))
        self.sport = int(config["sport"])
        self.giver = open_giver(self.address, self.sport, 0)
        self.odd: dict[str, list[int]] = {kind: [] for kind in _ODD}
        self.delays: list[int] = []
        self.expected, self.msn, self.last_cnp = -1, 0, 0
        self.lost_here = 0

    def _one(self, data: bytes, found: list[tuple[int, int, bytes]]) -> None:
        packet = met(data)
        if packet is None or packet.bth.dest_qp != self.qp or len(packet.rest) < DATA.size + 4:
            self.foreign += 1
            return
        seconds, nanoseconds = _STAMP.unpack_from(found[0][2])
        at = seconds * 1_000_000_000 + nanoseconds - self.offset
        if not packet.intact:
            self._tell("icrc", at)
            return
        token, slot, sent_ns = DATA.unpack_from(packet.rest)
        if zlib.crc32(packet.rest[:-4]) != int.from_bytes(packet.rest[-4:], "big"):
            self._tell("data", at)
        if token != self.token:
            self.foreign += 1
            return
        self.slots.append(slot)
        self.at.append(at - self.base)
        self.delays.append(at - sent_ns)
        self.total += 1
        for kind, met_it in (
            ("dscp", packet.dscp != 0),
            ("fecn", packet.bth.fecn),
            ("becn", packet.bth.becn),
        ):
            if met_it:
                self._tell(kind, at)
        self._answer(packet, at)

    def _tell(self, kind: str, at: int) -> None:
        self.odd[kind].append(at - self.base)

    def _answer(self, packet: Met, at: int) -> None:
        psn = packet.bth.psn
        ahead = (psn - self.expected) & 0xFFFFFF
        if self.expected >= 0 and 0 < ahead < 1 << 23:
            self._tell("nak", at)
            self._send(answer(_NAK, self.expected, self.qp, self.msn), packet.source)
        if self.expected < 0 or ahead < 1 << 23:
            self.expected = (psn + 1) & 0xFFFFFF
        if packet.bth.ack_request:
            self.msn += 1
            self._send(answer(_ACK, psn, self.qp, self.msn), packet.source)
        if packet.ecn == CE:
            self._tell("ce", at)
            now = now_ns()
            if now - self.last_cnp >= CNP_INTERVAL_NS:
                self.last_cnp = now
                self._tell("cnp", at)
                head, rest = cnp(self.qp)
                self._send(head.write() + rest, packet.source)

    def _send(self, body: bytes, to: str) -> None:
        with contextlib.suppress(OSError):  # a full queue or no route: the answer is lost
            self.giver.sendto(sealed(self.address, to, self.sport, body), (to, PORT))

    def flush(self) -> None:
        """Print the batch, what was odd beside it, and measure the clocks anew."""
        told = {kind: at for kind, at in self.odd.items() if at}
        self.lines.emit("odd", self.base, met=told, at=self.at, delays=self.delays)
        self.odd, self.delays = {kind: [] for kind in _ODD}, []
        super().flush()

    def overflow(self) -> int:
        """Packets that our own buffer lost so far."""
        self.lost_here += overflowed(self.sock)
        return self.lost_here


def main() -> None:
    """Receive until told to stop; what waits then is still taken."""
    lines = Lines()
    config = dict(lines.setup().config)
    sink = open_sink(config["address"])
    realtime = be_punctual()
    receiver = Responder(lines, config)
    lines.emit("ready", realtime=realtime, buffer=BUFFER_BYTES)
    receiver.serve()
    sink.close()


if __name__ == "__main__":
    main()
