"""The process that acts on time and heals when its owner dies: `python -m chaos.injector`.

It reads JSON lines on standard input (`arm`, `start`, `hits`, `heal`), answers on standard output,
and takes everything back when its input closes, its owner ends, a signal comes or its life is
over. Nothing stops the healing. One thread, no garbage collection, SCHED_FIFO where allowed.

On another machine it is told a lease (`chaos.lease`): without a line on its input for so long it
heals as well, and a dead-man heals when *it* is dead.

    arm ──▶ ready ──▶ start ──▶ action … done ──▶ heal ──▶ healed
      └▶ refused        └▶ failed (everything was taken back)
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from chaos.change import to_json
from chaos.deadman import disarm
from chaos.errors import BlockedError, RailbreakError
from chaos.grip import Grip
from chaos.lease import Lease
from chaos.lines import Lines
from chaos.native import process_state
from chaos.realtime import settle_down
from chaos.timeline import now_ns

SPIN_NS = 200_000  # the last stretch before an action is spun, not slept
QUIET_NS = 2_000_000  # this close before an action nothing else is begun
BEAT_NS = 200_000_000  # a process that a change needs to be in force is asked so often if it lives
_PRIORITY = 50  # real-time


class Injector:
    """Serves one owner; see the module."""

    def __init__(self, owner: int) -> None:
        self.leaving = ""
        self._lines = Lines()
        self._say = self._lines.say
        self._me = (os.getpid(), process_state(os.getpid())[1])
        self._grip = Grip(self._me, self._say)
        self._lease = Lease()
        self._edges: deque[tuple[int, Literal["do", "undo"]]] = deque()
        self._life_ns = 0
        self._deadline_ns: int | None = None
        self._felt = 0
        self._owner = os.pidfd_open(owner)

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until told to leave, then take everything back."""
        poll = select.poll()
        wake, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(tell)  # without it poll() would sleep on through a signal
        for fd in (0, self._owner, wake):
            poll.register(fd, select.POLLIN)
        try:
            while not self.leaving:
                self._act_if_due()
                if not self._lines.unsaid:
                    timeout = self._idle_ms()
                else:
                    if not self._lines.flush():
                        self.leaving = self.leaving or "its output was closed"
                    timeout = min(self._idle_ms(), 20)
                for fd, _ in poll.poll(timeout):
                    if fd == self._owner:
                        self.leaving = "its owner ended"
                    elif fd == 0:
                        self._read()
                if self._deadline_ns is not None and now_ns() >= self._deadline_ns:
                    self.leaving = "its life was over"
                self._check_lease()
                self._feel()
        except BaseException as error:
            self.leaving = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._heal()
            self._lines.flush_all(1.0)

    def _idle_ms(self) -> int:
        """How long nothing is due; whole milliseconds, short of the next action."""
        edge = self._edges[0][0] if self._edges else None
        beat = self._felt + BEAT_NS if self._grip.living() else None
        due = [one for one in (self._deadline_ns, edge, self._lease.ends_ns, beat) if one]
        if not due:
            return 60_000
        left = min(due) - now_ns() - QUIET_NS
        return max(0, min(left // 1_000_000, 60_000))

    def _read(self) -> None:
        self._check_lease()  # what lay unread while this process stood still renews nothing
        heard = self._lines.hear()
        if heard is None:
            self.leaving = self.leaving or "its input was closed"
            return
        self._grip.trouble += self._lease.hear()
        for command in heard:
            self._obey(command)

    def _obey(self, command: dict[str, Any]) -> None:
        try:
            match command["cmd"]:
                case "beat":
                    pass
                case "arm":
                    self._arm(command)
                case "start":
                    self._start(command)
                case "hits":
                    self._say(ev="hits", hits=[[one.seen, one.hit] for one in self._grip.hits()])
                case "heal":
                    self._heal()
                    self._say(ev="ok")
                case other:
                    raise BlockedError(f"unknown command {other!r}")
        except RailbreakError as error:
            self._say(ev="refused", kind=type(error).__name__, message=str(error))

    # ------------------------------------------------------------------ before

    def _arm(self, command: dict[str, Any]) -> None:
        """Make every change ready and write it down; nothing is changed yet."""
        if self._grip.held:
            raise BlockedError("armed already")
        life_ns = command["max_life_ns"]
        try:
            self._grip.make_ready(command["changes"], command["wheres"], Path(command["journal"]))
            if "lease_ns" in command:
                self._lease = Lease.arm(
                    self._grip.held,
                    Path(command["deadman"]),
                    length_ns=command["lease_ns"],
                    life_ns=life_ns,
                )
        except BaseException:
            self._grip.let_go()
            if "deadman" in command:  # its folder, with the journal in it
                disarm(Path(command["deadman"]))
            raise
        self._life_ns = life_ns
        settle_down(_PRIORITY)
        told = [
            {"saved": dict(one.native.saved), "cure": one.cure, "change": to_json(one.change)}
            for one in self._grip.held
        ]
        fifo = os.sched_getscheduler(0) & 0xFF == os.SCHED_FIFO
        self._say(ev="ready", fifo=fifo, changes=told, owner=self._me)

    def _start(self, command: dict[str, Any]) -> None:
        """Take the schedule: for each span, do at its start and undo at its end."""
        t0, spans = command["t0_ns"], command["spans"]
        if not self._grip.held or self._grip.healed:
            raise BlockedError("nothing is armed")
        if spans and spans[-1][1] > self._life_ns:
            raise BlockedError(
                f"the last span ends after {spans[-1][1] / 1e9:g} s, but the changes may live "
                f"{self._life_ns / 1e9:g} s at most"
            )
        self._deadline_ns = max(t0, now_ns()) + self._life_ns
        self._grip.trouble += self._lease.start()
        for start, end in spans:
            self._edges += ((t0 + start, "do"), (t0 + end, "undo"))
        self._say(ev="started")

    # ------------------------------------------------------------------ the deed

    def _act_if_due(self) -> None:
        while self._edges and self._edges[0][0] - now_ns() <= QUIET_NS:
            self._check_lease()
            if self.leaving:
                return
            planned, kind = self._edges.popleft()
            if not self._edges and planned - now_ns() > QUIET_NS // 2:
                self._grip.look_again()
            wait_until(planned)
            begun = now_ns()
            acted = self._act(planned, kind)
            self._lease.bridge(begun)
            if not acted:
                return
            if kind == "undo" and self._edges:
                self._felt = 0
                self._feel()  # a process that had to be ended takes no part in the next turn
                if self._grip.healed:
                    return
            if not self._edges:
                self._heal()
                self._say(ev="done")

    def _act(self, planned: int, kind: Literal["do", "undo"]) -> bool:
        """One edge of the schedule for every change; False when a change could not be made."""
        failure = self._grip.act(kind, planned)
        if kind == "do" and not failure:  # looking must not delay the next action
            failure = self._grip.prove(self._edges[0][0] - QUIET_NS if self._edges else None)
        if failure:
            self._heal()
            self._say(ev="failed", message=failure)
        return not failure

    def _feel(self) -> None:
        """Heal at once where what must live does not: it says itself what became of it."""
        if now_ns() - self._felt < BEAT_NS - QUIET_NS:
            return
        self._felt = now_ns()
        if not all([lives() for lives in self._grip.living()]):
            self._heal()
            self._say(ev="done")

    # ------------------------------------------------------------------ back

    def _check_lease(self) -> None:
        if self._lease.over:
            self.leaving = self.leaving or "its lease ran out"

    def _heal(self) -> None:
        """Take everything back and say so; repeatable."""
        if not self._grip.healed:
            self._edges.clear()
            if self._grip.heal():
                self._lease.end()
        self._say(
            ev="healed",
            why=self.leaving,
            changes=[one.told() for one in self._grip.held],
            trouble=self._grip.trouble,
        )


def wait_until(at_ns: int) -> None:
    """Return at an instant of `now_ns`: sleep (absolute, by the kernel), then spin."""
    left = at_ns - SPIN_NS - now_ns()
    if left > 0:
        time.sleep(left / 1e9)  # clock_nanosleep(TIMER_ABSTIME) since Python 3.11
    while now_ns() < at_ns:
        pass


def main() -> None:
    """Run beside the owner whose pid is the first argument (`parent`: whoever started us)."""
    owner = os.getppid() if sys.argv[1] == "parent" else int(sys.argv[1])
    injector = Injector(owner or 1)

    def leave(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        injector.leaving = injector.leaving or f"told to by {name}, as railbreak undo does"

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, leave)
    injector.run()


if __name__ == "__main__":
    main()
