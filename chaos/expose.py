"""Whether the measured traffic crosses what is to be broken: by look-up, proved by counters."""

from __future__ import annotations

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

Path = tuple[Crossing, ...]


async def expose(
    ground: Ground, counted: Mapping[Port, Any], placebo: bool
) -> tuple[tuple[Aimed, ...], Exposure]:
    """Aim the faults at what the traffic uses, and prove by counters that it is used."""
    try:
        paths, taken = await trace(ground, ground.experiment.exposed or "none")
        if placebo or not ground.experiment.faults:
            return (), Exposure(None, "nothing was to be exposed", taken)
        aims = tuple(aim(fault, ground.driver.fabric, paths) for fault in ground.experiment.faults)
        others = await _others(ground, aims)
    except FabricError as error:
        return (), Exposure(False, f"calm was not calm: {error}")
    links = [aimed for aimed in aims if not of_rank(aimed)]
    if not links:
        return aims, Exposure(None, f"{aims[0].element} belongs to the measured job", taken)
    now = await ground.tracer.counters(ground.driver.fabric.links)
    packets = {port: now[port].tx_packets - counted[port].tx_packets for port in now}
    told, met = [], True
    for aimed in links:
        one, sentence = _met(ground, aimed, paths, taken, packets)
        met = met and one
        told.append(sentence)
    near = {
        port.id: packets[port]
        for aimed in links
        for link in ground.driver.fabric.links
        for port in link.ports
        if port in packets and aimed.element in (link.id, port.node)
    }
    return aims, Exposure(met, "; ".join(told), taken, near, others)


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
