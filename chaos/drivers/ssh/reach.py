"""A UNIX socket by which a program on this machine has processes on nodes.

The program connects once per process and writes one line, `{"node": …, "module": …}`. The answer is
`{"ok": {}}`, or `{"no": sentence}` and the end. Then its lines go to the process's standard input,
and the process's lines come back, among them the driver's own records (`chaos.drivers.ssh.told`).
The process ends with the connection. Whoever may open the socket may start our programs on the
machines, so it lies in a folder of its own that only its owner may enter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from chaos.drivers.ssh.told import Told
from chaos.errors import FabricError

_LINE = 1 << 24

#: Start a module on a node.
Start = Callable[[str, str], Awaitable[Told]]


class Reach:
    """The socket of one program.

    Args:
        folder: Made for it, removed with it.
        start: Starts a module on a node.

    Attributes:
        path: Where the socket is.
    """

    def __init__(self, folder: Path, start: Start) -> None:
        self.path = folder / "socket"
        self._folder, self._start = folder, start
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """Listen; the path."""
        self._folder.mkdir(mode=0o700, parents=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with in_folder(self._folder) as short:
            sock.bind(f"{short}/socket")
        self._server = await asyncio.start_unix_server(self._met, sock=sock, limit=_LINE)
        return str(self.path)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(ConnectionError, ValueError, asyncio.CancelledError):
            await self._serve(reader, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        try:
            told = await self._start(asked["node"], asked["module"])
        except FabricError as error:
            writer.write(json.dumps({"no": str(error)}).encode() + b"\n")
            await writer.drain()
            return
        try:
            writer.write(b'{"ok":{}}\n')
            back = asyncio.create_task(_copy(told, writer))
            there = asyncio.create_task(_feed(reader, told))
            await asyncio.wait((back, there), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await asyncio.shield(told.stop())
            for one in (back, there):
                one.cancel()
            await asyncio.gather(back, there, return_exceptions=True)

    async def close(self) -> None:
        """End every process and the socket; repeatable."""
        if self._server is not None:
            self._server.close()
            self._server = None
        waiting = list(self._tasks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def _copy(told: Told, writer: asyncio.StreamWriter) -> None:
    async for line in told.lines():
        writer.write(line)
        await writer.drain()


async def _feed(reader: asyncio.StreamReader, told: Told) -> None:
    while line := await reader.readline():
        await told.send(line)


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[str]:
    """A short name of a folder while it is needed: a socket's path has room for 107 bytes."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
