"""What drivers share whose nodes are network namespaces of this machine: acting, looking, reading.

A namespace is known by its path and inode. A node that was restarted has another one, so paths are
asked for each time and warm sockets are dropped when an inode changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from chaos import load, snapshot
from chaos.change import Change, DeviceGone, PauseStorm, Place, Where
from chaos.driver import Done
from chaos.drivers.fib import read_addresses
from chaos.drivers.ready import Plugged
from chaos.drivers.spawn import Child
from chaos.errors import CapabilityError
from chaos.fabric import Crossing, Fabric, Link, Node, Port, Stream
from chaos.hands import Hands
from chaos.natives.able import Here
from chaos.netns import inode, inside
from chaos.packets.engines import At
from chaos.path import Counters, Tracer
from chaos.registry import Program
from chaos.snapshot import Snapshot
from chaos.units import Duration


class LocalReach(ABC):
    """Base of a driver whose `namespaces()` are on this machine.

    Attributes:
        fabric: The fabric.
        processes: Processes that can be aimed at, by `node/process`; observers fill it.
    """

    name: ClassVar[str]
    elsewhere: ClassVar[bool] = False
    fabric: Fabric
    processes: dict[str, Where]
    _addresses: dict[str, str] | None = None
    _children: list[Child]

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journals."""

    @abstractmethod
    def namespaces(self) -> Mapping[str, str]:
        """Path of the network namespace per node."""

    @abstractmethod
    def resolve(self, place: Place) -> Where:
        """Where a place is now."""

    @abstractmethod
    def ends_of(self, node: str) -> Sequence[Plugged]:
        """Ends of links at `node`, in the order of the links."""

    @abstractmethod
    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node, never through a shell."""

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why this driver cannot make a change, and what to use instead; empty when it can."""
        return ""

    @classmethod
    def engines(cls) -> Mapping[str, str] | None:
        """Engines of packet rules by name → why one is not on this machine; each is tried.

        Only the interfaces are reached that receive and send; a driver that reaches more says so.
        """
        return At(False, Here(), sends=True)

    def bars(self, program: Program) -> str:
        """Every program runs where namespaces are on this machine."""
        return ""

    def locate(self, change: Change) -> Where:
        """Where a change acts now.

        Raises:
            CapabilityError: this driver cannot make it; says why and what to use instead.
            SpecError: the fabric has no such place.
        """
        reason = self.refusal(change, self.fabric)
        if reason:
            raise CapabilityError(reason)
        return self.resolve(change.place)

    async def arm(
        self, changes: Sequence[Change], *, journal: Path, max_life: Duration, log_dir: Path
    ) -> Hands:
        """Make changes ready in an injector process; nothing is changed yet."""
        wheres = {change.place: self.locate(change) for change in changes}
        return await Hands.arm(changes, wheres, journal=journal, max_life=max_life, log_dir=log_dir)

    async def _start(
        self, program: Program, home: Mapping[str, str], setup: Mapping[str, Any]
    ) -> Child:
        """Start a program and tell it where the nodes are; its errors go to `logs/NAME.log`."""
        log = self.folder / "logs" / f"{program.name}.log"
        child = await Child.start(program.name, program.module, home, log)
        self._children.append(child)
        first = {"config": dict(program.config), "namespaces": dict(self.namespaces()), **setup}
        await child.send(json.dumps(first).encode())
        return child

    async def _stop_programs(self) -> None:
        running = [child for child in self._children if child.code is None]
        await asyncio.gather(*(child.stop(0.5) for child in running))
        self._children.clear()

    def announced(self, node: str, pid: int, started: int) -> Where:
        """The way to a process that a program announced."""
        return Where(pid=pid, started=started)

    async def vtysh(self, node: str, *commands: str) -> list[Any]:
        """What FRR in a node answers to `show … json` commands, up to the first that it refuses."""
        words = [word for command in commands for word in ("-c", command)]
        done = await self.exec(node, ("vtysh", *words))
        rest, answers = done.stdout.decode(errors="replace").lstrip(), []
        while rest.startswith(("{", "[")):
            answer, end = json.JSONDecoder().raw_decode(rest)
            answers.append(answer)
            rest = rest[end:].lstrip()
        return answers

    def addresses(self) -> Mapping[str, str]:
        """The first IPv4 (else IPv6) address on a host's links, in their order, per host.

        Hosts are the nodes of that role; where none has it, those that only run a shell. An
        address on another interface, such as that of a management network, never counts.
        """
        if self._addresses is None:
            listed = {node.name: self._addresses_of(node.name) for node in hosts_of(self.fabric)}
            self._addresses = {name: found[0] for name, found in listed.items() if found}
        return self._addresses

    def _addresses_of(self, node: str) -> list[str]:
        held = inside(self.namespaces()[node], read_addresses)
        listed = [item for end in self.ends_of(node) for item in held.get(end.ifindex, ())]
        return [str(item.ip) for item in sorted(listed, key=lambda item: item.version)]

    def paths(self) -> LocalPaths:
        """Look-ups of paths and counters of ports."""
        return LocalPaths(self)

    async def snapshot(self) -> Snapshot:
        """The state that faults may touch, per node."""
        return await asyncio.to_thread(snapshot.take, self.namespaces())

    def load(self) -> load.Reading:
        """How busy this machine is, and with what of ours."""
        return load.read(self.namespaces().values())


