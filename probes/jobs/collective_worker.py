"""One rank of the collective job. It, its buffers and its store are the only code that needs torch.

States: waiting for a group -> iterating -> (stopped | paused | aborted | failed) -> waiting. The
coordinator decides; this process never ends by itself except when the coordinator is gone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import signal
import socket
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d
from torch._C._distributed_c10d import FileStore, PrefixStore, Store

from chaos.timeline import now_ns
from probes.jobs import collective_sockets as sockets
from probes.jobs.collective_buffers import Buffers
from probes.jobs.collective_calm import Baseline
from probes.jobs.collective_channel import Recorder, listen
from probes.jobs.collective_errors import kind_of
from probes.jobs.collective_heartbeat import Mesh
from probes.jobs.collective_loop import Loop
from probes.jobs.collective_sampler import Progress, Sampler
from probes.jobs.collective_store import ChannelStore, Shelves
from probes.jobs.collective_values import Layout


class Worker:
    """One rank: its loop, and the commands that steer it.

    Args:
        spec: What the coordinator said of this rank: rank, node, op, bytes, backend and so on.
        channel: Stream socket to the coordinator.
    """

    def __init__(self, spec: dict[str, Any], channel: socket.socket) -> None:
        self.spec, self.rank = spec, int(spec["rank"])
        self.recorder = Recorder(channel, {"rank": self.rank, "inc": 0})
        self.say = self.recorder.say
        self.baseline = Baseline(silence_floor_ms=8 * spec["heartbeat_ms"])
        self.progress = Progress()
        self.sampler = Sampler(self.recorder, self.baseline, self.progress)
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.cuda = spec["backend"] == "nccl"
        self.address = sockets.address_of(spec["interface"])
        self.mesh = Mesh(
            self.rank,
            self.address,
            period_ms=spec["heartbeat_ms"],
            sources=spec["heartbeat_sources"],
            limit_ms=lambda: self.baseline.alarms().get("silence_ms", 1000.0),
            tell=self._tell_heartbeat,
        )
        self.shelves = Shelves()
        self.store: Store | None = None
        self.loop = Loop(spec, self.recorder, self.baseline, self.progress, self._settled)
        self.cut: tuple[sockets.Connection, ...] = ()
        self.aborting = False
        signal.signal(signal.SIGUSR1, self._mislead)
        listen(channel, self._command)

    # ------------------------------------------------------------------ commands (their own thread)

    def _command(self, command: dict[str, Any]) -> None:
        what = command["cmd"]
        if what == "gone":
            os._exit(0)
        elif what in ("stop", "pause"):
            self.loop.flag = True
            self.inbox.put(command)
        elif what == "phase":
            self.loop.enter(command["name"])
        elif what == "abort":
            self._abort(command)
        elif what == "store":
            self.shelves.take_in(command)
        elif what == "peer":
            self.mesh.meet(int(command["peer"]), (command["addr"], int(command["port"])))
        elif what == "limits":
            self.baseline.limits = command["limits"]
        else:
            self.inbox.put(command)

    def _abort(self, command: dict[str, Any]) -> None:
        """Cut the group's connections; the loop then says whether the operation returned."""
        self.aborting = True
        started = now_ns()
        self.say("aborting", by=command.get("by", "coordinator"), reason=command.get("reason", ""))
        cut = 0
        if self.cuda and self.loop.running:
            with contextlib.suppress(Exception):
                c10d._abort_process_group()
        else:
            cut = sockets.sever(self.cut)
        self.inbox.put({"cmd": "aborted", "started": started, "cut": cut})

    def _mislead(self, number: int, frame: object) -> None:
        """A fault asks for one wrong value in what this rank contributes next."""
        self.loop.misled = True

    def _tell_heartbeat(
        self, kind: str, peer: int, source: int, silence_ms: float, missed: int
    ) -> None:
        limit = self.baseline.alarms().get("silence_ms", 1000.0)
        found = {"peer": peer, "source": source, "silence_ms": silence_ms, "thr_ms": limit}
        self.say("net", kind=kind, **found, missed=missed)

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until told to stop; never returns."""
        self._hello()
        self.sampler.start()
        self.sampler.longest_silence = self.mesh.longest_ms
        while True:
            command = self.inbox.get()
            if command["cmd"] == "stop":
                break
            if command["cmd"] == "peers":
                peers = {int(r): (a, p) for r, (a, p) in command["peers"].items()}
                self.ranks = _unique({r: a for r, (a, _) in peers.items()})
                self.mesh.start({r: p for r, p in peers.items() if r != self.rank})
            elif command["cmd"] == "group":
                self._group(command)
            elif command["cmd"] == "aborted":
                self._aborted(command)
        self.say(
            "end",
            reason="stop",
            iters=self.loop.counted,
            bad=self.loop.wrong,
            lost=self.recorder.lost,
        )
        self.sampler.flush(now_ns())
        for _ in range(100):
            if self.recorder.flush():
                break
        os._exit(0)

    def _hello(self) -> None:
        self.say(
            "hello",
            pid=os.getpid(),
            node=self.spec["node"],
            addr=self.address,
            hb_port=self.mesh.port,
            netns=os.stat("/proc/thread-self/ns/net").st_ino,
            python=platform.python_version(),
            torch=str(torch.__version__),
            backend=self.spec["backend"],
            ifname=self.spec["interface"],
        )

    def _group(self, command: dict[str, Any]) -> None:
        """Join a group and iterate until it ends, for whatever reason."""
        members = [int(rank) for rank in command["members"]]
        self.loop.flag = self.aborting = False
        self.recorder.common["inc"] = command["inc"]
        started = now_ns()
        try:
            buffers = self._join(command, members)
        except (RuntimeError, ValueError) as error:
            self._failed(error, -1, "init")
            return
        took = (now_ns() - started) / 1e9
        self.say("group", world=len(members), members=members, took_s=took)
        try:
            self.loop.run(buffers, int(command["first"]), int(command["inc"]) == 0)
        except RuntimeError as error:
            self._failed(error, self.progress.i, "op")
        finally:
            self.progress.began_ns = self.progress.done_ns = 0
            self.sampler.flush(now_ns())

    def _join(self, command: dict[str, Any], members: list[int]) -> Buffers:
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()
        before = {c.inode for c in sockets.connections()}
        self.store = self._shared(command)
        store = PrefixStore(f"inc{command['inc']}", self.store)
        place, world = members.index(self.rank), len(members)
        dist.init_process_group(
            self.spec["backend"],
            store=store,
            rank=place,
            world_size=world,
            timeout=timedelta(seconds=self.spec["timeout_s"]),
        )
        layout = Layout(self.spec["op"], world, max(1, int(self.spec["bytes"]) // 4))
        buffers = Buffers(layout, place, "cuda" if self.cuda else "cpu")
        self.sampler.common = {
            "op": layout.op, "bytes": layout.bytes, "world": world, "node": self.spec["node"],
        }  # fmt: skip
        self._before = before
        self._find_connections()
        return buffers

    def _shared(self, command: dict[str, Any]) -> Store:
        """The store of a new group: a file in memory, or one that the coordinator passes on.

        It is kept by us: the library holds it, but not what Python knows of it.
        """
        if command["store"]:
            return FileStore(command["store"], -1)
        timeout = timedelta(seconds=self.spec["timeout_s"])
        return ChannelStore(self.shelves, command["inc"], self.say, timeout)

    def _find_connections(self) -> None:
        """The group's own connections: those that were not there before it."""
        self.cut = tuple(c for c in sockets.connections() if c.inode not in self._before)
        self.sampler.watch(self.cut, self.ranks)

    def _settled(self) -> None:
        """The group runs: whatever connections it makes are there."""
        self._find_connections()
        self.say("sock", socks=sockets.describe(self.cut, self.ranks))

    # ------------------------------------------------------------------ endings

    def _failed(self, error: Exception, i: int, where: str) -> None:
        if self.aborting:
            return
        began = self.progress.began_ns
        message = str(error)[:1024]
        kind = kind_of(message)
        self.say(
            "error",
            i=i,
            cls="init" if where == "init" else kind,
            type=type(error).__name__,
            msg=message,
            in_op_ms=(now_ns() - began) / 1e6 if began else None,
        )

    def _aborted(self, command: dict[str, Any]) -> None:
        """Reached only when the loop returned, so the abort was effective."""
        took = (now_ns() - command["started"]) / 1e6
        method = "process group abort" if self.cuda else "socket shutdown"
        self.say("aborted", method=method, cut=command["cut"], took_ms=took, effective=True)
        self.aborting = False
        if dist.is_initialized():
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()
        self.sampler.watch((), {})
        self.cut = ()


def _unique(addresses: dict[int, str]) -> dict[str, int]:
    """Rank behind an address, for addresses that only one rank has."""
    every = list(addresses.values())
    return {address: rank for rank, address in addresses.items() if every.count(address) == 1}


def main(spec: dict[str, Any], channel: socket.socket) -> None:
    """Run one rank in this process, which already is in its namespace; never returns."""
    torch.set_num_threads(1)
    variable = "NCCL_SOCKET_IFNAME" if spec["backend"] == "nccl" else "GLOO_SOCKET_IFNAME"
    os.environ[variable] = spec["interface"]
    if spec["backend"] == "nccl":
        torch.cuda.set_device(int(spec["local_rank"]))
    try:
        Worker(spec, channel).run()
    except OSError as error:
        sys.stderr.write(f"rank{spec['rank']} on {spec['node']}: {error}\n")
        os._exit(1)
