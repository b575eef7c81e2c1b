"""Starts the programs of probes on machines: on one, one copy on each, or as they are called."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.driver import Process
from chaos.drivers.spawn import Child
from chaos.drivers.ssh import frrlog
from chaos.drivers.ssh.fleet import Fleet
from chaos.drivers.ssh.places import ssh_of
from chaos.drivers.ssh.reach import Reach
from chaos.drivers.ssh.told import Copies, Told
from chaos.errors import CapabilityError, FabricError, near
from chaos.fabric import Fabric
from chaos.registry import Program

#: How often the clocks of machines with programs are measured again, and by how many round trips.
CLOCK_S, CLOCK_ROUNDS = 5.0, 20


class Programs:
    """The probes' programs on machines.

    Args:
        fabric: The fabric.
        fleet: The machines.
        folder: The instance's folder; logs go to `logs/` in it.
    """

    def __init__(self, fabric: Fabric, fleet: Fleet, folder: Path) -> None:
        self.fabric, self.fleet, self._folder = fabric, fleet, folder
        self._told: list[Told] = []
        self._children: list[_Called] = []
        self._logs: dict[str, tuple[str, str]] = {}
        self._clocks: asyncio.Task[None] | None = None
        self._number = 0

    def bars(self, program: Program) -> str:
        """Why a program cannot be run, and what instead; empty when it can."""
        if program.node:
            return self._barred(program.node, program.name)
        if program.span == "one":
            return (
                f"program {program.name} ({program.module}) enters the namespaces of nodes on this "
                "machine, and these nodes are other machines; leave the probe out, or use "
                "--driver netns"
            )
        named = program.config.get("nodes") or () if program.span == "copies" else ()
        return next(filter(None, (self._barred(node, program.name) for node in named)), "")

    def _barred(self, node: str, name: str) -> str:
        if node in self.fleet.targets:
            return ""
        if node in self.fabric.nodes:
            return f"{node} runs no programs of ours, so {name} cannot run there; name a Linux host"
        return f"fabric {self.fabric.name} has no node {node!r}; {near(node, self.fleet.targets)}"

    async def spawn(self, program: Program) -> Process:
        """Start a program; it has been given its set-up line.

        Raises:
            CapabilityError: it cannot run on these machines; says why and what to do.
            FabricError: it did not start; names the machine.
        """
        if reason := self.bars(program):
            raise CapabilityError(reason)
        if self._clocks is None:
            self._clocks = asyncio.create_task(self._keep_clocks())
        if program.node:
            return await self._single(program)
        return await (self._copies(program) if program.span == "copies" else self._caller(program))

    async def _single(self, program: Program) -> Told:
        told = await self.start(program.node, program.name, program.module)
        await self._set_up(told, {"config": dict(program.config), "namespaces": {program.node: ""}})
        return told

    async def _copies(self, program: Program) -> Copies:
        nodes = list(program.config.get("nodes") or self.fleet.targets)
        started = await all_or_none(
            [
                self.start(node, program.name, program.module, f"{program.name}@{node}")
                for node in nodes
            ]
        )
        copies = dict(zip(nodes, started, strict=True))
        logs = dict(zip(nodes, await asyncio.gather(*map(self._log, nodes)), strict=True))
        for node, told in copies.items():
            path, why = logs[node]
            setup: dict[str, Any] = {"config": {**program.config, "nodes": [node]}}
            setup |= {"namespaces": {node: ""}, "logs": {node: path} if path else {}}
            await self._set_up(told, setup | {"unlogged": {node: why} if why else {}})
        return Copies(copies)

    async def _caller(self, program: Program) -> _Called:
        self._number += 1
        folder = self._folder / f"reach{self._number}"

        async def start(node: str, module: str) -> Told:
            if reason := self._barred(node, module):
                raise CapabilityError(reason)
            return await self.start(node, program.name, module)

        reach = Reach(folder, start)
        path = await reach.open()
        log = self._folder / "logs" / f"{program.name}.log"
        child = await Child.start(program.name, program.module, {}, log)
        called = _Called(child, reach)
        self._children.append(called)
        homes = {node: {"torch": self._torch(node)} for node in self.fleet.targets}
        setup = {"config": dict(program.config), "namespaces": {}, "homes": homes, "reach": path}
        await child.send(json.dumps(setup).encode())
        return called

    async def start(self, node: str, name: str, module: str, log: str = "") -> Told:
        """Start a module on a node.

        Raises:
            FabricError: it did not start; names the machine.
        """
        path = self._folder / "logs" / f"{log or name}.log"
        machine = await self.fleet.machine(node)
        told = Told(node, await machine.spawn(name, module, path))
        self._told.append(told)
        return told

    async def _set_up(self, told: Told, setup: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # its lines end, and say why
            await told.send(json.dumps(setup).encode())

    async def _log(self, node: str) -> tuple[str, str]:
        if self.fabric.node(node).runs != "frr":
            return "", ""
        if not self._logs.get(node, ("", ""))[0]:
            self._logs[node] = await frrlog.find(self.fleet[node].connection)
        return self._logs[node]

    def _torch(self, node: str) -> str:
        """Folder on the machine that holds torch; empty where its interpreter has it itself."""
        return str(ssh_of(self.fabric, node).get("torch", ""))

    async def _keep_clocks(self) -> None:
        """Measure clocks again and again: a program was given its offset once, and clocks drift."""
        while True:
            await asyncio.sleep(CLOCK_S)
            self._told = [told for told in self._told if told.process.code is None]
            nodes = {told.node for told in self._told} & set(self.fleet.ready)
            await asyncio.gather(*(self._clock(node) for node in sorted(nodes)))

    async def _clock(self, node: str) -> None:
        with contextlib.suppress(FabricError):
            clock = await self.fleet[node].measure_clock(CLOCK_ROUNDS)
            for told in self._told:
                if told.node == node:
                    told.clock(clock)

    async def close(self) -> None:
        """Stop every program that still runs; repeatable."""
        if self._clocks is not None:
            self._clocks.cancel()
            await asyncio.gather(self._clocks, return_exceptions=True)
            self._clocks = None
        running = [told for told in self._told if told.process.code is None]
        callers = [child.stop(0.5) for child in self._children if child.code is None]
        await asyncio.gather(*callers, *(told.stop(0.5) for told in running))
        self._told.clear()
        self._children.clear()


class _Called:
    """A program on this machine that has processes on nodes (`chaos.driver.Process`)."""

    def __init__(self, child: Child, reach: Reach) -> None:
        self.pid, self._child, self._reach = child.pid, child, reach
        self.lines, self.send = child.lines, child.send

    @property
    def code(self) -> int | None:
        """Exit status; None while it runs."""
        return self._child.code

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Close its input, wait, kill it after the deadline; its exit status."""
        code = await self._child.stop(deadline_s)
        await self._reach.close()
        return code


async def all_or_none(starting: Sequence[Coroutine[Any, Any, Told]]) -> list[Told]:
    """What was started, side by side; where one fails, the others are stopped again.

    Raises:
        FabricError: the first failure.
    """
    done = await asyncio.gather(*starting, return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    if failed:
        await asyncio.gather(*(one.stop(0.5) for one in done if isinstance(one, Told)))
        raise failed[0]
    return [one for one in done if isinstance(one, Told)]
