"""Probe programs as children of ours: JSON lines in and out, killed with their owner."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import chaos
from chaos.drivers.home import Home
from chaos.errors import FabricError

#: Longest line a program may print, in bytes.
LINE_LIMIT = 1 << 24
_SOURCE = str(Path(chaos.__file__).resolve().parents[1])


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
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = [_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(log, "ab") as errors:  # noqa: ASYNC230 (a file on tmpfs)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "chaos.drivers.born",
                str(os.getpid()),
                json.dumps(home),
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=LINE_LIMIT,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        return cls(name, process, log)

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
