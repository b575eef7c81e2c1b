"""How far the wall clock is from the one clock of a run, with its error."""

from __future__ import annotations

import time

from chaos.timeline import now_ns


def clock_offset() -> tuple[int, int]:
    """CLOCK_REALTIME minus the clock of the run, and the error of that, in ns; best of nine."""
    found = []
    for _ in range(9):
        before = now_ns()
        wall = time.time_ns()
        after = now_ns()
        found.append(((after - before) // 2 + 1, wall - (before + after) // 2))
    error, offset = min(found)
    return offset, error
