"""The group of a collective job: who is in it, why and how it ends, how the next one meets.

Modes: `ride` ends for good at the first trouble; `regroup` goes on with the ranks that hear each
other, and takes back those that are heard again; in `restart` all leave, and all meet anew when the
one that was lost has been started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from chaos.timeline import now_ns
from probes.jobs.collective_blame import Matrix
from probes.jobs.collective_rank import Out, Rank, process_state
from probes.jobs.collective_start import Here, There

READY_S, GRACE_S, ACK_S, BACK_S = 80.0, 1.0, 2.0, 0.5


class Group:
    """The ranks of one job, and who of them works together.

    Args:
        ranks: All of them, by number.
        mode: `ride`, `regroup` or `restart`.
        out: Where decisions are told.
        forkers: Who starts and kills ranks.

    Attributes:
        matrix: Who does not hear whom.
        members: Numbers of those in the group.
        inc: Number of the group; -1 before the first.
        changed: Set whenever a word came in.
        done: The job is ending; what ends from now on was told to.
        fate: `aborted` once no group will follow.
        refusal: Why the job cannot start; empty while it can.
        stalled: Members that said that an operation of theirs does not end.
        killed: Ranks that were killed from here, and not started again yet.
    """

    def __init__(self, ranks: Sequence[Rank], mode: str, out: Out, forkers: Here | There) -> None:
        self.ranks, self.mode, self.out, self.forkers = ranks, mode, out, forkers
        self.matrix = Matrix(len(ranks))
        self.members = [rank.spec["rank"] for rank in ranks]
        self.inc = -1
        self.changed, self.done = asyncio.Event(), asyncio.Event()
        self.fate = self.refusal = ""
        self.stalled: set[int] = set()
        self.killed: set[int] = set()
        self._suspected: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deciding: asyncio.Task[None] | None = None

    def task(self, work: Any) -> None:
        """Have something done beside all else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, holds: Callable[[], bool], deadline_s: float) -> None:
        """Return when something holds, which is looked at whenever a word came in.

        Raises:
            TimeoutError: not in time, or the job is refused: then with the sentence.
        """
        async with asyncio.timeout(deadline_s):
            while not holds():
                if self.refusal:
                    raise TimeoutError(self.refusal)
                self.changed.clear()
                await self.changed.wait()

    def meet(self, members: list[int]) -> None:
        """Have these ranks meet in a new group, on a store no earlier group has seen."""
        self.inc += 1
        first = max(rank.last_i for rank in self.ranks) + 1
        path = self.forkers.store(self.inc)
        self.members = members
        self.stalled.clear()
        for index in members:
            self.ranks[index].state, self.ranks[index].steady = "running", False
            self.ranks[index].send("group", inc=self.inc, members=members, store=path, first=first)

    def suspect_named(self) -> None:
        """Look at the process that the heartbeats name: frozen, gone, or merely cut off.

        A group is given up only when the job has stalled as well: heartbeats alone may be late.
        """
        named = self.matrix.named()
        if named is None:
            return
        rank = self.ranks[named]
        if named not in self._suspected:
            self._suspected.add(named)
            silent = (now_ns() - rank.heard_ns) / 1e6
            self.out.say("suspect", who=named, state=process_state(rank), ctl_silent_ms=silent)
        if self.mode != "ride" and self.stalled:
            self.symptom(f"rank{named} is silent towards the others", 0.0)

    def returned(self) -> None:
        """Somebody is heard again, or free: meet with all who can, where the mode is such."""
        named = self.matrix.named()
        self._suspected &= {named} if named is not None else set()
        if self.done.is_set() or self.fate or self.inc < 0:
            return
        if self.mode == "regroup" and set(self._wanted()) > set(self.members):
            self.start(self._grow())
        elif self.mode == "restart":
            free = [rank for rank in self.ranks if rank.free]
            if len(free) == len(self._reachable()) == len(self.ranks):
                self.start(self._meet_again())

    def _wanted(self) -> list[int]:
        """The group as it could be: who is in it, and who is free to join."""
        members = self.members
        return [i for i in self._reachable() if i in members or self.ranks[i].free]

    def _reachable(self) -> list[int]:
        return self.matrix.reachable(r.spec["rank"] for r in self.ranks if r.alive)

    def symptom(self, why: str, wait_s: float) -> None:
        """Something is wrong; in mode ride wait for the library, in mode regroup act."""
        if self.done.is_set() or self.fate or self.refusal:
            return
        if self.mode == "ride":
            self.start(self._give_up(why))
        elif self.mode == "restart":
            self.start(self._leave(why))
        else:
            self.start(self.shrink(why, wait_s))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out a decision, unless one is being carried out."""
        if self._deciding is not None and not self._deciding.done():
            work.close()
            return
        self._deciding = asyncio.create_task(work)

    async def _give_up(self, why: str) -> None:
        """Let every rank see its own error for a second, then end the group everywhere."""
        self.out.say("decision", decision="abort", why=why)
        await asyncio.sleep(GRACE_S)
        self.fate = "aborted"
        await self.abort(why, self.members)
        self.out.say("fate", fate="aborted", msg=why)

    async def abort(self, why: str, needed: list[int]) -> None:
        """Broadcast an abort; return when all `needed` ranks are out of the group.

        A rank that does not answer within two seconds is killed and counted as stuck.
        """
        left = ("aborted", "starting")
        asked = [rank for rank in self.ranks if rank.alive and rank.state not in left]
        for rank in asked:
            rank.owed += 1
            rank.send("abort", reason=why)
        self.task(self._kill_stuck(asked))
        wanted = [self.ranks[index] for index in needed]
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: not any(r.alive and r.owed for r in wanted), ACK_S + 1)

    async def _kill_stuck(self, asked: list[Rank]) -> None:
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: not any(r.alive and r.owed for r in asked), ACK_S)
        for rank in asked:
            if rank.alive and rank.owed:
                self.out.say("stuck", who=rank.spec["rank"], state=process_state(rank))
                self.kill(rank)

    def kill(self, rank: Rank) -> None:
        """End a rank's process."""
        self.killed.add(rank.spec["rank"])
        self.forkers.kill(rank)

    async def _leave(self, why: str) -> None:
        """End the group everywhere; when every rank is there, they meet anew."""
        self.out.say("decision", decision="restart", why=why)
        await self.abort(why, self.members)
        asyncio.get_running_loop().call_soon(self.returned)

    async def _meet_again(self) -> None:
        """All in a new group; should one be lost meanwhile, leave that one too."""
        self.meet([rank.spec["rank"] for rank in self.ranks])

        def lost() -> bool:
            return any(rank.state in ("gone", "failed") for rank in self.ranks)

        with contextlib.suppress(TimeoutError):
            await self.until(lambda: lost() or all(r.steady for r in self.ranks), READY_S)
        if lost():
            why = "a rank was lost while they met"
            asyncio.get_running_loop().call_soon(self.symptom, why, 0.0)

    async def shrink(self, why: str, wait_s: float) -> None:
        """Abort, and go on with the ranks that hear each other."""
        await asyncio.sleep(wait_s)
        members = self._reachable()
        self.out.say("decision", decision="regroup", why=why, members=members)
        await self.abort(why, members)
        members = [index for index in members if self.ranks[index].state == "aborted"]
        if len(members) < 2:
            self.fate = "aborted"
            self.out.say("fate", fate="aborted", msg=f"{why}; {len(members)} ranks are left")
            return
        self.meet(members)
        await self._met(members)

    async def _grow(self) -> None:
        """Take back the ranks that are heard again: stop at a common iteration, meet anew."""
        await asyncio.sleep(BACK_S)
        wanted = self._wanted()
        if not set(wanted) > set(self.members):
            return
        self.out.say("decision", decision="regroup", why="ranks are back", members=wanted)
        for index in self.members:
            self.ranks[index].send("pause")
        running = [self.ranks[index] for index in self.members]
        try:
            await self.until(lambda: all(r.state == "paused" for r in running), ACK_S)
        except TimeoutError:
            await self.abort("pause did not come through", self.members)
        wanted = [i for i in wanted if self.ranks[i].free]
        self.meet(wanted)
        await self._met(wanted)

    async def _met(self, members: list[int]) -> None:
        """Wait until a new group runs; a rank that came back meanwhile is taken in next."""
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: all(self.ranks[i].steady for i in members), ACK_S * 5)
        asyncio.get_running_loop().call_soon(self.returned)

    def end(self) -> None:
        """Decide nothing more: what ends from now on was told to."""
        self.done.set()
        if self._deciding is not None:
            self._deciding.cancel()
