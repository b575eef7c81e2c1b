"""A program on a machine, speaking JSON lines over its SSH channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncssh

from chaos.drivers.ssh.clock import Clock
from chaos.drivers.ssh.connect import Connection, last_words, whole_lines
from chaos.errors import FabricError


class RemoteProcess:
    """A running program on a machine (`chaos.driver.Process`).

    Attributes:
        name: Name of the program.
        pid: Its process id, there.
        started: Its start time in clock ticks, there.
        clock: The measurement of the machine's clock that its times are turned by.
        log: File here that takes its standard error.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        process: asyncssh.SSHClientProcess[bytes],
        log: Path,
        folder: str,
        born: Sequence[int],
    ) -> None:
        self.name, self.log = name, log
        self.pid, self.started = born
        self.clock = Clock(0, 0, 0)
        self._connection, self._process, self._folder = connection, process, folder
        self._errors = asyncio.create_task(_copy(process.stderr, log))

    @classmethod
    async def born(
        cls,
        name: str,
        connection: Connection,
        process: asyncssh.SSHClientProcess[bytes],
        log: Path,
        folder: str,
        deadline_s: float = 30.0,
    ) -> RemoteProcess:
        """Wait until it has told its process id."""
        try:
            async with asyncio.timeout(deadline_s):
                first = (await process.stdout.readline()).split()
        except (OSError, TimeoutError, asyncssh.Error):
            first = []
        if first[:1] != [b"born"]:
            last = b""
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    last = await process.stderr.read()
            process.close()
            said = last_words(last)
            raise FabricError(
                f"{connection.target.name}: program {name} did not start: {said or 'no word'}"
            )
        return cls(name, connection, process, log, folder, [int(word) for word in first[1:3]])

    @property
    def code(self) -> int | None:
        """Exit status; None while it runs, -1 where the connection was lost."""
        if self._process.exit_status is not None:
            return self._process.exit_status
        return -1 if self._process.is_closing() else None

    def lines(self) -> AsyncIterator[bytes]:
        """Its output, line by line, until it ends."""
        return whole_lines(self._process.stdout)

    async def send(self, line: bytes) -> None:
        """Write one line to its standard input.

        Raises:
            ConnectionError: it is gone.
        """
        try:
            self._process.stdin.write(line.rstrip(b"\n") + b"\n")
            await self._process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise ConnectionError(str(error)) from None

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Close its input, wait, kill it and its children after the deadline; its exit status."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()
        if not await self._ended(deadline_s):
            with contextlib.suppress(FabricError):
                kill = ("kill", "-KILL", "--", f"-{self.pid}")
                await self._connection.run(kill, deadline_s=5)
            await self._ended(2.0)
        kept = f"{self._folder}/pid-{self.pid}"
        with contextlib.suppress(FabricError):
            await self._connection.run(("rm", "-f", kept), deadline_s=5)
        self._process.close()
        self._errors.cancel()
        await asyncio.gather(self._errors, return_exceptions=True)
        return self.code if self.code is not None else -1

    async def _ended(self, deadline_s: float) -> bool:
        try:
            async with asyncio.timeout(deadline_s):
                await self._process.wait_closed()
        except TimeoutError:
            return False
        return True


async def _copy(errors: asyncssh.SSHReader[bytes], log: Path) -> None:
    await asyncio.to_thread(lambda: log.parent.mkdir(parents=True, exist_ok=True))
    with log.open("ab") as file, contextlib.suppress(OSError, asyncssh.Error):
        while chunk := await errors.read(1 << 16):
            file.write(chunk)
            file.flush()
