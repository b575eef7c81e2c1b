"""The machines of a fabric, connected and made ready side by side; who is not, in one sentence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chaos.drivers.ssh.connect import AT_ONCE, Connections
from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.target import Target
from chaos.errors import FabricError, RailbreakError, near

#: Preparing costs a machine half a second of one processor, and us some traffic.
READY_AT_ONCE = 32


class Fleet:
    """Linux hosts that are ready to be used; switches are reached otherwise.

    Args:
        targets: Every host, by node.
        at_once: How many are connected to at one time.

    Attributes:
        interfaces: What each host said of its interfaces, by node and name.
        own: Interfaces that carry our own connection, per node; never touched.
    """

    def __init__(self, targets: Mapping[str, Target], *, at_once: int = AT_ONCE) -> None:
        self.targets = dict(targets)
        self._connections = Connections(targets.values(), at_once=at_once)
        self._turn = asyncio.Semaphore(READY_AT_ONCE)
        self._machines: dict[str, Machine] = {}
        self._opening: dict[str, asyncio.Task[Machine]] = {}
        self.interfaces: dict[str, dict[str, Any]] = {}
        self.own: dict[str, frozenset[str]] = {}

    def __getitem__(self, name: str) -> Machine:
        """A machine that is ready.

        Raises:
            FabricError: it is not.
        """
        if name not in self._machines:
            raise FabricError(f"{name} is not connected; {near(name, self._machines)}")
        return self._machines[name]

    @property
    def ready(self) -> Mapping[str, Machine]:
        """The machines that are ready."""
        return self._machines

    async def open(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Make machines ready (all by default); a sentence per one that is not."""
        wanted = list(self.targets if names is None else names)
        found = await asyncio.gather(
            *(self.machine(name) for name in wanted), return_exceptions=True
        )
        failures = {}
        for name, got in zip(wanted, found, strict=True):
            if isinstance(got, RailbreakError):
                failures[name] = str(got)
            elif isinstance(got, BaseException):
                raise got
        return failures

    async def machine(self, name: str) -> Machine:
        """A machine, made ready if it is not.

        Raises:
            FabricError: it cannot be; one sentence with the cure.
        """
        known = self._machines.get(name)
        if known is not None and not known.lost:
            return known
        if name not in self._opening or self._opening[name].done():
            self._opening[name] = asyncio.create_task(self._prepare(name))
        return await asyncio.shield(self._opening[name])

    async def _prepare(self, name: str) -> Machine:
        async with self._turn:
            for why in (await self._connections.open([name])).values():
                raise FabricError(why)
            connection = self._connections[name]
            machine = await Machine.prepare(connection)
            self._machines[name] = machine
            self.interfaces[name] = await machine.ask("interfaces")
            self.own[name] = await _carrying(machine, self.interfaces[name])
            return machine

    async def look(self, name: str) -> dict[str, Any]:
        """Read a machine's interfaces anew."""
        machine = await self.machine(name)
        self.interfaces[name] = await machine.ask("interfaces")
        return self.interfaces[name]

    async def each(self, work: Callable[[Machine], Any]) -> dict[str, Any]:
        """Do something on every ready machine at once; the results by name."""
        names = list(self._machines)
        found = await asyncio.gather(*(work(self._machines[name]) for name in names))
        return dict(zip(names, found, strict=True))

    async def close(self) -> list[str]:
        """Remove what was shipped, end the connections; a sentence per machine with a rest."""
        for task in self._opening.values():
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RailbreakError):
                    await task
        said = await asyncio.gather(*(one.leave() for one in self._machines.values()))
        await self._connections.close()
        self._machines.clear()
        self._opening.clear()
        return [sentence for sentence in said if sentence]


def not_ready(failures: Mapping[str, str], count: int) -> FabricError:
    """One sentence where one machine is not ready, else a line each.

    Args:
        failures: A sentence per machine.
        count: Of so many.
    """
    if len(failures) == 1:
        return FabricError(next(iter(failures.values())))
    told = "\n".join(f"  {sentence}" for sentence in failures.values())
    return FabricError(f"{len(failures)} of {count} machines are not ready:\n{told}")


async def _carrying(machine: Machine, interfaces: Mapping[str, Any]) -> frozenset[str]:
    """Interfaces by which our own connection comes in and goes out, with what lies below them."""
    done = await machine.connection.run(("sh", "-c", "echo $SSH_CONNECTION"), root=False)
    words = done.stdout.decode(errors="replace").split()
    if len(words) < 4:
        return frozenset()
    client, server = words[0], words[2]
    found = {
        name
        for name, facts in interfaces.items()
        if server in {one.partition("/")[0] for one in facts["addresses"]}
    }
    with contextlib.suppress(FabricError):
        found.add((await machine.ask("lookup", dst=client))["ifname"])
    index = {facts["index"]: name for name, facts in interfaces.items()}
    while True:
        more = {
            name for name, facts in interfaces.items() if index.get(facts["master"], "") in found
        }
        more |= {index.get(interfaces[name]["below"], "") for name in found if name in interfaces}
        if more - {""} <= found:
            return frozenset(found - {"", "lo"})
        found |= more - {""}
