"""Readiness: what the kernel must forward by, worked out from the topology and read from it.

Kernel state decides. A daemon is only asked where the kernel does not know (BFD, sessions).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from chaos.driver import Audit
from chaos.drivers.netns.fib import Leg, Network, read_addresses, read_fib, read_running
from chaos.drivers.netns.frr import check_log
from chaos.drivers.netns.plan import Plan
from chaos.errors import FabricError
from chaos.fabric import Fabric, Port
from chaos.netns import inside

_POLL_S = 0.03
#: How long everything must stand still before fewer legs than shortest paths are taken as meant.
_SETTLED_S = 2.0


@dataclass(frozen=True, slots=True)
class Expected:
    """One route that a router must forward by.

    Attributes:
        router: The router.
        prefix: Where to.
        legs: Number of links that lie on shortest paths.
    """

    router: str
    prefix: Network
    legs: int


def expectations(
    fabric: Fabric, prefixes: Mapping[Network, Iterable[Port]]
) -> tuple[Expected, ...]:
    """Routes that every FRR router needs: to each host prefix, by all shortest paths.

    A router needs a prefix that it can reach without crossing a host, so separate rails stay
    separate. Where a bridge lies in between, paths cannot be counted from the file: one leg.

    Args:
        fabric: The fabric.
        prefixes: Host ports that have an address in it, per prefix.
    """
    found = []
    for prefix, ports in prefixes.items():
        distance = _distances(fabric, ports)
        for name, steps in distance.items():
            if fabric.nodes[name].runs != "frr":
                continue
            nearer = [
                far
                for link in fabric.links_of(name)
                for far in link.nodes
                if distance.get(far, steps) == steps - 1
            ]
            bridged = any(fabric.nodes[far].runs == "bridge" for far in nearer)
            found.append(Expected(name, prefix, 1 if steps == 1 or bridged else len(nearer)))
    return tuple(found)


def _distances(fabric: Fabric, ports: Iterable[Port]) -> dict[str, int]:
    """Links from the nearest of the host ports to each node, crossing routers and bridges only."""
    distance: dict[str, int] = {}
    queue: deque[tuple[str, int]] = deque()

    def reach(name: str, steps: int) -> None:
        if name and name not in distance and fabric.nodes[name].runs in ("frr", "bridge"):
            distance[name] = steps
            queue.append((name, steps))

    for port in ports:
        reach(fabric.link_at(port).other(port).node, 1)
    while queue:
        name, steps = queue.popleft()
        for link in fabric.links_of(name):
            for far in link.nodes:
                reach(far, steps + 1)
    return distance


def missing(
    expected: Iterable[Expected], fibs: Mapping[str, Mapping[Network, frozenset[Leg]]]
) -> tuple[list[Expected], list[str]]:
    """Routes that are absent, and sentences on routes with fewer legs than shortest paths."""
    absent, few = [], []
    for want in expected:
        legs = len(fibs[want.router].get(want.prefix, ()))
        if legs == 0:
            absent.append(want)
        elif legs < want.legs:
            few.append(f"{want.router} has {legs} of {want.legs} legs to {want.prefix}")
    return absent, few


class Reach(Protocol):
    """What waiting needs of a driver."""

    fabric: Fabric
    plan: Plan
    warnings: list[str]

    @property
    def folder(self) -> Path:
        """Where the instance keeps its state."""
        ...

    def namespaces(self) -> Mapping[str, str]:
        """Path per node."""
        ...

    async def vtysh(self, node: str, command: str) -> Any:
        """Parsed JSON answer of one command."""
        ...

    async def audit(self) -> Audit:
        """RIB against FIB."""
        ...


def host_prefixes(reach: Reach) -> dict[Network, list[Port]]:
    """Prefixes on the ports of nodes that are neither router nor bridge, from the kernel."""
    found: dict[Network, list[Port]] = {}
    for name, path in reach.namespaces().items():
        if reach.fabric.nodes[name].runs != "shell":
            continue
        ports = {end.ifindex: end.port for end in reach.plan.ends_of(name)}
        for index, addresses in inside(path, read_addresses).items():
            for address in addresses if index in ports else ():
                found.setdefault(address.network, []).append(ports[index])
    return found


async def wait(reach: Reach, deadline_s: float) -> None:
    """Return when every router forwards to every host prefix by all shortest paths, BFD up.

    Where the file's routing means fewer legs than there are shortest paths (costs, policies), or
    where there is no host at all: when all sessions are up and nothing has moved for a while; the
    legs that are fewer become warnings.

    Raises:
        FabricError: not in time; names what lacks.
    """
    give_up = time.monotonic() + deadline_s
    while dark := _no_carrier(reach):
        if time.monotonic() > give_up:
            raise FabricError(f"ports without carrier after {deadline_s:g} s: {', '.join(dark)}")
        await asyncio.sleep(_POLL_S)
    expected = expectations(reach.fabric, host_prefixes(reach))
    routers = [name for name, node in reach.fabric.nodes.items() if node.runs == "frr"]
    if not routers:
        return
    last: Mapping[str, Mapping[Network, frozenset[Leg]]] = {}
    still_since = time.monotonic()
    lacks = ["nothing was looked at"]
    while True:
        fibs = _fibs(reach, routers, expected)
        if fibs != last:
            last, still_since = fibs, time.monotonic()
        absent, few = missing(expected, fibs)
        still = time.monotonic() - still_since >= _SETTLED_S
        lacks = [f"{want.router} has no route to {want.prefix}" for want in absent] + few
        if not absent and (still or (expected and not few)):
            lacks = await _sessions_down(reach, routers, all_kinds=bool(few) or not expected)
            if not lacks and (few or not expected):
                lacks = list((await reach.audit()).findings)
            if not lacks:
                for name in routers:
                    check_log(name, reach.folder / "nodes" / name)
                reach.warnings.extend(f"{sentence} (as its routing means)" for sentence in few)
                return
        if time.monotonic() > give_up:
            more = f" … ({len(lacks)} in all)" if len(lacks) > 6 else ""
            raise FabricError(
                f"fabric {reach.fabric.name} is not ready after {deadline_s:g} s: "
                + "; ".join(lacks[:6])
                + more
            )
        await asyncio.sleep(_POLL_S)


def _no_carrier(reach: Reach) -> list[str]:
    """Ports of the file whose interface does not run."""
    dark = []
    for name, path in reach.namespaces().items():
        running = inside(path, read_running)
        dark += [end.port.id for end in reach.plan.ends_of(name) if end.ifindex not in running]
    return dark


def _fibs(
    reach: Reach, routers: Iterable[str], expected: Iterable[Expected]
) -> dict[str, dict[Network, frozenset[Leg]]]:
    paths = reach.namespaces()
    versions = sorted({want.prefix.version for want in expected} | {4})
    fibs: dict[str, dict[Network, frozenset[Leg]]] = {name: {} for name in routers}
    for name in routers:
        for version in versions:
            fibs[name] |= inside(paths[name], lambda version=version: read_fib(version))  # type: ignore[misc]
    return fibs


async def _sessions_down(reach: Reach, routers: Iterable[str], *, all_kinds: bool) -> list[str]:
    """Sentences on BFD sessions, and where asked BGP sessions, that are configured and not up."""
    listed = await asyncio.gather(*(_node_sessions(reach, name, all_kinds) for name in routers))
    return [sentence for sentences in listed for sentence in sentences]


async def _node_sessions(reach: Reach, name: str, all_kinds: bool) -> list[str]:
    down = [
        f"{name}: BFD with {peer.get('peer')} on {peer.get('interface', '?')} is {peer['status']}"
        for peer in await reach.vtysh(name, "show bfd peers json") or ()
        if peer.get("status") not in ("up", "shutdown")
    ]
    if all_kinds:
        summary = await reach.vtysh(name, "show bgp summary json") or {}
        for family in summary.values():
            for peer, facts in (family.get("peers") or {}).items():
                if facts.get("state") != "Established":
                    down.append(f"{name}: BGP with {peer} is {facts.get('state')}")
    return down
