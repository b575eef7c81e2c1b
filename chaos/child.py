"""Programs of ours as children of ours, and the injector among them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import chaos
from chaos.errors import FabricError

#: Longest line a program may print, in bytes.
LINE_LIMIT = 1 << 24
_SOURCE = str(Path(chaos.__file__).resolve().parents[1])


async def start(module: str, *words: str, log: Path) -> asyncio.subprocess.Process:
    """Start a module in a session of its own, told our process id and further words.

    Args:
        module: Found where our own sources are.
        log: File that takes its standard error; its input and output are pipes.

    Raises:
        FabricError: the file cannot be written.
    """
    paths = [_SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        errors = open(log, "ab")  # noqa: ASYNC230, SIM115 (a file on tmpfs; closed below)
    except OSError as error:
        raise FabricError(
            f"{log} cannot be written: {error.strerror}; what our programs say is kept there"
        ) from None
    with errors:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(os.getpid()),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LINE_LIMIT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )


class Child:
    """The injector as a process of ours (`chaos.hands.Wire`); nothing here kills it: it heals."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, log: Path) -> Child:
        """Start one; it heals when we end."""
        return cls(await start("chaos.injector", log=log))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def over(self) -> bool:
        """It has ended."""
        return self._process.returncode is not None

    async def send(self, line: bytes) -> None:
        """Write one line."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(line + b"\n")
            await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line

    async def close(self) -> None:
        """Close its input and wait for its end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()
        await self._process.wait()