def no_router(fabric: Fabric, node: str) -> str:
    """Why no BGP session or daemon of a node can be touched; empty where FRR runs."""
    if fabric.node(node).runs == "frr":
        return ""
    return f"{node} runs no BGP of FRR, so it has no session and no daemon of it; name a router"


def no_device(change: DeviceGone) -> str:
    """Why nothing can be taken from behind a port that is a veth."""
    return (
        f"{change.place} is an end of a veth pair and no PCI device: it has no driver that could "
        "let go of it and no slot; use mode: carrier or admin, or machines over ssh"
    )


def no_pause(change: PauseStorm) -> str:
    """Why nothing can be paused at the end of a veth pair."""
    return (
        f"{change.to} is an end of a veth pair, which honours no PFC: frames would be sent and "
        "nothing would stop; use link_slow, which holds traffic back here, or machines over ssh"
    )


def hosts_of(fabric: Fabric) -> tuple[Node, ...]:
    """Nodes of role `host`; where none has it, those that only run a shell."""
    shells = tuple(node for node in fabric.nodes.values() if node.runs == "shell")
    return fabric.with_role("host") or shells


def is_router(node: Node) -> bool:
    """Whether the node forwards between its links as its purpose."""
    return node.runs == "frr" or (node.runs != "bridge" and node.role != "host")


def seed_of(*words: str) -> int:
    """A number of 32 bits that depends on the words alone, never 0.

    Examples:
        >>> seed_of("clos", "leaf1") == seed_of("clos", "leaf1") != seed_of("clos", "leaf2")
        True
    """
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:4], "big") or 1


class LocalPaths:
    """Warm sockets in every node, renewed when a node was."""

    def __init__(self, reach: LocalReach) -> None:
        self._reach = reach
        self._seen: dict[str, int] = {}
        self._tracer: Tracer | None = None

    def _warm(self) -> Tracer:
        namespaces = dict(self._reach.namespaces())
        seen = {node: inode(path) for node, path in namespaces.items()}
        if self._tracer is None or seen != self._seen:
            self.close()
            self._tracer, self._seen = Tracer(self._reach.fabric, namespaces), seen
        return self._tracer

    async def crossings(self, stream: Stream) -> tuple[Crossing, ...]:
        """Links that a stream's packets cross, in order.

        Raises:
            FabricError: a node has no route for them, or they run in a circle.
        """
        return self._warm().crossings(
            stream.source,
            stream.source_ip,
            stream.target_ip,
            stream.proto,
            stream.sport,
            stream.dport,
        )

    async def counters(self, links: Iterable[Link]) -> dict[Port, Counters]:
        """Packet and byte counters of both ends of links."""
        return self._warm().counters(links)

    def close(self) -> None:
        """Close every socket."""
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None
