"""Hands on one machine: the very same injector runs there, and a dead-man beside it.

`arm_on` starts it; what it needs to undo is written into the journal here, too, before anything is
done. Beats go out while we live; without them it heals, and when it is dead the dead-man does.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import asyncssh

from chaos.change import Change, Place, Where, to_json
from chaos.drivers.ssh.afar import take_back
from chaos.drivers.ssh.clock import Clock
from chaos.drivers.ssh.connect import whole_lines
from chaos.drivers.ssh.machine import Machine
from chaos.errors import BlockedError, FabricError
from chaos.hands import Hands
from chaos.journal import Journal, open_changes
from chaos.proof import Proof
from chaos.timeline import Moment
from chaos.units import Duration

LEASE_S = 3.0
#: How long `arm` may take there: Python starts, every change is made ready, the dead-man starts.
READY_S = 60.0
_LEAVES_WITHIN_S = 15.0


class Channel:
    """An injector at the other end of an SSH channel (`chaos.hands.Wire`)."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process, self.pid = process, 0

    @property
    def over(self) -> bool:
        """It has ended, or the connection has."""
        return self._process.exit_status is not None or self._process.is_closing()

    async def send(self, line: bytes) -> None:
        """Write one line."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write(line + b"\n")
            await self._process.stdin.drain()

    def lines(self) -> AsyncIterator[bytes]:
        """What it says."""
        return whole_lines(self._process.stdout)

    async def close(self) -> None:
        """End its input, and wait for its end as long as a heal may take."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write_eof()
        with contextlib.suppress(OSError, TimeoutError, asyncssh.Error):
            async with asyncio.timeout(_LEAVES_WITHIN_S):
                await self._process.wait_closed()
        self._process.close()

    async def keep_errors(self, log: Path) -> None:
        """Write what it says on its standard error into a file here."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while chunk := await self._process.stderr.read(1 << 16):
                with log.open("ab") as file:
                    file.write(chunk)


class RemoteHands(Hands):
    """Holds changes on one machine (`chaos.driver.Holder`).

    Args:
        machine: Where.
        channel: The injector there.
        changes: What, in order.
        journal: Write-ahead journal here; lines are appended.
        lease_s: Without a word from us for so long, the machine heals.
        observed_ns: Bound of the clock error of those who observe; widens every moment.
    """

    def __init__(
        self,
        machine: Machine,
        channel: Channel,
        changes: Sequence[Change],
        journal: Path,
        *,
        lease_s: float = LEASE_S,
        observed_ns: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(channel, changes, journal)
        self.machine, self.lease_s = machine, lease_s
        self._channel, self._observed_ns = channel, observed_ns
        self._clock: Clock = machine.clock
        self._book: Journal | None = None
        self._ids: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def arm_on(
        cls,
        machine: Machine,
        changes: Sequence[Change],
        wheres: Mapping[Place, Where],
        *,
        journal: Path,
        max_life: Duration,
        log_dir: Path,
        lease_s: float = LEASE_S,
        observed_ns: Callable[[], int] = lambda: 0,
    ) -> Self:
        """Make changes ready on a machine; nothing is changed yet.

        `wheres` are the places as the machine has them; `max_life` counts from the start of the
        schedule; `log_dir` takes `injector-NAME.log`.

        Raises:
            BlockedError: a change is in force already; a journal or the dead-man cannot be written.
            ApplyError: a change cannot be made.
            FabricError: a place is gone, or the connection is.
        """
        process = await machine.connection.start(machine.argv("chaos.injector", "parent"))
        channel = Channel(process)
        hands = cls(machine, channel, changes, journal, lease_s=lease_s, observed_ns=observed_ns)
        log = log_dir / f"injector-{machine.name}.log"
        hands._tasks.append(asyncio.create_task(channel.keep_errors(log)))
        try:
            await asyncio.to_thread(lambda: log_dir.mkdir(parents=True, exist_ok=True))
            async with asyncio.timeout(READY_S):
                await hands._make_ready(wheres, max_life)
        except TimeoutError:
            await hands.close()
            raise FabricError(
                f"{machine.name}: the injector was not ready within {READY_S:g} s"
            ) from None
        except BaseException:
            await hands.close()
            raise
        return hands

    async def _make_ready(self, wheres: Mapping[Place, Where], max_life: Duration) -> None:
        folder = str(
            PurePosixPath(self.machine.folder).with_name(f"deadman-{secrets.token_hex(6)}")
        )
        try:
            ready = await self._ask(
                cmd="arm",
                changes=[to_json(one) for one in self.changes],
                wheres=[asdict(replace(wheres[one.place], host="")) for one in self.changes],
                journal=f"{folder}/journal.jsonl",
                max_life_ns=max_life.ns,
                lease_ns=round(self.lease_s * 1e9),
                deadman=folder,
            )
        except (BlockedError, FabricError) as error:
            raise type(error)(f"{self.machine.name}: {error}") from None
        self.settle(ready)
        self._channel.pid = ready["owner"][0]
        self._tasks.append(asyncio.create_task(self._beat()))
        self._book = await asyncio.to_thread(self._write_down, wheres, ready, folder)

    def _write_down(
        self, wheres: Mapping[Place, Where], ready: Mapping[str, Any], folder: str
    ) -> Journal:
        """The machine's own entries, here as well, before the deed."""
        book = Journal(self.journal)
        name, (pid, started) = self.machine.name, ready["owner"]
        self._ids = [f"{name}.{pid}.{started}-{at}" for at in range(len(self.changes))]
        for id, change, told in zip(self._ids, self.changes, ready["changes"], strict=True):
            book.intended(
                id,
                change,
                replace(wheres[change.place], host=name),
                saved={**told["saved"], "deadman": folder},
                cure=self._there(told["cure"]),
                owner=(pid, started),
                boot=str(self.machine.facts.get("boot", "")),
            )
        return book

    def _there(self, cure: str) -> str:
        return f"on {self.machine.name} ({' '.join(self.machine.connection.target.words)}): {cure}"

    async def _beat(self) -> None:
        while not self._channel.over:
            await self._channel.send(b'{"cmd":"beat"}')
            await asyncio.sleep(self.lease_s / 5)

    @property
    def lost(self) -> str:
        """The machine's name, once its injector was cut off without a word about healing."""
        return self.machine.name if self._reader.done() and self._healed is None else ""

    async def wait(self) -> None:
        """Return when the last span has ended.

        Raises:
            ApplyError: a change did not come into force; everything was taken back.
            FabricError: the injector ended before the schedule did, or the machine was lost.
        """
        try:
            await super().wait()
        except FabricError as error:
            raise FabricError(f"{self.machine.name}: {error}") from None

    async def _prove(self) -> Proof:
        proof = await super()._prove()
        try:
            error = self._clock.since(await self.machine.measure_clock())
        except FabricError:
            error = self._clock.error_ns
        error += self._observed_ns()
        self._close_entries(proof)
        return replace(
            proof,
            changes=tuple(
                replace(one, leftover=self._there(one.leftover))
                if one.leftover and not one.leftover.startswith("on ")
                else one
                for one in proof.changes
            ),
            event=_wider(proof.event, error),
            healed=_wider(proof.healed, error),
        )

    def _close_entries(self, proof: Proof) -> None:
        if self._book is None:
            return
        for id, one in zip(self._ids, proof.changes, strict=True):
            with contextlib.suppress(OSError):  # then `undo` asks the machine once more
                if one.in_force:
                    self._book.note("in_force", id)
                self._book.note("acted", id, seen=one.seen, hit=one.hit)
                self._book.note("taken_back" if one.taken_back else "leftover", id)

    async def _recovered(self) -> tuple[dict[str, Any], list[str]]:
        """Its end was not heard: ask the machine anew, and undo there what is left."""
        ids = set(self._ids)
        mine = [one for one in open_changes(self.journal) if one.id in ids] if ids else []
        target = self.machine.connection.target
        found = await take_back({target.name: target}, mine[::-1])
        left = {one.entry.id: one for one in found if one.leftover}
        begun = {one.change for one in self._actions if one.kind == "do"}
        changes = [
            {
                "in_force": at in begun,
                "hits": [None, None],
                "taken_back": id not in left,
                "cure": left[id].entry.cure if id in left else "",
            }
            for at, id in enumerate(self._ids or [""] * len(self.changes))
        ]
        if not left:
            why = "the machine was asked, and nothing of it is left"
        else:
            why = (
                f"it cannot be asked ({next(iter(left.values())).reason}); it heals by itself once "
                f"it has not heard us for {self.lease_s:g} s"
            )
        return {"changes": changes, "trouble": []}, [
            f"{self.machine.name}: the end of its injector was not heard; {why}"
        ]

    async def close(self) -> None:
        """Heal if that is not done, and end the injector."""
        await super().close()
        if self._healed is not None and self._proof is None and self._book is not None:
            self._close_entries(await super()._prove())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._book is not None:
            self._book.close()
            self._book = None


def _wider(moment: Moment, error_ns: int) -> Moment:
    return Moment(moment.earliest_ns - error_ns, moment.latest_ns + error_ns)
