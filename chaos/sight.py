"""Who reaches whom on a fabric with some cables out, over which plane, and how much. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from chaos.bisection import Cable, halves, max_flow
from chaos.fabric import Fabric, Link

_SPEED = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([MGT])(?:(?:b|bit)(?:ps|/s)?|E)?\s*$", re.I)
_MEGABITS = {"M": 1, "G": 1_000, "T": 1_000_000}


@dataclass(frozen=True, slots=True)
class Rank:
    """One rank of a job, as planned.

    Attributes:
        name: Such as `rank2`, as its process is announced.
        node: Where it runs.
        interface: The interface that carries its job; empty for all of the node's.
        job: Label of its probe: ranks of one job reach each other.
    """

    name: str
    node: str
    interface: str = ""
    job: str = ""


class Sight:
    """A fabric without the cables that are out: who reaches whom, over which plane.

    Args:
        fabric: What exists.
        ranks: Their nodes count as hosts.
        out: Ids of the cables that are out.
    """

    def __init__(self, fabric: Fabric, ranks: Sequence[Rank], out: Collection[str]) -> None:
        self.fabric, self.out = fabric, out
        running = {rank.node for rank in ranks}
        self.hosts = [
            name for name, node in fabric.nodes.items() if node.role == "host" or name in running
        ]
        self._hosts = frozenset(self.hosts)
        self.cables = [link for link in fabric.links if len(link.ports) == 2]
        self.up = [link for link in self.cables if link.id not in out]

    @cached_property
    def order(self) -> dict[str, int]:
        """Place of each node in the file."""
        return {name: at for at, name in enumerate(self.fabric.nodes)}

    @cached_property
    def groups(self) -> list[frozenset[str]]:
        """Planes: switches that reach each other, and pairs of hosts joined directly."""
        peers: dict[str, set[str]] = {
            name: set() for name in self.fabric.nodes if name not in self._hosts
        }
        direct: dict[frozenset[str], None] = {}
        for link in self.up:
            a, b = link.a.node, link.b.node
            if a in peers and b in peers:
                peers[a].add(b)
                peers[b].add(a)
            elif a in self._hosts and b in self._hosts and a != b:
                direct[frozenset((a, b))] = None
        found: list[frozenset[str]] = []
        seen: set[str] = set()
        for name in peers:
            if name in seen:
                continue
            group, todo = {name}, [name]
            for node in todo:
                new = peers[node] - group
                group |= new
                todo += new
            seen |= group
            found.append(frozenset(group))
        used = {name for link in self.up for name in link.nodes if {*link.nodes} & self._hosts}
        return [group for group in found if group & used] + list(direct)

    @cached_property
    def joined(self) -> list[frozenset[str]]:
        """Hosts of each plane, in the order of `groups`."""
        return [self.attached(group) for group in self.groups]

    def attached(self, group: frozenset[str], interface: str = "") -> frozenset[str]:
        """Hosts with a cable into a group of switches (at that interface), or the pair itself."""
        if group <= self._hosts:
            return group
        return frozenset(
            port.node
            for link in self.up
            for port in link.ports
            if port.node in self._hosts
            and link.other(port).node in group
            and (not interface or port.name == interface)
        )

    @cached_property
    def reach(self) -> dict[str, frozenset[str]]:
        """Other hosts that each host reaches."""
        return self.reached(self.joined)

    def reached(self, joined: Sequence[frozenset[str]]) -> dict[str, frozenset[str]]:
        """The same for given hosts per plane."""
        found: dict[str, set[str]] = {host: set() for host in self.hosts}
        for members in joined:
            for host in members:
                found[host] |= members
        return {host: frozenset(others - {host}) for host, others in found.items()}

    @cached_property
    def speeds(self) -> dict[str, int]:
        """Mb/s per cable; empty where any cable has none."""
        found = {link.id: speed(link) for link in self.cables}
        return {name: mbps for name, mbps in found.items() if mbps} if all(found.values()) else {}

    @cached_property
    def carried(self) -> list[float]:
        """Flow between the halves of the hosts, for both ways to halve them."""
        cables: list[Cable] = [
            (link.a.node, link.b.node, self.speeds.get(link.id, 1)) for link in self.up
        ]
        scale = 1000 if self.speeds else 1
        return [max_flow(cables, one, other) / scale for one, other in halves(self.hosts)]


def speed(link: Link) -> int:
    """Mb/s of a link by `speed` among its vars, else its labels; 0 where none can be read.

    Examples:
        >>> from chaos.fabric import Port
        >>> speed(Link(Port("a", "eth1"), Port("b", "eth1"), vars={"speed": "400G"}))
        400000
    """
    found = _SPEED.match(str(link.vars.get("speed", link.labels.get("speed", ""))))
    return round(float(found[1]) * _MEGABITS[found[2].upper()]) if found else 0
