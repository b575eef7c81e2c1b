"""What programs on machines say, as the driver passes it on.

Beside a program's own records come two kinds of the driver's, without a number of their own:
`{"ev": "clock", "node": …, "error_ns": …}`, how well the machine's clock is known, and
`{"ev": "trouble", "node": …, "msg": …, "lost": …}`, a sentence that makes the data doubtful.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from chaos.drivers.ssh.clock import Clock
from chaos.drivers.ssh.process import RemoteProcess
from chaos.timeline import now_ns

#: A copy says something twice a second; so long without a word is a doubt.
SILENCE_S = 3.0
_LOOK_S = 0.25
#: A clock is told of again when its error has grown by this factor.
_GROWN = 1.2


def line_of(ev: str, **facts: Any) -> bytes:
    """One record of the driver's own."""
    return json.dumps({"ev": ev, "t": now_ns(), **facts}, separators=(",", ":")).encode() + b"\n"


class Told:
    """One program on one machine (`chaos.driver.Process`): its lines, its clock, its end.

    Attributes:
        name: Name of the program.
        node: The machine's node.
        pid: Its process id, there.
        process: The program itself.
    """

    def __init__(self, node: str, process: RemoteProcess) -> None:
        self.name, self.node, self.pid, self.process = process.name, node, process.pid, process
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._error_ns = 0
        self._stopping = False
        self.clock(process.clock)
        self._reader = asyncio.create_task(self._read())

    def clock(self, now: Clock) -> None:
        """Tell of the clock where it is known less well than was told."""
        error_ns = self.process.clock.since(now)
        if error_ns > self._error_ns:
            self._error_ns = int(error_ns * (_GROWN if self._error_ns else 1))
            self._queue.put_nowait(line_of("clock", node=self.node, error_ns=self._error_ns))

    @property
    def error_ns(self) -> int:
        """How far its times may be off, as was told."""
        return self._error_ns

    async def _read(self) -> None:
        async for line in self.process.lines():
            self._queue.put_nowait(line)
        if not self._stopping:
            msg = f"{self.node}: program {self.name} {await self._end()}"
            self._queue.put_nowait(line_of("trouble", node=self.node, msg=msg, lost=True))
        self._queue.put_nowait(None)

    async def _end(self) -> str:
        for _ in range(20):  # the status comes just after the end of the output
            if self.process.code is not None:
                break
            await asyncio.sleep(0.05)
        if self.process.code is None or self.process.code < 0:
            return "is lost: the connection to the machine is gone"
        said = ""
        with contextlib.suppress(OSError):
            text = await asyncio.to_thread(self.process.log.read_text, errors="replace")
            said = text.strip().rpartition("\n")[2]
        return f"ended with status {self.process.code}{': ' if said else ''}{said}"

    async def lines(self) -> AsyncIterator[bytes]:
        """Its output, line by line, until it ends; what the driver knows of it in between."""
        while (line := await self._queue.get()) is not None:
            yield line

    async def send(self, line: bytes) -> None:
        """Write one line to its standard input.

        Raises:
            ConnectionError: it is gone.
        """
        await self.process.send(line)

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Close its input, wait, kill it after the deadline; its exit status."""
        self._stopping = True
        code = await self.process.stop(deadline_s)
        await self._reader
        return code


class Copies:
    """Copies of one program, one per machine, as one process (`chaos.driver.Process`).

    It is ready once all are. Records are passed on as they come, with `from`, the machine's node.
    Their number `n` goes on by as much as the copy's own did: a number that lacks there lacks here.

    Attributes:
        name: Name of the program.
        pid: Process id of the first copy, on its machine.
    """

    def __init__(self, copies: Mapping[str, Told]) -> None:
        first = next(iter(copies.values()))
        self.name, self.pid = first.name, first.pid
        self._copies = dict(copies)
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ready: dict[str, dict[str, Any]] = {}
        self._held: list[tuple[str, dict[str, Any]]] = []
        self._ended: set[str] = set()
        self._last: dict[str, int] = {}
        self._heard: dict[str, float] = {}
        self._silent: set[str] = set()
        self._garbled: set[str] = set()
        self._number = 0
        self._stopping = False
        self._tasks = [asyncio.create_task(self._read(node)) for node in self._copies]
        self._tasks.append(asyncio.create_task(self._watch()))

    @property
    def _all_ready(self) -> bool:
        return len(self._ready) == len(self._copies)

    async def _read(self, node: str) -> None:
        async for line in self._copies[node].lines():
            self._heard[node] = asyncio.get_running_loop().time()
            try:
                record = json.loads(line)
                ev = record["ev"]
            except (ValueError, TypeError, KeyError):
                self._garbage(node, line)
                continue
            if ev in ("clock", "trouble") and "n" not in record:
                self._queue.put_nowait(line)
            elif ev == "ready":
                self._become_ready(node, record)
            elif ev == "end":
                self._end(node, record)
            elif self._all_ready:
                self._pass(node, record)
            else:
                self._held.append((node, record))
        self._over(node)

    def _garbage(self, node: str, line: bytes) -> None:
        if node not in self._garbled:
            self._garbled.add(node)
            msg = f"{node}: program {self.name} printed {line[:60]!r}, which is no record"
            self._queue.put_nowait(line_of("trouble", node=node, msg=msg, lost=False))

    def _become_ready(self, node: str, record: dict[str, Any]) -> None:
        self._ready[node] = record
        self._last[node] = record.get("n", 0)
        if not self._all_ready:
            return
        self._number = 1
        said = list(self._ready.values())
        realtime = all(one.get("realtime", True) for one in said)
        whole = {"nodes": len(said), "realtime": realtime, "copies": sorted(self._ready)}
        ready = {"ev": "ready", "t": max(one["t"] for one in said), "n": 1, **whole}
        self._queue.put_nowait(_line(ready))
        for held in self._held:
            self._pass(*held)
        self._held.clear()

    def _pass(self, node: str, record: dict[str, Any]) -> None:
        if "n" in record:
            self._number += record["n"] - self._last[node]
            self._last[node], record["n"] = record["n"], self._number
        self._queue.put_nowait(_line(record | {"from": node}))

    def _end(self, node: str, record: dict[str, Any]) -> None:
        if "n" in record:
            self._number += record["n"] - self._last.get(node, record["n"]) - 1
        self._ended.add(node)
        if len(self._ended) == len(self._copies):
            self._number += 1
            self._queue.put_nowait(_line(record | {"n": self._number}))

    def _over(self, node: str) -> None:
        """A copy's output has ended; all is over with the last, or when we are not ready yet."""
        self._heard.pop(node, None)
        self._ended.add(node)
        if len(self._ended) == len(self._copies) or not self._all_ready:
            self._queue.put_nowait(None)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = asyncio.get_running_loop().time()
            for node, at in self._heard.items():
                if now - at <= SILENCE_S:
                    self._silent.discard(node)
                elif self._all_ready and not self._stopping and node not in self._silent:
                    self._silent.add(node)
                    msg = f"{node}: program {self.name} has said nothing for {now - at:.1f} s"
                    self._queue.put_nowait(line_of("trouble", node=node, msg=msg, lost=False))

    async def lines(self) -> AsyncIterator[bytes]:
        """The records of all, line by line, until the last copy ends."""
        while (line := await self._queue.get()) is not None:
            yield line

    async def send(self, line: bytes) -> None:
        """Write one line to the standard input of every copy that is there.

        Raises:
            ConnectionError: all are gone.
        """
        done = await asyncio.gather(
            *(copy.send(line) for copy in self._copies.values()), return_exceptions=True
        )
        for one in done:
            if isinstance(one, BaseException) and not isinstance(one, ConnectionError):
                raise one
        if all(isinstance(one, ConnectionError) for one in done):
            raise ConnectionError(f"every copy of program {self.name} is gone")

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Stop every copy side by side; the first exit status that is not 0."""
        self._stopping = True
        codes = await asyncio.gather(*(copy.stop(deadline_s) for copy in self._copies.values()))
        *readers, watch = self._tasks
        await asyncio.gather(*readers, return_exceptions=True)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        self._queue.put_nowait(None)
        return next((code for code in codes if code), 0)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
