"""Holds or rewrites the packets of one rule: `python -m chaos.packet_worker run ORDER`.

It runs in the namespace where the packets arrive. Within a cable its nftables table leads the
chosen packets into a tap of its own, and it puts them out of the cable's other inner end; where
only the interface is reached that receives, they wait in the kernel's queue until it lets them go
on (`chaos.packet_ways`). All other packets stay in the kernel.

The table belongs to this process (`flags owner`): when it ends, however it ends, the kernel removes
the table, and with it the detour. Packets then go straight through. It ends when its input does, so
it does not outlive the injector that started it.

    do ──▶ {"ok": true}        undo ──▶ {"ok": true, "seen": …, "hit": …, "passed": …}
    tell ──▶ what it took, sent, dropped        beat ──▶ {"ok": true}

`start ORDER` leaves one running, in force, until it is ended: the same by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.errors import CapabilityError, RailbreakError
from chaos.netns import inode
from chaos.packet_received import Copied, Waiting
from chaos.packet_ways import Across, Taken, Way
from chaos.packets import Rule, View
from chaos.packets.how import Corrupt, Delay, Forge, Rate, Reorder
from chaos.packets.line import Delayed, Line, Overtaken, Slowed, Straight
from chaos.packets.rewrite import Rewrite, answered, notified, silently
from chaos.packets.schedule import Psn
from chaos.realtime import settle_down
from chaos.timeline import now_ns

_AT_ONCE = 64  # packets read before what is due is sent
_LAST_NS = 2_000_000  # how long after the table's end a packet may still come


def line_of(rule: Rule) -> Line[Taken]:
    """What holds the packets of a rule.

    Raises:
        CapabilityError: no worker does this.
    """
    match rule.then.how:
        case Delay() as how:
            return Delayed(how)
        case Rate() as how:
            return Slowed(how)
        case Reorder() as how:
            return Overtaken(how, chooser(rule))
        case Corrupt() | Forge():
            return Straight()
    raise CapabilityError(f"no worker does {rule.then}; nftables does")


def rewrite_of(rule: Rule) -> Rewrite | None:
    """What changes the packets of a rule, or answers them; None where nothing does."""
    match rule.then.how:
        case Corrupt() as how:
            return silently(how)
        case Forge() as how:
            return notified(how) if rule.then.answers else answered(how)
    return None


def chooser(rule: Rule) -> Callable[[int, int | None], bool]:
    """Whether the schedule chooses a packet, by its ordinal and its sequence number."""
    if isinstance(rule.when, Psn):
        left = set(rule.when.of)

        def first(ordinal: int, psn: int | None) -> bool:
            found = psn in left
            left.discard(-1 if psn is None else psn)
            return found

        return first
    acts = rule.when.acts()
    return lambda ordinal, psn: acts(ordinal)


class Worker:
    """One rule's packets; see the module."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.table: str = order["table"]
        self.rule = Rule.parse(order["rule"])
        self._way = way_of(order, self.rule)
        self._psns = isinstance(self.rule.when, Psn)
        self._told = {"taken": 0, "sent": 0, "unsent": 0, "dropped": 0, "unfit": 0}
        self._begin()
        self._in = b""
        self._orders = {b"do": self.do, b"undo": self.undo, b"tell": self.tell, b"beat": self.beat}
        self.leaving = False

    def _begin(self) -> None:
        """Every time in force begins its schedule and its draws anew."""
        self._line = line_of(self.rule)
        self._rewrite = rewrite_of(self.rule)

    # ------------------------------------------------------------------ orders

    def run(self, fd: int = 0) -> None:
        """Obey orders until the input ends or a signal comes; then put everything back."""
        wake, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(tell)
        inputs = [self._way.fd, wake, *([fd] if fd >= 0 else [])]
        try:
            while not self.leaving:
                due = self._line.next_ns()
                wait = None if due is None else max(0.0, (due - now_ns()) / 1e9)
                ready = select.select(inputs, (), (), wait)[0]
                if self._way.fd in ready:
                    self._take()
                self._send_due()
                if fd in ready:
                    self._listen(fd)
        finally:
            self.undo()
            self._way.close()

    def _listen(self, fd: int) -> None:
        got = os.read(fd, 4096)
        self.leaving = self.leaving or not got
        *lines, self._in = (self._in + got).split(b"\n")
        for line in lines:
            try:
                answer = self._orders[line]()
            except RailbreakError as error:
                answer = {"ok": False, "kind": type(error).__name__, "message": str(error)}
            say(answer)

    def do(self) -> dict[str, Any]:
        """Lead the packets here."""
        self._begin()
        self._way.lead()
        return {"ok": True}

    def undo(self) -> dict[str, Any]:
        """Let the packets go straight on; what is held here follows at once, in its order."""
        if not self._way.there():
            return {"ok": True}
        self._way.let_be()
        until = now_ns() + _LAST_NS
        while self._take() or now_ns() < until:
            pass
        self._release(self._line.rest())
        counted = self._way.counted()
        self._way.done()
        self._take()
        self._told["dropped"] += self._line.dropped
        self._line.dropped = 0
        return {"ok": True, **counted}

    def tell(self) -> dict[str, Any]:
        """What became of the packets, over all times in force."""
        refused = self._way.refused()
        told = self._told | {
            "sent": self._told["sent"] - refused,
            "unsent": self._told["unsent"] + refused,
        }
        return {"ok": True, "lost": self._way.lost(), **told}

    def beat(self) -> dict[str, Any]:
        """A sign of life."""
        return {"ok": True}

    # ------------------------------------------------------------------ packets

    def _take(self) -> int:
        """Read what came, up to a number; how many."""
        for count in range(_AT_ONCE):
            packet = self._way.read()
            if packet is None:
                return count
            self._meet(packet)
        return _AT_ONCE

    def _meet(self, packet: Taken) -> None:
        now = now_ns()
        self._told["taken"] += 1
        if self._rewrite is not None:
            made = self._rewrite(packet.frame, packet.partial) if packet.whole else None
            if made is None:
                self._told["unfit"] += 1
            if self.rule.then.answers:
                self._answer(packet, made)
                return
            packet = packet if made is None else packet.rewritten(made)
        psn = View.of(packet.frame).transport(17, 3) if self._psns else None
        before = self._line.dropped
        self._line.meet(packet, packet.size, now, psn)
        if self._line.dropped > before:
            self._way.drop(packet)

    def _answer(self, packet: Taken, made: bytes | None) -> None:
        self._way.give(packet)
        if made is not None:
            self._told["sent" if self._way.answer(made) else "unsent"] += 1

    def _send_due(self) -> None:
        self._release(self._line.due(now_ns()))

    def _release(self, packets: list[Taken]) -> None:
        for packet in packets:
            self._told["sent" if self._way.give(packet) else "unsent"] += 1


