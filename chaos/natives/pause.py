"""`PauseStorm`: a process that sends one small frame again before the last one has run out."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.change import Hits, PauseStorm, Where
from chaos.changes.pause import pause_frame
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.natives.load import Born, bear, found
from chaos.natives.vanishing import interface
from chaos.netlink import Netlink
from chaos.netns import inode, inside, setns

#: Frames sent, refused; times the pause ran out, ns that it was out, ns that it was to last.
_COUNTS = struct.Struct("=QQQQQ")
_MOST_OUT = 0.01  # of the time; a storm with more holes is another fault
_PR_SET_TIMERSLACK = 29
_LEAST_SLEEP_S = 2e-6  # whoever is late leaves room for others all the same
_PRIORITY = 40  # real-time: below the injector, which takes it back
_NET = Path("/sys/class/net")


@dataclass(slots=True)
class Storming:
    """`PauseStorm`: a sender that waits, sends, is gone; then frames that let the classes go on."""

    change: PauseStorm
    where: Where
    door: socket.socket
    counts: mmap.mmap
    born: Born | None = None
    working: bool = False
    before: tuple[int, ...] = (0, 0, 0, 0, 0)
    lasting: bool = False

    @classmethod
    def open(cls, change: PauseStorm, where: Where, saved: Mapping[str, Any] | None) -> Storming:
        """Have the sender born, waiting; or find the one that another process bore."""
        if where.netns and inode(where.netns) != where.inode:
            raise FabricError(f"{change.place}: namespace {where.netns} is gone or was replaced")
        door = inside(where.netns, lambda: _bound(where) if saved else _door(change, where))
        made = cls(change, where, door, mmap.mmap(-1, _COUNTS.size))
        if saved is not None:
            made.born = found(*saved["process"])
            made.working = made.born is not None
            return made
        try:
            made.born = bear(change, made._work())
        except OSError as error:
            door.close()
            raise FabricError(
                f"{change.describe()}: a process cannot be born: {error.strerror}"
            ) from None
        return made

    @property
    def saved(self) -> Mapping[str, Any]:
        """Process id and start time."""
        return {"process": [self.born.pid, self.born.started] if self.born else [0, 0]}

    @property
    def trouble(self) -> tuple[str, ...]:
        """A sentence when the sender was too slow to keep the classes paused."""
        _, _, lapses, lapsed_ns, ns = self._counted()
        if lapsed_ns <= _MOST_OUT * ns:
            return ()
        return (
            f"{self.change.place}: the pause ran out {lapses} times, for {lapsed_ns / 1e6:.3g} of "
            f"{ns / 1e6:.4g} ms: the sender was not let run in time",
        )

    def _work(self) -> Callable[[], None]:
        change, where, told = self.change, self.where, memoryview(self.counts)

        def send() -> None:
            if where.netns:
                setns(os.open(where.netns, os.O_RDONLY | os.O_CLOEXEC))
            _send(change, _bound(where), told)

        return send

    def do(self) -> None:
        """Let it go; where an earlier undo killed it, another."""
        try:
            if self.born is None:
                self.born = bear(self.change, self._work())
            os.write(self.born.gate, b"g")
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None
        self.working = True

    def undo(self) -> tuple[str, ...]:
        """Kill it, and let the classes go on."""
        was = self.working
        self._end()
        if was:
            frame = pause_frame(_mac(self.door), self.change.priorities, 0)
            with contextlib.suppress(OSError):  # then they go on when the last frame has run out
                for _ in range(3):
                    self.door.send(frame)
        return ()

    def _end(self) -> None:
        if self.born is None:
            return
        self.born.end()
        if self.born.alive():
            return
        self.born.close()
        self.born, self.working = None, False
        self.before = self._counted()  # it counts until it is dead
        self.counts[:] = bytes(_COUNTS.size)

    def _counted(self) -> tuple[int, ...]:
        """What all senders counted."""
        now = _COUNTS.unpack_from(self.counts)
        return tuple(old + new for old, new in zip(self.before, now, strict=True))

    def in_force(self) -> bool:
        """Whether it was let go and lives."""
        return self.working and self.born is not None and self.born.alive()

    def hits(self) -> Hits:
        """Frames tried, and those that the kernel took."""
        sent, refused, *_ = self._counted()
        return Hits(sent + refused, sent)

    def close(self) -> None:
        """It ends with its change; one that another process bore is left to the undo."""
        if self.born is not None and self.born.gate >= 0:
            self._end()
        if self.born is not None:
            self.born.close()
            self.born = None
        self.door.close()


def _door(change: PauseStorm, where: Where) -> socket.socket:
    """A socket that sends from the port, once that can be of use.

    Raises:
        BlockedError: the port is down, or faster than was reckoned with.
    """
    speed = _number(_NET / where.ifname / "speed")
    mine = _number(_NET / where.ifname / "ifindex") == where.ifindex  # sysfs may be another's
    if mine and speed * 10**6 > change.speed_bps:
        raise BlockedError(
            f"{change.place}: {where.ifname} runs at {speed / 1000:g} Gbit/s and frames were "
            f"reckoned for {change.speed_bps / 1e9:g} Gbit/s: each would run out before the next; "
            f"give speed: {speed / 1000:g} Gbit/s"
        )
    try:
        link = Netlink.open()
        try:
            told = interface(link, where.ifindex)
        finally:
            link.close()
        if told.name == where.ifname and told.up and told.carrier:
            return _bound(where)
    except OSError as error:
        raise FabricError(f"{change.place}: {where.ifname} cannot be used: {error}") from None
    raise BlockedError(f"{change.place}: {where.ifname} is down, so no frame would leave it")


def _bound(where: Where) -> socket.socket:
    door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        door.bind((where.ifname, 0))
    except BaseException:
        door.close()
        raise
    return door


def _mac(door: socket.socket) -> bytes:
    found: bytes = door.getsockname()[4]
    return found


def _number(path: Path) -> int:
    try:
        return max(0, int(path.read_text()))
    except (OSError, ValueError):
        return 0


def _send(change: PauseStorm, door: socket.socket, told: memoryview) -> None:
    """A frame each period, until the life is over; how often it came too late."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # then its nice level must do
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    frame = pause_frame(_mac(door), change.priorities, change.quanta)
    every, lasts = change.every_ns, change.lasts_ns
    sent = refused = lapses = lapsed = last = 0
    begun = due = time.monotonic_ns()
    end = begun + change.most_ns
    while (now := time.monotonic_ns()) < end:
        if last and now - last > lasts:
            lapses, lapsed = lapses + 1, lapsed + now - last - lasts
        try:
            door.send(frame)
            sent, last = sent + 1, now
        except OSError:
            refused += 1
        _COUNTS.pack_into(told, 0, sent, refused, lapses, lapsed, now - begun)
        due = max(due + every, now)  # what was missed is not made up for
        time.sleep(max(_LEAST_SLEEP_S, (due - time.monotonic_ns()) / 1e9))
