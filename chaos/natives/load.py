"""`Load`: processes born by this one, let go by a byte, killed by their pidfd.

They are forked and not started anew: that takes a millisecond, and they wait until the deed. They
die with us by PR_SET_PDEATHSIG, which follows the *thread* that forked: so never fork one from the
short-lived thread of `chaos.netns.inside`; the child enters the namespace itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from chaos.change import Hits, Load, Where
from chaos.errors import ApplyError, FabricError
from chaos.natives.process import process_state
from chaos.netns import inode, setns

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_CPUCLOCK_SCHED = 2  # the clock of a process's processor time, to the nanosecond
_COUNTS = struct.Struct("=QQ")  # datagrams sent, datagrams that the kernel refused
_PAUSE_S = 0.0005
_BEHIND_S = 0.02  # what a sender that was not let run may make up for


class Named(Protocol):
    """A change that processes are born for."""

    @property
    def tag(self) -> str:
        """Their name."""
        ...

    @property
    def nice(self) -> int:
        """Their nice level."""
        ...


@dataclass(slots=True)
class Born:
    """One process of ours.

    Attributes:
        pid: Its process id.
        started: Its start time in clock ticks.
        fd: Its pidfd.
        gate: Where the byte that lets it go is written; -1 for one that another process bore.
    """

    pid: int
    started: int
    fd: int
    gate: int = -1

    def alive(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self.fd], [], [], 0)[0]

    def end(self) -> None:
        """Kill it, and see it gone where it is our child."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)
        select.select([self.fd], [], [], 2)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def close(self) -> None:
        """Close what is open for it."""
        os.close(self.fd)
        if self.gate >= 0:
            os.close(self.gate)


@dataclass(slots=True)
class Busy:
    """`Load`: processes that wait, work, are gone."""

    change: Load
    where: Where
    counts: mmap.mmap
    born: list[Born] = field(default_factory=list)
    working: bool = False
    spent_ms: float = 0.0
    sent: int = 0
    refused: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: Load, where: Where, saved: Mapping[str, Any] | None) -> Busy:
        """Have the processes born, waiting; or find those that another process bore."""
        made = cls(change, where, mmap.mmap(-1, change.processes * _COUNTS.size))
        if saved is not None:
            made.born = [one for pid, at in saved["processes"] if (one := found(pid, at))]
            made.working = bool(made.born)
            return made
        if where.netns and inode(where.netns) != where.inode:
            raise FabricError(f"{change.place}: namespace {where.netns} is gone or was replaced")
        made._bear()
        return made

    @property
    def saved(self) -> Mapping[str, Any]:
        """Process ids and start times."""
        return {"processes": [[one.pid, one.started] for one in self.born]}

    def _bear(self) -> None:
        try:
            for number in range(self.change.processes):
                self.born.append(bear(self.change, self._work(number)))
        except OSError as error:
            self._end()
            raise FabricError(
                f"{self.change.describe()}: a process cannot be born: {error.strerror}"
            ) from None

    def _work(self, number: int) -> Callable[[], None]:
        change, netns = self.change, self.where.netns
        if change.work == "cpu":
            return _spin
        told = memoryview(self.counts)[number * _COUNTS.size : (number + 1) * _COUNTS.size]

        def send() -> None:
            if netns:
                setns(os.open(netns, os.O_RDONLY | os.O_CLOEXEC))
            _send(change, told)

        return send

    def do(self) -> None:
        """Let them go; where an earlier undo killed them, others."""
        try:
            if not self.born:
                self._bear()
            for one in self.born:
                os.write(one.gate, b"g")
        except (OSError, FabricError) as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None
        self.working = True

    def undo(self) -> tuple[str, ...]:
        """Kill them."""
        self._end()
        return ()

    def _end(self) -> None:
        self.spent_ms = self._spent_ms()
        left = []
        for one in self.born:
            one.end()
            if one.alive():
                left.append(one)
            else:
                one.close()
        self.sent, self.refused = self._sent()  # they count until they are dead
        self.counts[:] = bytes(len(self.counts))
        self.born, self.working = left, self.working and bool(left)

    def in_force(self) -> bool:
        """Whether they were let go, and all of them live."""
        return self.working and all(one.alive() for one in self.born)

    def hits(self) -> Hits:
        """`udp`: datagrams tried and sent. `cpu`: milliseconds of processor time, twice."""
        if self.change.work == "cpu":
            spent = round(self._spent_ms())
            return Hits(spent, spent)
        sent, refused = self._sent()
        return Hits(sent + refused, sent)

    def _sent(self) -> tuple[int, int]:
        """Datagrams that went and that were refused, over all times."""
        sent, refused = self.sent, self.refused
        for at in range(0, len(self.counts), _COUNTS.size):
            went, not_taken = _COUNTS.unpack_from(self.counts, at)
            sent, refused = sent + went, refused + not_taken
        return sent, refused

    def _spent_ms(self) -> float:
        """Processor time of those that work, and of those that have."""
        now = sum(_on_cpu_ms(one.pid, one.started) for one in self.born) if self.working else 0.0
        return self.spent_ms + now

    def close(self) -> None:
        """They end with their change; those that another process bore are left to the undo."""
        if any(one.gate >= 0 for one in self.born):
            self._end()
        for one in self.born:
            one.close()
        self.born = []


def found(pid: int, started: int) -> Born | None:
    """A process that another one bore; None when it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    state, since = process_state(pid)
    if since != started or state == "Z":
        os.close(fd)
        return None
    return Born(pid, started, fd)


def _on_cpu_ms(pid: int, started: int) -> float:
    """Milliseconds that a process has had a processor; 0 when it is gone."""
    if process_state(pid)[1] != started:
        return 0.0
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) * 1e3
    except OSError:
        return 0.0


def bear(change: Named, work: Callable[[], None]) -> Born:
    """Fork a process that waits for a byte, then works until it is killed; call `Born.end` on it.

    Raises:
        OSError: it cannot be born.
    """
    waits, gate = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _live(parent, change, waits, work)
        finally:
            os._exit(1)
    os.close(waits)
    return Born(pid, process_state(pid)[1], os.pidfd_open(pid), gate)


def _live(parent: int, change: Named, waits: int, work: Callable[[], None]) -> None:
    """The child: nothing of its parent is kept open, neither its input nor its output."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    libc.prctl(_PR_SET_NAME, change.tag.encode() + b"\0", 0, 0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for our parent to obey
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, waits)
    os.closerange(waits + 1, 1 << 16)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, 0, change.nice)
    if os.read(waits, 1) == b"g":
        work()


def _spin() -> None:
    while True:
        pass


def _send(change: Load, told: memoryview) -> None:
    """Datagrams at an even rate; what the kernel refuses is counted and not repeated."""
    family = socket.AF_INET6 if ":" in change.target else socket.AF_INET
    door = socket.socket(family, socket.SOCK_DGRAM)
    to, payload = (change.target, change.port), bytes(change.size)
    per_s = change.rate_bps / change.processes / 8 / change.size
    begun, sent, refused = time.monotonic(), 0, 0
    while True:
        due = (time.monotonic() - begun) * per_s
        if (late := (due - sent - refused) / per_s) > _BEHIND_S:
            begun += late - _BEHIND_S  # it was not let run: what was missed is not sent in a burst
            continue
        while sent + refused < due:
            try:
                door.sendto(payload, to)
                sent += 1
            except OSError:
                refused += 1
        _COUNTS.pack_into(told, 0, sent, refused)
        time.sleep(_PAUSE_S)
