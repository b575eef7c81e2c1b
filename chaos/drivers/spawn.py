"""Probe programs as children of ours: JSON lines in and out, killed with their owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from chaos.child import start
from chaos.drivers.home import Home
from chaos.errors import FabricError


class Child:
    """A running program (`chaos.driver.Process`).

    Attributes:
        pid: Its process id.
        name: Name of the program.
        log: File that takes its standard error.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.pid, self.log, self._process = name, process.pid, log, process

    @classmethod
    async def start(cls, name: str, module: str, home: Home, log: Path) -> Child:
        """Start `module` in a node (`chaos.drivers.home`); an empty home is the machine."""
        born = await start("chaos.drivers.born", json.dumps(home), module, log=log)
        return cls(name, born, log)

    @property
    def code(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.returncode

    async def lines(self) -> AsyncIterator[bytes]:
        """Its output, line by line, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line

    async def send(self, line: bytes) -> None:
        """Write one line to its standard input.

        Raises:
            FabricError: it has ended; the message has the end of its log.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.rstrip(b"\n") + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise FabricError(f"program {self.name} has ended{self._last_words()}") from None

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Close its input, wait, kill it and its session after the deadline; its exit status."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.close()
        try:
            return await asyncio.wait_for(self._process.wait(), deadline_s)
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def kill(self) -> None:
        """Kill it and what it started; nothing when it is over."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, 9)

    def _last_words(self) -> str:
        try:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f": {said[-1]}" if said else ""
