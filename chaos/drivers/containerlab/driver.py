"""The driver `containerlab`: deploys a lab with the real program, or attaches to one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import chaos
from chaos import recover
from chaos.change import BgpNeighbour, Change, LinkState, NodePower, PacketDrop, Place, Where
from chaos.driver import Audit, Capability, Done
from chaos.drivers import audit, ready, state
from chaos.drivers.containerlab import cabling, deploy, frrlog, guard, probing
from chaos.drivers.containerlab.adopting import Found, look_up
from chaos.drivers.containerlab.binary import Binary
from chaos.drivers.containerlab.cabling import Cabling, End
from chaos.drivers.containerlab.calls import to_the_end
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.runtime import Runtime
from chaos.drivers.home import home_of
from chaos.drivers.local import LocalReach, no_router
from chaos.drivers.spawn import Child
from chaos.drivers.state import State
from chaos.errors import CapabilityError, FabricError, LeftoverError, SpecError, near
from chaos.fabric import Fabric, Port
from chaos.netns import inode
from chaos.registry import Program
from chaos.snapshot import Snapshot
from chaos.topology import load_lab

_SOURCE = str(Path(chaos.__file__).resolve().parents[1])
_KILLS = (1, 42)  # the daemon's interface from which a stop is a kill, and not a request


class ContainerlabDriver(LocalReach):
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
        self._folder, self._state = folder, known
        self.fabric: Fabric = known.fabric
        self.instance: str = known.instance
        self.lab: str = str(known.details.get("lab") or known.instance)
        self.warnings: list[str] = []
        self.processes: dict[str, Where] = {}
        self._children: list[Child] = []
        self._runtime = runtime or Runtime(str(known.details.get("runtime") or "docker"))
        self._nodes = Nodes(self._runtime, self.lab, deploy.containers_of(known.fabric))
        self._cabling: Cabling | None = None
        self._read_of: dict[str, tuple[int, str]] = {}
        self._daemons: dict[tuple[str, int], tuple[str, ...]] = {}

    # ------------------------------------------------------------------ before there is a lab

    @staticmethod
    def probe() -> tuple[Capability, ...]:
        """What this machine can do through it, each with reason and cure."""
        return probing.probe()

    @staticmethod
    def reap() -> tuple[str, ...]:
        """Destroy what dead owners deployed, and remove guards that nobody owns; the instances."""
        if os.geteuid() != 0:
            return ()
        mine = [one for one in state.running() if one.driver == ContainerlabDriver.name]
        gone = [one.instance for one in mine if one.stale]
        for instance in gone:
            _in_a_thread(instance)
        if not guard.possible():
            guard.orphans(one.instance for one in mine)
        return tuple(gone)

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

    # ------------------------------------------------------------------ what it cannot do

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made here, and what instead; empty when it can."""
        place = change.place
        if isinstance(change, BgpNeighbour):
            return no_router(fabric, place.node)
        if isinstance(change, NodePower):
            if place.node in deploy.containers_of(fabric):
                return ""
            return f"{place.node} is no container, so nothing can {change.state} it"
        if place.side != "wire":
            return ""
        link = fabric.link_at(Port(place.node, place.port))
        far = link.other(Port(place.node, place.port))
        plain = link.kind == cabling.PLAIN or _stays_plain(link.nodes, fabric)
        if isinstance(change, LinkState) and plain:
            return (
                f"link {link.id} is a plain veth pair, which cannot lose its carrier while both "
                "ends stay up; use mode: admin with end: both, or deploy the lab with railbreak up "
                "(Containerlab 0.78 or newer), which stitches its links"
            )
        if isinstance(change, PacketDrop) and far.node not in deploy.containers_of(fabric):
            return (
                f"what {place.node} sends over {link.id} arrives at {far.node or 'nobody'}, which "
                "is no container, so it cannot be dropped there; name the other end"
            )
        return ""

    # ------------------------------------------------------------------ where things are

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journals."""
        return self._folder

    def namespaces(self) -> Mapping[str, str]:
        """Path of the network namespace per container, asked for anew when one has ended."""
        return self._nodes.namespaces()

    def cables(self) -> Cabling:
        """How the lab is cabled now; read again when a container runs anew.

        Raises:
            FabricError: a node does not run.
        """
        boxes = self._nodes.now()
        seen = {node: (box.pid, box.began) for node, box in boxes.items() if box.pid}
        if self._cabling is None or seen != self._read_of:
            paths = {node: path for node, path in self.namespaces().items() if node in seen}
            self._cabling, self._read_of = cabling.read(self.fabric, paths, self.lab), seen
        return self._cabling

    def ends_of(self, node: str) -> Sequence[End]:
        """Ends of links at `node`, in the order of the links."""
        return self.cables().ends_of(self.fabric, node)

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            SpecError: the fabric has no such port, or no such process was announced.
            FabricError: its container does not run, or has lost its links.
        """
        self.fabric.node(place.node)
        if place.process:
            for key in (str(place), place.process):
                if key in self.processes:
                    return self.processes[key]
            raise SpecError(
                f"no process {place.process!r} on {place.node}; " + near(str(place), self.processes)
            )
        path = f"/proc/{self._nodes.box(place.node).pid}/ns/net"
        if not place.port:
            return Where(path, inode(path))
        port = Port(place.node, place.port)
        self.fabric.link_at(port)
        if port not in self.cables().ends:
            raise FabricError("; ".join(self._lost()) or f"{port} is not there")
        end = self.cables().end(port)
        if place.side == "wire":
            return Where(cabling.HERE, inode(cabling.HERE), end.outer_name, end.outer)
        return Where(path, inode(path), port.name, end.ifindex)

    def locate(self, change: Change) -> Where:
        """Where a change acts now.

        What a port sends is dropped where it arrives: at the ingress of the other end. A node as a
        whole is reached by commands of Containerlab and of the runtime.
        """
        if reason := self.refusal(change, self.fabric):
            raise CapabilityError(reason)
        place = change.place
        if isinstance(change, PacketDrop) and place.side == "wire":
            port = Port(place.node, place.port)
            return self.resolve(Place.at(self.fabric.link_at(port).other(port)))
        if isinstance(change, BgpNeighbour):
            box = self._nodes.box(place.node)
            enter = (self._runtime.program, "exec", "-i", box.name)
            return dataclasses.replace(self.resolve(place), enter=enter)
        if isinstance(change, NodePower):
            return Where(power=self._power(place.node))
        return self.resolve(place)

    def _power(self, node: str) -> dict[str, tuple[str, ...]]:
        name, program = self._nodes.box(node).name, self._runtime.program
        quiet = ("env", "CLAB_VERSION_CHECK=disable")
        short = () if deploy.api_of(self._runtime) >= _KILLS else ("--timeout", "2s")
        binary = Binary((0, 0), frozenset(), program)
        words = ("--name", self.lab, "-n", node)
        module = ("-m", "chaos.drivers.containerlab.power")
        start = ("env", f"PYTHONPATH={_SOURCE}", sys.executable, *module, str(self._folder), node)
        return {
            "stop": (*quiet, *binary.argv("stop", *words, *short)),
            "unstop": start,
            "pause": (program, "pause", name),
            "unpause": (program, "unpause", name),
            "look": (program, "inspect", "--format", "{{.State.Status}}", name),
        }

    def _lost(self) -> list[str]:
        """One sentence per container whose links are gone, or per link that is."""
        findings = self.cables().findings
        if not findings:
            return []
        boxes, told = self._nodes.now(), []
        for node in deploy.containers_of(self.fabric):
            ports = [p for p in self.fabric.walk() if p.node == node]
            gone = [port.name for port in ports if port not in self.cables().ends]
            if gone and len(gone) == len(ports) and node in boxes:
                told.append(
                    f"container {boxes[node].name} was restarted (it runs since "
                    f"{boxes[node].began[:19]}), which takes its links away: {', '.join(gone)} "
                    f"are gone; containerlab deploy --reconfigure makes lab {self.lab} anew"
                )
        return told or [f"lab {self.lab}: {sentence}" for sentence in findings[:4]]

    # ------------------------------------------------------------------ looking

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

    def logs(self) -> dict[str, str]:
        """Path of the log of FRR's daemons per router, as far as one is kept in a file."""
        boxes = self._nodes.now()
        found = {
            name: frrlog.log_of(boxes[name])
            for name, node in self.fabric.nodes.items()
            if node.runs == "frr" and name in boxes
        }
        return {name: path for name, path in found.items() if path}

    async def audit(self) -> Audit:
        """Compare FRR's routes with the kernel's, and the cabling with the file."""
        return await audit.compare(self, await asyncio.to_thread(self._wrong))

    def _wrong(self) -> list[str]:
        sentences = self._nodes.not_running()
        return sentences or self._lost()

    async def daemons(self, node: str) -> Collection[str]:
        """Names of FRR's daemons that run in a router."""
        key = (node, self._nodes.box(node).pid)
        if not self._daemons.get(key):
            done = await self.exec(node, ("ls", "/var/run/frr"))
            names = done.stdout.decode(errors="replace").split()
            found = tuple(name.removesuffix(".vty") for name in names if name.endswith(".vty"))
            self._daemons[key] = found
        return self._daemons[key]

    def check(self, node: str) -> None:
        """A container's FRR keeps what it refused to itself."""

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

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node's container, never through a shell.

        Raises:
            SpecError: no such node.
            FabricError: it cannot be started, or was killed at the deadline.
        """
        self.fabric.node(node)
        if not argv:
            raise SpecError(f"{node}: no command to run")
        return await self._nodes.exec(node, argv, stdin, deadline_s)

    async def vtysh(self, node: str, *commands: str) -> list[Any]:
        """What FRR in a node answers to `show … json` commands, up to the first that it refuses."""
        words = [word for command in commands for word in ("-c", command)]
        done = await self.exec(node, ("vtysh", *words))
        rest, answers = done.stdout.decode(errors="replace").lstrip(), []
        while rest.startswith(("{", "[")):
            answer, end = json.JSONDecoder().raw_decode(rest)
            answers.append(answer)
            rest = rest[end:].lstrip()
        return answers

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
        log = self._folder / "logs" / f"{program.name}.log"
        child = await Child.start(program.name, program.module, home, log)
        self._children.append(child)
        first = {
            "config": dict(program.config),
            "namespaces": dict(self.namespaces()),
            "homes": homes,
            "logs": self.logs(),
        }
        await child.send(json.dumps(first).encode())
        return child

    # ------------------------------------------------------------------ the end

    async def down(self) -> None:
        """Destroy the lab if it is ours, else let go of it as it is; repeatable.

        Raises:
            LeftoverError: a fault is in force in a lab that is not ours and cannot be taken back.
            FabricError: something of it is left; says what.
        """
        running = [child for child in self._children if child.code is None]
        await asyncio.gather(*(child.stop(0.5) for child in running))
        self._children.clear()
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


def _stays_plain(nodes: Sequence[str], fabric: Fabric) -> bool:
    """Whether a link that is still to be deployed will not be stitched."""
    wished = os.environ.get("RAILBREAK_CLAB_LINKS") == "plain"
    inside = set(deploy.containers_of(fabric))
    return any(node not in inside for node in nodes) or (
        wished and all(link.kind == "veth" for link in fabric.links)
    )


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


def _in_a_thread(instance: str) -> None:
    """Take an instance down, whether or not a loop runs in this thread."""

    async def work() -> None:
        await (await ContainerlabDriver.attach(instance)).down()

    failed: list[BaseException] = []

    def body() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body, name=f"reap:{instance}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
