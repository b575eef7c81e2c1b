"""The driver `ssh`: machines that are there already; it reaches them, and lets go of them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from chaos.change import Change, Place, Where
from chaos.driver import Audit, Capability, Done, Holder, Process, process_at, unsupported
from chaos.drivers import state
from chaos.drivers.ssh import adopt, afar, probing, ready
from chaos.drivers.ssh import written as _written  # noqa: F401 - how plans are written for it
from chaos.drivers.ssh.arming import Arming
from chaos.drivers.ssh.fleet import Fleet, not_ready
from chaos.drivers.ssh.loads import Loads
from chaos.drivers.ssh.located import Located
from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.observing import Programs
from chaos.drivers.ssh.paths import RemotePaths
from chaos.drivers.ssh.places import moved, refusal
from chaos.drivers.ssh.remote import LEASE_S
from chaos.drivers.ssh.target import Target
from chaos.drivers.state import State
from chaos.errors import CapabilityError, FabricError, SpecError
from chaos.fabric import Fabric, Port
from chaos.hands import distinct
from chaos.load import Reading
from chaos.packets.engines import At
from chaos.registry import Program
from chaos.snapshot import Snapshot
from chaos.units import Duration

#: The least time between handing a schedule over and its start, on the quickest network.
LEAD_NS = 150_000_000


class SshDriver:
    """One set of machines that was attached to; made by `attach` or `adopt`.

    Attributes:
        name: `ssh`.
        fidelity: Label of every figure measured through it.
        fabric: The fabric, with what the machines said of their ports.
        instance: Name of this instance.
        targets: How every node is reached that somebody logs in to.
        fleet: The hosts among them, connected when first needed.
        lease_s: Without a word from us for so long, a machine heals.
        warnings: Sentences.
        processes: Processes that can be aimed at, by `node/process`; observers fill it.
    """

    name: ClassVar[str] = "ssh"
    fidelity: ClassVar[str] = "hardware"
    elsewhere: ClassVar[bool] = True

    def __init__(self, folder: Path, known: State, fleet: Fleet | None = None) -> None:
        self._folder, self._state = folder, known
        self.fabric: Fabric = known.fabric
        self.instance: str = known.instance
        self.targets: dict[str, Target] = afar.targets_of(known.details)
        hosts = {name: one for name, one in self.targets.items() if not one.platform}
        self.fleet = fleet or Fleet(hosts)
        self.lease_s = float(known.details.get("lease_s", LEASE_S))
        self.warnings: list[str] = []
        self.processes: dict[str, Where] = {}
        self.programs = Programs(self.fabric, self.fleet, folder)
        self._located = Located(self.fabric, self.fleet, known.details.get("own", {}))
        self._loads = Loads(self.fleet)

    # ------------------------------------------------------------------ life

    @staticmethod
    def probe() -> tuple[Capability, ...]:
        """What this machine can do through it."""
        return probing.probe()

    @staticmethod
    def reap() -> tuple[str, ...]:
        """Nothing: machines clean up after a dead controller by themselves."""
        return ()

    @classmethod
    async def up(
        cls,
        fabric: Fabric,
        *,
        instance: str | None = None,
        progress: Callable[[str], None] | None = None,
        linger: bool = False,
    ) -> SshDriver:
        """Refused: machines are there, or they are not.

        Raises:
            CapabilityError: always.
        """
        raise unsupported(
            cls.name, "make machines", "railbreak attach INVENTORY --driver ssh --links FILE"
        )

    @classmethod
    async def adopt(
        cls,
        target: str,
        *,
        instance: str | None = None,
        links: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
    ) -> SshDriver:
        """Make the machines of an inventory known as an instance; nothing of them changes.

        Args:
            target: An inventory (`chaos.inventory`).
            instance: Name for it; by default the fabric's.
            links: Files that say how it is cabled; `lldp` asks the machines.
            progress: Told the name of each step.

        Raises:
            SpecError: the inventory or a link file is wrong.
            FabricError: machines are not reachable or lack something: one sentence each; nothing
                is left on any of them.
        """
        adopted, fleet = await adopt.check(target, links, progress or (lambda _step: None))
        folder: Path | None = None
        try:
            folder, known = state.claim(adopted.fabric, instance, driver=cls.name)
            known = dataclasses.replace(
                known, owned=False, linger=True, ready=True, details=adopted.details
            )
            known.save(folder)
        except BaseException:
            await fleet.close()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        driver = cls(folder, known, fleet)
        driver.warnings += adopted.warnings
        return driver

    @classmethod
    async def attach(cls, instance: str) -> SshDriver:
        """Reach an instance that is known here; machines are connected to when first needed.

        Raises:
            FabricError: there is none of that name, or it is not whole.
        """
        folder, known = state.load_state(instance)
        if not known.ready:
            raise FabricError(f"instance {instance!r} is still being attached; try again")
        return cls(folder, known)

    @staticmethod
    def afar(folder: Path) -> afar.Machines:
        """What takes back and looks at changes on the machines of an instance."""
        return afar.Machines.of(folder)

    async def release(self) -> None:
        """Remove what was shipped and end the connections; the instance stays known.

        Raises:
            FabricError: something may be left on a machine; one sentence each.
        """
        self._loads.close()
        await self.programs.close()
        left = await self.fleet.close()
        if left:
            raise FabricError("; ".join(left))

    async def down(self) -> None:
        """Let go of the machines: remove what we shipped, forget the instance; repeatable."""
        try:
            await self.release()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journals."""
        return self._folder

    # ------------------------------------------------------------------ machines

    async def machine(self, node: str) -> Machine:
        """A host that is ready.

        Raises:
            CapabilityError: nobody logs in to that node, or it is a switch.
            FabricError: it is not reachable.
        """
        self.fabric.node(node)
        if node not in self.targets:
            raise CapabilityError(
                f"{node} cannot be logged in to: the inventory gives it no address"
            )
        if self.targets[node].platform:
            raise CapabilityError(
                f"{node} runs {self.targets[node].platform}, where our programs do not run"
            )
        return await self.fleet.machine(node)

    async def _all(self) -> None:
        """Every host, ready.

        Raises:
            FabricError: some are not; one sentence each.
        """
        failures = await self.fleet.open()
        if failures:
            raise not_ready(failures, len(self.fleet.targets))
        self._loads.watch()

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Return when every link's ports run and every host answers every other.

        Raises:
            FabricError: not in time, or a machine is not reachable; names what lacks.
        """
        await self._all()
        await ready.wait(self, deadline_s)

    async def audit(self) -> Audit:
        """Ports, carriers, MTUs and pairs as the machines tell them; their clocks as facts."""
        await self._all()
        await self.fleet.each(lambda machine: machine.measure_clock())
        return await ready.audit(self)

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command on a machine as root; its process group is killed at the deadline.

        Raises:
            SpecError: no such node, or no command.
            FabricError: it cannot be started, or was killed.
        """
        if not argv:
            raise SpecError(f"{node}: no command to run")
        machine = await self.machine(node)
        return await machine.connection.run(argv, stdin=stdin, deadline_s=deadline_s)

    async def spawn(self, program: Program) -> Process:
        """Start a probe's program on machines, on our clock; it ends with us.

        Raises:
            CapabilityError: it cannot run there; says why and what to do.
            FabricError: it did not start; names the machine.
        """
        return await self.programs.spawn(program)

    def bars(self, program: Program) -> str:
        """Why a program cannot be run on machines, and what instead; empty when it can."""
        return self.programs.bars(program)

    def announced(self, node: str, pid: int, started: int) -> Where:
        """The way to a process on a machine."""
        return Where(pid=pid, started=started, host=node)

    # ------------------------------------------------------------------ places

    def ifname(self, port: Port) -> str:
        """The kernel's name of a port, now if the machine was asked, else when it was attached."""
        return self._located.ifname(port)

    def addresses(self) -> Mapping[str, str]:
        """The first IPv4 (else IPv6) address on a host's links, in their order, per host."""
        return self._located.addresses()

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            SpecError: the fabric has no such port, or no such process was announced.
            CapabilityError: nothing of ours reaches the wire's side; says what instead.
            FabricError: the machine has no such interface.
        """
        self.fabric.node(place.node)
        if place.process:
            return process_at(place, self.processes)
        return self._located.where(place) if place.port else Where(host=place.node)

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made on machines, and what instead; empty when it can."""
        return refusal(change, fabric, cls.name)

    @classmethod
    def engines(cls) -> Mapping[str, str] | None:
        """Those that can be where a machine receives or sends; each tries its own when armed."""
        return At(False, sends=True)

    # ------------------------------------------------------------------ acting

    @property
    def lead_ns(self) -> int:
        """How long before its start a schedule must be handed over to reach every machine."""
        slowest = max((one.clock.error_ns for one in self.fleet.ready.values()), default=0)
        return LEAD_NS + 6 * slowest + 2_000_000 * len(self.fleet.ready)

    async def arm(
        self, changes: Sequence[Change], *, journal: Path, max_life: Duration, log_dir: Path
    ) -> Holder:
        """Make changes ready on their machines, a dead-man beside each; nothing is changed yet.

        Raises:
            CapabilityError: one cannot be made on machines; says why and what instead.
            BlockedError: one is in force already, or what undoes it cannot be written down.
            FabricError: a machine is not reachable.
        """
        distinct(changes)
        for change in changes:
            reason = "" if change.place.process else self.refusal(change, self.fabric)
            if reason:
                raise CapabilityError(reason)
        plan = moved(changes, self.fabric)
        self.warnings += [note for note in plan.notes if note not in self.warnings]
        arming = Arming(
            self.fabric,
            self.targets,
            self.fleet,
            self.resolve,
            self.lease_s,
            journal,
            max_life,
            log_dir,
        )
        return await arming.arm(changes, plan)

    # ------------------------------------------------------------------ looking

    def paths(self) -> RemotePaths:
        """Look-ups and counters, by the machines' own kernels."""
        return RemotePaths(self)

    async def snapshot(self) -> Snapshot:
        """The state that faults may touch, per machine."""
        await self._all()
        found = await self.fleet.each(lambda machine: machine.ask("snapshot"))
        return Snapshot({name: frozenset(facts) for name, facts in found.items()})

    def load(self) -> Reading:
        """How busy this machine and the hosts are, added up; the hosts as read a moment ago."""
        return self._loads.total()
