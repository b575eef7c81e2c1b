"""The driver `netns`: builds a fabric out of namespaces on this machine, and reaches it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from chaos.change import AtRouter, Change, DeviceGone, NodePower, PauseStorm, Place, Where, WireTo
from chaos.driver import Audit, Capability, Done, process_at, unsupported
from chaos.drivers import audit, ready, state
from chaos.drivers.local import LocalReach, no_device, no_pause, no_router
from chaos.drivers.netns import probing
from chaos.drivers.netns.audit import cabling
from chaos.drivers.netns.build import Build, entry_of
from chaos.drivers.netns.frr import check_log
from chaos.drivers.netns.keeping import Keeper
from chaos.drivers.netns.nodes import Command, environment
from chaos.drivers.netns.plan import End, Plan, make_plan
from chaos.drivers.spawn import Child
from chaos.drivers.state import Running, State
from chaos.errors import CapabilityError, FabricError, SpecError
from chaos.fabric import Fabric, Port
from chaos.natives.able import Here
from chaos.netns import inode
from chaos.packets.engines import At
from chaos.registry import Program

#: Seconds that an injector has for healing after the owner of a fabric was killed.
_LEAVE_AFTER_S = 2.0


class NetnsDriver(LocalReach):
    """One running copy of a fabric on this machine; made by `up` or `attach`.

    Attributes:
        name: `netns`.
        fidelity: Label of every figure measured through it.
        fabric: The fabric.
        plan: Its interfaces in the kernel.
        instance: Name of this copy.
        warnings: What of the topology file has no meaning here, one sentence each.
        processes: Processes that can be aimed at, by `node/process`; observers fill it.
    """

    name: ClassVar[str] = "netns"
    fidelity: ClassVar[str] = "namespace"

    def __init__(self, folder: Path, known: State, plan: Plan) -> None:
        self._folder, self._state, self.plan = folder, known, plan
        self.fabric: Fabric = known.fabric
        self.instance: str = known.instance
        self.warnings: list[str] = []
        self.processes: dict[str, Where] = {}
        self._children: list[Child] = []
        self._keeper: Keeper | None = None

    @staticmethod
    def probe() -> tuple[Capability, ...]:
        """What this machine can do, each with reason and cure; tried, not guessed."""
        return probing.probe()

    @staticmethod
    def running() -> tuple[Running, ...]:
        """Every instance on this machine; those that a dead owner left are removed first."""
        NetnsDriver.reap()
        return state.running()

    @staticmethod
    def reap() -> tuple[str, ...]:
        """Remove what dead owners left; names of the instances removed."""
        return state.reap() if os.geteuid() == 0 else ()

    @classmethod
    async def up(
        cls,
        fabric: Fabric,
        *,
        instance: str | None = None,
        progress: Callable[[str], None] | None = None,
        linger: bool = False,
    ) -> NetnsDriver:
        """Build a fabric; interrupted or failed, it leaves nothing.

        Args:
            fabric: What to build.
            instance: Name of this copy; by default the lab's, with -2, -3, … while that is taken.
            progress: Told the name of each step.
            linger: It outlives this process, until `down`. Otherwise it ends with this process.

        Raises:
            SpecError: the fabric cannot be built as written.
            CapabilityError: this machine lacks something; says what to do.
            FabricError: something failed on the way; names node and line.
        """
        _need_root()
        plan = make_plan(fabric)
        keeper = Keeper(state.state_root())  # first: it removes the rest when we are killed
        folder: Path | None = None
        try:
            folder, known = state.claim(fabric, instance, keeper.life, keeper.token)
            build = Build(folder, known, plan, keeper, progress or (lambda _step: None))
            try:
                await build.run()
            except BaseExceptionGroup as group:  # several nodes failed at once: the first will do
                raise _first(group) from None
            built = dataclasses.replace(build.state, ready=True, linger=linger)
            built.save(folder)
            keeper.order("stay", leave_after_s=None if linger else _LEAVE_AFTER_S)
            if linger:
                keeper.release()
        except BaseException:
            state.remove(folder, keeper.life)
            keeper.release()
            keeper.collect()
            raise
        driver = cls(folder, built, plan)
        driver._keeper = keeper
        driver.warnings = build.warnings
        return driver

    @classmethod
    async def attach(cls, instance: str) -> NetnsDriver:
        """Reach an instance that is up already.

        Raises:
            FabricError: there is none of that name, or it is not whole.
        """
        _need_root()
        cls.reap()
        folder, known = state.load_state(instance)
        if not known.ready:
            raise FabricError(f"fabric {instance!r} is still coming up; try again in a moment")
        return cls(folder, known, make_plan(known.fabric))

    @classmethod
    async def adopt(
        cls,
        target: str,
        *,
        instance: str | None = None,
        links: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
    ) -> NetnsDriver:
        """Refused: an embedded fabric is always our own.

        Raises:
            CapabilityError: always.
        """
        raise unsupported(cls.name, "attach to what it did not make", "railbreak up FABRIC")

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made here, and what instead; empty when it can."""
        if isinstance(change, NodePower):
            return (
                f"driver {cls.name} cannot {change.state} {change.place.node} as a whole: its "
                "nodes are namespaces that nothing runs; node_down cuts it off, rank_kill and "
                "rank_stop end or stop its ranks"
            )
        if isinstance(change, AtRouter):
            return no_router(fabric, change.place.node)
        if isinstance(change, DeviceGone):
            return no_device(change)
        if isinstance(change, PauseStorm):
            return no_pause(change)
        return ""

    @classmethod
    def engines(cls) -> Mapping[str, str] | None:
        """Both inner ends of every cable are reached."""
        return At(True, Here())

    def locate(self, change: Change) -> Where:
        """Where a change acts now; a router's command line is entered from outside."""
        where = super().locate(change)
        if isinstance(change, WireTo):
            node, _, port = change.to.partition(":")
            return dataclasses.replace(where, across=self.plan.end(Port(node, port)).wire_name)
        if not isinstance(change, AtRouter):
            return where
        spaces = entry_of(self._state, change.place.node).paths
        words = {"net": "net", "mnt": "mount", "uts": "uts", "pid": "pid"}
        entered = (f"--{word}={spaces[kind]}" for kind, word in words.items())
        enter = ("nsenter", *entered, "--")
        return dataclasses.replace(where, enter=enter)

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journals."""
        return self._folder

    @property
    def wire(self) -> str:
        """Path of the hidden namespace that all links run through."""
        return str(self._folder / "ns" / ".wire")

    def logs(self, node: str) -> Path:
        """Log of a router's daemons: UTC with microseconds, BGP and BFD session changes in it."""
        self.fabric.node(node)
        return self._folder / "nodes" / node / "frr.log"

    def namespaces(self) -> Mapping[str, str]:
        """Path of the network namespace per node."""
        return {name: str(self._folder / "ns" / name) for name in self.fabric.nodes}

    def ends_of(self, node: str) -> Sequence[End]:
        """Ends of links at `node`, in the order of the links."""
        return self.plan.ends_of(node)

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            SpecError: the fabric has no such port, or no such process was announced.
        """
        self.fabric.node(place.node)
        if place.process:
            return process_at(place, self.processes)
        if not place.port:
            path = self.namespaces()[place.node]
            return Where(path, inode(path))
        end = self.plan.end(Port(place.node, place.port))
        if place.side == "wire":
            across = self.plan.across(end)
            name, index = end.wire_name, end.wire_ifindex
            return Where(self.wire, inode(self.wire), name, index, across=across)
        path = self.namespaces()[place.node]
        return Where(path, inode(path), end.port.name, end.ifindex)

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Return when the kernel forwards between all hosts by all shortest paths, BFD up.

        Raises:
            FabricError: not in time; names node and what it lacks.
        """
        await ready.wait(self, deadline_s)

    async def audit(self) -> Audit:
        """Compare FRR's routes with the kernel's, and the cabling with the file."""
        return await audit.compare(self, cabling(self, self.wire))

    async def daemons(self, node: str) -> Collection[str]:
        """Names of FRR's daemons that run in a router."""
        sockets = self._folder / "nodes" / node / "run" / "frr"
        return [path.stem for path in sockets.glob("*.vty")]

    def check(self, node: str) -> None:
        """Raise `FabricError` where FRR refused a line of its configuration."""
        check_log(node, self._folder / "nodes" / node)

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node, never through a shell.

        Raises:
            SpecError: no such node.
            FabricError: it cannot be started, or was killed at the deadline.
        """
        env = environment(self.fabric.node(node), self.fabric)
        if not argv:
            raise SpecError(f"{node}: no command to run")
        if not self._state.keeper.alive:
            raise FabricError(f"fabric {self.instance!r} is down")
        return await Command(entry_of(self._state, node), argv, env, stdin).run(deadline_s)

    async def spawn(self, program: Program) -> Child:
        """Start a program, in its node's network if it names one; killed with this process.

        Its first input line is `{"config": …, "namespaces": {node: path}, "logs": {router: path}}`;
        its standard error goes to `logs/NAME.log`.
        """
        if program.node:
            self.fabric.node(program.node)
        home = {"net": self.namespaces()[program.node]} if program.node else {}
        logs = {
            node.name: str(self.logs(node.name))
            for node in self.fabric.nodes.values()
            if node.runs == "frr"
        }
        return await self._start(program, home, {"logs": logs})

    async def down(self) -> None:
        """End every process of this instance, its namespaces with them; repeatable."""
        await self._stop_programs()
        gone = asyncio.to_thread(state.remove, self._folder, self._state.keeper)
        await asyncio.shield(gone)
        if self._keeper is not None:
            self._keeper.release()
            self._keeper.collect()
            self._keeper = None


def _need_root() -> None:
    if os.geteuid() != 0:
        raise CapabilityError(
            f"namespaces, links and routers can only be made by root here; {probing.ROOT_CURE}"
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
