"""What a process whose lateness counts asks of the kernel; what is refused is done without."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal

_MOST_AT_ONCE_US = 1_000_000  # of real-time running without a sleep
_MCL_CURRENT, _PR_SET_TIMERSLACK = 1, 29


def settle_down(priority: int) -> None:
    """Real-time priority, memory that stays, no collector.

    A process that never sleeps at that priority would take the machine with it: after a second of
    that it is an ordinary one again.

    Args:
        priority: Of SCHED_FIFO, 1 to 99; children do not inherit it.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(priority))
        signal.signal(signal.SIGXCPU, _step_down)
        resource.setrlimit(resource.RLIMIT_RTTIME, (_MOST_AT_ONCE_US, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        pass
    libc = ctypes.CDLL(None)
    libc.mlockall(_MCL_CURRENT)
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # 1 ns, where there is no real-time priority


def _step_down(number: int, frame: object) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
