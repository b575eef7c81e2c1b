"""Whether the measured traffic crosses what is to be broken: by look-up, proved by counters.

What strikes first must be met in calm. Of what strikes later it is asked again just before, since
traffic has moved by then: met in calm or met then is met. Of arrivals and traces, which strike
where they strike, one that is met is enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from chaos.aim import Aimed, aim
from chaos.errors import FabricError
from chaos.experiment import Experiment
from chaos.fabric import Crossing, Port
from chaos.ground import Ground
from chaos.objectives import Bound, DetectedBy, UndetectedBy
from chaos.record import Exposure
from chaos.registry import Traffic
from chaos.strike import WRITTEN, Strike
from chaos.timeline import now_ns

Path = tuple[Crossing, ...]
#: How long before a strike its path is looked up.
LOOK_NS = 150_000_000
Met = tuple[bool | None, str]


async def expose(
    ground: Ground, counted: Mapping[Port, Any], strikes: Sequence[Strike]
) -> tuple[tuple[Aimed, ...], Exposure, tuple[Met, ...]]:
    """Aim the strikes at what the traffic uses, and prove by counters that it is used.

    Returns:
        What is aimed at; whether the storm may begin, which it may not where the traffic avoids
        what strikes first; and per strike whether the traffic met it in calm (None for a fault of
        a rank), with the sentence.
    """
    try:
        paths, taken = await trace(ground, ground.experiment.exposed or "none")
        if not strikes:
            return (), Exposure(None, "nothing was to be exposed", taken), ()
        aims = tuple(aim(one.fault, ground.driver.fabric, paths) for one in strikes)
        others = await _others(ground, aims)
    except FabricError as error:
        return (), Exposure(False, f"calm was not calm: {error}"), ()
    links = [aimed for aimed in aims if not of_rank(aimed)]
    if not links:
        sentence = f"{aims[0].element} belongs to the measured job"
        return aims, Exposure(None, sentence, taken), ((None, sentence),) * len(aims)
    now = await ground.tracer.counters(ground.driver.fabric.links)
    packets = {port: now[port].tx_packets - counted[port].tx_packets for port in now}
    met: list[Met] = [
        (None, f"{aimed.element} belongs to the measured job")
        if of_rank(aimed)
        else _met(ground, aimed, paths, taken, packets)
        for aimed in aims
    ]
    near = {
        port.id: packets[port]
        for aimed in links
        for link in ground.driver.fabric.links
        for port in link.ports
        if port in packets and aimed.element in (link.id, port.node)
    }
    first = min(one.at_ns for one in strikes)
    begins = [
        exposed is not False
        for one, (exposed, _) in zip(strikes, met, strict=True)
        if one.origin == WRITTEN and one.at_ns == first
    ]
    told = [said for exposed, said in met if exposed is not None]
    return aims, Exposure(all(begins), "; ".join(told), taken, near, others), tuple(met)


def overall(
    strikes: Sequence[Strike], met: Sequence[Met], calm: Exposure
) -> tuple[bool | None, str]:
    """Whether a storm that is over was met: every written strike, and any of those that fell."""
    asked = [
        (one, exposed, said)
        for one, (exposed, said) in zip(strikes, met, strict=True)
        if exposed is not None
    ]
    if not asked:
        return calm.exposed, calm.sentence
    missed = [said for one, exposed, said in asked if one.origin == WRITTEN and not exposed]
    if missed:
        return False, "; ".join(missed)
    if not any(exposed for _, exposed, _ in asked):
        many = f"none of {len(asked)} faults" if len(asked) > 1 else "the fault was not"
        return False, f"not exposed: {many} met by the measured traffic; {asked[0][2]}"
    return True, "; ".join(said for _, _, said in asked)


async def look(ground: Ground, aimed: Aimed, at_ns: int) -> tuple[bool, str]:
    """Whether the exposed traffic meets a fault just before it strikes, at `at_ns`."""
    await asyncio.sleep(max(0, at_ns - LOOK_NS - now_ns()) / 1e9)
    try:
        paths, taken = await trace(ground, ground.experiment.exposed or "none")
    except FabricError as error:
        return False, f"not exposed: just before {aimed.element} was struck {error}"
    if now_ns() > at_ns:
        return False, f"not exposed: no path was found in time before {aimed.element} was struck"
    if any(meets(aimed, path) for path in paths):
        return True, f"the traffic crossed {aimed.element} just before it was struck"
    how = "; ".join(taken) or "no link"
    return False, (
        f"not exposed: the traffic avoided {aimed.element} in calm and just before it was struck; "
        f"it took {how}"
    )


def _met(
    ground: Ground,
    aimed: Aimed,
    paths: Sequence[Path],
    taken: Sequence[str],
    packets: Mapping[Port, int],
) -> tuple[bool, str]:
    """Whether the exposed traffic meets one fault, by path and by count; and the sentence."""
    crossings = [crossing for path in paths for crossing in path]
    crossing = next((c for c in crossings if meets(aimed, (c,))), None)
    if crossing is None:
        how = "; ".join(taken) or "no link"
        other = next((c for c in crossings if c.link.id == aimed.element), None)
        if other is not None:
            how = f"it crosses {other} only, and the fault acts on what {other.target} sends"
            return (
                False,
                f"not exposed: the traffic avoids that direction of {aimed.element}; {how}",
            )
        return False, f"not exposed: the traffic avoids {aimed.element}; it takes {how}"
    sent = packets[crossing.link.port_of(crossing.source)]
    least = max(10, int(50 * ground.experiment.phases.calm.s))
    if sent < least:
        return False, (
            f"not exposed: the path leads over {crossing}, but only {sent} packets went that way "
            f"in calm (at least {least} expected)"
        )
    return True, f"{sent} packets crossed {crossing} in calm"


def of_rank(aimed: Aimed) -> bool:
    """Whether the fault is a rank's, which belongs to the measured job itself."""
    return hasattr(aimed.fault, "rank")


