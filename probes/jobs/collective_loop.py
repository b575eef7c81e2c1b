"""The iterations of a rank: operate, wait, check, learn what calm is. Needs no torch itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from chaos.timeline import now_ns
from probes.jobs.collective_calm import Baseline, quantile
from probes.jobs.collective_channel import Recorder
from probes.jobs.collective_sampler import Progress
from probes.jobs.collective_values import SHARED

if TYPE_CHECKING:
    from probes.jobs.collective_buffers import Buffers, Wrong

WARMUP, STEADY = 10, 40
#: Every so many iterations all values are checked in calm, and hashed where all are checked.
EVERY, HASHED = 50, 10


class Loop:
    """The iterations of one rank, in one group after another.

    Args:
        spec: What the coordinator said of this rank.
        recorder: Where it is told what happens.
        baseline: Learns what calm is.
        progress: Told where the loop is.
        settled: Called once per group, when it runs.

    Attributes:
        flag: The rank asks all others to stop.
        full: Every value is checked.
        phase: `calm`, `storm` and so on, as the coordinator said last.
        misled: What it puts in next is to be wrong.
        running: It is in an iteration.
        counted: Iterations done.
        wrong: Those in which a value was wrong.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        recorder: Recorder,
        baseline: Baseline,
        progress: Progress,
        settled: Callable[[], None],
    ) -> None:
        self._spec, self._say, self._settled = spec, recorder.say, settled
        self._baseline, self._progress = baseline, progress
        self.flag = self.misled = self.running = False
        self.full = spec["check"] == "full"
        self.phase = "calm"
        self.counted = self.wrong = 0
        self._gaps: deque[float] = deque(maxlen=10)

    def enter(self, name: str) -> None:
        """A phase of the experiment: `calm` learns limits anew, all others freeze them."""
        self.phase = name
        if name == "calm":
            self._baseline.relearn()
        elif not self._baseline.frozen:
            self._baseline.freeze()
            self._say("baseline", **self._baseline.record())
        if name == "storm":
            self.full = True
        self._say("phase", name=name)

    def run(self, buffers: Buffers, first: int, fresh: bool) -> None:
        """Iterate until all ranks agree to stop.

        Args:
            buffers: Of the group.
            first: Number of the first iteration.
            fresh: It is the job's first group, which learns what calm is.

        Raises:
            RuntimeError: an operation failed; in the library's words.
        """
        self._gaps.clear()
        self.running = True
        self._progress.done_ns = now_ns()
        i = first
        try:
            while not self._once(buffers, i, i - first, fresh):
                i += 1
            self._say("paused", i=i)
        finally:
            self.running = False

    def _once(self, buffers: Buffers, i: int, n: int, fresh: bool) -> bool:
        """One iteration, the `n`th of its group; whether all ranks agreed to end with it."""
        state, spec = self._progress, self._spec
        state.i = i
        buffers.fill(i, self.flag)
        if self.misled and buffers.contributes(i):
            self.misled = False
            buffers.mislead()
            self._say("misled", i=i, op=buffers.layout.op)
        t0 = now_ns()
        state.began_ns = t0
        buffers.wait(buffers.start(i, None))
        t1 = now_ns()
        state.began_ns = 0
        full = self.full or n < WARMUP or i % EVERY == 0
        if spec["corrupt_rank"] == spec["rank"] and i == spec["corrupt_at"]:
            buffers.spoil(spec["corrupt_index"])
        wrong = buffers.check_all(i) if full else buffers.check_some(i)
        if wrong:
            self._corrupt(buffers, i, wrong)
        if full and i % HASHED == 0 and buffers.layout.op in SHARED:
            self._say("hash", i=i, hash=f"{buffers.hash():016x}")
        done = now_ns()
        state.batch.append((i, t0, t1, (done - t1) // 1000, full, wrong is not None))
        self.counted += 1
        gap = (done - state.done_ns) / 1e6
        state.done_ns = done
        self._learn(n, gap, (t1 - t0) / 1e6, fresh)
        return buffers.flagged()

    def _learn(self, n: int, gap: float, age: float, fresh: bool) -> None:
        if n < WARMUP:
            return
        self._gaps.append(gap)
        if self.phase == "calm":
            self._baseline.learn(gap, age)
        if n == (WARMUP + STEADY if fresh else WARMUP):
            if fresh:
                self._baseline.settle()
            self._settled()
            if fresh:
                self._say("baseline", **self._baseline.record())
            self._say("steady", i=self._progress.i)
        if self.full and self._spec["check"] != "full" and self.phase not in ("storm", "heal"):
            calm = sorted(self._baseline.gaps) or [0.0]
            band = max(1.25 * quantile(calm, 0.5), quantile(calm, 0.9))
            self.full = len(self._gaps) < 10 or quantile(sorted(self._gaps), 0.5) > band

    def _corrupt(self, buffers: Buffers, i: int, wrong: Wrong) -> None:
        self.wrong += 1
        layout, place = buffers.layout, buffers.rank
        self._say(
            "corrupt",
            i=i,
            op=layout.op,
            **asdict(wrong),
            stale_of=layout.stale_of(i, place, wrong.index, wrong.got),
            missing_rank=layout.missing_rank(i, place, wrong.index, wrong.got),
        )
