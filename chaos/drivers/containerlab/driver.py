"""The driver `containerlab`: deploys a lab with the real program, or attaches to one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from chaos import recover
from chaos.driver import Audit, Capability
from chaos.drivers import audit, ready, state
from chaos.drivers.containerlab import cabling, deploy, frrlog, guard, probing
from chaos.drivers.containerlab.adopting import Found, look_up
from chaos.drivers.containerlab.binary import Binary
from chaos.drivers.containerlab.calls import to_the_end
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.reach import LabReach
from chaos.drivers.containerlab.runtime import Runtime
from chaos.drivers.home import home_of
from chaos.drivers.spawn import Child
from chaos.drivers.state import State
from chaos.errors import CapabilityError, FabricError, LeftoverError
from chaos.fabric import Fabric
from chaos.registry import Program
from chaos.snapshot import Snapshot
from chaos.topology import load_lab


class ContainerlabDriver(LabReach):
    """One lab of real containers; made by `up`, `adopt` or `attach`.

    Attributes:
        name: `containerlab`.
        fidelity: Label of every figure measured through it.
        fabric: The fabric; `Link.kind` says how each link was really made.
        instance: Name of this instance.
        warnings: What was deployed otherwise than the file says, one sentence each.
        processes: Processes that can be aimed at, by `node/process`; observers fill it.
    """

    name: ClassVar[str] = "containerlab"
    fidelity: ClassVar[str] = "container"

    def __init__(self, folder: Path, known: State, runtime: Runtime | None = None) -> None:
        super().__init__(folder, known, runtime)
        self.instance: str = known.instance
        self.warnings: list[str] = []
        self._children: list[Child] = []

    # ------------------------------------------------------------------ before there is a lab

    @staticmethod
    def probe() -> tuple[Capability, ...]:
        """What this machine can do through it, each with reason and cure."""
        return probing.probe()

    @staticmethod
    def reap() -> tuple[str, ...]:
        """Nothing: a dead owner's lab is told as stale; `down` removes it and its guard."""
        return ()

    @classmethod
    async def up(
        cls,
        fabric: Fabric,
        *,
        instance: str | None = None,
        progress: Callable[[str], None] | None = None,
        linger: bool = False,
    ) -> ContainerlabDriver:
        """Deploy a fabric's topology file; interrupted or failed, it leaves nothing.

        Args:
            fabric: Of a topology file (`Fabric.source`).
            instance: Name of this copy, and of its lab; by default the lab's.
            progress: Told the name of each step.
            linger: It outlives this process, until `down`.

        Raises:
            SpecError: the file cannot be deployed as written.
            CapabilityError: this machine lacks something; says what to do.
            FabricError: a lab of that name runs, or this one did not come up as the file says.
        """
        _need_root()
        runtime = Runtime.find()
        runtime.boxes("railbreak-asks-whether-it-answers")
        binary = await asyncio.to_thread(Binary.find, runtime.program)
        if why := guard.possible():
            raise CapabilityError(f"no guard can be set before the lab: {why}")
        lab = load_lab(fabric.source)
        deploy.refuse_shared(lab)
        folder, known = _claimed(fabric, instance, cls.name)
        made = deploy.Deployment(lab, folder, known, runtime, binary, progress or (lambda _: None))
        try:
            await made.run()
            built = dataclasses.replace(made.state, ready=True, linger=linger)
            built.save(folder)
        except BaseException as error:
            await to_the_end(cls(folder, made.state, runtime)._clear())
            if isinstance(error, OSError):
                raise FabricError(f"{error.filename or folder}: {error.strerror}") from None
            raise
        driver = cls(folder, built, runtime)
        driver.warnings = made.warnings
        return driver

    @classmethod
    async def attach(cls, instance: str) -> ContainerlabDriver:
        """Reach an instance that is known here; also one that a dead process left half made.

        Raises:
            FabricError: there is none of that name, or it is still coming up.
        """
        _need_root()
        folder, known = state.load_state(instance)
        if not known.ready and known.owner.alive:
            raise FabricError(f"lab {instance!r} is still coming up; try again in a moment")
        return cls(folder, known)

    @classmethod
    async def adopt(
        cls,
        target: str,
        *,
        instance: str | None = None,
        links: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
    ) -> ContainerlabDriver:
        """Make a running lab known; nothing of it changes. The guard is set on this machine.

        Args:
            target: Its name, its topology file, or its `topology-data.json`.
            instance: Name for it; by default the lab's.
            links: Its topology file, where it is not where it was deployed from.
            progress: Told the name of each step.

        Raises:
            FabricError: no such lab runs, or it is not whole.
        """
        _need_root()
        runtime = Runtime.find()
        found = await asyncio.to_thread(look_up, runtime, target, tuple(links))
        if progress is not None:
            progress(f"lab {found.lab}, deployed from {found.file}")
        for one in state.running():
            known_as = state.read_state(one.folder)
            if known_as is not None and known_as.details.get("lab") == found.lab:
                raise FabricError(f"lab {found.lab} is known already, as instance {one.instance}")
        folder, known = _claimed(found.fabric, instance, cls.name)
        try:
            known, warnings = cls._adopted(found, folder, known, runtime)
        except BaseException:
            guard.take_down(known.instance)
            state.remove(folder, state.Life())
            raise
        driver = cls(folder, known, runtime)
        driver.warnings = warnings
        return driver

    @staticmethod
    def _adopted(
        found: Found, folder: Path, known: State, runtime: Runtime
    ) -> tuple[State, list[str]]:
        details = {"lab": found.lab, "file": found.file, "runtime": runtime.program}
        known = dataclasses.replace(known, owned=False, linger=True, details=details)
        known.save(folder)
        nodes = Nodes(runtime, found.lab, deploy.containers_of(found.fabric))
        if wrong := nodes.not_running():
            raise FabricError(f"lab {found.lab} is not whole: {'; '.join(wrong[:4])}")
        deploy.fence_in(known.instance, runtime, nodes.now().values())
        seen = cabling.read(found.fabric, nodes.namespaces(), found.lab)
        cabling.refuse(seen.findings, found.lab)
        fabric = cabling.with_kinds(found.fabric, seen)
        known = dataclasses.replace(known, fabric=fabric, ready=True)
        known.save(folder)
        return known, [*seen.warnings, *deploy.ways_out(fabric, nodes.namespaces())]

    # ------------------------------------------------------------------ looking

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journals."""
        return self._folder

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Return when the kernel forwards between all hosts by all shortest paths, BFD up.

        Raises:
            FabricError: not in time; names node and what it lacks.
        """
        give_up = time.monotonic() + deadline_s
        await ready.wait(self, deadline_s)
        boxes = self._nodes.now()
        routers = [boxes[n] for n, node in self.fabric.nodes.items() if node.runs == "frr"]
        if self._state.owned and any(frrlog.log_of(box) != frrlog.ours(box) for box in routers):
            for box in routers:  # one after the other: a burst of commands costs BFD its timers
                said = await asyncio.to_thread(frrlog.switch_on, self._runtime, box)
                self.warnings += [said] if said else []
            await ready.wait(self, max(5.0, give_up - time.monotonic()))

    async def audit(self) -> Audit:
        """Compare FRR's routes with the kernel's, and the cabling with the file."""
        return await audit.compare(self, await asyncio.to_thread(self._wrong))

    def _wrong(self) -> list[str]:
        sentences = self._nodes.not_running()
        return sentences or self._lost()

    async def snapshot(self) -> Snapshot:
        """The state that faults may touch, per node.

        Raises:
            FabricError: a container was restarted, and its links are gone.
        """
        if lost := await asyncio.to_thread(self._lost):
            raise FabricError("; ".join(lost))
        return await super().snapshot()

    def held_back(self) -> int | None:
        """Packets of the lab that the guard kept on this machine; None where there is none."""
        return guard.dropped(self.instance)

    # ------------------------------------------------------------------ running things

    async def spawn(self, program: Program) -> Child:
        """Start a program, in its node's container if it names one; killed with this process.

        It is the machine's own Python in the container's network, process ids, IPC, host name and
        control groups, so any image will do. Its first line is as the embedded driver's, with
        `homes` beside it: what a process joins to live in a node.
        """
        if program.node:
            self.fabric.node(program.node)
        homes = {n: home_of(box.pid) for n, box in self._nodes.now().items() if box.runs}
        home = home_of(self._nodes.box(program.node).pid) if program.node else {}
        return await self._start(program, home, {"homes": homes, "logs": self.logs()})

    # ------------------------------------------------------------------ the end

    async def down(self) -> None:
        """Destroy the lab if it is ours, else let go of it as it is; repeatable.

        Raises:
            LeftoverError: a fault is in force in a lab that is not ours and cannot be taken back.
            FabricError: something of it is left; says what.
        """
        await self._stop_programs()
        if not self._folder.exists():
            return
        undone = await asyncio.to_thread(recover.undo, sorted(self._folder.glob("journal*.jsonl")))
        left = [one for one in undone if one.leftover]
        if left and not self._state.owned:
            cures = "\n".join(f"  {one.cure}" for one in left)
            raise LeftoverError(
                f"lab {self.lab} is not let go of: faults are in force in it; cure:\n{cures}"
            )
        await to_the_end(self._clear())

    async def _clear(self) -> None:
        if self._state.owned:
            going = dataclasses.replace(self._state, ready=False, linger=False)
            with contextlib.suppress(OSError):  # a full disk must not keep it up
                going.save(self._folder)
            await deploy.remove(self._folder, self._state, self._runtime)
        else:
            await asyncio.to_thread(guard.take_down, self.instance)
        state.remove(self._folder, state.Life())


def _need_root() -> None:
    if os.geteuid() != 0:
        raise CapabilityError(
            "a lab's namespaces can only be entered by root here; run it as root: sudo railbreak …"
        )


def _claimed(fabric: Fabric, instance: str | None, driver: str) -> tuple[Path, State]:
    try:
        return state.claim(fabric, instance, driver=driver)
    except OSError as error:
        raise FabricError(f"{state.state_root()}: {error.strerror}") from None
