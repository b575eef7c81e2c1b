"""Drivers by name, and the instances that they reach on this machine.

A driver registers its class in the entry-point group `railbreak.drivers`; it is imported when it is
first needed.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import cast

from chaos import topology
from chaos.driver import Driver, Making
from chaos.drivers import state
from chaos.drivers.state import Running
from chaos.errors import FabricError, SpecError, near
from chaos.fabric import Fabric

#: What `--driver` stands for where it is not given.
DEFAULT = "netns"


@cache
def named(name: str) -> type[Making]:
    """The class of a driver.

    Raises:
        SpecError: there is none of that name; those that are there are named.
    """
    known = {entry.name: entry for entry in entry_points(group="railbreak.drivers")}
    if name not in known:
        raise SpecError(f"no driver {name!r}; {near(name, known)}", field="--driver")
    return cast(type[Making], known[name].load())


def names() -> tuple[str, ...]:
    """Every driver's name, the default one first."""
    found = {entry.name for entry in entry_points(group="railbreak.drivers")}
    return tuple(sorted(found, key=lambda name: (name != DEFAULT, name)))


def fabric(name: str, driver: str = DEFAULT) -> Fabric:
    """The fabric of a topology file, or of a shipped one, as far as a driver can have it.

    The embedded driver refuses what it cannot build; for others Containerlab's own word counts.

    Raises:
        SpecError: it is refused.
    """
    if driver == DEFAULT:
        return topology.load(name)
    return topology.to_fabric(topology.load_lab(name))


def running() -> tuple[Running, ...]:
    """Every instance on this machine, whatever its driver; what dead owners left is removed first.

    Only embedded fabrics are removed so; a lab that a dead process deployed is told as stale.
    """
    named(DEFAULT).reap()
    return state.running()


async def attach(instance: str) -> Driver:
    """Reach an instance that is known here, by whichever driver it has.

    Raises:
        FabricError: there is none of that name, or it is not whole.
    """
    for one in running():
        if one.instance == instance:
            return await named(one.driver).attach(instance)
    raise FabricError(
        f"no fabric {instance!r} is up; {near(instance, [r.instance for r in running()])}"
    )
