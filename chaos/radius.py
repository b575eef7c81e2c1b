"""Blast radius: what planned changes would take from a fabric, by its topology alone. Pure.

**Out** is a cable that no longer carries both ways: an end or its carrier is down, everything is
dropped in one direction, a node at an end is stopped, or the routing session over it is shut. A
change that only hurts (a share of the packets, some of the packets, a paused node) leaves its
cables *impaired*; they are not out. A dummy is no cable, and a cable from a node to itself joins
nothing, but it is a cable.

*Hosts* are the nodes of role `host` and those that run ranks. Only switches pass traffic on: a way
between two hosts never leads through a third.

- A host is **isolated** when it can no longer reach more than half of the hosts it could reach.
- A **plane** (a rail) is a group of switches that reach each other without crossing a host; a
  cable between two hosts is a plane of its own. A host has a plane while it reaches over it more
  than half of the hosts that it reached over it. *Planes left* is told for the host with fewest.
- The **bisection** is the most that can flow between two halves of the hosts, hosts being the ends
  and switches without limit: the lesser share left of two ways to halve them, first half of the
  file | second half, and every other host (`chaos.bisection`). A cable counts by `speed` among its
  link's `vars` (or labels), such as `400G`; where any cable lacks one, all count the same.
- A rank is **touched** when its process, its node, or a cable of its node is changed. It is
  **lost** when its process is stopped or killed, its node is stopped or stands still, or it can no
  longer reach, over its job's interface, more than half of the hosts of its job.

Every number is monotone: more changes never make a radius smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chaos.change import Change
from chaos.fabric import Fabric
from chaos.sight import Rank, Sight, speed
from chaos.toll import Toll, toll

__all__ = ["Count", "Radius", "Rank", "radius"]


@dataclass(frozen=True, slots=True)
class Count:
    """So many of so many.

    Examples:
        >>> str(Count(1, 16)), Count(1, 36).left
        ('1 of 16 (6.25 %)', 35)
    """

    out: int
    of: int

    @property
    def left(self) -> int:
        """Those that are not out."""
        return self.of - self.out

    @property
    def percent(self) -> float:
        """Share that is out, in percent; 0 of none."""
        return 100 * self.out / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.out} of {self.of} ({self.percent:.4g} %)"


@dataclass(frozen=True, slots=True)
class Radius:
    """What some changes would take.

    Attributes:
        nodes_touched: Nodes that a change names.
        links_out: Ids of cables that no longer carry both ways.
        links_impaired: Ids of cables that carry worse, and are not out.
        links: Cables out, of all.
        tiers: The same per pair of roles, such as `leaf--spine`; those with none out too.
        host_ports: Ports out per host that has any out.
        hosts: How many hosts there are.
        hosts_isolated: Hosts without a way to most of the others.
        planes: Members of each plane.
        planes_lost: Names (first members) of planes that no host has any more.
        planes_left: Planes of the host that has fewest left; None where no host had any.
        planes_of: How many that host had.
        planes_at: That host.
        bisection_left_percent: Share left of what can flow between two halves of the hosts; None
            where nothing could flow before, or there are fewer than two hosts.
        bisection: What is left, and what there was, in `unit`.
        unit: `links` or `Gb/s`.
        ranks: How many ranks there are.
        ranks_touched: Ranks whose process, node or cable is changed.
        ranks_lost: Ranks that stand still, or are cut off from their job.
        notes: Sentences about the numbers.
    """

    nodes_touched: tuple[str, ...] = ()
    links_out: tuple[str, ...] = ()
    links_impaired: tuple[str, ...] = ()
    links: Count = Count(0, 0)
    tiers: Mapping[str, Count] = field(default_factory=dict)
    host_ports: Mapping[str, Count] = field(default_factory=dict)
    hosts: int = 0
    hosts_isolated: tuple[str, ...] = ()
    planes: tuple[tuple[str, ...], ...] = ()
    planes_lost: tuple[str, ...] = ()
    planes_left: int | None = None
    planes_of: int = 0
    planes_at: str = ""
    bisection_left_percent: float | None = None
    bisection: tuple[float, float] = (0.0, 0.0)
    unit: str = "links"
    ranks: int = 0
    ranks_touched: tuple[str, ...] = ()
    ranks_lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def worst_host(self) -> tuple[str, Count]:
        """The host with the greatest share of its ports out; an empty name for none."""
        found = max(self.host_ports.items(), key=lambda one: one[1].percent, default=None)
        return found or ("", Count(0, 0))

    def lines(self) -> tuple[str, ...]:
        """The numbers as text, one thing per line."""
        told = [f"links out       {self.links}" + _listed(self.links_out)]
        told += [f"  {tier:13} {count}, {count.left} left" for tier, count in self.tiers.items()]
        if self.links_impaired:
            told.append(
                f"links impaired  {len(self.links_impaired)}" + _listed(self.links_impaired)
            )
        host, ports = self.worst_host
        if host:
            told.append(f"host ports      {ports} at {host}")
        told.append(
            f"hosts isolated  {len(self.hosts_isolated)} of {self.hosts}"
            + _listed(self.hosts_isolated)
        )
        if self.planes_left is not None:
            lost = f"; lost for all: {', '.join(self.planes_lost)}" if self.planes_lost else ""
            where = f" at {self.planes_at}" if self.planes_left < self.planes_of else ""
            told.append(f"planes left     {self.planes_left} of {self.planes_of}{where}{lost}")
        if self.bisection_left_percent is not None:
            left, of = self.bisection
            told.append(
                f"bisection left  {self.bisection_left_percent:.4g} % "
                f"({left:g} of {of:g} {self.unit})"
            )
        if self.ranks:
            touched, lost = len(self.ranks_touched), _listed(self.ranks_lost)
            told.append(
                f"ranks           {touched} of {self.ranks} touched, "
                f"{len(self.ranks_lost)} lost{lost}"
            )
        return (*told, *(f"note            {note}" for note in self.notes))

    def as_json(self) -> dict[str, Any]:
        """The numbers as plain data, shares in percent."""
        data = asdict(self)
        data["links"] = _plain(self.links)
        data["tiers"] = {name: _plain(count) for name, count in self.tiers.items()}
        data["host_ports"] = {name: _plain(count) for name, count in self.host_ports.items()}
        data["bisection"] = {"left": self.bisection[0], "of": self.bisection[1], "unit": self.unit}
        del data["unit"]
        return data


def _plain(count: Count) -> dict[str, float]:
    return {"out": count.out, "of": count.of, "left": count.left, "percent": count.percent}


def _listed(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > 6 else ""
    return f": {', '.join(names[:6])}{more}" if names else ""


def radius(
    changes: Sequence[Change],
    fabric: Fabric,
    ranks: Sequence[Rank] = (),
    whole: Sight | None = None,
) -> Radius:
    """What these changes, in force together, would take from a fabric.

    Args:
        changes: Planned changes; their order does not matter.
        fabric: What exists.
        ranks: The ranks of the experiment's jobs.
        whole: The fabric unbroken, where many radii of it are asked: `Sight(fabric, ranks, ())`.
    """
    took = toll(changes, fabric)
    before = whole or Sight(fabric, ranks, ())
    after = Sight(fabric, ranks, took.out)
    cables = before.cables
    out = [link.id for link in cables if link.id in took.out]
    still = [_over(before, after, at) for at in range(len(before.groups))]
    planes_left, planes_of, planes_at = _planes_left(before, still)
    share, carried, notes = _bisection(before, after)
    touched, lost = _ranks(ranks, took, before, after)
    return Radius(
        nodes_touched=tuple(name for name in fabric.nodes if name in took.nodes),
        links_out=tuple(out),
        links_impaired=tuple(link.id for link in cables if link.id in took.impaired),
        links=Count(len(out), len(cables)),
        tiers=_tiers(before, took.out),
        host_ports=_host_ports(before, took.out),
        hosts=len(before.hosts),
        hosts_isolated=tuple(
            host for host in before.hosts if _halved(before.reach[host], after.reach[host])
        ),
        planes=tuple(tuple(sorted(group, key=before.order.__getitem__)) for group in before.groups),
        planes_lost=_planes_lost(before, still),
        planes_left=planes_left,
        planes_of=planes_of,
        planes_at=planes_at,
        bisection_left_percent=share,
        bisection=carried,
        unit="Gb/s" if before.speeds else "links",
        ranks=len(ranks),
        ranks_touched=touched,
        ranks_lost=lost,
        notes=notes,
    )


def _halved(before: frozenset[str], after: frozenset[str]) -> bool:
    """More than half is lost."""
    return 2 * len(after & before) < len(before)


def _tiers(sight: Sight, out: set[str]) -> dict[str, Count]:
    counts: dict[str, Count] = {}
    for link in sight.cables:
        tier = "--".join(sorted(sight.fabric.nodes[name].role for name in link.nodes))
        had = counts.get(tier, Count(0, 0))
        counts[tier] = Count(had.out + (link.id in out), had.of + 1)
    return counts


def _host_ports(sight: Sight, out: set[str]) -> dict[str, Count]:
    counts = dict.fromkeys(sight.hosts, Count(0, 0))
    for link in sight.cables:
        for port in link.ports:
            if port.node in counts:
                had = counts[port.node]
                counts[port.node] = Count(had.out + (link.id in out), had.of + 1)
    return {host: count for host, count in counts.items() if count.out}


def _over(before: Sight, after: Sight, at: int) -> dict[str, bool]:
    """Per host of one plane that joins any, whether it still has it."""
    group, members = before.groups[at], before.joined[at]
    if len(members) < 2:
        return {}
    parts = zip(after.groups, after.joined, strict=True)
    left = after.reached([joined for part, joined in parts if part <= group])
    return {host: not _halved(members - {host}, left[host]) for host in members}


def _planes_left(
    before: Sight, planes: Sequence[Mapping[str, bool]]
) -> tuple[int | None, int, str]:
    had = {h: sum(h in plane for plane in planes) for h in before.hosts}
    has = {h: sum(plane.get(h, False) for plane in planes) for h in before.hosts}
    joined = [host for host in before.hosts if had[host]]
    if not joined:
        return None, 0, ""
    # the fewest left; among equals the one that lost most, then the first in the file
    at = min(joined, key=lambda host: (has[host], has[host] - had[host]))
    return has[at], had[at], at


def _planes_lost(before: Sight, planes: Sequence[Mapping[str, bool]]) -> tuple[str, ...]:
    return tuple(
        min(group, key=before.order.__getitem__)
        for group, still in zip(before.groups, planes, strict=True)
        if still and not any(still.values())
    )


def _bisection(
    before: Sight, after: Sight
) -> tuple[float | None, tuple[float, float], tuple[str, ...]]:
    pairs = [(left, of) for left, of in zip(after.carried, before.carried, strict=True) if of > 0]
    read = [link for link in before.cables if speed(link)]
    notes: tuple[str, ...] = ()
    if read and not before.speeds:
        lacks = next(link for link in before.cables if not speed(link))
        notes = (
            f"{len(read)} of {len(before.cables)} links have a speed, so every link counts the "
            f"same; {lacks.id}, for one, lacks it (vars: {{speed: 400G}})",
        )
    if not pairs:
        return None, (0.0, 0.0), notes
    least = min(pairs, key=lambda pair: pair[0] / pair[1])
    return 100 * least[0] / least[1], least, notes


def _ranks(
    ranks: Sequence[Rank], took: Toll, before: Sight, after: Sight
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the ranks that are touched, and of those that are lost."""
    hurt = took.out | took.impaired
    changed = took.nodes | {n for link in before.cables if link.id in hurt for n in link.nodes}
    several = len({rank.job for rank in ranks}) > 1
    touched, lost = [], []
    ways: dict[tuple[str, str], _Ways] = {}
    for rank in ranks:
        name = f"{rank.job} {rank.name}" if several else rank.name
        dead = rank.name in took.stopped or rank.node in took.halted
        if dead or rank.node in changed:
            touched.append(name)
        key = (rank.job, rank.interface)
        if key not in ways:
            job = frozenset(one.node for one in ranks if one.job == rank.job)
            ways[key] = (job, _carried(before, rank.interface), _carried(after, rank.interface))
        job, had, has = ways[key]
        if dead or _halved(had[rank.node] & job, has[rank.node] & job):
            lost.append(name)
    return tuple(touched), tuple(lost)


_Ways = tuple[frozenset[str], Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]


def _carried(sight: Sight, interface: str) -> Mapping[str, frozenset[str]]:
    """Hosts that each host reaches over cables at one interface."""
    return sight.reached([sight.attached(group, interface) for group in sight.groups])
