"""Experiment, fabric and seed → what will be done, in order. Pure; its text is the dry run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from chaos.aim import aim
from chaos.change import Change, NodePower, PacketDrop, PacketRule, Place, Where
from chaos.changes.queue import QUEUES
from chaos.errors import CapabilityError
from chaos.experiment import Experiment
from chaos.fabric import Crossing, Fabric
from chaos.packets.engines import At, There, choose
from chaos.strike import Strike, as_text
from chaos.strikes import Slot, Storm, slots, storms

__all__ = [
    "Reach",
    "Slot",
    "as_text",
    "commands",
    "distinct",
    "lines",
    "matrix",
    "shortest_path",
    "slots",
    "writes",
]

#: Changes that are made together, on a fabric, with what is there → lines of a plan.
Written = Callable[[Sequence[Change], Fabric, There | None], list[str]]
_WRITTEN: dict[str, Written] = {}


def writes(driver: str) -> Callable[[Written], Written]:
    """Registers how a driver writes changes out, where that is not as the embedded one does."""

    def register(written: Written) -> Written:
        _WRITTEN[driver] = written
        return written

    return register


def lines(
    experiment: Experiment,
    fabric: Fabric,
    driver: str = "netns",
    planned: Sequence[tuple[Slot, Storm]] | None = None,
    there: There | None = None,
) -> tuple[str, ...]:
    """The dry run: every phase and every command, nothing touched.

    Where a fault aims at what is in use, one element that fits stands for it: the real one is
    known only once traffic runs. What falls is as `planned` has it, else as the seed does. Changes
    are written out as the driver makes them (`writes`), by the engines that are `there`.

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
    planned = storms(experiment, fabric) if planned is None else planned
    order = ["placebo" if slot.placebo else "fault" for slot, _ in planned]
    told.append(f"trials     {len(order)}, seed {experiment.seed}: {', '.join(order)}")
    told += [
        f"  calm     {phases.calm}: snapshot of the state; traffic undisturbed",
        f"  exposure the path of {experiment.exposed}'s traffic is looked up and counted"
        if not experiment.placebo
        else "  exposure none: nothing is broken",
        f"  storm    {phases.storm}",
        *_sources(experiment, fabric),
    ]
    if experiment.timings or experiment.arrivals or experiment.trace:
        for slot, storm in planned:
            told += _storm(slot, storm)
    for slot, strike in distinct(planned):
        told += _fault(experiment, fabric, slot, strike, driver, there)
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
    experiment: Experiment, fabric: Fabric, driver: type[Reach], there: There | None = None
) -> tuple[tuple[str, str, str], ...]:
    """Fault, change, and why a driver cannot make it (empty when it can), per change.

    A process that a job will announce counts as one that can be reached. Whether an engine for a
    rule is there is asked of `there`, where that is known.
    """
    path = [_any_path(fabric, experiment)]
    found = []
    for _, strike in distinct(storms(experiment, fabric)):
        for change in aim(strike.fault, fabric, path).fault.changes(fabric):
            process = bool(change.place.process) and not change.place.node
            reason = "" if process else driver.refusal(change, fabric) or _unable(change, there)
            found.append((as_text(strike.fault), change.describe(), reason))
    return tuple(found)


def _unable(change: Change, there: There | None) -> str:
    if isinstance(change, PacketRule) and there is not None:
        try:
            choose(change.rule.then, there, change.engine)
        except CapabilityError as error:
            return str(error)
    return ""


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


def distinct(planned: Sequence[tuple[Slot, Storm]]) -> tuple[tuple[Slot, Strike], ...]:
    """Every fault that strikes in a run, once, with the trial in which it does first."""
    found: dict[str, tuple[Slot, Strike]] = {}
    for slot, storm in planned:
        for strike in storm.strikes:
            found.setdefault(as_text(strike.fault), (slot, strike))
    return tuple(found.values())


def _sources(experiment: Experiment, fabric: Fabric) -> list[str]:
    """Where faults come from that are not written one by one."""
    told = []
    ranks = experiment.rank_places(fabric)
    for one in experiment.arrivals:
        found = len(one.elements(fabric, ranks))
        many = one.population or found
        mean = one.expected(experiment.phases.storm.low.ns, fabric, ranks)
        told.append(
            f"  arrivals {one.of.name} over {one.over} ({found} of them), each "
            f"for {one.length}: {one.rate}, {many} {one.rate.of}s, 1 s stands for "
            f"{_stands(one.compress)}; {mean:.3g} expected in each trial"
        )
    if experiment.trace is not None:
        trace = experiment.trace
        told.append(
            f"  trace    {trace.file}: {len(trace.rows)} faults, 1 s stands for "
            f"{_stands(trace.compress)}"
        )
    return told


