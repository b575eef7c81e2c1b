"""`ProcessSignal`: a process by its pidfd."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.change import Hits, ProcessSignal, Where
from chaos.errors import ApplyError, BlockedError, FabricError


@dataclass(slots=True)
class Signalled:
    """`ProcessSignal`: through a pidfd, so that a reused pid is never signalled."""

    change: ProcessSignal
    where: Where
    fd: int
    acted: int = 0
    told: bool = False
    saved: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls, change: ProcessSignal, where: Where, saved: Mapping[str, Any] | None = None
    ) -> Signalled:
        """Open the process; refuse one that is not the one that was resolved."""
        try:
            fd = os.pidfd_open(where.pid)
        except OSError as error:
            raise FabricError(f"{change.place}: process {where.pid}: {error.strerror}") from None
        state, started = process_state(where.pid)
        if started != where.started or state == "Z":
            os.close(fd)
            raise FabricError(f"{change.place}: process {where.pid} ended before the fault")
        if change.signal == "USR1" and saved is None and not listens(where.pid):
            os.close(fd)
            raise BlockedError(
                f"{change.place}: process {where.pid} does not listen for SIGUSR1, which would "
                "end it; rank_kill ends a rank"
            )
        return cls(change, where, fd)

    @property
    def lasting(self) -> bool:
        """A kill stays."""
        return self.change.signal == "KILL"

    def do(self) -> None:
        """Send the signal."""
        try:
            signal.pidfd_send_signal(self.fd, signal.Signals[f"SIG{self.change.signal}"])
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None
        self.told = True

    def undo(self) -> tuple[str, ...]:
        """Let a stopped process run again; what one was told is over by itself."""
        if self.lasting:
            return ()
        self.acted += self.in_force()
        self.told = False
        if self.change.signal == "USR1":
            return ()
        try:
            signal.pidfd_send_signal(self.fd, signal.SIGCONT)
        except OSError as error:
            return () if error.errno == errno.ESRCH else (f"SIGCONT: {error.strerror}",)
        return ()

    def in_force(self) -> bool:
        """Whether it is stopped (STOP), gone (KILL), or was told and lives (USR1)."""
        if select.select([self.fd], [], [], 0)[0]:  # readable once the process has ended
            return self.lasting
        if self.change.signal == "USR1":
            return self.told
        return not self.lasting and process_state(self.where.pid)[0] in ("T", "t")

    def hits(self) -> Hits:
        """How many times the process was seen stopped, killed or told."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.fd)


def listens(pid: int) -> bool:
    """Whether a process has a handler of its own for SIGUSR1."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            caught = next(line.split()[1] for line in file if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def process_state(pid: int) -> tuple[str, int]:
    """State letter and start time in clock ticks; empty and 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return after_name[0].decode(), int(after_name[19])
