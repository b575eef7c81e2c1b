"""SSH connections to many machines at once: opened side by side, commands run over them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shlex
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self

import asyncssh

from chaos.driver import Done
from chaos.drivers.ssh.dial import CONNECT_S, dial, hop
from chaos.drivers.ssh.refused import sentence
from chaos.drivers.ssh.target import Target
from chaos.errors import FabricError, near
from chaos.timeline import now_ns

#: Handshakes at one time: servers drop the eleventh unauthenticated one (`MaxStartups`), jump hosts
#: feel that most, and each costs processor time here.
AT_ONCE = 32
#: Clocks measured at one time: more would wait for each other in this process, and each would take
#: that for the way to its machine.
CLOCKS_AT_ONCE = 8
#: To one machine, where its server limits the sessions of each.
MOST_CONNECTIONS = 8
#: How much longer than its own deadline a command may stay silent before the connection is blamed.
GRACE_S = 10.0
_KILLED = 137


class Connection:
    """One machine: commands as argv, bytes in and out.

    A server allows ten sessions per connection by default; where it refuses another one, a further
    connection to the same machine is opened.

    Attributes:
        target: How it is reached.
        clock_turn: Whose turn it is to measure a clock, among all machines of the pool.
    """

    def __init__(
        self, target: Target, first: asyncssh.SSHClientConnection, pool: Connections
    ) -> None:
        self.target, self._open, self._pool = target, [first], pool
        self.clock_turn = pool.clock_turn
        self._more = asyncio.Lock()

    @property
    def peer(self) -> str:
        """The address that the machine sees us come from; empty where it does not say."""
        found = self._open[0].get_extra_info("sockname")
        return str(found[0]) if found else ""

    def closed(self) -> bool:
        """Whether the first connection is gone."""
        return bool(self._open[0].is_closed())

    def wrapped(self, argv: Sequence[str], *, root: bool = True) -> tuple[str, ...]:
        """A command with what gives it root's rights in front, as far as the target asks for it."""
        become = self.target.become if root else ""
        if become == "sudo":
            return ("sudo", "-n", "--", *argv)
        if become == "su":
            return ("su", "-s", "/bin/sh", "root", "-c", shlex.join(argv))
        return tuple(argv)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        deadline_s: float = 60.0,
        root: bool = True,
    ) -> Done:
        """Run a command to its end, never through a shell of ours; quoted once for the login shell.

        Its process group is killed on the machine itself at the deadline, so that nothing of it
        stays even when the connection is lost meanwhile.

        Raises:
            FabricError: it was killed at the deadline, or the connection is lost.
        """
        limit = ("timeout", "-s", "KILL", str(max(1, math.ceil(deadline_s))))
        before = now_ns()
        process = await self.start((*limit, *argv), root=root)
        try:
            async with asyncio.timeout(deadline_s + GRACE_S):
                stdout, stderr = await process.communicate(stdin)
                await process.wait_closed()
        except TimeoutError:
            raise FabricError(
                f"{self.target.name}: {shlex.join(argv)} has not answered for "
                f"{deadline_s + GRACE_S:g} s; the connection is dead, the command is killed on "
                "the machine"
            ) from None
        except (OSError, asyncssh.Error) as error:
            raise FabricError(sentence(self.target, error)) from None
        finally:
            process.close()
        after, code = now_ns(), _code(process)
        if code == _KILLED and after - before >= deadline_s * 1e9:
            raise FabricError(
                f"{self.target.name}: {shlex.join(argv)} was killed after {deadline_s:g} s"
            )
        if code is None:
            raise FabricError(
                f"{self.target.name}: the connection was lost during {shlex.join(argv)}"
            )
        return Done(code, bytes(stdout or b""), bytes(stderr or b""), before, after)

    async def start(
        self, argv: Sequence[str], *, root: bool = True
    ) -> asyncssh.SSHClientProcess[bytes]:
        """Start a command and leave its three streams open.

        Raises:
            FabricError: the connection is lost, or the server opens no further session.
        """
        command = shlex.join(self.wrapped(argv, root=root))
        for attempt in range(MOST_CONNECTIONS):
            known = len(self._open)
            for one in reversed(self._open):
                try:
                    return await one.create_process(command, encoding=None)
                except asyncssh.ChannelOpenError:
                    continue
                except (OSError, asyncssh.Error) as error:
                    raise FabricError(sentence(self.target, error)) from None
            if attempt + 1 < MOST_CONNECTIONS:
                await self._another(known)
        raise FabricError(f"{self.target.name}: the server opens no further session")

    async def _another(self, known: int) -> None:
        async with self._more:
            if len(self._open) == known:  # else somebody else opened one meanwhile
                self._open.append(await self._pool.dial(self.target))

    async def close(self) -> None:
        """End every connection to the machine; repeatable."""
        for one in self._open:
            one.close()
        for one in self._open:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2.0):
                    await one.wait_closed()
            one.abort()