def _stands(compress: float) -> str:
    """How much time one second stands for.

    Examples:
        >>> _stands(3600), _stands(130_000), _stands(2e9)
        ('1 h', '1.5 days', '63.4 years')
    """
    units = (("years", 31_557_600), ("days", 86_400), ("h", 3600), ("s", 1))
    name, size = next((name, size) for name, size in units if compress >= size or size == 1)
    return f"{compress / size:.3g} {name}"


def _storm(slot: Slot, storm: Storm) -> list[str]:
    """What falls in one trial."""
    if slot.placebo:
        return [f"  trial {slot.number:<3}{storm.length}: nothing"]
    told = [f"  trial {slot.number:<3}{storm.length}, seed {slot.seed}:"]
    told += [f"           {strike.text}" for strike in storm.strikes]
    told += [f"           {sentence}" for sentence in storm.left_out]
    return told


def _fault(
    experiment: Experiment,
    fabric: Fabric,
    slot: Slot,
    strike: Strike,
    driver: str,
    there: There | None,
) -> list[str]:
    fault = strike.fault
    told = [f"  fault    {as_text(fault)}"]
    aimed = aim(fault, fabric, [_any_path(fabric, experiment)])
    if aimed.fault != fault:
        told.append(f"           for example {as_text(aimed.fault)}; the real one is in use then")
    changes = aimed.fault.changes(fabric)
    spans = strike.spans
    shown = ", ".join(f"{s.start_ns / 1e6:g}–{s.end_ns / 1e6:g} ms" for s in spans[:4])
    more = f" and {len(spans) - 4} more" if len(spans) > 4 else ""
    first = "" if experiment.phases.storm.fixed else f" in trial {slot.number}"
    told.append(f"           in force {shown}{more}{first}")
    return told + _WRITTEN.get(driver, _plainly)(changes, fabric, there)


def _plainly(changes: Sequence[Change], fabric: Fabric, there: There | None) -> list[str]:
    return [line for change in changes for line in commands(change, there=there)]


def commands(change: Change, ifname: str = "", there: There | None = None) -> list[str]:
    """A change as the commands that do and undo it, with the place they run in.

    Args:
        change: The change.
        ifname: The kernel's name of the interface, where that is not the port's.
        there: Which engines of packet rules are there; None where that is not known.
    """
    head = f"           {change.describe()}"
    engine = None
    if isinstance(change, PacketRule):
        try:
            engine = choose(change.rule.then, there, change.engine)
        except CapabilityError as error:
            return [head, f"             not made: {error}"]
        change = change.settled(there)
    sends = isinstance(there, At) and there.sends and engine is not None and engine.name in QUEUES
    if sends and change.place.side == "wire":
        change = replace(change, place=Place(change.place.node, change.place.port))
        head += f"\n             made as {change.describe()}"
    place = change.place
    if place.process:
        where = Where(pid=1)
        inside = f"process {place.process}"
    else:
        receives = engine is not None and engine.name == "nfqueue"
        name = ifname or place.port
        leaves = isinstance(change, PacketRule) and change.leaves
        where = Where(ifname=name, across=name if leaves else "" if receives else f"{name}-far")
        inside = f"wire facing {place.node}" if place.side == "wire" else place.node
        inside = "this machine" if isinstance(change, NodePower) else inside
    steps = change.steps(where)
    told = [head]
    if engine is not None and isinstance(change, PacketRule):
        told.append(f"             engine {engine}")
        if engine.name in ("nfqueue", "worker"):
            text = change.ruleset(where.ifname, where.across)
            told.append(f"             its table: nft {' '.join(text.split())}")
    for word, argvs in (("do", steps.do), ("undo", steps.undo)):
        for argv in argvs:
            text = shlex.join(argv).replace(" 1", " PID") if place.process else shlex.join(argv)
            if isinstance(change, PacketDrop | PacketRule) and argv[0] == "nft" and word == "do":
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
