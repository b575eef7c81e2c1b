"""Whether machines can be measured: links up at both ends, every pair of hosts reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from chaos.driver import Audit
from chaos.drivers.ssh.fleet import Fleet
from chaos.errors import FabricError
from chaos.fabric import Fabric, Port

_POLL_S = 0.3
_SHOWN = 6


class Reach(Protocol):
    """What is needed of the driver."""

    fabric: Fabric
    fleet: Fleet

    def ifname(self, port: Port) -> str:
        """The kernel's name of a port."""
        ...

    def addresses(self) -> Mapping[str, str]:
        """The address that carries traffic, per host."""
        ...


async def wait(reach: Reach, deadline_s: float) -> None:
    """Return when every port runs and every host answers every other.

    Raises:
        FabricError: not in time; names what lacks.
    """
    give_up = time.monotonic() + deadline_s
    while lacks := await _lacks(reach):
        if time.monotonic() > give_up:
            more = f" … ({len(lacks)} in all)" if len(lacks) > _SHOWN else ""
            raise FabricError(
                f"fabric {reach.fabric.name} is not ready after {deadline_s:g} s: "
                + "; ".join(lacks[:_SHOWN])
                + more
            )
        await asyncio.sleep(_POLL_S)


async def _lacks(reach: Reach) -> list[str]:
    found = await reach.fleet.each(lambda machine: machine.ask("interfaces"))
    reach.fleet.interfaces.update(found)
    return dark(reach) or await unreached(reach)


def dark(reach: Reach) -> list[str]:
    """Ports on machines that do not run, one sentence each."""
    sentences = []
    for port in reach.fabric.walk():
        if port.node not in reach.fleet.ready:
            continue
        facts = reach.fleet.interfaces[port.node].get(reach.ifname(port))
        if facts is None:
            sentences.append(f"{port}: {reach.ifname(port)} is not there")
        elif not facts["up"]:
            sentences.append(f"{port} is set down")
        elif not facts["carrier"]:
            sentences.append(f"{port} has no carrier")
    return sentences


async def unreached(reach: Reach) -> list[str]:
    """Pairs of hosts of which one does not answer the other's echo."""
    addresses = {n: one for n, one in reach.addresses().items() if n in reach.fleet.ready}
    names = {one: node for node, one in addresses.items()}

    async def from_host(node: str, own: str) -> list[str]:
        pairs = [[own, other] for at, other in addresses.items() if at != node]
        silent = await reach.fleet[node].ask("reach", pairs=pairs) if pairs else []
        return [f"{node} does not reach {names[one]} ({one})" for one in silent]

    told = await asyncio.gather(*(from_host(node, own) for node, own in addresses.items()))
    return [sentence for sentences in told for sentence in sentences]


async def audit(reach: Reach) -> Audit:
    """What can be known without touching anything: ports, carriers, MTUs, pairs, clocks."""
    findings = await _lacks(reach)
    for link in reach.fabric.links:
        sizes = {
            port: reach.fleet.interfaces[port.node].get(reach.ifname(port), {}).get("mtu", 0)
            for port in link.ports
            if port.node in reach.fleet.ready
        }
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{port} {size}" for port, size in sizes.items())
            findings.append(f"link {link.id}: its ends have different MTUs ({told})")
    facts: dict[str, Any] = {
        "clocks": {
            name: {"offset_ns": machine.clock.offset_ns, "error_ns": machine.clock.error_ns}
            for name, machine in reach.fleet.ready.items()
        },
        "machines": {name: machine.facts for name, machine in reach.fleet.ready.items()},
        "pairs": len(reach.addresses()) * (len(reach.addresses()) - 1),
    }
    return Audit(tuple(findings), facts)
