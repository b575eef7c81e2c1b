"""The blast radius of an experiment against its limits, before anything is touched. Pure.

A fault's `in-use` words are settled only by running traffic. So every meaning that they could have
is looked at here, and the worst counts; what is aimed at in the end is looked at once more before
it is armed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from chaos.change import Change
from chaos.errors import BlockedError, SpecError
from chaos.experiment import Experiment
from chaos.experiment_fit import meanings, places
from chaos.fabric import Fabric, Port
from chaos.limits import Limits, bound, defaults
from chaos.radius import Radius, Rank, radius
from chaos.sight import Sight
from chaos.strike import as_text
from chaos.strikes import groups
from chaos.units import Percent

#: Combinations of meanings looked at; of more, an even selection (what is armed is looked at anew).
#: On a fabric of more than `MANY_LINKS` links fewer, so that a plan takes no minutes.
MOST_MEANINGS, MANY_LINKS = 256, 64


@dataclass(frozen=True)
class Meant:
    """One meaning of an experiment's faults, and how far it reaches.

    Attributes:
        text: The faults, concrete, as one line.
        changes: Their changes.
        group: Which of the sets of faults that are in force at one time; each has its meanings.
        sure: It is the only meaning: no traffic has to settle a word.
        whole: The fabric unbroken.
        ranks: The ranks of its jobs.
    """

    text: str
    changes: tuple[Change, ...]
    group: int
    sure: bool
    whole: Sight
    ranks: tuple[Rank, ...]

    @cached_property
    def radius(self) -> Radius:
        """What they would take together."""
        return radius(self.changes, self.whole.fabric, self.ranks, self.whole)

    @property
    def nodes(self) -> set[str]:
        """Nodes that a change names."""
        return {change.place.node for change in self.changes} - {""}


def ranks(experiment: Experiment, fabric: Fabric) -> tuple[Rank, ...]:
    """Ranks of every job of an experiment, where they will run.

    A job whose interface is no port of all of its nodes may use any of theirs.
    """
    found: list[Rank] = []
    ports = set(fabric.walk())
    for label, probe in experiment.probes.items():
        nodes = places(probe, fabric)
        interface = str(getattr(probe, "interface", ""))
        if not all(Port(node, interface) in ports for node in nodes):
            interface = ""
        found += [Rank(f"rank{n}", node, interface, label) for n, node in enumerate(nodes)]
    return tuple(found)


def meant(experiment: Experiment, fabric: Fabric) -> tuple[Meant, ...]:
    """Every meaning of each set of faults that are in force at one time, with its radius.

    Raises:
        SpecError: a fault has no meaning on this fabric.
    """
    if experiment.placebo:
        return ()
    sets = groups(experiment, fabric)
    most = max(1, MOST_MEANINGS // max(1, len(fabric.links) // MANY_LINKS))
    running = ranks(experiment, fabric)
    whole = Sight(fabric, running, ())
    found: dict[tuple[Change, ...], Meant] = {}
    for group, faults in enumerate(sets):
        each = [tuple(_changes(fault, fabric)) for fault in faults]
        if math.prod(map(len, each)) > most:
            each = [_evenly(one, int(most ** (1 / len(each)))) for one in each]
        sure = all(len(one) == 1 for one in each)
        for combination in product(*each):
            changes = tuple(change for _, made in combination for change in made)
            if changes not in found:
                text = "; ".join(as_text(fault) for fault, _ in combination)
                found[changes] = Meant(text, changes, group, sure, whole, running)
    return tuple(found.values())


def _changes(fault: Any, fabric: Fabric) -> Iterator[tuple[Any, tuple[Change, ...]]]:
    for concrete in meanings(fault, fabric):
        try:
            yield concrete, concrete.changes(fabric)
        except SpecError:
            continue  # a meaning that this fabric cannot have; `Experiment.check` asks for one


def _evenly(many: Sequence[Any], most: int) -> tuple[Any, ...]:
    step = max(1.0, len(many) / max(1, most))
    return tuple(many[int(at * step)] for at in range(min(len(many), max(1, most))))


def worst(many: Sequence[Meant]) -> Meant | None:
    """The meaning that reaches farthest: hosts first, then ranks, planes, bisection, links."""

    def reach(one: Meant) -> tuple[float, ...]:
        r = one.radius
        left = 100.0 if r.bisection_left_percent is None else r.bisection_left_percent
        planes = 0 if r.planes_left is None else r.planes_of - r.planes_left
        lost, touched = len(r.ranks_lost), len(r.ranks_touched)
        return (len(r.hosts_isolated), lost, planes, -left, r.links.out, touched)

    return max(many, key=reach, default=None)


def lines(experiment: Experiment, fabric: Fabric, fidelity: str) -> tuple[str, ...]:
    """The blast radius at its worst, and the limits that hold; for the dry run."""
    told: list[str] = []
    many = meant(experiment, fabric)
    if (farthest := worst(many)) is not None:
        text = "" if len(many) == 1 else f"at worst of {len(many)}, {farthest.text}"
        told += [f"radius     {text}".rstrip()]
        told += [f"  {line}" for line in farthest.radius.lines()]
    told.append(f"limits     {experiment.limits.over(defaults(fidelity)).text()}")
    return tuple(told)


def as_json(experiment: Experiment, fabric: Fabric, fidelity: str) -> dict[str, Any]:
    """The same as plain data; `radius` is null where nothing is broken."""
    allowed = experiment.limits.over(defaults(fidelity))
    many = meant(experiment, fabric)
    farthest = worst(many)
    return {
        "fault": farthest.text if farthest else "",
        "sure": farthest.sure if farthest else True,
        "meanings": len(many),
        "radius": farthest.radius.as_json() if farthest else None,
        "limits": allowed.as_json(),
        "refused": [
            f"{one.text} {sentence}"
            for one in many
            for sentence in excesses(allowed, one.radius).values()
        ],
    }


def excesses(limits: Limits, found: Radius) -> dict[str, str]:
    """What goes too far, by the limit's name: what would happen, and what is allowed."""
    host, ports = found.worst_host
    left = found.bisection_left_percent
    amounts: dict[str, tuple[float | None, str]] = {
        "hosts_isolated": _many(found.hosts_isolated, "isolate", "host"),
        "ranks": _many(found.ranks_touched, "touch", "rank"),
        "ranks_lost": _many(found.ranks_lost, "stop or cut off", "rank"),
        "links": _many(found.links_out, "take out", "link"),
        "host_ports": (
            ports.percent,
            f"take out {ports.percent:.4g} % of {host}'s ports ({ports.out} of {ports.of})",
        ),
        "bisection_left": (
            left,
            f"leave {left or 0:.4g} % of the bisection "
            f"({found.bisection[0]:g} of {found.bisection[1]:g} {found.unit})",
        ),
        "planes_left": (
            found.planes_left,
            f"leave {found.planes_at} {found.planes_left} of {found.planes_of} planes",
        ),
    }
    told = {}
    for name, limit in limits.given().items():
        amount, words = amounts[name]
        value = limit.value if isinstance(limit, Percent) else limit
        least = bound(name) == "least"
        if amount is not None and (amount < value if least else amount > value):
            told[name] = f"would {words}; at {bound(name)} {limit} allowed"
    return told


