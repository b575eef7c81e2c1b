"""Hands on switches: changes by command line, with a dead-man on the switch itself.

The same face as `chaos.hands.Hands`. Per switch, in this order: what is there is read; the change
is written into the journal; the dead-man is armed and read back (or, where a commit carries it,
made ready); do; read-back; renewals; undo; read-back; the dead-man is disarmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from chaos.change import Change, Hits, Where, identity
from chaos.drivers.ssh.console import Console
from chaos.drivers.ssh.held import Held, Switch
from chaos.drivers.ssh.target import Target
from chaos.errors import ApplyError, BlockedError, FabricError, RailbreakError, SpecError
from chaos.journal import Entry, Journal
from chaos.native import process_state
from chaos.nos import deadman, platform
from chaos.proof import Action, ChangeProof, Proof, late
from chaos.recover import Undone
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

LEASE_S = 10.0  # a Linux switch that hears nothing for so long heals itself
LEAST_LIFE_S = 5
SOON_NS = 20_000_000  # so long before an action its thread takes over
COUNT_NS = 1_000_000_000  # so long before an undo is counted, where undoing ends the count


class SwitchHands:
    """Holds changes at switches.

    Examples:
        hands = await SwitchHands.arm(changes, targets, journal=…, max_life=…)
        await hands.start(now_ns() + 50_000_000, fault.schedule(storm, rng))
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
    """

    def __init__(
        self, switches: Sequence[Switch], changes: Sequence[Change], life: Duration
    ) -> None:
        self.changes = tuple(changes)
        self._switches = tuple(switches)
        self._life = life
        self._book: Journal | None = None
        self._threads = {one: ThreadPoolExecutor(1, one.console.target.name) for one in switches}
        self._runs: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._done = asyncio.Event()
        self._failure: RailbreakError | None = None
        self._proof: Proof | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def arm(
        cls,
        changes: Sequence[Change],
        targets: Mapping[str, Target],
        *,
        journal: Path,
        max_life: Duration,
        lease_s: float = LEASE_S,
        called: Callable[[Change], str] | None = None,
        passwords: Mapping[str, str] | None = None,
        connect_s: float = 15.0,
        answer_s: float = 30.0,
    ) -> Self:
        """Log in to every switch and make everything ready; nothing is changed yet.

        Args:
            changes: What, in order.
            targets: By node: how its switch is reached; `platform` names its table.
            journal: Write-ahead journal; lines are appended.
            max_life: Every change is taken back this long after the start of the schedule.
            lease_s: A switch with a script as its dead-man heals itself when it has heard nothing
                for so long; elsewhere it is the maximum life.
            called: What the switch calls the port of a change (or the neighbour that one of its
                ports names); by default what the change says.
            passwords: By node, where keys do not suffice; by default those of the environment.
            connect_s: How long connecting may take, in seconds.
            answer_s: How long one command may take, in seconds.

        Raises:
            SpecError: two changes could not be told apart when taking them back.
            BlockedError: a change is in force already, or cannot be told; the journal cannot be
                written; the dead-man cannot be armed.
            CapabilityError: a platform cannot make a change.
            FabricError: a switch, a port or a neighbour is not there.
        """
        life_s = max_life.ns / 1e9
        if life_s < LEAST_LIFE_S:
            raise BlockedError(
                f"a change at a switch must be allowed to live {LEAST_LIFE_S} s at least, got "
                f"{life_s:g} s: its timers count whole seconds"
            )
        by_node: dict[str, list[Held]] = {}
        known: set[str] = set()
        owner = (os.getpid(), process_state(os.getpid())[1])
        stamp = f"rb-{owner[0]}-{time.time_ns() // 1_000_000 % 10**10}"
        for at, change in enumerate(changes):
            node = change.place.node
            if node not in targets:
                raise FabricError(f"no switch {node} to be reached; there are {sorted(targets)}")
            if identity(change) in known:
                raise SpecError(f"{change.describe()} is there twice")
            known.add(identity(change))
            ifname = called(change) if called else change.place.port
            where = Where(ifname=ifname, host=targets[node].name)
            by_node.setdefault(node, []).append(Held(f"{stamp}-{at}", at, change, where))
        book = await asyncio.to_thread(Journal, journal)
        switches = [
            Switch(
                Console(
                    targets[node],
                    platform(targets[node].platform),
                    password=(passwords or {}).get(node, ""),
                    connect_s=connect_s,
                    answer_s=answer_s,
                ),
                held,
                tag=f"{stamp}-{at}",
                journal=book,
                owner=owner,
                lease_s=int(max(2, min(lease_s, life_s - 2))),
                life_s=int(life_s),
            )
            for at, (node, held) in enumerate(by_node.items())
        ]
        hands = cls(switches, changes, max_life)
        hands._book = book
        try:
            for step in (Switch.look_round, Switch.write_down, Switch.make_ready):
                await hands._everywhere(step)
            hands._runs.append(asyncio.create_task(hands._renewals(), name="switch leases"))
        except BaseException:
            await hands.close()
            raise
        return hands

    # ------------------------------------------------------------------ the face

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done so far, in the order it was done."""
        found = [one for switch in self._switches for one in switch.actions]
        return tuple(sorted(found, key=lambda one: one.before_ns))

    async def start(self, t0_ns: int, spans: Sequence[InForce]) -> None:
        """Take the schedule, relative to `t0_ns`; returns at once.

        Raises:
            BlockedError: it would outlast the maximum life, or everything was healed already.
        """
        if self._proof is not None or self._stop.is_set():
            raise BlockedError("nothing is armed")
        if spans and spans[-1].end_ns > self._life.ns:
            raise BlockedError(
                f"the last span ends after {spans[-1].end_ns / 1e9:g} s, but the changes may live "
                f"{self._life.ns / 1e9:g} s at most"
            )
        deadline = max(t0_ns, now_ns()) + self._life.ns
        runs = [
            asyncio.create_task(self._follow(one, t0_ns, spans, deadline)) for one in self._switches
        ]
        self._runs += [*runs, asyncio.create_task(self._finish(runs))]

    async def hits(self) -> dict[int, Hits]:
        """How often each change acted so far, by index."""
        await self._everywhere(Switch.count)
        return {one.index: one.hits for one in self._held()}

    async def wait(self) -> None:
        """Return when the last span has ended everywhere.

        Raises:
            ApplyError: a change did not come into force; everything was taken back.
            FabricError: a switch could not be reached any more.
        """
        await self._done.wait()
        if self._failure is not None:
            raise self._failure

    async def heal(self) -> Proof:
        """Take back what is still in force, see that it is gone, and prove it; repeatable."""
        self._stop.set()
        async with self._turn:
            if self._proof is None:
                mine = asyncio.current_task()
                others = [one for one in self._runs if one is not mine]
                for one in others:
                    if one.get_name() == "switch leases":
                        one.cancel()
                await self._everywhere(Switch.heal)
                self._proof = self._prove()
                self._done.set()
        return self._proof

    async def close(self) -> None:
        """Heal if that is not done, and log out."""
        await asyncio.shield(self.heal())
        for one in self._runs:
            one.cancel()
        for one in self._runs:
            with contextlib.suppress(asyncio.CancelledError, RailbreakError):
                await one
        for switch, thread in self._threads.items():
            switch.console.close()
            thread.shutdown(wait=False)
        book, self._book = self._book, None
        if book is not None:
            book.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ the schedule

    async def _follow(
        self, switch: Switch, t0_ns: int, spans: Sequence[InForce], deadline_ns: int
    ) -> None:
        """Act at one switch on time; any failure heals them all."""
        switch.deadline_ns = deadline_ns
        try:
            await self._at(switch, switch.deadman.bind)
            for at, span in enumerate(spans):
                switch.next_ns = t0_ns + span.start_ns
                if not await self._until(t0_ns + span.start_ns - SOON_NS):
                    return
                await self._at(switch, lambda s=span: switch.do(t0_ns + s.start_ns))  # type: ignore[misc]
                end = t0_ns + span.end_ns
                if await self._until(end - COUNT_NS):
                    await self._at(switch, switch.before_undo)
                switch.next_ns = end
                if not await self._until(end - SOON_NS):
                    return
                await self._at(switch, lambda e=end: switch.undo(e))  # type: ignore[misc]
                if at + 1 < len(spans):
                    await self._at(switch, switch.stage)
        except ApplyError as error:
            self._failure = self._failure or error
            self._stop.set()
        except RailbreakError as error:
            self._failure = self._failure or FabricError(str(error))
            self._stop.set()

    async def _finish(self, runs: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.gather(*runs)
        await self.heal()
        if isinstance(self._failure, ApplyError) and self._proof and self._proof.taken_back:
            self._failure = ApplyError(f"{self._failure}; everything was taken back")

    async def _until(self, at_ns: int) -> bool:
        """Sleep until an instant; False when healing began meanwhile."""
        left = (at_ns - now_ns()) / 1e9
        if left > 0 and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), left)
        return not self._stop.is_set()

    async def _renewals(self) -> None:
        """Move every lease on while we live."""
        pause = min((one.lease_s for one in self._switches), default=30) / 4
        while True:
            await asyncio.sleep(pause)
            await self._everywhere(Switch.renew)

    async def _at(self, switch: Switch, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads[switch], work)

    async def _everywhere(self, work: Callable[[Switch], None]) -> None:
        """The same at all switches at once; the first failure, when all have ended."""
        jobs = [self._at(one, lambda s=one: work(s)) for one in self._switches]  # type: ignore[misc]
        for failed in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed

    # ------------------------------------------------------------------ the proof

    def _held(self) -> list[Held]:
        return sorted((one for s in self._switches for one in s.held), key=lambda one: one.index)

    def _prove(self) -> Proof:
        return Proof.of(
            (
                ChangeProof(
                    one.change,
                    one.in_force,
                    seen=one.hits.seen,
                    hit=one.hits.hit,
                    taken_back=one.taken_back,
                    leftover="" if one.taken_back else one.cure,
                )
                for one in self._held()
            ),
            self.actions,
            late=late(self.actions, self.changes, in_turn=False),
            trouble=(one for switch in self._switches for one in switch.trouble),
        )