async def _others(ground: Ground, aims: Sequence[Aimed]) -> dict[str, bool]:
    """Whether the traffic of every other probe meets the faults that are no rank's."""
    links = [aimed for aimed in aims if not of_rank(aimed)]
    found = {}
    for label, probe in ground.observer.probes.items():
        if links and label != ground.experiment.exposed and isinstance(probe, Traffic):
            paths, _ = await trace(ground, label)
            found[label] = any(meets(aimed, path) for aimed in links for path in paths)
    return found


def judged(experiment: Experiment, label: str) -> bool:
    """Whether an objective rests on what this probe feels of the fault."""
    probe = experiment.probes[label]
    prefix = "".join(f"{word}_" for word in label.split("/")[1:])
    measures = {one.measure for one in experiment.objectives if isinstance(one, Bound)}
    heard: set[str] = set()
    for one in experiment.objectives:
        heard |= {one.detector} if isinstance(one, DetectedBy) else set()
        heard |= set(one.detectors) if isinstance(one, UndetectedBy) else set()
    felt = {f"{prefix}{name}" for name in probe.schema if of_impact(name)}
    return bool(measures & felt or heard & set(getattr(probe, "detectors", ())))


def of_impact(measure: str) -> bool:
    """Whether a measure tells of the fault, and not of calm or of the rightness of values."""
    return "calm" not in measure and not measure.endswith("_values")


def meets(aimed: Aimed, path: Path) -> bool:
    """Whether packets on this path meet the fault; one that acts in one direction only, there."""
    end = str(getattr(aimed.fault, "end", "both")).partition(":")[0]
    one_way = getattr(aimed.fault, "mode", "silent") == "silent" and end != "both"
    return any(
        aimed.element in (crossing.source, crossing.target)
        or (crossing.link.id == aimed.element and (not one_way or crossing.source == end))
        for crossing in path
    )


async def trace(ground: Ground, label: str) -> tuple[list[Path], tuple[str, ...]]:
    """Links that the streams of one probe cross, and the same as text.

    Raises:
        FabricError: a node has no route for them, or they run in a circle.
    """
    probe = ground.observer.probes.get(label)
    if not isinstance(probe, Traffic):
        return [], ()
    streams = probe.streams(ground.driver.addresses(), ground.observer.records(label))
    paths, taken = [], []
    for stream in streams:
        path = await ground.tracer.crossings(stream)
        paths.append(path)
        hops = " -> ".join([stream.source, *(crossing.target for crossing in path)])
        taken.append(f"{stream}: {hops}")
    return paths, tuple(taken)