async def whole_lines(reader: asyncssh.SSHReader[bytes]) -> AsyncIterator[bytes]:
    """Lines as they come, until the end; the end of a connection leaves no half line."""
    with contextlib.suppress(OSError, asyncssh.Error):
        async for line in reader:
            if line.endswith(b"\n"):
                yield line


def last_words(said: bytes) -> str:
    """The last line that a program said; empty for none."""
    return said.decode(errors="replace").strip().rpartition("\n")[2]


def _code(process: asyncssh.SSHClientProcess[bytes]) -> int | None:
    if process.exit_status is not None and process.exit_status >= 0:
        return process.exit_status
    return _KILLED if process.exit_signal else None


class Connections:
    """One connection per machine, opened side by side.

    Args:
        targets: The machines.
        at_once: Handshakes at one time.
        connect_s: How long one may take.
        clocks_at_once: Clocks measured at one time.

    Examples:
        async with Connections(targets) as machines:
            failures = await machines.open()
            done = await machines["gpu1"].run(("uname", "-r"))
    """

    def __init__(
        self,
        targets: Iterable[Target],
        *,
        at_once: int = AT_ONCE,
        connect_s: float = CONNECT_S,
        clocks_at_once: int = CLOCKS_AT_ONCE,
    ) -> None:
        self.targets: dict[str, Target] = {one.name: one for one in targets}
        self._connect_s = connect_s
        self._turn = asyncio.Semaphore(at_once)
        self.clock_turn = asyncio.Semaphore(clocks_at_once)
        self._connections: dict[str, Connection] = {}
        self._jumps: dict[str, asyncio.Task[asyncssh.SSHClientConnection]] = {}

    def __getitem__(self, name: str) -> Connection:
        """The connection to a machine.

        Raises:
            FabricError: there is none.
        """
        if name not in self._connections:
            raise FabricError(f"no connection to {name}; {near(name, self._connections)}")
        return self._connections[name]

    def __contains__(self, name: str) -> bool:
        return name in self._connections

    def __iter__(self) -> Iterator[str]:
        return iter(self._connections)

    async def open(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Connect to machines (all by default) that are not connected; a sentence per failure."""
        wanted = [
            name for name in (self.targets if names is None else names) if not self._usable(name)
        ]
        found = await asyncio.gather(*(self._connect(self.targets[name]) for name in wanted))
        return {name: why for name, why in zip(wanted, found, strict=True) if why}

    def _usable(self, name: str) -> bool:
        return name in self._connections and not self._connections[name].closed()

    async def _connect(self, target: Target) -> str:
        try:
            first = await self.dial(target)
        except FabricError as error:
            return str(error)
        self._connections[target.name] = Connection(target, first, self)
        return ""

    async def dial(self, target: Target) -> asyncssh.SSHClientConnection:
        """A new connection, through its jump hosts.

        Raises:
            FabricError: one sentence: what failed, and the cure.
        """
        tunnel = await self._through(target) if target.jump else None
        async with self._turn:
            return await dial(target, tunnel, self._connect_s)

    async def _through(self, target: Target) -> asyncssh.SSHClientConnection:
        """The connection to its last jump host; each is opened once and shared."""
        if target.jump not in self._jumps:
            before, _, last = target.jump.rpartition(",")
            jump = hop(last, replace(target, jump=before))
            self._jumps[target.jump] = asyncio.create_task(self.dial(jump))
        return await asyncio.shield(self._jumps[target.jump])

    async def close(self) -> None:
        """End every connection; repeatable."""
        await asyncio.gather(*(one.close() for one in self._connections.values()))
        self._connections.clear()
        for jump in self._jumps.values():
            jump.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                (await jump).abort()
        self._jumps.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
