"""The fabric drawn in tiers: the path that the traffic took, and what was broken on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from chaos.report.markup import Markup, tag

Data = Mapping[str, Any]
MOST_NODES, WIDTH, TIER, MARGIN = 64, 640, 84, 34


def sketch(fabric: Data, trial: Data) -> Markup | None:
    """The fabric with one trial's path and broken elements; None where it would be a tangle."""
    nodes, links = fabric["nodes"], fabric["links"]
    if not links or len(nodes) > MOST_NODES:
        return None
    at = places(nodes, [ends(link) for link in links])
    height = max(y for _, y in at.values()) + MARGIN
    used = hops(trial["exposure"]["path"])
    element = trial["element"]
    hit = {one for one in element.split(", ") if one}  # several where the storm held several faults
    drawn = []
    for link in sorted(links, key=lambda one: (one in hit, frozenset(ends(one)) in used)):
        (ax, ay), (bx, by) = (at[node] for node in ends(link))
        kind = "wire used" if frozenset(ends(link)) in used else "wire"
        if link in hit or hit & {*ends(link)}:
            kind += " broken"
        drawn.append(tag("line", x1=ax, y1=ay, x2=bx, y2=by, class_=kind))
        if link in hit:
            drawn.append(_cross((ax + bx) / 2, (ay + by) / 2))
    return tag(
        "svg",
        *drawn,
        *(_node(name, role, at[name], name in hit, len(nodes)) for name, role in nodes.items()),
        viewBox=f"0 0 {WIDTH} {height:g}",
        class_="sketch",
        role="img",
        aria_label=f"fabric {fabric['name']}" + (f", broken: {element}" if element else ""),
    )


def ends(link: str) -> tuple[str, str]:
    """Node names of a link id.

    Examples:
        >>> ends("leaf1:eth1--spine1:eth1")
        ('leaf1', 'spine1')
    """
    a, _, b = link.partition("--")
    return a.rpartition(":")[0], b.rpartition(":")[0]


def hops(path: Sequence[str]) -> set[frozenset[str]]:
    """Pairs of neighbours on the paths that were taken.

    Examples:
        >>> sorted(map(sorted, hops(["h1->h2 (udp 1->2): h1 -> leaf1 -> h2"])))
        [['h1', 'leaf1'], ['h2', 'leaf1']]
    """
    nodes = (line.rpartition(": ")[2].split(" -> ") for line in path)
    return {frozenset(pair) for taken in nodes for pair in pairwise(taken)}


def places(
    nodes: Mapping[str, str], wires: Sequence[tuple[str, str]]
) -> dict[str, tuple[float, float]]:
    """Where each node stands: hosts at the bottom, every hop from a host one tier higher."""
    tier = {name: 0 for name, role in nodes.items() if role == "host"} or {next(iter(nodes)): 0}
    edge = list(tier)
    while edge:
        found = {b for a in edge for pair in wires if a in pair for b in pair if b not in tier}
        depth = tier[edge[0]] + 1
        tier |= {name: depth for name in found if name in nodes}
        edge = [name for name in found if name in nodes]
    rows: dict[int, list[str]] = {}
    for name in nodes:
        rows.setdefault(tier.get(name, 0), []).append(name)
    top = max(rows)
    made: dict[str, tuple[float, float]] = {}
    for depth, names in rows.items():
        step = WIDTH / len(names)
        for index, name in enumerate(names):
            made[name] = (round(step * (index + 0.5), 1), MARGIN + TIER * (top - depth))
    return made


def _node(name: str, role: str, at: tuple[float, float], broken: bool, many: int) -> Markup:
    x, y = at
    half = min(30.0, WIDTH / max(8, many / 2) / 2 - 3)
    return tag(
        "g",
        tag("rect", x=x - half, y=y - 12, width=2 * half, height=24, rx=5),
        tag("text", name, x=x, y=y + 4),
        class_=f"node {role}" + (" broken" if broken else ""),
    )


def _cross(x: float, y: float) -> Markup:
    size = 6
    return tag(
        "g",
        tag("circle", cx=x, cy=y, r=11),
        tag("line", x1=x - size, y1=y - size, x2=x + size, y2=y + size),
        tag("line", x1=x - size, y1=y + size, x2=x + size, y2=y - size),
        class_="cross",
    )
