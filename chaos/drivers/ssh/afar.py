"""Takes back on machines what a journal here says is open, and asks them what is in force.

Nothing of a run is needed: the instance's state says how the machines are reached.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from chaos.change import to_json
from chaos.drivers.ssh.connect import Connections
from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.target import Target
from chaos.drivers.state import read_state
from chaos.errors import FabricError, RailbreakError
from chaos.journal import SCHEMA, Entry
from chaos.recover import Status, Undone

CONNECT_S = 10.0
T = TypeVar("T")


class Machines:
    """`chaos.recover.Afar` for the machines of one instance."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self.targets = dict(targets)

    @classmethod
    def of(cls, folder: Path) -> Machines:
        """The machines of an instance, by its state.

        Raises:
            FabricError: there is none to be read.
        """
        known = read_state(folder)
        if known is None:
            raise FabricError(f"{folder}/state.json cannot be read")
        return cls(targets_of(known.details))

    def undo(self, entries: Sequence[Entry]) -> list[Undone]:
        """Take them back where they are."""
        return _elsewhere(take_back(self.targets, entries))

    def status(self, entries: Sequence[Entry]) -> list[Status]:
        """Ask where they are."""
        return _elsewhere(ask(self.targets, entries))


def targets_of(details: Mapping[str, Any]) -> dict[str, Target]:
    """The targets that an instance's state holds."""
    return {name: Target.from_json(one) for name, one in details.get("targets", {}).items()}


def _elsewhere(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a thread of its own: the caller may be inside an event loop, or not."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="afar")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


async def take_back(targets: Mapping[str, Target], entries: Sequence[Entry]) -> list[Undone]:
    """Take changes back on their machines; one outcome each, in order; never raises.

    Args:
        targets: How the machines are reached.
        entries: Which changes, first to be taken back first.
    """

    async def on_host(machine: Machine, mine: Sequence[Entry]) -> list[Undone]:
        said = await _told(machine, "undo", mine)
        return [Undone(one, said[one.id]["outcome"], said[one.id]["reason"]) for one in mine]

    return await _each(
        targets, entries, on_host, _on_switch, lambda one, why: Undone(one, "leftover", why)
    )


async def ask(targets: Mapping[str, Target], entries: Sequence[Entry]) -> list[Status]:
    """What the machines say of changes; one answer each, in order; never raises."""

    async def on_host(machine: Machine, mine: Sequence[Entry]) -> list[Status]:
        said = await _told(machine, "status", mine)
        return [
            Status(one, said[one.id]["in_force"], said[one.id]["held"], said[one.id]["reason"])
            for one in mine
        ]

    def at_switch(target: Target, mine: Sequence[Entry]) -> list[Status]:
        why = f"{target.name} is a switch; railbreak undo asks it, and takes back what is left"
        return [Status(one, None, False, why) for one in mine]

    return await _each(
        targets, entries, on_host, at_switch, lambda one, why: Status(one, None, False, why)
    )


async def _each(
    targets: Mapping[str, Target],
    entries: Sequence[Entry],
    on_host: Callable[[Machine, Sequence[Entry]], Awaitable[list[T]]],
    on_switch: Callable[[Target, Sequence[Entry]], list[T]],
    failed: Callable[[Entry, str], T],
) -> list[T]:
    by_host: dict[str, list[Entry]] = {}
    for entry in entries:
        by_host.setdefault(entry.where.host, []).append(entry)
    chosen = [targets[name] for name in by_host if name in targets]
    found: dict[str, T] = {}
    async with Connections(chosen, connect_s=CONNECT_S) as machines:

        async def one_host(name: str, mine: list[Entry]) -> None:
            try:
                if name not in targets:
                    raise FabricError(f"how {name} is reached is not known any more")
                if targets[name].platform:
                    got = await asyncio.to_thread(on_switch, targets[name], mine)
                else:
                    got = await _prepared(machines, name, mine, on_host)
                found.update({one.id: said for one, said in zip(mine, got, strict=True)})
            except (RailbreakError, KeyError, ValueError) as error:
                found.update({one.id: failed(one, str(error)) for one in mine})

        await asyncio.gather(*(one_host(name, mine) for name, mine in by_host.items()))
    return [found[one.id] for one in entries]


async def _prepared(
    machines: Connections,
    name: str,
    mine: list[Entry],
    work: Callable[[Machine, Sequence[Entry]], Awaitable[list[T]]],
) -> list[T]:
    for why in (await machines.open([name])).values():
        raise FabricError(why)
    machine = await Machine.prepare(machines[name], rounds=1)
    try:
        return await work(machine, mine)
    finally:
        await machine.leave()


async def _told(machine: Machine, word: str, mine: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    lines = json.dumps([_line(one) for one in mine][::-1]).encode()
    said = await machine.program("chaos.drivers.ssh.far.takeback", word, stdin=lines)
    return {one["id"]: one for one in json.loads(said)}


def _line(entry: Entry) -> dict[str, Any]:
    """An entry as its `intended` line."""
    return {
        "schema": SCHEMA,
        "state": "intended",
        "id": entry.id,
        "at_ns": 0,
        "wall_ns": 0,
        "boot": entry.boot,
        "owner": list(entry.owner),
        "change": to_json(entry.change),
        "where": asdict(entry.where),
        "saved": dict(entry.saved),
        "cure": entry.cure,
        "seen_in_force": "in_force" in entry.history,
    }


def _on_switch(target: Target, mine: Sequence[Entry]) -> list[Undone]:
    from chaos.drivers.ssh.console import Console  # paramiko is imported only where it is needed
    from chaos.drivers.ssh.switch import take_back as at_switch
    from chaos.nos import platform

    def connect(name: str) -> Console:
        console = Console(target, platform(target.platform))
        console.open()
        return console

    return [at_switch(one, connect) for one in mine]
