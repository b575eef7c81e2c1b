"""The process that acts on time and heals when its owner dies: `python -m chaos.injector`.

It reads JSON lines on standard input (`arm`, `start`, `hits`, `heal`), answers on standard output,
and takes everything back when its input closes, its owner ends, a signal comes or its life is
over. Nothing stops the healing. One thread, no garbage collection, SCHED_FIFO where allowed.

On another machine it is told a lease: without a line on its input for so long it heals as well. It
then also arms a dead-man (`chaos.deadman`) before the deed, which heals when *it* is dead.

    arm ──▶ ready ──▶ start ──▶ action … done ──▶ heal ──▶ healed
      └▶ refused        └▶ failed (everything was taken back)
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.change import Argv, Change, Hits, Where, from_json, to_json
from chaos.deadman import Deadman, disarm
from chaos.errors import ApplyError, BlockedError, FabricError, RailbreakError
from chaos.journal import Journal, State
from chaos.native import Native, build, process_state
from chaos.realtime import settle_down
from chaos.timeline import now_ns

SPIN_NS = 200_000  # the last stretch before an action is spun, not slept
QUIET_NS = 2_000_000  # this close before an action nothing else is begun
GONE_WITHIN_NS = 2_000_000_000  # how long a taken-back change may take to be gone
RENEW_NS = 400_000_000  # a lease is renewed at most so often
BEAT_NS = 200_000_000  # a process that a change needs to be in force is asked so often if it lives


@dataclass(slots=True)
class Held:
    """One change while this process holds it.

    Attributes:
        begun: Its `do` was begun at least once.
        pending: No `undo` has followed the last `do` yet.
        refused: What the last `undo` could not do.
    """

    id: str
    change: Change
    where: Where
    native: Native
    cure: str
    begun: bool = False
    pending: bool = False
    in_force: bool = False
    refused: tuple[str, ...] = ()
    hits: Hits = field(default_factory=lambda: Hits(None, None))
    taken_back: bool = False


def undoing(change: Change, where: Where, saved: dict[str, Any]) -> tuple[Argv, ...]:
    """The commands that take a change back, from the machine's own namespace."""
    undo = change.steps(where, saved).undo
    enter = ("nsenter", f"--net={where.netns}") if where.netns else ()
    return tuple((*enter, *argv) for argv in undo)


def cure(change: Change, where: Where, saved: dict[str, Any]) -> str:
    """The same as one line, for a person."""
    return "; ".join(shlex.join(argv) for argv in undoing(change, where, saved))


