"""The thread that watches one rank from the side: progress, age of the operation, TCP, records."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chaos.timeline import now_ns
from probes.jobs.collective_calm import Baseline
from probes.jobs.collective_channel import Recorder
from probes.jobs.collective_sockets import Connection, TcpInfo

_EACH_S, _FLUSH_NS, _SECOND_NS = 0.01, 100_000_000, 1_000_000_000


@dataclass(slots=True)
class Progress:
    """What the loop is doing, written by the loop and read by the sampler.

    Attributes:
        i: Iteration, -1 before the first.
        began_ns: When its operation began; 0 outside an operation.
        done_ns: When the last iteration was complete; 0 while the loop is not running.
        batch: Completed iterations not yet told: (i, t0, t1, check in µs, checked fully, wrong).
    """

    i: int = -1
    began_ns: int = 0
    done_ns: int = 0
    batch: collections.deque[tuple[int, int, int, int, bool, bool]] = field(
        default_factory=collections.deque
    )


@dataclass(slots=True)
class _Watched:
    connection: Connection
    rank: int
    timeouts: bool = False
    repeated: int = 0


class Sampler:
    """Looks every 10 ms, tells of what is beyond the limits, sends the records every 100 ms."""

    def __init__(self, recorder: Recorder, baseline: Baseline, progress: Progress) -> None:
        self._say, self._recorder = recorder.say, recorder
        self.baseline, self.progress = baseline, progress
        self.common: dict[str, Any] = {}
        self.longest_silence: Callable[[], float] = lambda: 0.0
        self._watched: list[_Watched] = []
        self._stalled_since = self._aged = 0
        self._flushed = self._second = self._told = now_ns()
        self._repeating = False
        self._flushing = threading.Lock()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def watch(self, found: tuple[Connection, ...], ranks: dict[str, int]) -> None:
        """Follow these connections from now on."""
        self._watched = [_Watched(c, ranks.get(c.peer[0], -1)) for c in found]

    def _run(self) -> None:
        while True:
            time.sleep(_EACH_S)
            self.look(now_ns())

    def look(self, now: int) -> None:
        """One look at everything."""
        if self.baseline.limits:
            self._progress(now)
        self._tcp(now)
        if now - self._flushed >= _FLUSH_NS:
            self._flushed = now
            self.flush(now)
        else:
            self._recorder.flush()  # symptoms do not wait for the batch

    def _progress(self, now: int) -> None:
        limits, state = self.baseline.alarms(), self.progress
        i, began, done = state.i, state.began_ns, state.done_ns
        if done and now - done > limits["stall_ms"] * 1e6 and self._stalled_since != done:
            self._stalled_since = done
            age = (now - done) / 1e6
            self._say("stall", i=i, age_ms=age, thr_ms=limits["stall_ms"], since=done)
        if self._stalled_since and done != self._stalled_since:
            if done:
                length = (done - self._stalled_since) / 1e6
                self._say("unstall", i=i, dur_ms=length, at=done)
            self._stalled_since = 0
        if began and now - began > limits["age_ms"] * 1e6 and self._aged != began:
            self._aged = began
            age = (now - began) / 1e6
            self._say("net", kind="op_age", i=i, age_ms=age, thr_ms=limits["age_ms"])

    def _tcp(self, now: int) -> None:
        worst, repeats = 0, 0
        limits = self.baseline.alarms()
        each_second = now - self._second >= _SECOND_NS
        flows = []
        for item in self._watched:
            info = item.connection.info()
            if info is None:
                continue
            worst = max(worst, info.retransmits)
            repeats += info.total_retrans - item.repeated
            if limits:
                self._timeouts(item, info, limits["retransmits"])
            if each_second:
                item.repeated = info.total_retrans
                ends = [*item.connection.local, *item.connection.peer]
                flows.append([*ends, item.rank, info.bytes_sent, info.total_retrans])
        if not self.baseline.frozen:
            self.baseline.retransmits = max(self.baseline.retransmits, worst)
        if limits and not self._repeating and repeats >= limits["repeats"]:
            self._repeating = True
            self._say("net", kind="retrans_rate", repeats=repeats, limit=limits["repeats"])
        if each_second:
            self._each_second(now, repeats, flows)

    def _timeouts(self, item: _Watched, info: TcpInfo, limit: float) -> None:
        beyond = info.retransmits >= limit
        if beyond != item.timeouts and (beyond or info.retransmits == 0):
            item.timeouts = beyond
            self._say(
                "net",
                kind="retrans" if beyond else "retrans_clear",
                peer=item.rank,
                to=list(item.connection.peer),
                retransmits=info.retransmits,
                backoff=info.backoff,
                rto_ms=info.rto_us / 1e3,
                unacked=info.unacked,
                last_rcv_ms=info.last_received_ms,
            )

    def _each_second(self, now: int, repeats: int, flows: list[list[Any]]) -> None:
        self._second = now
        self._repeating = False
        silence = self.longest_silence()
        if not self.baseline.frozen:
            self.baseline.repeats = max(self.baseline.repeats, repeats)
            self.baseline.heard_ms = max(self.baseline.heard_ms, silence)
            self.baseline.settle()
        if flows:
            self._say("flows", flows=flows, silence_ms=silence)

    def flush(self, now: int) -> None:
        """Tell of the completed iterations; send what is queued."""
        with self._flushing:
            self._flush(now)

    def _flush(self, now: int) -> None:
        batch = [self.progress.batch.popleft() for _ in range(len(self.progress.batch))]
        if batch:
            self._told = now
            i, t0, t1, took, full, wrong = zip(*batch, strict=True)
            self._say(
                "it",
                **self.common,
                i=i[0],
                t0=t0,
                t1=t1,
                chk_us=sum(took),
                full=sum(full),
                bad=[k for k, is_wrong in zip(i, wrong, strict=True) if is_wrong],
            )
        elif now - self._told >= 2 * _FLUSH_NS:
            self._told = now
            self._say("alive", i=self.progress.i, in_op=self.progress.began_ns > 0)
        self._recorder.flush()
