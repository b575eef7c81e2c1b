"""The coordinator of a collective job: starts the ranks, passes their records on, decides.

    python -m probes.jobs.collective        (see `chaos.registry.Program` for what it speaks)

It needs no torch and never touches the fabric: ranks are steered over UNIX sockets, and they meet
through a store that lives in this process's memory (a memfd they open by path). Where hosts are
other machines, both go through the driver's connections (`probes.jobs.collective_start`).

Commands: `stop`, `phase` (`calm` learns limits anew, `storm` freezes them and checks every value),
`abort`, `regroup` (to the ranks given, else to all that are reachable).

In mode `restart` all others leave the group when a rank ends, and all meet in a new one when the
fork server has started that rank again. Whoever ended it asks for that (`faults/rank_restart.py`);
a rank that was killed here is asked for here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from chaos.timeline import now_ns
from probes.jobs.collective_blame import Matrix
from probes.jobs.collective_rank import Out, Rank, cpu, ended, lines, process_state
from probes.jobs.collective_start import Here, There

READY_S, GRACE_S, ACK_S, STOP_S, BACK_S, SILENT_MS = 80.0, 1.0, 2.0, 1.5, 0.5, 700.0


class Coordinator:
    """One job from start to end."""

    def __init__(
        self, config: dict[str, Any], homes: dict[str, Any], out: Out, forkers: Here | There
    ) -> None:
        self.config, self.out, self.forkers = config, out, forkers
        self.ranks = [self._rank(item, homes) for item in config["ranks"]]
        self.matrix = Matrix(len(self.ranks))
        self.members = [rank.spec["rank"] for rank in self.ranks]
        self.inc = -1
        self.changed = asyncio.Event()
        self.done = asyncio.Event()
        self.fate = ""
        self.deciding: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.suspected: set[int] = set()
        self.stalled: set[int] = set()
        self.killed: set[int] = set()
        self.phase = "calm"
        self.refusal = ""

    def _rank(self, item: dict[str, Any], homes: dict[str, Any]) -> Rank:
        node = item["node"]
        if node not in homes:
            known = ", ".join(sorted(homes)) or "none"
            raise SystemExit(
                f"collective: no network namespace for node {node!r}; there is {known}"
            )
        spec = {key: value for key, value in self.config.items() if key not in ("ranks", "mode")}
        again = self.config["mode"] != "ride"
        return Rank(spec | item | {"home": homes[node], "again": again})

    # ------------------------------------------------------------------ start

    async def start(self) -> None:
        """Launch all ranks and bring them into a steady state.

        Raises:
            TimeoutError: they did not get there; what was missing is in `refusal`.
        """
        await self.forkers.start(self.ranks, self, self._task)
        await self._until(lambda: all(rank.hello for rank in self.ranks), READY_S, "no hello")
        for rank in self.ranks:
            rank.send("peers", peers=self._peers())
        self._group(self.members)
        await self._until(lambda: all(rank.steady for rank in self.ranks), READY_S, "not steady")

    def _peers(self) -> dict[str, tuple[str, int]]:
        """Address and heartbeat port of every rank that has said hello."""
        known = (rank for rank in self.ranks if rank.hello)
        return {
            str(rank.spec["rank"]): (rank.hello["addr"], rank.hello["hb_port"]) for rank in known
        }

    def _task(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _until(self, holds: Any, deadline_s: float, missing: str) -> None:
        async with asyncio.timeout(deadline_s):
            while not holds():
                if self.refusal:
                    raise TimeoutError(self.refusal)
                self.changed.clear()
                await self.changed.wait()

    def _group(self, members: list[int]) -> None:
        """Have these ranks meet in a new group, on a store no earlier group has seen."""
        self.inc += 1
        first = max(rank.last_i for rank in self.ranks) + 1
        path = self.forkers.store(self.inc)
        self.members = members
        self.stalled.clear()
        for index in members:
            self.ranks[index].state, self.ranks[index].steady = "running", False
            self.ranks[index].send("group", inc=self.inc, members=members, store=path, first=first)

    # ------------------------------------------------------------------ what comes in

    def server_said(self, record: dict[str, Any]) -> None:
        """A record of a fork server, or of the driver."""
        rank = self.ranks[record["rank"]] if "rank" in record else None
        if record["ev"] == "failed":
            self.refusal = record["msg"]
        elif rank is not None and record["ev"] == "forked":
            rank.pid = record["pid"]
            if rank.state == "gone":
                rank.start_again(now_ns())
                self.matrix.remember(record["rank"])
            name, node = f"rank{record['rank']}", rank.spec["node"]
            started = record["started"]
            self.out.say("process", name=name, pid=rank.pid, started=started, node=node)
        elif rank is not None and record["ev"] == "exited":
            self._exited(rank, record["code"])
        elif record["ev"] in ("clock", "trouble") and not self.done.is_set():
            facts = {key: record[key] for key in record.keys() - {"ev", "t"}}
            self.out.say(record["ev"], **facts)
        self.changed.set()

    def server_over(self, node: str) -> None:
        """A fork server has ended: of all ranks, or of those on one host."""
        left = [rank for rank in self.ranks if rank.alive and node in ("", rank.spec["node"])]
        if self.done.is_set() or not left:
            return
        if not node or not all(rank.steady for rank in self.ranks):
            self.refusal = self.refusal or "the fork server ended by itself"
        for rank in left if node else ():
            self._exited(rank, None)
        self.changed.set()

    def _exited(self, rank: Rank, code: int | None) -> None:
        expected = self.done.is_set()
        was_ready = rank.steady or self.inc > 0
        rank.state = "gone"
        self.matrix.forget(rank.spec["rank"])
        index, node = rank.spec["rank"], rank.spec["node"]
        self.out.say("exited", who=index, node=node, pid=rank.pid, code=code, expected=expected)
        if expected:
            return
        if self.config["mode"] == "restart" and index in self.killed:
            self.killed.discard(index)
            self.forkers.start_again(rank)
        if not was_ready:
            self.refusal = self.refusal or f"rank{index} on {node} ended at start ({ended(code)})"
        else:
            self._symptom(f"rank{index} on {node} ended ({ended(code)})", 0.1)

    def rank_said(self, rank: Rank, line: bytes) -> None:
        """One record of a rank; of one that was killed, the last may be a part of a line."""
        try:
            record = json.loads(line)
        except ValueError:
            if line.strip():
                self.out.say("cut", who=rank.spec["rank"], bytes=len(line))
            return
        self.out.line(line)
        self._heard(rank, record)
        self.changed.set()

    def _heard(self, rank: Rank, record: dict[str, Any]) -> None:
        ev, index = record["ev"], rank.spec["rank"]
        rank.heard_ns = now_ns()
        if ev == "hello":
            rank.hello = record
            if rank.again:
                self._introduce(rank)
        elif ev == "baseline":
            rank.limits = record["limits"]
        elif ev == "steady":
            rank.steady = True
        elif ev == "store":
            self._share(record)
        elif ev == "it":
            rank.last_i = record["i"] + len(record["t0"]) - 1
            self.stalled.discard(index)
        elif ev in ("paused", "aborted"):
            rank.state = ev
            rank.last_i = max(rank.last_i, record.get("i", -1))
            rank.owed = 0 if ev == "aborted" else rank.owed
            self._returned()
        elif ev == "error":
            rank.state = "failed"
            if not rank.steady and self.inc == 0:
                self.refusal = f"rank{index} on {rank.spec['node']}: {record['msg']}"
            self._symptom(f"rank{index}: {record['msg']}", 0.1)
        elif ev == "stall":
            self.stalled.add(index)
            self._suspect_named()
        elif ev == "net" and record["kind"] == "hb_lost":
            self.matrix.lost(index, record["peer"])
            self._suspect_named()
        elif ev == "net" and record["kind"] == "hb_back":
            self.matrix.back(index, record["peer"])
            self._returned()

    def _introduce(self, rank: Rank) -> None:
        """Have one that was started again know the others, and the others know it."""
        rank.again = False
        rank.send("limits", limits=rank.limits)
        rank.send("phase", name=self.phase)
        rank.send("peers", peers=self._peers())
        addr, port = rank.hello["addr"], rank.hello["hb_port"]
        for other in self.ranks:
            if other is not rank:
                other.send("peer", peer=rank.spec["rank"], addr=addr, port=port)
        self._returned()

    def _share(self, record: dict[str, Any]) -> None:
        """Pass on to every rank of the group what one has put into its store."""
        for index in self.members:
            fields = {key: record[key] for key in ("inc", "key", "value")}
            self.ranks[index].send("store", **fields)

    # ------------------------------------------------------------------ who and what next

    def _suspect_named(self) -> None:
        """Look at the process that the heartbeats name: frozen, gone, or merely cut off.

        A group is given up only when the job has stalled as well: heartbeats alone may be late.
        """
        named = self.matrix.named()
        if named is None:
            return
        rank = self.ranks[named]
        if named not in self.suspected:
            self.suspected.add(named)
            silent = (now_ns() - rank.heard_ns) / 1e6
            self.out.say("suspect", who=named, state=process_state(rank), ctl_silent_ms=silent)
        if self.config["mode"] != "ride" and self.stalled:
            self._symptom(f"rank{named} is silent towards the others", 0.0)

    def _returned(self) -> None:
        named = self.matrix.named()
        self.suspected &= {named} if named is not None else set()
        if self.done.is_set() or self.fate or self.inc < 0:
            return
        if self.config["mode"] == "regroup" and set(self._wanted()) > set(self.members):
            self._start(self._grow())
        elif self.config["mode"] == "restart":
            free = [rank for rank in self.ranks if rank.free]
            if len(free) == len(self._reachable()) == len(self.ranks):
                self._start(self._meet_again())

    def _wanted(self) -> list[int]:
        """The group as it could be: who is in it, and who is free to join."""
        members = self.members
        return [i for i in self._reachable() if i in members or self.ranks[i].free]

    def _reachable(self) -> list[int]:
        return self.matrix.reachable(r.spec["rank"] for r in self.ranks if r.alive)

    def _symptom(self, why: str, wait_s: float) -> None:
        """Something is wrong; in mode ride wait for the library, in mode regroup act."""
        if self.done.is_set() or self.fate or self.refusal:
            return
        if self.config["mode"] == "ride":
            self._start(self._give_up(why))
        elif self.config["mode"] == "restart":
            self._start(self._leave(why))
        else:
            self._start(self._shrink(why, wait_s))

    def _start(self, work: Any) -> None:
        if self.deciding is not None and not self.deciding.done():
            work.close()
            return
        self.deciding = asyncio.create_task(work)

    async def _give_up(self, why: str) -> None:
        """Let every rank see its own error for a second, then end the group everywhere."""
        self.out.say("decision", decision="abort", why=why)
        await asyncio.sleep(GRACE_S)
        self.fate = "aborted"
        await self._abort(why, self.members)
        self.out.say("fate", fate="aborted", msg=why)

    async def _abort(self, why: str, needed: list[int]) -> None:
        """Broadcast an abort; return when all `needed` ranks are out of the group.

        A rank that does not answer within two seconds is killed and counted as stuck.
        """
        left = ("aborted", "starting")
        asked = [rank for rank in self.ranks if rank.alive and rank.state not in left]
        for rank in asked:
            rank.owed += 1
            rank.send("abort", reason=why)
        self._task(self._kill_stuck(asked))
        wanted = [self.ranks[index] for index in needed]
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: not any(r.alive and r.owed for r in wanted), ACK_S + 1, "")

    async def _kill_stuck(self, asked: list[Rank]) -> None:
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: not any(r.alive and r.owed for r in asked), ACK_S, "")
        for rank in asked:
            if rank.alive and rank.owed:
                self.out.say("stuck", who=rank.spec["rank"], state=process_state(rank))
                self._kill(rank)

    def _kill(self, rank: Rank) -> None:
        self.killed.add(rank.spec["rank"])
        self.forkers.kill(rank)

    async def _leave(self, why: str) -> None:
        """End the group everywhere; when every rank is there, they meet anew."""
        self.out.say("decision", decision="restart", why=why)
        await self._abort(why, self.members)
        asyncio.get_running_loop().call_soon(self._returned)

    async def _meet_again(self) -> None:
        """All in a new group; should one be lost meanwhile, leave that one too."""
        self._group([rank.spec["rank"] for rank in self.ranks])

        def lost() -> bool:
            return any(rank.state in ("gone", "failed") for rank in self.ranks)

        with contextlib.suppress(TimeoutError):
            await self._until(lambda: lost() or all(r.steady for r in self.ranks), READY_S, "")
        if lost():
            why = "a rank was lost while they met"
            asyncio.get_running_loop().call_soon(self._symptom, why, 0.0)

    async def _shrink(self, why: str, wait_s: float) -> None:
        """Abort, and go on with the ranks that hear each other."""
        await asyncio.sleep(wait_s)
        members = self._reachable()
        self.out.say("decision", decision="regroup", why=why, members=members)
        await self._abort(why, members)
        members = [index for index in members if self.ranks[index].state == "aborted"]
        if len(members) < 2:
            self.fate = "aborted"
            self.out.say("fate", fate="aborted", msg=f"{why}; {len(members)} ranks are left")
            return
        self._group(members)
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
            await self._until(lambda: all(r.state == "paused" for r in running), ACK_S, "")
        except TimeoutError:
            await self._abort("pause did not come through", self.members)
        wanted = [i for i in wanted if self.ranks[i].free]
        self._group(wanted)
        await self._met(wanted)

    async def _met(self, members: list[int]) -> None:
        """Wait until a new group runs; a rank that came back meanwhile is taken in next."""
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: all(self.ranks[i].steady for i in members), ACK_S * 5, "")
        asyncio.get_running_loop().call_soon(self._returned)

    # ------------------------------------------------------------------ commands, end

    async def obey(self, reader: asyncio.StreamReader) -> None:
        """Commands from standard input until `stop` or its end."""
        async for line in lines(reader):
            try:
                command = json.loads(line)
                what = command["cmd"]
            except (ValueError, KeyError, TypeError):
                self.out.say("refused", msg=f"not a command: {line[:80]!r}")
                continue
            if what == "stop":
                return
            if what == "phase":
                self.phase = str(command.get("name", ""))
                for rank in self.ranks:
                    rank.send("phase", name=self.phase)
                self.out.say("phase", name=command.get("name", ""))
            elif what == "abort":
                self.fate = "aborted"
                self._start(self._abort(str(command.get("reason", "asked for")), self.members))
            elif what == "regroup":
                self._start(self._shrink("asked for", 0.0))
            else:
                self.out.say(
                    "refused", msg=f"no command {what!r}; it knows stop, phase, abort, regroup"
                )

    async def watch(self) -> None:
        """Once a second: load of the machine; ranks whose control channel is silent."""
        before, told = cpu(), now_ns()
        while True:
            await asyncio.sleep(0.1)
            self._silence()
            if now_ns() - told >= 1_000_000_000:
                told = now_ns()
                now = cpu()
                spent = [b - a for a, b in zip(before, now, strict=True)]
                all_of_it = sum(spent) or 1
                busy = 100 * (all_of_it - spent[3] - spent[4]) / all_of_it
                self.out.say("env", cpu_busy=busy, steal=100 * spent[7] / all_of_it)
                before = now

    def _silence(self) -> None:
        for rank in self.ranks:
            silence = (now_ns() - rank.heard_ns) / 1e6
            if rank.alive and rank.heard_ns and (silence > SILENT_MS) != rank.silent:
                rank.silent = silence > SILENT_MS
                ev, state = ("ctl_lost" if rank.silent else "ctl_back"), process_state(rank)
                self.out.say(ev, who=rank.spec["rank"], silent_ms=silence, state=state)

    async def stop(self) -> None:
        """End every rank: by the data, else by an abort, else by a kill. Under four seconds."""
        self.done.set()
        if self.deciding is not None:
            self.deciding.cancel()
        for rank in self.ranks:
            rank.send("stop")
        await self._gone(STOP_S)
        for rank in self.ranks:
            rank.send("abort", reason="stop")
        await self._gone(0.7)
        for rank in self.ranks:
            if rank.alive:
                self._kill(rank)
        await self._gone(1.0)
        self.forkers.stop()
        self.out.say("end", reason="stop", left=[r.pid for r in self.ranks if r.alive and r.pid])

    async def _gone(self, deadline_s: float) -> None:
        self.refusal = ""
        with contextlib.suppress(TimeoutError):
            await self._until(
                lambda: not any(r.alive and r.pid for r in self.ranks), deadline_s, ""
            )


async def main() -> int:
    """Run one job; 0 when it was told to stop, 1 when it could not start, 4 without torch."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin.buffer)
    order = json.loads(await commands.readline())
    out = Out()
    homes = {node: {"net": path} for node, path in order["namespaces"].items()}
    forkers = There(order["reach"]) if order.get("reach") else Here()
    job = Coordinator(order["config"], homes | order.get("homes", {}), out, forkers)
    code = 0
    obeying = asyncio.create_task(job.obey(commands))
    starting = asyncio.create_task(job.start())
    watching = asyncio.create_task(job.watch())
    try:
        await asyncio.wait((starting, obeying), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            out.say("ready")
            await obeying
    except TimeoutError as error:
        code = 4 if "needs torch" in str(error) else 1
        message = str(error) or "the ranks did not get into a steady state in time"
        out.say("failed", msg=message)
        sys.stderr.write(message + "\n")
    starting.cancel()
    watching.cancel()
    await job.stop()
    out.close()
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
