"""The driver `ssh`: machines that are there already; it reaches them, and lets go of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from chaos import load
from chaos.change import Change, DeviceGone, PacketRule, Place, Where
from chaos.driver import Audit, Capability, Done, Holder, Process, unsupported
from chaos.drivers import state
from chaos.drivers.ssh import adopt, afar, probing, ready
from chaos.drivers.ssh import written as _written  # noqa: F401 - how plans are written for it
from chaos.drivers.ssh.fleet import Fleet
from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.observing import Programs
from chaos.drivers.ssh.paths import RemotePaths
from chaos.drivers.ssh.places import (
    called_there,
    interface_of,
    moved,
    platform_of,
    refusal,
    ssh_of,
)
from chaos.drivers.ssh.remote import LEASE_S, RemoteHands
from chaos.drivers.ssh.target import Target
from chaos.drivers.ssh.together import Together, closed, together
from chaos.drivers.state import State
from chaos.errors import CapabilityError, FabricError, SpecError, near
from chaos.fabric import Fabric, Port
from chaos.hands import distinct
from chaos.packets.engines import At
from chaos.registry import Program
from chaos.snapshot import Snapshot
from chaos.timeline import now_ns
from chaos.units import Duration

#: The least time between handing a schedule over and its start, on the quickest network.
LEAD_NS = 150_000_000
#: Injectors made ready at one time: on machines that share processors (namespaces, containers),
#: hundreds of starting Pythons would keep each other from being ready within `READY_S`.
ARMED_AT_ONCE = 32
_LOAD_EVERY_S = 2.0


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
        self._loads: dict[str, load.Reading] = {}
        self._watch: asyncio.Task[None] | None = None

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
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
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
            raise _not_ready(failures, len(self.fleet.targets))
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_loads())

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
        known = self.fleet.interfaces.get(port.node)
        word = interface_of(self.fabric, port)
        if known is not None:
            return adopt.named(known, word) or word
        kernel = ssh_of(self.fabric, port.node).get("kernel", {})
        return str(kernel[port.name][0]) if port.name in kernel else word

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            SpecError: the fabric has no such port, or no such process was announced.
            CapabilityError: nothing of ours reaches the wire's side; says what instead.
            FabricError: the machine has no such interface.
        """
        self.fabric.node(place.node)
        if place.process:
            for key in (str(place), place.process):
                if key in self.processes:
                    return self.processes[key]
            raise SpecError(
                f"no process {place.process!r} on {place.node}; " + near(str(place), self.processes)
            )
        if not place.port:
            return Where(host=place.node)
        if place.side == "wire":
            raise CapabilityError(
                f"{place} is inside a cable; it is broken at the other end: name that port"
            )
        port = Port(place.node, place.port)
        self.fabric.link_at(port)
        name = self.ifname(port)
        own = self.fleet.own.get(place.node)
        if own is None:
            own = frozenset(self._state.details.get("own", {}).get(place.node, ()))
        if name in own:
            raise CapabilityError(
                f"{place} ({name}) carries our own connection to {place.node}: breaking it would "
                "cut us off; reach the machine by another interface, or choose another link"
            )
        return Where(ifname=name, ifindex=self._index(port, name), host=place.node)

    def _index(self, port: Port, name: str) -> int:
        known = self.fleet.interfaces.get(port.node)
        if known is not None:
            if name not in known:
                raise FabricError(f"{port}: {name} is not there; {near(name, known)}")
            return int(known[name]["index"])
        kernel = ssh_of(self.fabric, port.node).get("kernel", {})
        return int(kernel[port.name][1]) if port.name in kernel else 0

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made on machines, and what instead; empty when it can."""
        return refusal(change, fabric, cls.name)

    @classmethod
    def engines(cls) -> Mapping[str, str] | None:
        """Those that can be where a machine receives; each tries its own when a rule is armed."""
        return At(False)

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
        by_node: dict[str, list[int]] = {}
        for at, change in enumerate(plan.changes):
            node = change.place.node
            if change.place.process:
                node = self.resolve(change.place).host
            by_node.setdefault(node, []).append(at)
        switches = [at for node, mine in by_node.items() for at in mine if self._switch(node)]
        hosts = {node: mine for node, mine in by_node.items() if not self._switch(node)}
        if failures := await self.fleet.open(hosts):
            raise _not_ready(failures, len(hosts))
        await asyncio.gather(*(self.fleet.look(node) for node in hosts))
        wheres = {
            plan.changes[at].place: self.resolve(plan.changes[at].place)
            for mine in hosts.values()
            for at in mine
        }
        for change in plan.changes:
            if isinstance(change, PacketRule) and change.leaves and change.place in wheres:
                where = wheres[change.place]
                wheres[change.place] = dataclasses.replace(where, across=where.ifname)
            if isinstance(change, DeviceGone) and change.place in wheres:
                self._spare_our_own(change, wheres[change.place].ifname)
        await asyncio.gather(*(self.fleet[node].measure_clock() for node in hosts))
        turn = asyncio.Semaphore(ARMED_AT_ONCE)
        work = [
            self._on_host(
                turn, node, [plan.changes[at] for at in mine], wheres, journal, max_life, log_dir
            )
            for node, mine in hosts.items()
        ]
        parts: list[Sequence[int]] = list(hosts.values())
        if switches:
            chosen = [plan.changes[at] for at in switches]
            work.append(self._on_switches(chosen, journal, max_life))
            parts.append(switches)
        found = await asyncio.gather(*work, return_exceptions=True)
        armed = [one for one in found if not isinstance(one, BaseException)]
        failed = [one for one in found if isinstance(one, BaseException)]
        if failed:
            await closed(armed)
            raise together(failed)
        return Together(changes, list(zip(armed, parts, strict=True)), plan.index)

    def _spare_our_own(self, change: DeviceGone, ifname: str) -> None:
        """Refuse a device that one of the interfaces lies on by which we are connected."""
        node = change.place.node
        known = self.fleet.interfaces[node]
        pci = known[ifname]["pci"]
        with_it = {name for name, facts in known.items() if pci and facts["pci"] == pci}
        if ours := sorted(with_it & self.fleet.own.get(node, frozenset())):
            raise CapabilityError(
                f"{change.place} ({ifname}) lies on PCI device {pci}, as does {', '.join(ours)}, "
                f"which carries our own connection to {node}: taking it would cut us off; choose a "
                "port of another device"
            )

    def _switch(self, node: str) -> bool:
        return bool(platform_of(self.fabric, node))

    async def _on_host(
        self,
        turn: asyncio.Semaphore,
        node: str,
        changes: Sequence[Change],
        wheres: Mapping[Place, Where],
        journal: Path,
        max_life: Duration,
        log_dir: Path,
    ) -> Holder:
        async with turn:
            machine = await self.fleet.machine(node)
            return await RemoteHands.arm_on(
                machine,
                changes,
                wheres,
                journal=journal,
                max_life=max_life,
                log_dir=log_dir,
                lease_s=self.lease_s,
                observed_ns=lambda: self._observers_error(node),
            )

    def _observers_error(self, acting: str) -> int:
        """Bound of the clock error of whoever else tells times."""
        now = now_ns()
        others = (one.clock for name, one in self.fleet.ready.items() if name != acting)
        return max((one.error_at(now) for one in others), default=0)

    async def _on_switches(
        self, changes: Sequence[Change], journal: Path, max_life: Duration
    ) -> Holder:
        from chaos.drivers.ssh.switch import SwitchHands  # Netmiko is imported where it is needed

        return await SwitchHands.arm(
            changes,
            self.targets,
            journal=journal,
            max_life=max_life,
            called=lambda change: called_there(change, self.fabric),
        )

    # ------------------------------------------------------------------ looking

    def paths(self) -> RemotePaths:
        """Look-ups and counters, by the machines' own kernels."""
        return RemotePaths(self)

    async def snapshot(self) -> Snapshot:
        """The state that faults may touch, per machine."""
        await self._all()
        found = await self.fleet.each(lambda machine: machine.ask("snapshot"))
        return Snapshot({name: frozenset(facts) for name, facts in found.items()})

    def addresses(self) -> Mapping[str, str]:
        """The first IPv4 (else IPv6) address on a host's links, in their order, per host."""
        found: dict[str, str] = {}
        for node in self.fabric.with_role("host"):
            listed = [
                address.partition("/")[0]
                for link in self.fabric.links_of(node.name)
                for port in link.ports
                if port.node == node.name
                for address in self._addresses_at(port)
            ]
            if listed:
                found[node.name] = min(listed, key=lambda address: ":" in address)
        return found

    def _addresses_at(self, port: Port) -> Sequence[str]:
        known = self.fleet.interfaces.get(port.node, {}).get(self.ifname(port))
        if known is not None:
            return [str(one) for one in known["addresses"]]
        return self.fabric.node(port.node).addresses.get(port.name, ())

    def load(self) -> load.Reading:
        """How busy this machine and the hosts are, added up; the hosts as read a moment ago."""
        total = load.read()
        for reading in self._loads.values():
            total = load.Reading(
                total.total + reading.total,
                total.busy + reading.busy,
                total.stolen + reading.stolen,
                {**total.ours, **reading.ours},
            )
        return total

    async def _watch_loads(self) -> None:
        while True:
            for at, (name, machine) in enumerate(list(self.fleet.ready.items()), 1):
                with contextlib.suppress(FabricError):
                    said = await machine.ask("load")
                    ours = {(at << 32 | pid, began): ticks for pid, began, ticks in said["ours"]}
                    self._loads[name] = load.Reading(
                        said["total"], said["busy"], said["stolen"], ours
                    )
            await asyncio.sleep(_LOAD_EVERY_S)


def _not_ready(failures: Mapping[str, str], count: int) -> FabricError:
    """One sentence where one machine is not ready, else a line each."""
    if len(failures) == 1:
        return FabricError(next(iter(failures.values())))
    told = "\n".join(f"  {sentence}" for sentence in failures.values())
    return FabricError(f"{len(failures)} of {count} machines are not ready:\n{told}")