def take_back(entry: Entry, connect: Callable[[str], Console]) -> Undone:
    """Take back a journal's change at a switch after its controller died; repeatable.

    Args:
        entry: Its `where.host` names the switch.
        connect: Name of a switch → an opened session at it.
    """
    try:
        console = connect(entry.where.host)
    except RailbreakError as error:
        return Undone(entry, "leftover", str(error))
    held = Held(entry.id, 0, entry.change, entry.where, begun=True, pending=True)
    try:
        table = platform(str(entry.saved["platform"]))
        held.commands = table.render(held.spoken, tuple(entry.saved["answers"]))
        switch = Switch(console, [held], tag=str(entry.saved["tag"]), owner=entry.owner)
        before = held.commands.read([console.run(one) for one in held.commands.look])
        switch.return_all()
        if not held.taken_back:
            why = "; ".join(held.refused) or "undone, yet still in force"
            return Undone(entry, "leftover", why)
        if table.confirmed is None:
            console.run(deadman.disarm(switch.deadman.tag))
    except RailbreakError as error:
        return Undone(entry, "leftover", str(error))
    finally:
        console.close()
    by_itself = before == "gone"
    reason = f"{entry.where.host} had taken it back itself" if by_itself else "taken back"
    return Undone(entry, "taken_back", reason)
