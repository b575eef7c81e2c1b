"""Reaching a running lab: where ports, nodes and processes are, and what cannot be made there."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import chaos
from chaos.change import (
    AtRouter,
    Change,
    DeviceGone,
    LinkState,
    NodePower,
    PacketDrop,
    PacketRule,
    PauseStorm,
    Place,
    PortShape,
    Where,
    WireTo,
)
from chaos.changes.queue import QUEUES
from chaos.driver import Done, process_at
from chaos.drivers.containerlab import cabling, deploy, frrlog
from chaos.drivers.containerlab.binary import Binary
from chaos.drivers.containerlab.cabling import Cabling, End
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.runtime import Runtime
from chaos.drivers.local import LocalReach, no_device, no_pause, no_router
from chaos.drivers.state import State
from chaos.errors import CapabilityError, FabricError, SpecError
from chaos.fabric import Fabric, Port
from chaos.netns import inode
from chaos.packets.engines import away

_SOURCE = str(Path(chaos.__file__).resolve().parents[1])
_KILLS = (1, 42)  # the daemon's interface from which a stop is a kill, and not a request


class LabReach(LocalReach):
    """The nodes, ports and processes of one running lab.

    Args:
        folder: Folder of the instance.
        known: Its state.
        runtime: The container runtime; by default the one it was made with.
    """

    name: ClassVar[str] = "containerlab"

    def __init__(self, folder: Path, known: State, runtime: Runtime | None = None) -> None:
        self._folder, self._state = folder, known
        self.fabric: Fabric = known.fabric
        self.lab: str = str(known.details.get("lab") or known.instance)
        self.processes: dict[str, Where] = {}
        self._runtime = runtime or Runtime(str(known.details.get("runtime") or "docker"))
        self._nodes = Nodes(self._runtime, self.lab, deploy.containers_of(known.fabric))
        self._cabling: Cabling | None = None
        self._read_of: dict[str, tuple[int, str]] = {}
        self._daemons: dict[tuple[str, int], tuple[str, ...]] = {}

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made here, and what instead; empty when it can."""
        place = change.place
        if isinstance(change, AtRouter):
            return no_router(fabric, place.node)
        if isinstance(change, NodePower):
            if place.node in deploy.containers_of(fabric):
                return ""
            return f"{place.node} is no container, so nothing can {change.state} it"
        if isinstance(change, DeviceGone):
            return no_device(change)
        if isinstance(change, PauseStorm):
            return no_pause(change)
        if place.side != "wire":
            return ""
        link = fabric.link_at(Port(place.node, place.port))
        far = link.other(Port(place.node, place.port))
        plain = link.kind == cabling.PLAIN or _stays_plain(link.nodes, fabric)
        if isinstance(change, LinkState) and plain:
            return (
                f"link {link.id} is a plain veth pair, which cannot lose its carrier while both "
                "ends stay up; use mode: admin with end: both, or deploy the lab with railbreak up "
                "(Containerlab 0.78 or newer), which stitches its links"
            )
        if isinstance(change, WireTo):
            return (
                f"link {link.id} ends where the topology file says; exchange its ends there and "
                "deploy the lab again, or use the embedded fabric, whose cables can be led apart"
            )
        if isinstance(change, PortShape) and far.node not in deploy.containers_of(fabric):
            return (
                f"what arrives at {place.node} over {link.id} is sent by {far.node or 'nobody'}, "
                "which is no container, so it cannot be slowed there; name the other end"
            )
        if isinstance(change, PacketRule) and change.engine in QUEUES:
            if place.node in deploy.containers_of(fabric):
                return ""
            return f"{place.node} is no container, so nothing can be held where it sends"
        if isinstance(change, PacketDrop | PacketRule) and far.node not in deploy.containers_of(
            fabric
        ):
            return (
                f"what {place.node} sends over {link.id} arrives at {far.node or 'nobody'}, which "
                "is no container, so it cannot be dropped there; name the other end"
            )
        return away(change.rule.then) if isinstance(change, PacketRule) else ""

    def namespaces(self) -> Mapping[str, str]:
        """Path of the network namespace per container, asked for anew when one has ended."""
        return self._nodes.namespaces()

    def cables(self) -> Cabling:
        """How the lab is cabled now; read again when a container runs anew.

        Raises:
            FabricError: a node does not run.
        """
        boxes = self._nodes.now()
        seen = {node: (box.pid, box.began) for node, box in boxes.items() if box.pid}
        if self._cabling is None or seen != self._read_of:
            paths = {node: path for node, path in self.namespaces().items() if node in seen}
            self._cabling, self._read_of = cabling.read(self.fabric, paths, self.lab), seen
        return self._cabling

    def ends_of(self, node: str) -> Sequence[End]:
        """Ends of links at `node`, in the order of the links."""
        return self.cables().ends_of(self.fabric, node)

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            SpecError: the fabric has no such port, or no such process was announced.
            FabricError: its container does not run, or has lost its links.
        """
        self.fabric.node(place.node)
        if place.process:
            return process_at(place, self.processes)
        path = f"/proc/{self._nodes.box(place.node).pid}/ns/net"
        if not place.port:
            return Where(path, inode(path))
        port = Port(place.node, place.port)
        self.fabric.link_at(port)
        if port not in self.cables().ends:
            raise FabricError("; ".join(self._lost()) or f"{port} is not there")
        end = self.cables().end(port)
        if place.side == "wire":
            return Where(cabling.HERE, inode(cabling.HERE), end.outer_name, end.outer)
        return Where(path, inode(path), port.name, end.ifindex)

    def locate(self, change: Change) -> Where:
        """Where a change acts now.

        What a port sends is dropped where it arrives: at the ingress of the other end. The queue of
        a rule is where the port sends. A node as a whole is reached by commands of Containerlab and
        of the runtime.
        """
        if reason := self.refusal(change, self.fabric):
            raise CapabilityError(reason)
        place = change.place
        if isinstance(change, PacketDrop | PacketRule | PortShape) and place.side == "wire":
            port = Port(place.node, place.port)
            if isinstance(change, PacketRule) and change.engine in QUEUES:
                where = self.resolve(Place.at(port))
                return dataclasses.replace(where, across=where.ifname)
            return self.resolve(Place.at(self.fabric.link_at(port).other(port)))
        if isinstance(change, AtRouter):
            box = self._nodes.box(place.node)
            enter = (self._runtime.program, "exec", "-i", box.name)
            return dataclasses.replace(self.resolve(place), enter=enter)
        if isinstance(change, NodePower):
            return Where(power=self._power(place.node))
        return self.resolve(place)

    def _power(self, node: str) -> dict[str, tuple[str, ...]]:
        name, program = self._nodes.box(node).name, self._runtime.program
        quiet = ("env", "CLAB_VERSION_CHECK=disable")
        short = () if deploy.api_of(self._runtime) >= _KILLS else ("--timeout", "2s")
        binary = Binary((0, 0), frozenset(), program)
        words = ("--name", self.lab, "-n", node)
        module = ("-m", "chaos.drivers.containerlab.power")
        start = ("env", f"PYTHONPATH={_SOURCE}", sys.executable, *module, str(self._folder), node)
        return {
            "stop": (*quiet, *binary.argv("stop", *words, *short)),
            "unstop": start,
            "pause": (program, "pause", name),
            "unpause": (program, "unpause", name),
            "look": (program, "inspect", "--format", "{{.State.Status}}", name),
        }

    def _lost(self) -> list[str]:
        """One sentence per container whose links are gone, or per link that is."""
        findings = self.cables().findings
        if not findings:
            return []
        boxes, told = self._nodes.now(), []
        for node in deploy.containers_of(self.fabric):
            ports = [p for p in self.fabric.walk() if p.node == node]
            gone = [port.name for port in ports if port not in self.cables().ends]
            if gone and len(gone) == len(ports) and node in boxes:
                told.append(
                    f"container {boxes[node].name} was restarted (it runs since "
                    f"{boxes[node].began[:19]}), which takes its links away: {', '.join(gone)} "
                    f"are gone; containerlab deploy --reconfigure makes lab {self.lab} anew"
                )
        return told or [f"lab {self.lab}: {sentence}" for sentence in findings[:4]]

    # ------------------------------------------------------------------ in a container

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node's container, never through a shell.

        Raises:
            SpecError: no such node.
            FabricError: it cannot be started, or was killed at the deadline.
        """
        self.fabric.node(node)
        if not argv:
            raise SpecError(f"{node}: no command to run")
        return await self._nodes.exec(node, argv, stdin, deadline_s)

    async def daemons(self, node: str) -> Collection[str]:
        """Names of FRR's daemons that run in a router."""
        key = (node, self._nodes.box(node).pid)
        if not self._daemons.get(key):
            done = await self.exec(node, ("ls", "/var/run/frr"))
            names = done.stdout.decode(errors="replace").split()
            found = tuple(name.removesuffix(".vty") for name in names if name.endswith(".vty"))
            self._daemons[key] = found
        return self._daemons[key]

    def check(self, node: str) -> None:
        """A container's FRR keeps what it refused to itself."""

    def logs(self) -> dict[str, str]:
        """Path of the log of FRR's daemons per router, as far as one is kept in a file."""
        boxes = self._nodes.now()
        found = {
            name: frrlog.log_of(boxes[name])
            for name, node in self.fabric.nodes.items()
            if node.runs == "frr" and name in boxes
        }
        return {name: path for name, path in found.items() if path}


def _stays_plain(nodes: Sequence[str], fabric: Fabric) -> bool:
    """Whether a link that is still to be deployed will not be stitched."""
    wished = os.environ.get("RAILBREAK_CLAB_LINKS") == "plain"
    inside = set(deploy.containers_of(fabric))
    return any(node not in inside for node in nodes) or (
        wished and all(link.kind == "veth" for link in fabric.links)
    )
