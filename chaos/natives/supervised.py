"""`ProcessRestart`: a child of a supervisor, killed, and asked for again."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chaos.change import Hits, ProcessRestart, Where
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.natives.process import listens, process_state

_DIES_WITHIN_S, _BACK_WITHIN_S, _LOOK_S = 2.0, 10.0, 0.01


@dataclass(slots=True)
class Restarted:
    """`ProcessRestart`: both processes through pidfds, so that a reused id is never signalled.

    Attributes:
        saved: `parent`, `parent_started`: the supervisor's id and start time.
        parent: Its pidfd; -1 when it is gone, and with it all that it would start again.
        killed: Times that the child was killed.
        back: Times that it was there again.
    """

    change: ProcessRestart
    where: Where
    saved: Mapping[str, Any]
    parent: int
    killed: int = 0
    back: int = 0
    lasting: bool = False

    @classmethod
    def open(
        cls, change: ProcessRestart, where: Where, saved: Mapping[str, Any] | None = None
    ) -> Restarted:
        """Find the supervisor; refuse a process that nobody would start again."""
        if saved is not None:
            return cls(change, where, saved, _held(saved["parent"], saved["parent_started"]))
        state, started = process_state(where.pid)
        if started != where.started or state == "Z":
            raise FabricError(f"{change.place}: process {where.pid} ended before the fault")
        parent = _parent(where.pid)
        name, wanted = _name(where.pid), change.place.process
        if name != wanted:
            raise BlockedError(
                f"{change.place}: process {where.pid} is called {name!r}, so that it could not be "
                f"known again; expected {wanted!r}"
            )
        if not listens(parent):
            raise BlockedError(
                f"{change.place}: process {parent} ({_name(parent)}), which started it, does not "
                "listen for SIGUSR1, so nobody would start it again; a collective job does in "
                "mode restart and in mode regroup"
            )
        kept = {"parent": parent, "parent_started": process_state(parent)[1]}
        return cls(change, where, kept, _held(parent, kept["parent_started"]))

    def _child(self) -> int:
        """Process id of the child; 0 while there is none."""
        wanted, parent = self.change.place.process, int(self.saved["parent"])
        if self.parent < 0 or select.select([self.parent], [], [], 0)[0]:
            return 0
        everyone = (int(word) for word in os.listdir("/proc") if word.isdecimal())
        for pid in (pid for pid in everyone if _parent(pid) == parent):
            if process_state(pid)[0] not in ("", "Z", "X") and _name(pid) == wanted:
                return pid
        return 0

    def do(self) -> None:
        """Kill it, and see it end."""
        pid = self._child()
        if not pid:
            raise ApplyError(f"{self.change.describe()}: it does not run")
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            self.killed += 1
            select.select([fd], [], [], _DIES_WITHIN_S)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None
        finally:
            os.close(fd)

    def undo(self) -> tuple[str, ...]:
        """Have it started again and wait until it is there."""
        if not self.in_force():
            return ()
        until = time.monotonic() + _BACK_WITHIN_S
        try:
            signal.pidfd_send_signal(self.parent, signal.SIGUSR1)
        except ProcessLookupError:
            return ()
        except OSError as error:
            return (f"SIGUSR1 to process {self.saved['parent']}: {error.strerror}",)
        while self.in_force():
            if time.monotonic() > until:
                name = self.change.place.process
                return (f"process {self.saved['parent']} was told and did not start {name} again",)
            time.sleep(_LOOK_S)
        self.back += 1
        return ()

    def in_force(self) -> bool:
        """Whether the supervisor is there and the child is not."""
        gone = self.parent < 0 or bool(select.select([self.parent], [], [], 0)[0])
        return not gone and not self._child()

    def hits(self) -> Hits:
        """`seen`: times that it was there again; `hit`: times that it was killed."""
        return Hits(self.back, self.killed)

    def close(self) -> None:
        """Close the pidfd."""
        if self.parent >= 0:
            os.close(self.parent)
            self.parent = -1


def _held(pid: int, started: int) -> int:
    """A pidfd of a process; -1 when it has ended, or is another by now."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    state, now = process_state(pid)
    if now != started or state == "Z":
        os.close(fd)
        return -1
    return fd


def _parent(pid: int) -> int:
    """Process id of the parent; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""