def way_of(order: dict[str, Any], rule: Rule) -> Way:
    """Across a cable where an order names its other end, else where packets are received.

    Raises:
        CapabilityError: this machine lacks what it needs.
    """
    if order["across"]:
        return Across(order, rule)
    return Copied(order, rule) if rule.then.answers else Waiting(order, rule)


def say(answer: dict[str, Any]) -> None:
    """One line on standard output; nobody may be there to read it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(answer).encode() + b"\n")


def run(order: str, stay: bool) -> int:
    """Be the worker; with `stay` in force at once, until a signal."""
    try:
        worker = Worker(json.loads(order))
        if stay:
            worker.do()
    except RailbreakError as error:
        say({"ok": False, "kind": type(error).__name__, "message": str(error)})
        return 1

    def leave(number: int, frame: object) -> None:
        worker.leaving = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, leave)
    settle_down(40)
    say({"ok": True})
    worker.run(-1 if stay else 0)
    return 0


def start(order: str) -> int:
    """Leave a worker running, in force."""
    argv = (sys.executable, "-m", "chaos.packet_worker", "run", order, "stay")
    quiet = subprocess.DEVNULL  # whoever waits for the end of our output waits for us alone
    with subprocess.Popen(
        argv, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, start_new_session=True
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline() or b'{"ok": false, "message": "it died"}')
        process.stdout.close()
        process.returncode = 0  # it stays
    sys.stdout.write((said.get("message") or f"process {process.pid} does it") + "\n")
    return 0 if said["ok"] else 1


def workers_of(table: str, netns: str = "/proc/self/ns/net") -> list[int]:
    """Process ids of the workers of a table in a network namespace, by default in ours."""
    home = inode(netns)
    mark, found = b'"table":"' + table.encode() + b'"', []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        ours = b"chaos.packet_worker" in words and any(mark in word for word in words)
        if ours and inode(str(folder / "ns" / "net")) == home:
            found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def main() -> int:
    """`run ORDER [stay]`, `start ORDER`."""
    match sys.argv[1:]:
        case ["run", order, *rest]:
            return run(order, rest == ["stay"])
        case ["start", order]:
            return start(order)
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
