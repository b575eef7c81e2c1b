"""`PacketRule` by a worker: a process beside this one, whose end is the end of the detour."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chaos
from chaos.change import Hits, PacketRule, Where
from chaos.errors import ApplyError, BlockedError, CapabilityError, FabricError
from chaos.natives.process import process_state
from chaos.natives.tables import unbalanced
from chaos.nft import NFPROTO_INET, NFPROTO_NETDEV, Tables
from chaos.timeline import now_ns

_STARTS_WITHIN_S, _ANSWERS_WITHIN_S, _ENDS_WITHIN_S = 20.0, 5.0, 5.0
_SILENT_NS = 600_000_000  # a worker that lives answers within milliseconds
_STANDS = ("T", "t")
_KINDS = {one.__name__: one for one in (ApplyError, BlockedError, CapabilityError, FabricError)}
_COUNTERS = ("seen", "hit", "passed")


@dataclass(slots=True)
class Detoured:
    """A worker and its orders; for taking back what another process did, only its process id."""

    change: PacketRule
    tables: Tables
    worker: subprocess.Popen[bytes] | None
    saved: Mapping[str, Any]
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTERS, 0))
    told: dict[str, int] = field(default_factory=dict)
    lasting: bool = False
    asked_ns: int = 0  # since when a sign of life is waited for; 0: none is
    known: dict[str, int] = field(default_factory=dict)  # counters as the last sign of life came
    dead: str = ""

    @classmethod
    def open(cls, change: PacketRule, where: Where, saved: Mapping[str, Any] | None) -> Detoured:
        """Called inside the namespace; the worker is ready, and no packet comes to it yet."""
        tables = Tables.open(NFPROTO_NETDEV if where.across else NFPROTO_INET)
        try:
            if saved is not None:
                return cls(change, tables, None, saved)
            if change.table in tables.names():
                raise BlockedError(
                    f"{change.place}: nftables table {change.table} is there already: a leftover "
                    "or another run (railbreak undo takes it back)"
                )
            worker = _started(change.order(where.ifname, where.across))
        except BaseException:
            tables.close()
            raise
        made = cls(change, tables, worker, {})
        try:
            made._answer(_STARTS_WITHIN_S)
            made.saved = {"pid": worker.pid, "started": process_state(worker.pid)[1]}
        except BaseException:
            made.close()
            raise
        return made

    def do(self) -> None:
        """The worker adds its table."""
        self._ask("do")

    def undo(self) -> tuple[str, ...]:
        """The worker deletes its table and lets go of what it holds; where it cannot, it ends."""
        try:
            if self.worker is not None and self.worker.poll() is None:
                answer = self._ask("undo")
                for name in _COUNTERS:
                    self.counted[name] += answer.get(name, 0)
                if "hit" in answer:
                    self.told = self._ask("tell")
            elif self.in_force():
                self._end()
        except (OSError, ApplyError, FabricError) as error:
            self._give_up("stood still" if self._stands() else "did not obey")
            if self.in_force():
                return (f"worker of {self.change.table}: {error}",)
        return ()

    def lives(self) -> bool:
        """Ask the worker for a sign of life, and look for the one asked for before; at once.

        Where it has ended or gives none it is ended, so that packets go straight on.
        """
        if self.worker is None or self.dead:
            return not self.dead
        if self.asked_ns and self._line(0):
            self.asked_ns = 0
        if self.worker.poll() is not None:
            self._give_up("ended")
        elif not self.asked_ns:
            self.asked_ns, self.known = now_ns(), self.tables.counters(self.change.table)
            with contextlib.suppress(OSError):  # it has ended: the next look says so
                self._write("beat")
        elif now_ns() - self.asked_ns > _SILENT_NS:
            self._give_up("stood still" if self._stands() else "gave no sign of life")
        return not self.dead

    def _give_up(self, why: str) -> None:
        """End the worker. What was counted is read first: it goes with its table."""
        with contextlib.suppress(OSError, FabricError):
            self.known = self.tables.counters(self.change.table) or self.known
        for name in _COUNTERS:
            self.counted[name] += self.known.get(name, 0)
        self._end()
        self.dead = (
            f"{self.change.describe()}: its worker {why}; packets go straight on since, and what "
            "it held is lost"
        )

    def in_force(self) -> bool:
        """Whether its table is there."""
        return self.change.table in self.tables.names()

    def hits(self) -> Hits:
        """Packets that the selector meant, and those that went to the worker."""
        now = self.tables.counters(self.change.table)
        return Hits(*(self.counted[name] + now.get(name, 0) for name in ("seen", "hit")))

    @property
    def trouble(self) -> tuple[str, ...]:
        """Packets that cannot be accounted for, in sentences; none of them means all were."""
        if self.dead:
            return (self.dead,)
        found = list(unbalanced(self.change, self.counted))
        if not self.told:
            return tuple(found)
        told, what = self.told, self.change.describe()
        came = self.counted["seen" if self.change.rule.then.deed == "reorder" else "hit"]
        if told["taken"] != came:
            found.append(
                f"{what}: {came} packets were led to the worker, {told['taken']} reached it "
                f"({told['lost']} found its queue full)"
            )
        if told["unsent"]:
            found.append(f"{what}: {told['unsent']} packets could not be put back")
        if told["unfit"]:
            found.append(f"{what}: {told['unfit']} packets could not be rewritten, and went on")
        return tuple(found)

    def close(self) -> None:
        """End the worker."""
        if self.worker is not None:
            assert self.worker.stdin is not None
            assert self.worker.stdout is not None
            for pipe in (self.worker.stdin, self.worker.stdout):
                pipe.close()
            try:
                self.worker.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.worker.kill()
                self.worker.wait()
            self.worker = None
        self.tables.close()

    def _ask(self, word: str) -> dict[str, Any]:
        if self.worker is None:
            raise ApplyError(f"{self.change.describe()}: its worker is another process's")
        try:
            self._write(word)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: its worker ended ({error})") from None
        return self._answer(_ANSWERS_WITHIN_S)

    def _write(self, word: str) -> None:
        assert self.worker is not None
        assert self.worker.stdin is not None
        os.write(self.worker.stdin.fileno(), word.encode() + b"\n")

    def _answer(self, within_s: float) -> dict[str, Any]:
        line = self._line(within_s)
        if line and self.asked_ns:  # that was its sign of life
            self.asked_ns = 0
            line = self._line(within_s)
        if not line:
            state = "ended" if line == b"" else f"did not answer within {within_s:g} s"
            state = "stands still" if self._stands() else state
            raise ApplyError(f"{self.change.describe()}: its worker {state}")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            kind = _KINDS.get(answer["kind"], ApplyError)
            raise kind(f"{self.change.describe()}: {answer['message']}")
        return answer

    def _line(self, within_s: float) -> bytes | None:
        """One answer, empty at its end; None where none comes in time, or it stands still."""
        assert self.worker is not None
        assert self.worker.stdout is not None
        begun = now_ns()
        while not select.select([self.worker.stdout], (), (), min(within_s, 0.1))[0]:
            waited = now_ns() - begun
            if waited >= within_s * 1e9 or (waited > _SILENT_NS and self._stands()):
                return None
        return self.worker.stdout.readline()

    def _stands(self) -> bool:
        return process_state(self.saved.get("pid", 0))[0] in _STANDS

    def _end(self) -> None:
        """SIGKILL to the worker, by its process id and start time; the kernel does the rest."""
        pid, started = self.saved.get("pid", 0), self.saved.get("started", 0)
        if not pid or process_state(pid)[1] != started:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if process_state(pid)[1] == started:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                select.select([fd], (), (), _ENDS_WITHIN_S)
        finally:
            os.close(fd)


def _started(order: str) -> subprocess.Popen[bytes]:
    root = Path(chaos.__file__).parents[1]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    program = ("-m",) if root.is_dir() else (str(root),)  # a machine has us in one file
    return subprocess.Popen(
        (sys.executable, *program, "chaos.packet_worker", "run", order),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=os.environ | {"PYTHONPATH": path},
    )
