"""The line protocol of observing programs: one JSON set-up line in, JSON records out.

A program reads `{"config": …, "namespaces": {node: path}, "logs": {node: path}}`, prints
`{"ev": "ready", "t": ns}` and then records, and ends on `{"cmd": "stop"}` or end of input.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import json
import os
import select
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.timeline import now_ns

_PIPE_BYTES = 1 << 20
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class Setup:
    """The first input line.

    Attributes:
        config: The program's own settings.
        namespaces: Path of the network namespace per node; empty where we are in it.
        logs: Path of the routing daemons' log per node.
        unlogged: Why there is no such log, per node where that is known.
    """

    config: Mapping[str, Any]
    namespaces: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    unlogged: Mapping[str, str] = field(default_factory=dict)


class Lines:
    """Standard input and output of one program, without buffering surprises.

    The output pipe is widened, so that a reader who is busy for seconds does not stall us; records
    are numbered (`n`), so that a lost one shows.
    """

    def __init__(self, read_fd: int = 0, write_fd: int = 1) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self._number = 0
        self._rest = b""
        self.stopped = False
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def setup(self) -> Setup:
        """Wait for the first line; ends the program when input ends before it."""
        while b"\n" not in self._rest:
            more = os.read(self.read_fd, 1 << 16)
            if not more:
                raise SystemExit("input ended before the set-up line")
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        found = json.loads(line)
        told = {key: found.get(key, {}) for key in ("namespaces", "logs", "unlogged")}
        return Setup(found["config"], **told)

    def emit(self, event: str, at_ns: int | None = None, **facts: Any) -> None:
        """Print one record, whole and at once; a closed reader means stop."""
        self._number += 1
        record = {"ev": event, "t": now_ns() if at_ns is None else at_ns, "n": self._number}
        data = memoryview(json.dumps(record | facts, separators=(",", ":")).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self.write_fd, data) :]
        except BrokenPipeError:
            self.stopped = True

    def poll(self, wait_s: float = 0.0) -> bool:
        """Whether to stop: a stop command or the end of input has come within `wait_s`."""
        if not self.stopped and select.select([self.read_fd], [], [], wait_s)[0]:
            self.take()
        return self.stopped

    def take(self) -> None:
        """Read what input holds now."""
        more = os.read(self.read_fd, 1 << 16)
        self._rest += more
        *lines, self._rest = self._rest.split(b"\n")
        if not more or any(json.loads(line).get("cmd") == "stop" for line in lines if line.strip()):
            self.stopped = True


def be_punctual(priority: int = 10) -> bool:
    """Ask for real-time scheduling and exact timers; whether real-time was granted.

    A probe that waits for a processor behind a training job would report the wait as an outage.
    The injector ranks above.
    """
    gc.disable()  # these loops make no cycles; a collection would be a pause of milliseconds
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        print(f"no real-time scheduling ({error.strerror}); timing is softer", file=sys.stderr)
        return False
    return True
