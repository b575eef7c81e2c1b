"""What the coordinator of a collective job holds: its output, its ranks, looks at the machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chaos.timeline import now_ns


class Out:
    """Standard output behind a queue: a slow reader delays no decision."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="out", daemon=True)
        self._thread.start()

    def say(self, ev: str, **fields: Any) -> None:
        """One record of the coordinator's own."""
        self.line(json.dumps({"ev": ev, "t": now_ns(), "rank": -1, **fields}).encode() + b"\n")

    def line(self, line: bytes) -> None:
        """One record as it came from a rank."""
        self._queue.put(line)

    def close(self) -> None:
        """Write what is queued."""
        self._queue.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while (line := self._queue.get()) is not None:
                while not self._queue.empty() and len(line) < 1 << 16:
                    more = self._queue.get()
                    if more is None:
                        self._queue.put(None)
                        break
                    line += more
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()


class Writer(Protocol):
    """The way to a rank."""

    def write(self, data: bytes, /) -> None:
        """Send one line."""
        ...


@dataclass(slots=True)
class Rank:
    """What the coordinator knows of one rank.

    Attributes:
        state: `starting`, `running`, `paused`, `failed`, `aborted`, `gone`.
        heard_ns: Last record over the control channel.
        owed: Aborts asked for and not yet answered.
        told: Its process state as another machine told it; None for one on this machine.
        limits: Limits it has learned, for the one that may have to follow it.
        again: It was started again, and is not in a group yet.
    """

    spec: dict[str, Any]
    writer: Writer | None = None
    pid: int = 0
    state: str = "starting"
    steady: bool = False
    hello: dict[str, Any] = field(default_factory=dict)
    heard_ns: int = 0
    last_i: int = -1
    owed: int = 0
    silent: bool = False
    told: str | None = None
    limits: dict[str, float] = field(default_factory=dict)
    again: bool = False

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.state != "gone"

    @property
    def free(self) -> bool:
        """Whether it is in no group, and could join one."""
        fresh = self.state == "starting" and bool(self.hello)
        return fresh or self.state in ("paused", "aborted")

    def start_again(self, at_ns: int) -> None:
        """A new process has taken its place; the iterations it did stay done."""
        self.state, self.steady, self.again = "starting", False, True
        self.hello, self.heard_ns, self.owed, self.silent = {}, at_ns, 0, False
        self.told = None if self.told is None else ""

    def send(self, cmd: str, **fields: Any) -> None:
        """Pass a command on; a rank that is gone gets none."""
        if self.writer is not None and self.alive:
            with contextlib.suppress(OSError):
                self.writer.write(json.dumps({"cmd": cmd, **fields}).encode() + b"\n")


def ended(code: int | None) -> str:
    """How a process ended, in words; None is one whose host was lost."""
    if code is None:
        return "its host was lost"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def process_state(rank: Rank) -> str:
    """Letter of the kernel's process state (`T` is stopped); empty when the process is gone."""
    if rank.told is not None:
        return rank.told if rank.alive else ""
    try:
        return Path(f"/proc/{rank.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines until the other side is gone, however it went."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            yield line
