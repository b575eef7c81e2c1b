"""Whether a fault fits a fabric and a storm, before any traffic has settled its `in-use` words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link
from chaos.units import Duration

IN_USE = "in-use"
ENDS = ("near", "far")
SEEDS = range(8)


class _Longest(random.Random):
    """Draws the greatest of everything that is drawn uniformly."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def fits(fault: Any, fabric: Fabric) -> None:
    """Return when at least one meaning of the fault's words exists on this fabric.

    Raises:
        SpecError: none does; the first refusal.
    """
    refusals = []
    for meant in meanings(fault, fabric):
        try:
            meant.changes(fabric)
        except SpecError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def fits_storm(fault: Any, shortest: Duration) -> None:
    """Return when every draw of the fault's schedule fits into the shortest storm.

    Raises:
        SpecError: one does not.
    """
    for seed in SEEDS:
        fault.schedule(shortest, random.Random(seed))
    try:
        fault.schedule(shortest, _Longest(0))
    except SpecError as error:
        told = f"{error.reason}, when all is drawn at its longest"
        raise SpecError(told, field=error.field) from None


def places(probe: Any, fabric: Fabric) -> tuple[str, ...]:
    """Nodes that the ranks of a job run on, by number; none for a probe that is no job."""
    if not callable(getattr(probe, "nodes", None)):
        return ()
    return tuple(
        node for node in probe.nodes(fabric) for _ in range(getattr(probe, "ranks_per_host", 1))
    )


def meanings(fault: Any, fabric: Fabric) -> list[Any]:
    """The fault with its words made concrete, in every way that traffic could settle them.

    Raises:
        SpecError: a word that no traffic of this fabric could settle.
    """
    names = {item.name for item in fields(fault)}
    found = [fault]
    if "link" in names and fault.link.split()[:1] == [IN_USE]:
        found = [replace(fault, link=link.id) for link in _links(fault.link, fabric)]
    elif "node" in names and fault.node.split()[:1] == [IN_USE]:
        found = [replace(fault, node=name) for name in _nodes(fault.node, fabric)]
    if {"link", "end"} <= names and fault.end in ENDS:
        found = [replace(one, end=node) for one in found for node in fabric.link(one.link).nodes]
    return found


def _links(words: str, fabric: Fabric) -> list[Link]:
    wanted = words.removeprefix(IN_USE).strip()
    if not wanted:
        found = [link for link in fabric.links if "host" not in _roles(link, fabric)]
        if not found:
            raise SpecError(f"fabric {fabric.name} has no link between two switches", field="link")
        return found
    source, dashes, target = wanted.partition("--")
    if not dashes:
        raise SpecError(
            f"in-use FROM--TO expected, such as in-use leaf--spine; got {words!r}", field="link"
        )
    for word in (source, target):
        _known(word, words, fabric)
    found = [link for link in fabric.links if _joins(link, source, target, fabric)]
    if not found:
        raise SpecError(
            f"no link joins {source} and {target} in fabric {fabric.name}; got {words!r}",
            field="link",
        )
    return found


def _known(word: str, words: str, fabric: Fabric) -> None:
    if word not in fabric.nodes and word not in fabric.roles:
        known = (*fabric.roles, *fabric.nodes)
        raise SpecError(
            f"no role or node {word!r} in fabric {fabric.name}; {near(word, known)}; got {words!r}",
            field="link",
        )


def _joins(link: Link, source: str, target: str, fabric: Fabric) -> bool:
    ends = [{name, fabric.nodes[name].role} for name in link.nodes]
    if len(ends) < 2:
        return False
    return (source in ends[0] and target in ends[1]) or (source in ends[1] and target in ends[0])


def _roles(link: Link, fabric: Fabric) -> Iterator[str]:
    yield from (fabric.nodes[name].role for name in link.nodes)


def _nodes(words: str, fabric: Fabric) -> list[str]:
    role = words.removeprefix(IN_USE).strip()
    if role and role not in fabric.roles:
        raise SpecError(
            f"no role {role!r} in fabric {fabric.name}; {near(role, fabric.roles)}; got {words!r}",
            field="node",
        )
    found = [n for n in fabric.nodes.values() if n.role == role or (not role and n.role != "host")]
    if not found:
        raise SpecError(f"fabric {fabric.name} has no node but hosts", field="node")
    return [node.name for node in found]