class Injector:
    """Holds changes; see the module."""

    def __init__(self, owner: int) -> None:
        self.held: list[Held] = []
        self.journal: Journal | None = None
        self.edges: deque[tuple[int, str]] = deque()
        self.life_ns = 0
        self.deadline_ns: int | None = None
        self.trouble: list[str] = []
        self.healed = False
        self.leaving = ""
        self.lease_ns = 0
        self.deadman: Deadman | None = None
        self._heard = self._renewed = self._felt = 0
        self._out = bytearray()
        self._in = b""
        self._owner = os.pidfd_open(owner)
        self._me = (os.getpid(), process_state(os.getpid())[1])
        os.set_blocking(1, False)

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
                if not self._out:
                    timeout = self._idle_ms()
                else:
                    self._flush()
                    timeout = min(self._idle_ms(), 20)
                for fd, _ in poll.poll(timeout):
                    if fd == self._owner:
                        self.leaving = "its owner ended"
                    elif fd == 0:
                        self._read()
                if self.deadline_ns is not None and now_ns() >= self.deadline_ns:
                    self.leaving = "its life was over"
                self._check_lease()
                self._feel()
        except BaseException as error:
            self.leaving = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.heal()
            self._last_words()

    def _idle_ms(self) -> int:
        """How long nothing is due; whole milliseconds, short of the next action."""
        lease = self._heard + self.lease_ns if self.lease_ns else None
        edge = self.edges[0][0] if self.edges else None
        beat = self._felt + BEAT_NS if self._living() else None
        due = [one for one in (self.deadline_ns, edge, lease, beat) if one]
        if not due:
            return 60_000
        left = min(due) - now_ns() - QUIET_NS
        return max(0, min(left // 1_000_000, 60_000))

    def _read(self) -> None:
        self._check_lease()  # what lay unread while this process stood still renews nothing
        got = os.read(0, 1 << 20)
        if not got:
            self.leaving = self.leaving or "its input was closed"
            return
        self._heard = now_ns()
        self._renew()
        *lines, self._in = (self._in + got).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _check_lease(self) -> None:
        if self.lease_ns and now_ns() - self._heard >= self.lease_ns:
            self.leaving = self.leaving or "its lease ran out"

    def _renew(self) -> None:
        """Tell the dead-man that this process lives and hears its controller."""
        if self.deadman is not None and self._heard - self._renewed >= RENEW_NS:
            self._renewed = self._heard
            try:
                self.deadman.renew("armed" if self.deadline_ns is None else "started")
            except OSError as error:
                self.trouble.append(f"the dead-man's lease cannot be renewed: {error.strerror}")

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
                    self._say(ev="hits", hits=[_pair(self._count(one)) for one in self.held])
                case "heal":
                    self.heal()
                    self._say(ev="ok")
                case other:
                    raise BlockedError(f"unknown command {other!r}")
        except RailbreakError as error:
            self._say(ev="refused", kind=type(error).__name__, message=str(error))

    # ------------------------------------------------------------------ before

    def _arm(self, command: dict[str, Any]) -> None:
        """Make every change ready and write it down; nothing is changed yet."""
        if self.held:
            raise BlockedError("armed already")
        held: list[Held] = []
        written: list[Held] = []
        try:
            for at, (change, where) in enumerate(
                zip(command["changes"], command["wheres"], strict=True)
            ):
                held.append(_ready(f"{self._me[0]}.{self._me[1]}-{at}", change, where))
            self.journal = Journal(Path(command["journal"]))
            for one in held:
                written.append(one)
                self.journal.intended(
                    one.id,
                    one.change,
                    one.where,
                    saved=one.native.saved,
                    cure=one.cure,
                    owner=self._me,
                )
            if "lease_ns" in command:
                self._arm_deadman(command, held)
        except BaseException:
            for one in written[:-1]:  # nothing was done, so their lines are not left open
                self._note("taken_back", one)
            for one in held:
                one.native.close()
            if "deadman" in command:  # its folder, with the journal in it
                disarm(Path(command["deadman"]))
            raise
        self.held = held
        self.life_ns = command["max_life_ns"]
        settle_down(50)
        told = [
            {"saved": dict(one.native.saved), "cure": one.cure, "change": to_json(one.change)}
            for one in held
        ]
        fifo = os.sched_getscheduler(0) & 0xFF == os.SCHED_FIFO
        self._say(ev="ready", fifo=fifo, changes=told, owner=self._me)

    def _arm_deadman(self, command: dict[str, Any], held: list[Held]) -> None:
        """Before the deed: a script with every undo, last change first."""
        undo = [
            argv
            for one in reversed(held)
            for argv in undoing(one.change, one.where, dict(one.native.saved))
        ]
        # who waits for a driver cannot hear meanwhile, and must not be taken for dead
        slow = max(getattr(one.native, "slow_s", 0.0) for one in held)
        self.deadman = Deadman.arm(
            Path(command["deadman"]),
            undo,
            lease_s=command["lease_ns"] / 1e9 + slow,
            life_s=command["max_life_ns"] / 1e9,
        )
        self.lease_ns, self._heard = command["lease_ns"], now_ns()

    def _start(self, command: dict[str, Any]) -> None:
        """Take the schedule: for each span, do at its start and undo at its end."""
        t0, spans = command["t0_ns"], command["spans"]
        if not self.held or self.healed:
            raise BlockedError("nothing is armed")
        if spans and spans[-1][1] > self.life_ns:
            raise BlockedError(
                f"the last span ends after {spans[-1][1] / 1e9:g} s, but the changes may live "
                f"{self.life_ns / 1e9:g} s at most"
            )
        self.deadline_ns = max(t0, now_ns()) + self.life_ns
        self._renewed = 0
        self._renew()
        self.edges = deque(
            (t0 + at, kind) for start, end in spans for at, kind in ((start, "do"), (end, "undo"))
        )
        self._say(ev="started")

    # ------------------------------------------------------------------ the deed

    def _act_if_due(self) -> None:
        while self.edges and self.edges[0][0] - now_ns() <= QUIET_NS:
            self._check_lease()
            if self.leaving:
                return
            planned, kind = self.edges.popleft()
            if not self.edges and planned - now_ns() > QUIET_NS // 2:
                self._still_in_force()
            wait_until(planned)
            begun = now_ns()
            acted = self._act(planned, kind)
            if now_ns() - begun > RENEW_NS:  # a slow command is no silence of the controller
                self._heard = max(self._heard, now_ns())
            if not acted:
                return
            if kind == "undo" and self.edges:
                self._felt = 0
                self._feel()  # a process that had to be ended takes no part in the next turn
                if self.healed:
                    return
            if not self.edges:
                self.heal()
                self._say(ev="done")

    def _act(self, planned: int, kind: str) -> bool:
        """One edge of the schedule for every change; False when a change could not be made."""
        done, failure = [], ""
        for one in self.held if kind == "do" else reversed(self.held):
            before = now_ns()
            try:
                if kind == "do":
                    one.begun = one.pending = True  # before the deed: half done is undone too
                    one.native.do()
                else:
                    one.refused = one.native.undo()
                    one.pending = False
            except ApplyError as error:
                failure = str(error)
                break
            done.append((one, before, now_ns()))
        for one, before, after in done:
            self._told_action(one, kind, planned, before, after)
        if kind == "do" and not failure:
            failure = self._proved()
        if failure:
            self.edges.clear()
            self.heal()
            self._say(ev="failed", message=failure)
        return not failure

    def _proved(self) -> str:
        """Look once per change that it came into force; a sentence when it did not."""
        for one in self.held:
            if one.in_force:
                continue
            try:
                one.in_force = _awaited(one.native, True, self._look_until())
            except FabricError as error:
                return str(error)
            if not one.in_force:
                return f"{one.change.describe()}: accepted, yet not in force"
            self._note("in_force", one)
        return ""

    def _look_until(self) -> int:
        """Looking must not delay the next action."""
        soon = now_ns() + GONE_WITHIN_NS
        return min(soon, self.edges[0][0] - QUIET_NS) if self.edges else soon

    def _still_in_force(self) -> None:
        for one in self.held:
            if one.in_force and one.begun and not _holds(one.native):
                self.trouble.append(
                    f"{one.change.describe()}: no longer in force before it was taken back; "
                    "somebody else undid it"
                )

    def _living(self) -> list[Callable[[], bool]]:
        """How to ask what is in force only as long as a process of its own lives."""
        if self.healed:
            return []
        able = (getattr(one.native, "lives", None) for one in self.held if one.begun)
        return [lives for lives in able if lives is not None]

    def _feel(self) -> None:
        """Heal at once where what must live does not: it says itself what became of it."""
        if now_ns() - self._felt < BEAT_NS - QUIET_NS:
            return
        self._felt = now_ns()
        if not all([lives() for lives in self._living()]):
            self.edges.clear()
            self.heal()
            self._say(ev="done")

    # ------------------------------------------------------------------ back

    def heal(self) -> None:
        """Take everything back, last first, see that it is gone, and say so; repeatable."""
        if not self.healed:
            self.healed = True
            self.edges.clear()
            until = now_ns() + GONE_WITHIN_NS
            while left := [one for one in reversed(self.held) if not one.taken_back]:
                for one in left:
                    self._take_back(one)
                if now_ns() >= until:
                    break
                if any(one.refused for one in left):
                    time.sleep(0.02)  # a route may wait for a carrier, an address for its link
            for one in self.held:
                self._close(one)
            if self.deadman is not None and all(one.taken_back for one in self.held):
                self.deadman.disarm()
        self._say(
            ev="healed",
            why=self.leaving,
            changes=[_told(one) for one in self.held],
            trouble=self.trouble,
        )

    def _take_back(self, one: Held) -> None:
        """Undo what is not undone, count, and look until it is gone; never raises."""
        if not one.begun or one.native.lasting:
            one.hits = self._count(one) if one.begun else one.hits
            one.taken_back = True
            return
        try:
            if one.pending or one.refused or _holds(one.native):
                before = now_ns()
                one.refused = one.native.undo()
                self._told_action(one, "undo", before, before, now_ns())
                one.pending = False
            one.hits = self._count(one)
            until = now_ns() + GONE_WITHIN_NS
            one.taken_back = _awaited(one.native, False, until) and not one.refused
        except Exception as error:  # one failed undo must not stop the others
            one.refused = (*one.refused, str(error))

    def _close(self, one: Held) -> None:
        if one.begun:
            self._note("acted", one, seen=one.hits.seen, hit=one.hits.hit)
        if one.taken_back:
            self._note("taken_back", one)
        else:
            self._note("leftover", one, refused=list(one.refused))
        self.trouble += getattr(one.native, "trouble", ())
        one.native.close()

    def _count(self, one: Held) -> Hits:
        if self.healed and one.taken_back:
            return one.hits
        try:
            return one.native.hits()
        except (FabricError, OSError):
            return one.hits

    # ------------------------------------------------------------------ words

    def _note(self, state: State, one: Held, **facts: Any) -> None:
        if self.journal is None:
            return
        try:
            self.journal.note(state, one.id, **facts)
        except OSError as error:
            self.trouble.append(f"journal {self.journal.path}: {error.strerror} ({state})")

    def _told_action(self, one: Held, kind: str, planned: int, before: int, after: int) -> None:
        at = self.held.index(one)
        self._say(ev="action", change=at, kind=kind, planned=planned, before=before, after=after)

    def _say(self, **words: Any) -> None:
        self._out += json.dumps(words, separators=(",", ":")).encode() + b"\n"

    def _flush(self) -> None:
        try:
            del self._out[: os.write(1, self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
            self.leaving = self.leaving or "its output was closed"

    def _last_words(self) -> None:
        until = time.monotonic() + 1
        while self._out and time.monotonic() < until:
            if select.select([], [1], [], 0.1)[1]:
                self._flush()


def _ready(id: str, change: dict[str, Any], where: dict[str, Any]) -> Held:
    made, at = from_json(change), Where.from_json(where)
    native = build(made, at)
    made = getattr(native, "change", made)  # by the engine that was found here
    return Held(id, made, at, native, cure(made, at, dict(native.saved)))


def _pair(hits: Hits) -> list[int | None]:
    return [hits.seen, hits.hit]


def _told(one: Held) -> dict[str, Any]:
    return {
        "in_force": one.in_force,
        "hits": _pair(one.hits),
        "taken_back": one.taken_back,
        "cure": "" if one.taken_back else one.cure,
        "refused": list(one.refused),
    }


def _holds(native: Native) -> bool:
    """In force, or impossible to tell: then it is treated as if it were."""
    try:
        return native.in_force()
    except FabricError:
        return True


def _awaited(native: Native, wanted: bool, until_ns: int) -> bool:
    """Look until the change is in the wanted state or time is up; whether it is."""
    while native.in_force() is not wanted:
        if now_ns() >= until_ns:
            return False
        time.sleep(0.0005)
    return True


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
