"""Experiment, fabric and seed → what will be done, in order. Pure; its text is the dry run."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from chaos.aim import aim
from chaos.change import Change, NodePower, PacketDrop, PacketRule, Where
from chaos.experiment import Experiment
from chaos.fabric import Crossing, Fabric


@dataclass(frozen=True, slots=True)
class Slot:
    """One trial to be run.

    Attributes:
        number: From 1.
        placebo: The fault is left out.
        seed: Of this trial alone.
    """

    number: int
    placebo: bool
    seed: int


def slots(experiment: Experiment, seed: int | None = None) -> tuple[Slot, ...]:
    """Trials in the order in which they are run: placebos among them, placed by the seed.

    Examples:
        >>> e = Experiment("p", "pair", faults=(), trials=2)
        >>> [slot.placebo for slot in slots(e)]
        [True, True]
    """
    rng = random.Random(experiment.seed if seed is None else seed)
    kinds = [experiment.placebo] * experiment.trials + [True] * (experiment.placebos or 0)
    rng.shuffle(kinds)
    return tuple(Slot(at, kind, rng.getrandbits(31)) for at, kind in enumerate(kinds, 1))


def as_text(fault: Any) -> str:
    """A fault as one line: its name and the fields that are not at their default.

    Examples:
        >>> from faults.node_down import NodeDown
        >>> as_text(NodeDown(node="spine1"))
        'node_down(node=spine1)'
    """
    said = [
        f"{item.name}={getattr(fault, item.name)}"
        for item in fields(fault)
        if getattr(fault, item.name) != item.default
    ]
    return f"{fault.name}({', '.join(said)})"


def lines(experiment: Experiment, fabric: Fabric, driver: str = "netns") -> tuple[str, ...]:
    """The dry run: every phase and every command, nothing touched.

    Where a fault aims at what is in use, one element that fits stands for it: the real one is
    known only once traffic runs.

    Raises:
        SpecError: the experiment does not fit the fabric.
    """
    experiment.check(fabric)
    phases = experiment.phases
    told = [
        f"experiment {experiment.name}: {experiment.promise}",
        f"fabric     {fabric.name}: {len(fabric.nodes)} nodes, {len(fabric.links)} links, "
        f"driver {driver}",
        *_probes(experiment, fabric),
    ]
    order = ["placebo" if slot.placebo else "fault" for slot in slots(experiment)]
    told.append(f"trials     {len(order)}, seed {experiment.seed}: {', '.join(order)}")
    told += [
        f"  calm     {phases.calm}: snapshot of the state; traffic undisturbed",
        f"  exposure the path of {experiment.exposed}'s traffic is looked up and counted"
        if experiment.faults
        else "  exposure none: nothing is broken",
        f"  storm    {phases.storm}",
    ]
    for fault in experiment.faults:
        told += _fault(experiment, fabric, fault)
    told += [
        f"  heal     every change taken back, last first; at the latest after "
        f"{experiment.max_life}, whatever dies",
        f"  after    {phases.after}: recovery measured; the state compared with the snapshot",
    ]
    told += [f"promised   {one.sentence()}" for one in experiment.objectives]
    return tuple(told)


class Reach(Protocol):
    """What of a driver a plan asks."""

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made, and what instead; empty when it can."""
        ...


def matrix(
    experiment: Experiment, fabric: Fabric, driver: type[Reach]
) -> tuple[tuple[str, str, str], ...]:
    """Fault, change, and why a driver cannot make it (empty when it can), per change.

    A process that a job will announce counts as one that can be reached.
    """
    path = [_any_path(fabric, experiment)]
    found = []
    for fault in experiment.faults:
        for change in aim(fault, fabric, path).fault.changes(fabric):
            process = bool(change.place.process) and not change.place.node
            reason = "" if process else driver.refusal(change, fabric)
            found.append((as_text(fault), change.describe(), reason))
    return tuple(found)


def _probes(experiment: Experiment, fabric: Fabric) -> list[str]:
    addresses = {
        node.name: next((a.partition("/")[0] for al in node.addresses.values() for a in al), "")
        for node in fabric.nodes.values()
    }
    told = []
    for label, probe in experiment.probes.items():
        for program in probe.programs(fabric, addresses):
            home = program.node or "this machine"
            told.append(f"probe      {label}: python -m {program.module}, on {home}")
    return told


def _fault(experiment: Experiment, fabric: Fabric, fault: Any) -> list[str]:
    told = [f"  fault    {as_text(fault)}"]
    aimed = aim(fault, fabric, [_any_path(fabric, experiment)])
    if aimed.fault != fault:
        told.append(f"           for example {as_text(aimed.fault)}; the real one is in use then")
    changes = aimed.fault.changes(fabric)
    spans = aimed.fault.schedule(experiment.phases.storm.low, random.Random(experiment.seed))
    shown = ", ".join(f"{s.start_ns / 1e6:g}–{s.end_ns / 1e6:g} ms" for s in spans[:4])
    more = f" and {len(spans) - 4} more" if len(spans) > 4 else ""
    told.append(f"           in force {shown}{more}")
    for change in changes:
        told += commands(change)
    return told


def commands(change: Change) -> list[str]:
    """A change as the commands that do and undo it, with the place they run in."""
    place = change.place
    if place.process:
        where = Where(pid=1)
        inside = f"process {place.process}"
    else:
        where = Where(ifname=place.port)
        inside = f"wire facing {place.node}" if place.side == "wire" else place.node
        inside = "this machine" if isinstance(change, NodePower) else inside
    steps = change.steps(where)
    told = [f"           {change.describe()}"]
    for word, argvs in (("do", steps.do), ("undo", steps.undo)):
        for argv in argvs:
            text = shlex.join(argv).replace(" 1", " PID") if place.process else shlex.join(argv)
            if isinstance(change, PacketDrop | PacketRule) and word == "do":
                text = "nft " + " ".join(argv[-1].split())
            told.append(f"             {word:4} [{inside}] {text}")
    return told


def _any_path(fabric: Fabric, experiment: Experiment) -> Sequence[Crossing]:
    """A shortest path between the ends of the exposed traffic, by the topology alone."""
    probe = experiment.probes.get(experiment.exposed or "")
    hosts = [node.name for node in fabric.with_role("host")]
    given = tuple(getattr(probe, "hosts", ())) or (
        getattr(probe, "source", ""),
        getattr(probe, "target", ""),
    )
    ends = [name for name in given if name in fabric.nodes] or hosts
    return shortest_path(fabric, ends[0], ends[-1]) if len(ends) > 1 else ()


def shortest_path(fabric: Fabric, source: str, target: str) -> tuple[Crossing, ...]:
    """Links of one shortest path, in file order where several are equal; empty for none."""
    came: dict[str, Crossing | None] = {source: None}
    todo = [source]
    for node in todo:
        for link in fabric.links_of(node):
            if len(link.ports) < 2:
                continue
            peer = link.other(link.port_of(node)).node
            if peer not in came:
                came[peer] = Crossing(link, node, peer)
                todo.append(peer)
    path: list[Crossing] = []
    at = target
    while (crossing := came.get(at)) is not None:
        path.append(crossing)
        at = crossing.source
    return tuple(reversed(path))
