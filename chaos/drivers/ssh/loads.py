"""How busy the machines are, read again and again while they are in use."""

from __future__ import annotations

import asyncio
import contextlib

from chaos import load
from chaos.drivers.ssh.fleet import Fleet
from chaos.errors import FabricError

_EVERY_S = 2.0


class Loads:
    """The load of the hosts that are ready, as read a moment ago.

    Args:
        fleet: The hosts.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._read: dict[str, load.Reading] = {}
        self._watch: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin to read them; repeatable."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._again_and_again())

    def close(self) -> None:
        """Read them no more; repeatable."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def total(self) -> load.Reading:
        """How busy this machine is now and the hosts were, added up."""
        total = load.read()
        for reading in self._read.values():
            total = load.Reading(
                total.total + reading.total,
                total.busy + reading.busy,
                total.stolen + reading.stolen,
                {**total.ours, **reading.ours},
            )
        return total

    async def _again_and_again(self) -> None:
        while True:
            for at, (name, machine) in enumerate(list(self._fleet.ready.items()), 1):
                with contextlib.suppress(FabricError):
                    said = await machine.ask("load")
                    ours = {(at << 32 | pid, began): ticks for pid, began, ticks in said["ours"]}
                    self._read[name] = load.Reading(
                        said["total"], said["busy"], said["stolen"], ours
                    )
            await asyncio.sleep(_EVERY_S)
