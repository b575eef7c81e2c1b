"""Runs the programs of probes and keeps what they say. The only room that measures.

Programs outlive a trial: a job that takes five seconds to start is started once per run, and each
trial reads what was said in its own time. A program that ends before it was told to is trouble, and
trouble makes the trial inconclusive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.driver import Driver, Process
from chaos.errors import BlockedError
from chaos.registry import Probe, Program

Records = dict[str, list[dict[str, Any]]]
#: Kinds of records that stay true, whatever the trial: who runs where, what was learned. A probe
#: whose programs have others names them in its own `lasting`.
LASTING = frozenset(
    {
        *("ready", "hello", "clock", "process", "sock", "group", "phase", "baseline"),
        *("exited", "fate", "decision"),
    }
)
LOOK_BACK_NS = 3_000_000_000

Listener = Callable[[str, str, dict[str, Any]], None]


@dataclass(slots=True)
class Running:
    """One program: its process and everything it said."""

    program: Program
    process: Process
    records: list[dict[str, Any]] = field(default_factory=list)
    garbled: int = 0
    ended: bool = False
    lost: bool = False
    doubts: list[tuple[int, str]] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    reader: asyncio.Task[None] | None = None


class Observer:
    """The probes of one run on one fabric.

    Args:
        driver: Reaches the fabric.
        probes: By label, such as `flow` or `flow/b`.
        listener: Told of every record as it comes: label, program, record.

    Attributes:
        homes: Node of every process that a program announced, by name (`rank2`).
    """

    def __init__(
        self, driver: Driver, probes: Mapping[str, Probe], listener: Listener | None = None
    ) -> None:
        self.driver, self.probes = driver, dict(probes)
        self._tell = listener or (lambda label, program, record: None)
        self._running: dict[str, dict[str, Running]] = {}
        self._stopping = False
        self.homes: dict[str, str] = {}

    @property
    def started(self) -> bool:
        """Whether programs of it run, or have run."""
        return bool(self._running)

    async def start(self, deadline_s: float = 90.0) -> None:
        """Start every program and wait until each says it is ready.

        Raises:
            BlockedError: one did not become ready; says which, and its last words.
        """
        await asyncio.gather(*(self.start_probe(label, deadline_s) for label in self.probes))

    async def start_probe(self, label: str, deadline_s: float = 90.0) -> None:
        """Start (or start anew) the programs of one probe, in their order."""
        programs = self.probes[label].programs(self.driver.fabric, self.driver.addresses())
        self._running[label] = {}
        for program in programs:
            running = Running(program, await self.driver.spawn(program))
            self._running[label][program.name] = running
            running.reader = asyncio.create_task(self._read(label, running))
            await self._await_ready(label, running, deadline_s)

    async def _await_ready(self, label: str, running: Running, deadline_s: float) -> None:
        assert running.reader is not None
        waiting = asyncio.create_task(running.ready.wait())
        await asyncio.wait(
            (waiting, running.reader), timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if running.ready.is_set():
            return
        what = "ended" if running.ended else f"was not ready within {deadline_s:g} s"
        said = next(
            (str(r["msg"]) for r in reversed(running.records) if r.get("msg")), self._log(running)
        )
        raise BlockedError(f"probe {label}: program {running.program.name} {what}: {said}")

    def _log(self, running: Running) -> str:
        path = self.driver.folder / "logs" / f"{running.program.name}.log"
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"{lines[-1]} (whole log: {path})"
        return "it said nothing"

    async def _read(self, label: str, running: Running) -> None:
        async for line in running.process.lines():
            try:
                record = json.loads(line)
            except ValueError:
                running.garbled += 1
                continue
            running.records.append(record)
            if record.get("ev") == "ready":
                running.ready.set()
            if record.get("ev") == "trouble":
                running.doubts.append((record["t"], str(record["msg"])))
                running.lost |= bool(record.get("lost"))
            if record.get("ev") == "process":
                self._announce(record)
            self._tell(label, running.program.name, record)
        running.ended = True

    def _announce(self, record: Mapping[str, Any]) -> None:
        """A process that can be aimed at: its node, and the driver's way to it."""
        name, node = str(record["name"]), str(record["node"])
        self.homes[name] = node
        where = self.driver.announced(node, int(record["pid"]), int(record["started"]))
        self.driver.processes[f"{node}/{name}"] = where

    async def say(self, command: Mapping[str, Any], label: str | None = None) -> None:
        """Send a command to every program (of one probe)."""
        line = json.dumps(command).encode()
        for name, programs in self._running.items():
            for running in programs.values() if label in (None, name) else ():
                if not running.ended:
                    with contextlib.suppress(ConnectionError, BrokenPipeError, OSError):
                        await running.process.send(line)

    def records(self, label: str) -> Records:
        """Everything one probe's programs said so far."""
        return {name: list(r.records) for name, r in self._running.get(label, {}).items()}

    def since(self, label: str, start_ns: int) -> Records:
        """What one probe's programs said since a time, and what is true for their whole life.

        A trial must not read all that was said before it: a run of hundreds of trials would slow
        down with each. `LOOK_BACK_NS` before the time is kept for detectors that look back.
        """
        first = start_ns - LOOK_BACK_NS
        lasting = getattr(self.probes[label], "lasting", LASTING)
        return {
            name: [r for r in records if r.get("t", first) >= first or r.get("ev") in lasting]
            for name, records in self.records(label).items()
        }

    def tail(self, label: str, start_ns: int) -> Records:
        """What one probe's programs said since a time; records may come late by `LOOK_BACK_NS`.

        It costs what was said since then, however long the run has been.
        """
        found: Records = {}
        for name, running in self._running.get(label, {}).items():
            last: list[dict[str, Any]] = []
            for record in reversed(running.records):
                at = record.get("t", start_ns)
                if at < start_ns - LOOK_BACK_NS:
                    break
                if at >= start_ns:
                    last.append(record)
            found[name] = last[::-1]
        return found

    def trouble(self, label: str, since_ns: int = 0) -> tuple[str, ...]:
        """Sentences that make this probe's data since a time doubtful."""
        found = []
        for running in self._running.get(label, {}).values():
            found += [f"probe {label}: {said}" for at, said in running.doubts if at >= since_ns]
            who = f"probe {label}: program {running.program.name}"
            if running.program.node:
                who += f" on {running.program.node}"
            if running.ended and not self._stopping:
                found.append(f"{who} ended in mid-trial")
            if running.garbled:
                found.append(f"{who} printed {running.garbled} lines that are no records")
        return tuple(found)

    def ended(self, label: str) -> bool:
        """Whether any program of a probe, or a part of it, is gone."""
        return any(r.ended or r.lost for r in self._running.get(label, {}).values())

    async def stop_probe(self, label: str) -> None:
        """Stop the programs of one probe, last started first."""
        for running in reversed(list(self._running.pop(label, {}).values())):
            await running.process.stop()
            if running.reader is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await running.reader

    async def stop(self) -> None:
        """Stop everything; repeatable."""
        self._stopping = True
        await asyncio.gather(*(self.stop_probe(label) for label in list(self._running)))
