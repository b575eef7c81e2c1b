"""One machine made ready: checked, our programs shipped, a steward that answers and cleans up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from pathlib import Path
from typing import Any

import asyncssh

from chaos.drivers.ssh import clock, ship
from chaos.drivers.ssh.clock import Clock
from chaos.drivers.ssh.connect import Connection, last_words, whole_lines
from chaos.drivers.ssh.prepare import PREPARE
from chaos.drivers.ssh.process import RemoteProcess
from chaos.errors import CapabilityError, FabricError
from chaos.timeline import OFFSET_VARIABLE, now_ns

#: Without a word from us for so long, the steward removes everything.
SILENCE_S = 45.0
BEAT_S = 5.0
ANSWER_S = 30.0
_READY_S = 60.0


class Machine:
    """A machine that is ready to be used.

    Attributes:
        name: Its node's name.
        connection: To it.
        folder: Where our programs lie on it.
        python: Its interpreter.
        facts: What it is (`far.steward`).
        clock: The last measurement of its clock.
    """

    def __init__(
        self,
        connection: Connection,
        process: asyncssh.SSHClientProcess[bytes],
        folder: str,
        python: str,
    ) -> None:
        self.name = connection.target.name
        self.connection, self.folder, self.python = connection, folder, python
        self.facts: dict[str, Any] = {}
        self.clock = Clock(0, 0, 0)
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._lost = ""
        self._tasks = [asyncio.create_task(one) for one in (self._read(), self._beat())]

    @classmethod
    async def prepare(
        cls,
        connection: Connection,
        *,
        silence_s: float = SILENCE_S,
        ready_s: float = _READY_S,
        rounds: int = clock.ROUNDS,
    ) -> Machine:
        """Check the machine, ship our programs, start the steward, measure the clock.

        Raises:
            CapabilityError: it lacks something; one sentence.
            FabricError: the connection is lost, or it does not answer.
        """
        name, token = connection.target.name, secrets.token_hex(6)
        data = ship.archive()
        words = (token, str(len(data)), ship.digest(), str(silence_s), connection.target.python)
        process = await connection.start(("sh", "-c", PREPARE, "railbreak", *words))
        try:
            async with asyncio.timeout(ready_s):
                process.stdin.write(data)
                said = await _told(process, name)
                made = cls(connection, process, said["folder"], said["python"])
        except TimeoutError:
            process.close()
            raise FabricError(f"{name}: it was not ready within {ready_s:g} s") from None
        except (OSError, asyncssh.Error) as error:
            process.close()
            raise FabricError(f"{name}: {error}") from None
        except BaseException:
            process.close()
            raise
        try:
            made.facts = await made.ask("facts")
            await made.measure_clock(rounds)
        except BaseException:
            await made.leave()
            raise
        return made

    @property
    def lost(self) -> bool:
        """Whether it can no longer be asked."""
        return bool(self._lost)

    # ------------------------------------------------------------------ the steward

    async def ask(self, word: str, **more: Any) -> Any:
        """What the steward answers.

        Raises:
            FabricError: it cannot, or it is gone.
        """
        said = await self._exchange(word, more)
        if "no" in said:
            raise FabricError(f"{self.name}: {said['no']}")
        return said["ok"]

    async def _exchange(self, word: str, more: dict[str, Any]) -> dict[str, Any]:
        if self._lost:
            raise FabricError(f"{self.name}: {self._lost}")
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send({"id": number, "cmd": word, **more})
            async with asyncio.timeout(ANSWER_S):
                return await future  # type: ignore[no-any-return]
        except TimeoutError:
            raise FabricError(
                f"{self.name}: no answer to {word!r} within {ANSWER_S:g} s; is it still there?"
            ) from None
        finally:
            self._waiting.pop(number, None)

    def _send(self, said: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write(json.dumps(said, separators=(",", ":")).encode() + b"\n")

    async def _read(self) -> None:
        try:
            async for line in whole_lines(self._process.stdout):
                said = json.loads(line)
                waiting = self._waiting.get(said["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(said)
        except ValueError as error:
            self._lost = f"what our program there said cannot be read: {error}"
        last = b""
        with contextlib.suppress(Exception):
            last = await self._process.stderr.read()
        said = last_words(last)
        self._lost = self._lost or f"our program there ended{': ' if said else ''}{said}"
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(FabricError(f"{self.name}: {self._lost}"))

    async def _beat(self) -> None:
        while not self._lost:
            await asyncio.sleep(BEAT_S)
            self._send({"cmd": "beat"})

    async def measure_clock(self, rounds: int = clock.ROUNDS) -> Clock:
        """Measure the machine's clock anew, when it is its turn."""

        async def echo() -> tuple[int, int]:
            said = await self._exchange("echo", {})
            return said["t1"], said["t2"]

        async with self.connection.clock_turn:
            self.clock = await clock.measure(echo, now_ns, rounds)
        return self.clock

    # ------------------------------------------------------------------ programs

    def argv(self, module: str, *words: str, keep: bool = False) -> tuple[str, ...]:
        """The command that runs a shipped program on our clock."""
        variables = (f"{OFFSET_VARIABLE}={-self.clock.offset_ns}", "PYTHONUNBUFFERED=1")
        kept = ("--keep", self.folder) if keep else ()
        return (
            *("env", *variables, self.python, f"{self.folder}/railbreak.pyz"),
            *(*kept, module, *words),
        )

    async def program(self, module: str, *words: str, stdin: bytes = b"") -> bytes:
        """Run a shipped program to its end; what it printed.

        Raises:
            FabricError: it failed; its last words.
        """
        done = await self.connection.run(self.argv(module, *words), stdin=stdin)
        if done.code:
            last = last_words(done.stderr)
            raise FabricError(f"{self.name}: {module} failed: {last}")
        return done.stdout

    async def spawn(self, name: str, module: str, log: Path) -> RemoteProcess:
        """Start a shipped program that speaks JSON lines; it ends with us.

        Raises:
            FabricError: it did not start; its last words.
        """
        process = await self.connection.start(self.argv(module, keep=True))
        born = await RemoteProcess.born(name, self.connection, process, log, self.folder)
        born.clock = self.clock
        return born

    async def leave(self) -> str:
        """Remove all that we shipped; a sentence when that cannot be seen done. Repeatable."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5.0):
                await self._process.wait_closed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lost = self._lost or "it was let go of"
        look = 'rm -rf "$1"; rmdir "${1%/*}" 2>/dev/null; [ ! -e "$1" ]'
        try:
            argv = ("sh", "-c", look, "railbreak", self.folder)
            done = await self.connection.run(argv, deadline_s=10)
        except FabricError as error:
            return f"{error}; {self.folder} may be left there (it goes by itself within a minute)"
        return "" if done.code == 0 else f"{self.name}: {self.folder} is left there; remove it"


async def _told(process: asyncssh.SSHClientProcess[bytes], name: str) -> dict[str, str]:
    """What the preparing script said, up to `shipped`."""
    said: dict[str, str] = {}
    async for raw in process.stdout:
        key, equals, value = raw.decode(errors="replace").strip().partition("=")
        if key == "shipped" and not equals:
            return said
        said[key] = value
        if key == "no":
            raise CapabilityError(f"{name}: {value}")
    last = last_words(await process.stderr.read())
    raise CapabilityError(f"{name}: commands there cannot be run as root: {last or 'no word'}")