def _many(names: Sequence[str], verb: str, what: str) -> tuple[int, str]:
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return len(names), f"{verb} {len(names)} {what}{'s' * (len(names) != 1)} ({listed})"


def be_within(experiment: Experiment, fabric: Fabric, fidelity: str) -> None:
    """Return when no meaning of an experiment's faults goes beyond its limits.

    Raises:
        SpecError: one does; says how far, what is allowed, and how to state another limit.
    """
    allowed = experiment.limits.over(defaults(fidelity))
    if not allowed.given():
        return
    for one in meant(experiment, fabric):
        for name, sentence in excesses(allowed, one.radius).items():
            stated = getattr(experiment.limits, name) is not None
            unless = "" if one.sure else " (if that is what the traffic crosses)"
            told = f"{one.text} {sentence}{unless}; {_cure(name, one.radius, fidelity, stated)}"
            raise experiment.wrong(told, f"limits.{name}" if stated else "")


def hold(
    text: str,
    changes: Sequence[Change],
    fabric: Fabric,
    limits: Limits,
    fidelity: str,
    running: Sequence[Rank] = (),
) -> Radius:
    """The radius of changes about to be armed, when it is within the limits.

    Raises:
        BlockedError: it is not; nothing was touched.
    """
    found = radius(changes, fabric, running)
    for name, sentence in excesses(limits.over(defaults(fidelity)), found).items():
        stated = getattr(limits, name) is not None
        raise BlockedError(f"{text} {sentence}; {_cure(name, found, fidelity, stated)}")
    return found


def _cure(name: str, found: Radius, fidelity: str, stated: bool) -> str:
    whose = "" if stated else f"this is the default for {fidelity}: "
    enough: dict[str, object] = {
        "hosts_isolated": len(found.hosts_isolated),
        "ranks": len(found.ranks_touched),
        "ranks_lost": len(found.ranks_lost),
        "links": found.links.out,
        "host_ports": f"{math.ceil(100 * found.worst_host[1].percent) / 100:g}%",
        "bisection_left": f"{math.floor(100 * (found.bisection_left_percent or 0)) / 100:g}%",
        "planes_left": found.planes_left,
    }
    return f"{whose}break something smaller, or allow it with --limit {name}={enough[name]}"
