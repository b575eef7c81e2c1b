"""UDP heartbeats between all ranks, on the addresses of the job, from several source ports.

A mesh names the rank that is cut off long before the library says anything: it is silent towards
everybody, while the others hear each other. Source ports take turns, so a path that only some
flows use shows as *thinned*: one source port silent, the peer still heard.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.timeline import now_ns

_BEAT = struct.Struct("!4sHHHI")
_MAGIC = b"RBhb"
_SKIPPED = 4


@dataclass(slots=True)
class Ear:
    """What one rank hears from one peer. Times are CLOCK_MONOTONIC ns.

    Attributes:
        heard_ns: Per source port, when it was last heard.
        lost: Whether the peer is held to be silent.
        thinned: Source ports held to be silent while others are heard.
        beats: Per source port, number of the latest beat heard; they take turns.
        missed: Beats that were sent and not heard since the peer was held to be silent. None
            missed means that the peer was held up, and nothing was lost on the way.
    """

    heard_ns: list[int]
    lost: bool = False
    thinned: set[int] = field(default_factory=set)
    beats: list[int] = field(default_factory=list)
    missed: int = 0

    def hear(self, source: int, beat: int, now: int) -> None:
        """One more beat arrived."""
        if not self.beats:
            self.beats = [beat] * len(self.heard_ns)
        if self.lost:
            self.missed += max(0, beat - max(self.beats) - 1)
        self.beats[source] = max(self.beats[source], beat)
        self.heard_ns[source] = now

    def judge(self, now: int, limit_ns: int) -> list[tuple[str, int]]:
        """What changed: (`hb_lost` | `hb_back` | `hb_thinned` | `hb_full`, source port).

        Args:
            now: Now.
            limit_ns: Silence that calm never came near. A source port is silent when four of its
                beats in a row are missing among those that came; no time counts there.
        """
        silence = now - max(self.heard_ns)
        changed: list[tuple[str, int]] = []
        if not self.lost and silence > limit_ns:
            self.lost, self.missed = True, 0
            changed.append(("hb_lost", -1))
        elif self.lost and silence <= limit_ns:
            self.lost = False
            self.beats = [max(self.beats)] * len(self.beats)
            changed.append(("hb_back", -1))
        if self.lost:
            return changed
        for index, beat in enumerate(self.beats):
            quiet = max(self.beats) - beat > _SKIPPED * len(self.beats)
            if quiet and index not in self.thinned:
                self.thinned.add(index)
                changed.append(("hb_thinned", index))
            elif not quiet and index in self.thinned:
                self.thinned.discard(index)
                changed.append(("hb_full", index))
        return changed


class Mesh:
    """Sends and hears the heartbeats of one rank in a thread of its own.

    Args:
        rank: Who sends.
        address: Its address in the fabric.
        period_ms: Time between two beats to the same peer.
        sources: Number of source ports.
        limit_ms: Silence after which a peer counts as lost, asked for at each look.
        tell: Called with kind, peer, source port index, silence in ms, beats missed.
    """

    def __init__(
        self,
        rank: int,
        address: str,
        *,
        period_ms: float,
        sources: int,
        limit_ms: Callable[[], float],
        tell: Callable[[str, int, int, float, int], None],
    ) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(sources)]
        for sock in self._sockets:
            sock.bind((address, 0))
            sock.setblocking(False)
        self.port: int = self._sockets[0].getsockname()[1]
        self._rank, self._period_ns = rank, int(period_ms * 1e6)
        self._limit_ms, self._tell = limit_ms, tell
        self._peers: dict[int, tuple[str, int]] = {}
        self._ears: dict[int, Ear] = {}
        self._longest_ns = 0

    def start(self, peers: dict[int, tuple[str, int]]) -> None:
        """Begin; `peers` gives address and port of every other rank."""
        now = now_ns()
        self._peers = peers
        self._ears = {peer: Ear([now] * len(self._sockets)) for peer in peers}
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def meet(self, peer: int, address: tuple[str, int]) -> None:
        """A peer that was started again: it has a new port, and its beats are counted anew."""
        before = self._ears.get(peer)
        self._ears[peer] = Ear([now_ns()] * len(self._sockets))
        self._peers[peer] = address
        if before is not None and before.lost:
            self._tell("hb_back", peer, -1, 0.0, max(1, before.missed))

    def longest_ms(self) -> float:
        """Longest silence of any peer since the last call."""
        longest, self._longest_ns = self._longest_ns, 0
        return longest / 1e6

    def lost(self) -> list[int]:
        """Peers held to be silent now."""
        return [peer for peer, ear in self._ears.items() if ear.lost]

    def _run(self) -> None:
        beat, due = 0, now_ns()
        while True:
            self._send(beat)
            beat += 1
            due = max(due + self._period_ns, now_ns() + self._period_ns // 4)
            time.sleep(max(0.0, (due - now_ns()) / 1e9))
            self._hear()  # all at once: waking for every beat would cost the job its CPU
            self._judge()

    def _send(self, beat: int) -> None:
        source = beat % len(self._sockets)
        payload = _BEAT.pack(_MAGIC, self._rank, source, 0, beat & 0xFFFFFFFF)
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # no route, no buffer: the peer will miss it
                self._sockets[source].sendto(payload, peer)

    def _hear(self) -> None:
        while True:
            try:
                got = self._sockets[0].recv(64)
            except OSError:
                return
            if len(got) != _BEAT.size or got[:4] != _MAGIC:
                continue
            _, rank, source, _, beat = _BEAT.unpack(got)
            ear = self._ears.get(rank)
            if ear and source < len(ear.heard_ns):
                now = now_ns()
                self._longest_ns = max(self._longest_ns, now - max(ear.heard_ns))
                ear.hear(source, beat, now)

    def _judge(self) -> None:
        now, limit = now_ns(), int(self._limit_ms() * 1e6)
        for peer, ear in self._ears.items():
            silence = (now - max(ear.heard_ns)) / 1e6
            for kind, source in ear.judge(now, limit):
                self._tell(kind, peer, source, silence, ear.missed)
