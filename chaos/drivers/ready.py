"""Readiness: what the kernel must forward by, worked out from the topology and read from it.

Kernel state decides. A daemon is only asked where the kernel does not know (BFD, sessions).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from chaos.driver import Audit
from chaos.drivers.fib import Leg, Network, read_addresses, read_fib, read_running
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


class Plugged(Protocol):
    """A port and the kernel's index of its interface."""

    @property
    def port(self) -> Port:
        """The fabric's port."""
        ...

    @property
    def ifindex(self) -> int:
        """Index in the node."""
        ...


class Reach(Protocol):
    """What waiting and auditing need of a driver."""

    fabric: Fabric
    warnings: list[str]

    def ends_of(self, node: str) -> Sequence[Plugged]:
        """Ends of links at `node`, in the order of the links."""
        ...

    def namespaces(self) -> Mapping[str, str]:
        """Path per node."""
        ...

    async def vtysh(self, node: str, *commands: str) -> list[Any]:
        """Parsed JSON answers, up to the first command that is refused."""
        ...

    async def audit(self) -> Audit:
        """RIB against FIB."""
        ...

    async def daemons(self, node: str) -> Collection[str]:
        """Names of FRR's daemons that run in a router."""
        ...

    def check(self, node: str) -> None:
        """Raise `FabricError` where FRR refused a line of its configuration."""
        ...


def host_prefixes(reach: Reach) -> dict[Network, list[Port]]:
    """Prefixes on the ports of nodes that are neither router nor bridge, from the kernel."""
    found: dict[Network, list[Port]] = {}
    for name, path in reach.namespaces().items():
        if reach.fabric.nodes[name].runs != "shell":
            continue
        ports = {end.ifindex: end.port for end in reach.ends_of(name)}
        for index, addresses in inside(path, read_addresses).items():
            for address in addresses if index in ports else ():
                found.setdefault(address.network, []).append(ports[index])
    return found


async def wait(reach: Reach, deadline_s: float) -> None:
    """Return when every router forwards to every host prefix by all shortest paths, sessions up.

    Where the file's routing means fewer legs than there are shortest paths (costs, policies), or
    where there is no host at all: when nothing has moved for a while with all sessions up; the
    legs that are fewer become warnings.

    Raises:
        FabricError: not in time; names what lacks.
    """
    give_up = time.monotonic() + deadline_s
    while dark := _no_carrier(reach):
        if time.monotonic() > give_up:
            raise FabricError(f"ports without carrier after {deadline_s:g} s: {', '.join(dark)}")
        await asyncio.sleep(_POLL_S)
    routers = [name for name, node in reach.fabric.nodes.items() if node.runs == "frr"]
    if not routers:
        return
    watch = _Watch(reach, routers, expectations(reach.fabric, host_prefixes(reach)))
    while lacks := await watch.lacks():
        if time.monotonic() > give_up:
            more = f" … ({len(lacks)} in all)" if len(lacks) > 6 else ""
            raise FabricError(
                f"fabric {reach.fabric.name} is not ready after {deadline_s:g} s: "
                + "; ".join(lacks[:6])
                + more
            )
        await asyncio.sleep(_POLL_S)
    for name in routers:
        reach.check(name)
    reach.warnings.extend(f"{sentence} (as its routing means)" for sentence in watch.few)


class _Watch:
    """Looks again and again; remembers since when nothing has moved."""

    def __init__(self, reach: Reach, routers: list[str], expected: tuple[Expected, ...]) -> None:
        self.reach, self.routers, self.expected = reach, routers, expected
        self.few: list[str] = []
        self._last: Mapping[str, Mapping[Network, frozenset[Leg]]] = {}
        self._still_since = time.monotonic()

    async def lacks(self) -> list[str]:
        """Sentences on what is missing now; empty means ready."""
        fibs = _fibs(self.reach, self.routers, self.expected)
        if fibs != self._last:
            self._last, self._still_since = fibs, time.monotonic()
        absent, self.few = missing(self.expected, fibs)
        if absent:
            routes = [f"{want.router} has no route to {want.prefix}" for want in absent]
            return routes + self.few
        settling = bool(self.few) or not self.expected
        if settling and time.monotonic() - self._still_since < _SETTLED_S:
            return self.few or ["routes have not settled"]
        down = await _sessions_down(self.reach, self.routers)
        if _fibs(self.reach, self.routers, self.expected) != fibs:
            down.append("routes are moving")
        if down:
            self._still_since = time.monotonic()  # a session that comes up now brings its routes
            return down + self.few
        return list((await self.reach.audit()).findings) if settling else []


def _no_carrier(reach: Reach) -> list[str]:
    """Ports of the file whose interface does not run."""
    dark = []
    for name, path in reach.namespaces().items():
        running = inside(path, read_running)
        dark += [end.port.id for end in reach.ends_of(name) if end.ifindex not in running]
    return dark


def _fibs(
    reach: Reach, routers: Iterable[str], expected: Iterable[Expected]
) -> dict[str, dict[Network, frozenset[Leg]]]:
    paths = reach.namespaces()
    versions = sorted({want.prefix.version for want in expected} | {4})
    fibs: dict[str, dict[Network, frozenset[Leg]]] = {name: {} for name in routers}
    for name in routers:
        for version in versions:
            fibs[name] |= inside(paths[name], partial(read_fib, version))
    return fibs


async def _sessions_down(reach: Reach, routers: Iterable[str]) -> list[str]:
    """Sentences on BFD and BGP sessions that are configured and not up."""
    listed = await asyncio.gather(*(_node_sessions(reach, name) for name in routers))
    return [sentence for sentences in listed for sentence in sentences]


_QUESTIONS = {"bgpd": "show bgp summary json", "bfdd": "show bfd peers json"}


async def _node_sessions(reach: Reach, name: str) -> list[str]:
    running = await reach.daemons(name)
    asked = [daemon for daemon in _QUESTIONS if daemon in running]
    if not asked:
        return []
    answers = await reach.vtysh(name, *(_QUESTIONS[daemon] for daemon in asked))
    if len(answers) < len(asked):
        return [f"{name}: {asked[len(answers)]} does not answer"]
    found = dict(zip(asked, answers, strict=True))
    down = [
        f"{name}: BFD with {peer.get('peer')} on {peer.get('interface', '?')} is {peer['status']}"
        for peer in found.get("bfdd", ())
        if peer.get("status") not in ("up", "shutdown")
    ]
    for family in found.get("bgpd", {}).values():
        peers = family.get("peers") if isinstance(family, dict) else None
        down += [
            f"{name}: BGP with {peer} is {facts.get('state')}"
            for peer, facts in (peers or {}).items()
            if facts.get("state") != "Established"
        ]
    return down
