"""The coordinator of a collective job: starts the ranks, passes their records on, decides.

    python -m probes.jobs.collective        (see `chaos.registry.Program` for what it speaks)

It needs no torch and never touches the fabric: ranks are steered over UNIX sockets, and they meet
through a store that lives in this process's memory (a memfd they open by path). Where hosts are
other machines, both go through the driver's connections (`probes.jobs.collective_start`).

Commands: `stop`, `phase` (`calm` learns limits anew, `storm` freezes them and checks every value),
`abort`, `regroup` (with all that are reachable).

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
from probes.jobs.collective_group import READY_S, Group
from probes.jobs.collective_rank import Out, Rank, ended, lines
from probes.jobs.collective_start import Here, There
from probes.jobs.collective_watch import watch

STOP_S = 1.5


class Coordinator:
    """One job from start to end."""

    def __init__(
        self, config: dict[str, Any], homes: dict[str, Any], out: Out, forkers: Here | There
    ) -> None:
        self.config, self.out, self.forkers = config, out, forkers
        self.ranks = [self._rank(item, homes) for item in config["ranks"]]
        self.group = Group(self.ranks, config["mode"], out, forkers)
        self.phase = "calm"

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
            TimeoutError: they did not get there; with the sentence where one is known.
        """
        await self.forkers.start(self.ranks, self, self.group.task)
        await self.group.until(lambda: all(rank.hello for rank in self.ranks), READY_S)
        for rank in self.ranks:
            rank.send("peers", peers=self._peers())
        self.group.meet(self.group.members)
        await self.group.until(lambda: all(rank.steady for rank in self.ranks), READY_S)

    def _peers(self) -> dict[str, tuple[str, int]]:
        """Address and heartbeat port of every rank that has said hello."""
        known = (rank for rank in self.ranks if rank.hello)
        return {
            str(rank.spec["rank"]): (rank.hello["addr"], rank.hello["hb_port"]) for rank in known
        }

    # ------------------------------------------------------------------ what comes in

    def server_said(self, record: dict[str, Any]) -> None:
        """A record of a fork server, or of the driver."""
        rank = self.ranks[record["rank"]] if "rank" in record else None
        if record["ev"] == "failed":
            self.group.refusal = record["msg"]
        elif rank is not None and record["ev"] == "forked":
            rank.pid = record["pid"]
            if rank.state == "gone":
                rank.start_again(now_ns())
                self.group.matrix.remember(record["rank"])
            name, node = f"rank{record['rank']}", rank.spec["node"]
            started = record["started"]
            self.out.say("process", name=name, pid=rank.pid, started=started, node=node)
        elif rank is not None and record["ev"] == "exited":
            self._exited(rank, record["code"])
        elif record["ev"] in ("clock", "trouble") and not self.group.done.is_set():
            facts = {key: record[key] for key in record.keys() - {"ev", "t"}}
            self.out.say(record["ev"], **facts)
        self.group.changed.set()

    def server_over(self, node: str) -> None:
        """A fork server has ended: of all ranks, or of those on one host."""
        left = [rank for rank in self.ranks if rank.alive and node in ("", rank.spec["node"])]
        if self.group.done.is_set() or not left:
            return
        if not node or not all(rank.steady for rank in self.ranks):
            self.group.refusal = self.group.refusal or "the fork server ended by itself"
        for rank in left if node else ():
            self._exited(rank, None)
        self.group.changed.set()

    def _exited(self, rank: Rank, code: int | None) -> None:
        expected = self.group.done.is_set()
        was_ready = rank.steady or self.group.inc > 0
        rank.state = "gone"
        self.group.matrix.forget(rank.spec["rank"])
        index, node = rank.spec["rank"], rank.spec["node"]
        self.out.say("exited", who=index, node=node, pid=rank.pid, code=code, expected=expected)
        if expected:
            return
        if self.config["mode"] == "restart" and index in self.group.killed:
            self.group.killed.discard(index)
            self.forkers.start_again(rank)
        if not was_ready:
            self.group.refusal = (
                self.group.refusal or f"rank{index} on {node} ended at start ({ended(code)})"
            )
        else:
            self.group.symptom(f"rank{index} on {node} ended ({ended(code)})", 0.1)

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
        self.group.changed.set()

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
            self.group.stalled.discard(index)
        elif ev in ("paused", "aborted"):
            rank.state = ev
            rank.last_i = max(rank.last_i, record.get("i", -1))
            rank.owed = 0 if ev == "aborted" else rank.owed
            self.group.returned()
        elif ev == "error":
            rank.state = "failed"
            if not rank.steady and self.group.inc == 0:
                self.group.refusal = f"rank{index} on {rank.spec['node']}: {record['msg']}"
            self.group.symptom(f"rank{index}: {record['msg']}", 0.1)
        elif ev == "stall":
            self.group.stalled.add(index)
            self.group.suspect_named()
        elif ev == "net" and record["kind"] == "hb_lost":
            self.group.matrix.lost(index, record["peer"])
            self.group.suspect_named()
        elif ev == "net" and record["kind"] == "hb_back":
            self.group.matrix.back(index, record["peer"])
            self.group.returned()

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
        self.group.returned()

    def _share(self, record: dict[str, Any]) -> None:
        """Pass on to every rank of the group what one has put into its store."""
        for index in self.group.members:
            fields = {key: record[key] for key in ("inc", "key", "value")}
            self.ranks[index].send("store", **fields)

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
                self.group.fate = "aborted"
                self.group.start(
                    self.group.abort(str(command.get("reason", "asked for")), self.group.members)
                )
            elif what == "regroup":
                self.group.start(self.group.shrink("asked for", 0.0))
            else:
                self.out.say(
                    "refused", msg=f"no command {what!r}; it knows stop, phase, abort, regroup"
                )

    async def stop(self) -> None:
        """End every rank: by the data, else by an abort, else by a kill. Under four seconds."""
        self.group.end()
        for rank in self.ranks:
            rank.send("stop")
        await self._gone(STOP_S)
        for rank in self.ranks:
            rank.send("abort", reason="stop")
        await self._gone(0.7)
        for rank in self.ranks:
            if rank.alive:
                self.group.kill(rank)
        await self._gone(1.0)
        self.forkers.stop()
        self.out.say("end", reason="stop", left=[r.pid for r in self.ranks if r.alive and r.pid])

    async def _gone(self, deadline_s: float) -> None:
        self.group.refusal = ""
        with contextlib.suppress(TimeoutError):
            await self.group.until(
                lambda: not any(r.alive and r.pid for r in self.ranks), deadline_s
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
    watching = asyncio.create_task(watch(job.ranks, out))
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
