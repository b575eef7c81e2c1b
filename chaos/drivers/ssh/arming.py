"""Changes made ready on all their machines and switches at one time, held as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos.change import Change, DeviceGone, PacketRule, Place, Where
from chaos.driver import Holder
from chaos.drivers.ssh.fleet import Fleet, not_ready
from chaos.drivers.ssh.places import Moved, called_there, platform_of
from chaos.drivers.ssh.remote import RemoteHands
from chaos.drivers.ssh.target import Target
from chaos.drivers.ssh.together import Together, closed, together
from chaos.errors import CapabilityError
from chaos.fabric import Fabric
from chaos.timeline import now_ns
from chaos.units import Duration

#: Injectors made ready at one time: on machines that share processors (namespaces, containers),
#: hundreds of starting Pythons would keep each other from being ready within `READY_S`.
ARMED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Arming:
    """What is needed to make changes ready.

    Attributes:
        fabric: The fabric.
        targets: How every node is reached that somebody logs in to.
        fleet: The hosts among them.
        resolve: Where a place is now.
        lease_s: Without a word from us for so long, a machine heals.
        journal: Write-ahead journal; lines are appended.
        max_life: Every change is taken back this long after the start of the schedule.
        log_dir: Folder for logs.
    """

    fabric: Fabric
    targets: Mapping[str, Target]
    fleet: Fleet
    resolve: Callable[[Place], Where]
    lease_s: float
    journal: Path
    max_life: Duration
    log_dir: Path
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ARMED_AT_ONCE))

    async def arm(self, asked: Sequence[Change], plan: Moved) -> Holder:
        """Make ready what stands for the changes that were asked; nothing is changed yet.

        Raises:
            CapabilityError: one cannot be made there; says why and what instead.
            BlockedError: one is in force already, or what undoes it cannot be written down.
            FabricError: a machine is not reachable.
        """
        by_node: dict[str, list[int]] = {}
        for at, change in enumerate(plan.changes):
            node = change.place.node
            if change.place.process:
                node = self.resolve(change.place).host
            by_node.setdefault(node, []).append(at)
        named = {node for node in by_node if platform_of(self.fabric, node)}
        switches = [at for node, mine in by_node.items() if node in named for at in mine]
        hosts = {node: mine for node, mine in by_node.items() if node not in named}
        if failures := await self.fleet.open(hosts):
            raise not_ready(failures, len(hosts))
        await asyncio.gather(*(self.fleet.look(node) for node in hosts))
        wheres = self._wheres([plan.changes[at] for mine in hosts.values() for at in mine])
        await asyncio.gather(*(self.fleet[node].measure_clock() for node in hosts))
        parts: list[Sequence[int]] = list(hosts.values())
        work: list[Coroutine[Any, Any, Holder]] = [
            self._on_host(node, [plan.changes[at] for at in mine], wheres)
            for node, mine in hosts.items()
        ]
        if switches:
            work.append(self._on_switches([plan.changes[at] for at in switches]))
            parts.append(switches)
        found = await asyncio.gather(*work, return_exceptions=True)
        armed = [one for one in found if not isinstance(one, BaseException)]
        failed = [one for one in found if isinstance(one, BaseException)]
        if failed:
            await closed(armed)
            raise together(failed)
        return Together(asked, list(zip(armed, parts, strict=True)), plan.index)

    def _wheres(self, changes: Sequence[Change]) -> dict[Place, Where]:
        """Where the places of changes on hosts are now."""
        wheres = {change.place: self.resolve(change.place) for change in changes}
        for change in changes:
            where = wheres[change.place]
            if isinstance(change, PacketRule) and change.leaves:
                wheres[change.place] = replace(where, across=where.ifname)
            if isinstance(change, DeviceGone):
                spare_our_own(self.fleet, change, where.ifname)
        return wheres

    async def _on_host(
        self, node: str, changes: Sequence[Change], wheres: Mapping[Place, Where]
    ) -> Holder:
        async with self._turn:
            machine = await self.fleet.machine(node)
            return await RemoteHands.arm_on(
                machine,
                changes,
                wheres,
                journal=self.journal,
                max_life=self.max_life,
                log_dir=self.log_dir,
                lease_s=self.lease_s,
                observed_ns=lambda: self._observers_error(node),
            )

    def _observers_error(self, acting: str) -> int:
        """Bound of the clock error of whoever else tells times."""
        now = now_ns()
        others = (one.clock for name, one in self.fleet.ready.items() if name != acting)
        return max((one.error_at(now) for one in others), default=0)

    async def _on_switches(self, changes: Sequence[Change]) -> Holder:
        from chaos.drivers.ssh.switch import SwitchHands  # Netmiko is imported where it is needed

        return await SwitchHands.arm(
            changes,
            self.targets,
            journal=self.journal,
            max_life=self.max_life,
            called=lambda change: called_there(change, self.fabric),
        )


def spare_our_own(fleet: Fleet, change: DeviceGone, ifname: str) -> None:
    """Refuse a device that one of the interfaces lies on by which we are connected.

    Raises:
        CapabilityError: it does; names the interface.
    """
    node = change.place.node
    known = fleet.interfaces[node]
    pci = known[ifname]["pci"]
    with_it = {name for name, facts in known.items() if pci and facts["pci"] == pci}
    if ours := sorted(with_it & fleet.own.get(node, frozenset())):
        raise CapabilityError(
            f"{change.place} ({ifname}) lies on PCI device {pci}, as does {', '.join(ours)}, "
            f"which carries our own connection to {node}: taking it would cut us off; choose a "
            "port of another device"
        )
