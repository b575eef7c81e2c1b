"""Paths and counters, asked of the machines themselves (`chaos.driver.Paths`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.places import platform_of
from chaos.errors import FabricError
from chaos.fabric import Crossing, Fabric, Link, Port, Stream
from chaos.path import MAX_HOPS, Counters


class Reach(Protocol):
    """What is needed of the driver."""

    fabric: Fabric

    async def machine(self, node: str) -> Machine:
        """A machine that is ready."""
        ...

    def ifname(self, port: Port) -> str:
        """The kernel's name of a port."""
        ...


class RemotePaths:
    """Look-ups in every machine's own kernel."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def crossings(self, stream: Stream) -> tuple[Crossing, ...]:
        """Links that a stream's packets cross, in order.

        A switch does not tell which of its equal ports a flow takes; where only one leads on, that
        one is taken, else it is an error.

        Raises:
            FabricError: a node has no route for them, they run in a circle, or it cannot be told.
        """
        fabric = self._reach.fabric
        node, came_by, taken = stream.source, "", list[Crossing]()
        been: set[tuple[str, str]] = set()
        while (node, came_by) not in been and len(taken) < MAX_HOPS:
            been.add((node, came_by))
            if platform_of(fabric, node):
                link = self._onward(node, came_by, stream)
            else:
                hop = await self._ask(node, came_by, stream, taken)
                if hop["local"]:
                    return tuple(taken)
                link = self._link(node, hop["ifname"], stream)
            far = link.other(link.port_of(node))
            taken.append(Crossing(link, node, far.node))
            node, came_by = far.node, far.name
            if node == stream.target:
                return tuple(taken)
        raise FabricError(f"{stream} loops{_so_far(taken)}")

    async def _ask(
        self, node: str, came_by: str, stream: Stream, taken: Sequence[Crossing]
    ) -> dict[str, Any]:
        machine = await self._reach.machine(node)
        iif = self._reach.ifname(Port(node, came_by)) if came_by else ""
        try:
            found: dict[str, Any] = await machine.ask(
                "lookup",
                dst=stream.target_ip,
                src=stream.source_ip,
                proto=stream.proto,
                sport=stream.sport,
                dport=stream.dport,
                iif=iif,
            )
        except FabricError as error:
            raise FabricError(f"{error}: no way for {stream}{_so_far(taken)}") from None
        return found

    def _link(self, node: str, ifname: str, stream: Stream) -> Link:
        for link in self._reach.fabric.links_of(node):
            for port in link.ports:
                if port.node == node and self._reach.ifname(port) == ifname:
                    return link
        raise FabricError(f"{stream} leaves {node} by {ifname}, which is no link of the fabric")

    def _onward(self, node: str, came_by: str, stream: Stream) -> Link:
        links = [
            link
            for link in self._reach.fabric.links_of(node)
            if link.port_of(node).name != came_by and len(link.ports) == 2
        ]
        direct = [link for link in links if stream.target in link.nodes]
        chosen = direct or links
        if len(chosen) != 1:
            raise FabricError(
                f"{node} is a switch and does not tell by which of {len(chosen)} ports it sends "
                f"{stream} on; name the link to break instead of in-use"
            )
        return chosen[0]

    async def counters(self, links: Iterable[Link]) -> Mapping[Port, Counters]:
        """Packet and byte counters of both ends of links, as far as they are on machines."""
        fabric = self._reach.fabric
        by_node: dict[str, list[Port]] = {}
        for link in links:
            for port in link.ports:
                if not platform_of(fabric, port.node) and fabric.node(port.node).settings.get(
                    "ssh"
                ):
                    by_node.setdefault(port.node, []).append(port)

        async def one(node: str, ports: list[Port]) -> dict[Port, Counters]:
            machine = await self._reach.machine(node)
            names = {port: self._reach.ifname(port) for port in ports}
            found = await machine.ask("counters", names=sorted(set(names.values())))
            return {port: Counters(*found[name]) for port, name in names.items()}

        parts = await asyncio.gather(*(one(node, ports) for node, ports in by_node.items()))
        return {port: counted for part in parts for port, counted in part.items()}

    def close(self) -> None:
        """Nothing is held: the machines stay connected."""


def _so_far(taken: Sequence[Crossing]) -> str:
    return "; it came by " + ", ".join(str(crossing) for crossing in taken) if taken else ""
