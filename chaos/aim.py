"""From `in-use` words to the element that the measured traffic really crosses. Pure.

A fault's `link` may say `in-use` (the first link between two switches on the path), or
`in-use leaf--spine` (the first link crossed from a leaf to a spine: the direction of travel
counts). Its `node` may say `in-use` or `in-use spine`. Its `end` may say `near` (where the traffic
enters the link) or `far` (where it leaves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from chaos.errors import SpecError
from chaos.fabric import Crossing, Fabric

IN_USE = "in-use"


@dataclass(frozen=True, slots=True)
class Aimed:
    """A fault whose words are all concrete.

    Attributes:
        fault: The fault, ready for `changes(fabric)`.
        element: What it breaks: link id, node name, or `rank2`.
        truth: Every name that would localise it rightly.
        crossing: How the traffic crosses the element; None when it does not, or for a process.
    """

    fault: Any
    element: str
    truth: tuple[str, ...]
    crossing: Crossing | None


def aim(fault: Any, fabric: Fabric, paths: Sequence[Sequence[Crossing]]) -> Aimed:
    """Resolve `in-use`, `near` and `far` on the paths that the traffic takes.

    Args:
        fault: Any registered fault.
        fabric: What exists.
        paths: The links crossed by each stream of the exposed probe, in order of travel.

    Raises:
        SpecError: `in-use` finds nothing on these paths; the message names them.
    """
    names = {item.name for item in fields(fault)}
    if "link" in names:
        return _aim_link(fault, fabric, paths, names)
    if "node" in names:
        return _aim_node(fault, fabric, paths)
    if "rank" in names:
        rank = f"rank{fault.rank}"
        return Aimed(fault, rank, (rank,), None)
    return Aimed(fault, fault.name, (), None)


def _aim_link(
    fault: Any, fabric: Fabric, paths: Sequence[Sequence[Crossing]], names: set[str]
) -> Aimed:
    crossings = [crossing for path in paths for crossing in path]
    crossing: Crossing | None
    if fault.link.split()[:1] == [IN_USE]:
        picked = _pick(fault.link, fabric, crossings)
        crossing, link = picked, picked.link
    else:
        link = fabric.link(fault.link)
        crossing = next((c for c in crossings if c.link.id == link.id), None)
    changed: dict[str, Any] = {"link": link.id}
    if "end" in names and fault.end in ("near", "far"):
        if crossing is None:
            # not crossed: the trial will end as not exposed, so either end will do for the plan
            changed["end"] = link.a.node if fault.end == "near" else link.b.node
        else:
            changed["end"] = crossing.source if fault.end == "near" else crossing.target
    truth = (link.id, *(port.id for port in link.ports))
    return Aimed(replace(fault, **changed), link.id, truth, crossing)


def _pick(words: str, fabric: Fabric, crossings: Sequence[Crossing]) -> Crossing:
    wanted = words.removeprefix(IN_USE).strip()
    for crossing in crossings:
        roles = (fabric.nodes[crossing.source].role, fabric.nodes[crossing.target].role)
        if not wanted and "host" not in roles:
            return crossing
        source, dashes, target = wanted.partition("--")
        if dashes and _is(fabric, crossing.source, source) and _is(fabric, crossing.target, target):
            return crossing
    taken = ", ".join(str(crossing) for crossing in crossings) or "no link at all"
    raise SpecError(f"{words!r} matches no link in use; the traffic crosses {taken}")


def _is(fabric: Fabric, node: str, word: str) -> bool:
    return word in (node, fabric.nodes[node].role)


def _aim_node(fault: Any, fabric: Fabric, paths: Sequence[Sequence[Crossing]]) -> Aimed:
    crossings = [crossing for path in paths for crossing in path]
    name = fault.node
    if name.split()[:1] == [IN_USE]:
        role = name.removeprefix(IN_USE).strip()
        for crossing in crossings:
            found = fabric.nodes[crossing.target]
            if (role and found.role == role) or (not role and found.role != "host"):
                name = found.name
                break
        else:
            taken = ", ".join(str(crossing) for crossing in crossings) or "no link at all"
            raise SpecError(f"{fault.node!r} matches no node in use; the traffic crosses {taken}")
    links = fabric.links_of(name)
    crossed = next((c for c in crossings if name in (c.source, c.target)), None)
    truth = (name, *(li.id for li in links), *(p.id for li in links for p in li.ports))
    return Aimed(replace(fault, node=name), name, truth, crossed)
