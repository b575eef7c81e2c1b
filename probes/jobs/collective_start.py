"""How the coordinator of a collective job has its ranks started: here, or on other machines.

Either way the ranks are heard and steered through `Rank.writer` and the coordinator's `Ears`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from probes.jobs.collective_rank import Rank, lines

_LINE = 1 << 24
FAR = "probes.jobs.collective_far"


class Ears(Protocol):
    """Who is told."""

    def rank_said(self, rank: Rank, line: bytes) -> None:
        """One record of a rank."""
        ...

    def server_said(self, record: dict[str, Any]) -> None:
        """One record of a fork server, or of the driver."""
        ...

    def server_over(self, node: str) -> None:
        """A fork server has ended; an empty node is the one of all."""
        ...


class Here:
    """One fork server on this machine, which enters the hosts' namespaces."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._to_server: asyncio.StreamWriter | None = None
        self._stores: list[int] = []

    async def start(self, ranks: Sequence[Rank], ears: Ears, task: Callable[[Any], None]) -> None:
        """Have every rank forked; their channels are open."""
        pairs = [socket.socketpair() for _ in ranks]
        for sock in (sock for pair in pairs for sock in pair):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours, theirs = socket.socketpair()
        specs = [
            rank.spec | {"fd": pair[1].fileno()} for rank, pair in zip(ranks, pairs, strict=True)
        ]
        order = {"server": theirs.fileno(), "parent": os.getpid(), "ranks": specs}
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._server = subprocess.Popen(  # noqa: ASYNC220 - it is awaited through its socket
            [sys.executable, "-m", "probes.jobs.collective_launch"],
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            pass_fds=[theirs.fileno(), *(pair[1].fileno() for pair in pairs)],
            env=env,
        )
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.close()
        theirs.close()
        reader, self._to_server = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
        task(self._read_server(reader, ears))
        for rank, (mine, its) in zip(ranks, pairs, strict=True):
            its.close()
            stream, rank.writer = await asyncio.open_unix_connection(sock=mine, limit=_LINE)
            task(_read_rank(rank, stream, ears))

    async def _read_server(self, reader: asyncio.StreamReader, ears: Ears) -> None:
        async for line in lines(reader):
            ears.server_said(json.loads(line))
        ears.server_over("")

    def store(self, number: int) -> str:
        """Path of a new store: memory of this process that ranks open.

        Stores stay open to the end: a path used twice would let the remains of an earlier group
        write into the later one's store.
        """
        self._stores.append(os.memfd_create(f"store{number}"))
        return f"/proc/{os.getpid()}/fd/{self._stores[-1]}"

    def kill(self, rank: Rank) -> None:
        """Have one rank killed."""
        self._order(rank)

    def start_again(self, rank: Rank) -> None:
        """Have one rank started that ended."""
        self._order(rank, start=True)

    def _order(self, rank: Rank, **more: Any) -> None:
        if self._to_server is not None:
            order = json.dumps({"rank": rank.spec["rank"], **more})
            with contextlib.suppress(OSError):
                self._to_server.write(order.encode() + b"\n")

    def stop(self) -> None:
        """End the fork server, and with it what is left of the ranks."""
        if self._to_server is not None:
            self._to_server.close()
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(0.5)
            if self._server.poll() is None:
                self._server.kill()
                self._server.wait()


async def _read_rank(rank: Rank, reader: asyncio.StreamReader, ears: Ears) -> None:
    async for line in lines(reader):
        ears.rank_said(rank, line)
    rank.writer = None


class There:
    """A fork server on every host, reached through the driver's socket (`chaos.registry`).

    Ranks meet through the coordinator: what one puts into the store is passed on to all.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._writers: dict[str, asyncio.StreamWriter] = {}

    async def start(self, ranks: Sequence[Rank], ears: Ears, task: Callable[[Any], None]) -> None:
        """Have every rank forked; their channels are open.

        Raises:
            TimeoutError: a host could not start a fork server; one sentence.
        """
        nodes = dict.fromkeys(rank.spec["node"] for rank in ranks)
        done = await asyncio.gather(
            *(self._open(node, [r for r in ranks if r.spec["node"] == node]) for node in nodes)
        )
        for node, reader in zip(nodes, done, strict=True):
            task(self._read(node, reader, {rank.spec["rank"]: rank for rank in ranks}, ears))

    async def _open(self, node: str, ranks: Sequence[Rank]) -> asyncio.StreamReader:
        with _short(self._path) as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE)
        self._writers[node] = writer
        writer.write(json.dumps({"node": node, "module": FAR}).encode() + b"\n")
        answer = json.loads(await reader.readline() or b'{"no": "the driver is gone"}')
        if "no" in answer:
            raise TimeoutError(answer["no"])
        torch = ranks[0].spec["home"].get("torch", "")
        order = {"ranks": [rank.spec for rank in ranks], "torch": torch}
        writer.write(json.dumps(order).encode() + b"\n")
        for rank in ranks:
            rank.writer = _Numbered(rank.spec["rank"], writer)
            rank.told = ""
        return reader

    async def _read(
        self, node: str, reader: asyncio.StreamReader, ranks: dict[int, Rank], ears: Ears
    ) -> None:
        async for line in lines(reader):
            if line.startswith(b"{"):  # the driver's own: how the machine's clock stands, trouble
                ears.server_said(json.loads(line))
                continue
            number, _, said = line.partition(b" ")
            if int(number) >= 0:
                ears.rank_said(ranks[int(number)], said)
                continue
            record = json.loads(said)
            if record["ev"] == "state":
                ranks[record["rank"]].told = record["state"]
            elif record["ev"] == "failed":
                ears.server_said(record | {"msg": f"{node}: {record['msg']}"})
            else:
                ears.server_said(record)
        ears.server_over(node)

    def store(self, number: int) -> str:
        """No path: what ranks put into the store comes as records."""
        return ""

    def kill(self, rank: Rank) -> None:
        """Have one rank killed."""
        self._order(rank)

    def start_again(self, rank: Rank) -> None:
        """Have one rank started that ended."""
        self._order(rank, start=True)

    def _order(self, rank: Rank, **more: Any) -> None:
        writer = self._writers.get(rank.spec["node"])
        if writer is not None:
            order = json.dumps({"rank": rank.spec["rank"], **more})
            with contextlib.suppress(OSError):
                writer.write(b"-1 " + order.encode() + b"\n")

    def stop(self) -> None:
        """End every fork server, and with it what is left of its ranks."""
        for writer in self._writers.values():
            writer.close()


class _Numbered:
    """A rank's way through the stream of its host."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self._head, self._writer = b"%d " % number, writer

    def write(self, line: bytes) -> None:
        """Send one line."""
        self._writer.write(self._head + line)


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    """A short name of a socket: its path has room for 107 bytes."""
    fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{os.path.basename(path)}"
    finally:
        os.close(fd)
