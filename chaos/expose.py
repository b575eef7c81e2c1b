"""Whether the measured traffic crosses what is to be broken: by look-up, proved by counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chaos.aim import Aimed, aim
from chaos.errors import FabricError
from chaos.fabric import Crossing, Port
from chaos.ground import Ground
from chaos.record import Exposure
from chaos.registry import Traffic


def expose(
    ground: Ground, counted: Mapping[Port, Any], placebo: bool
) -> tuple[tuple[Aimed, ...], Exposure]:
    """Aim the faults at what the traffic uses, and prove by counters that it is used."""
    try:
        paths, taken = trace(ground)
    except FabricError as error:
        return (), Exposure(False, f"calm was not calm: {error}")
    if placebo or not ground.experiment.faults:
        return (), Exposure(None, "nothing was to be exposed", taken)
    aims = tuple(aim(fault, ground.driver.fabric, paths) for fault in ground.experiment.faults)
    if all(aimed.element.startswith("rank") for aimed in aims):
        return aims, Exposure(None, f"{aims[0].element} belongs to the measured job", taken)
    crossed = [aimed.crossing for aimed in aims if aimed.crossing is not None]
    if not crossed:
        avoided = ", ".join(aimed.element for aimed in aims)
        crosses = "; ".join(taken) or "no link"
        sentence = f"not exposed: the traffic avoids {avoided}; it takes {crosses}"
        return aims, Exposure(False, sentence, taken)
    now = ground.tracer.counters([crossing.link for crossing in crossed])
    packets = {port.id: now[port].tx_packets - counted[port].tx_packets for port in now}
    crossing = crossed[0]
    sent = packets[crossing.link.port_of(crossing.source).id]
    least = max(10, int(50 * ground.experiment.phases.calm.s))
    if sent < least:
        sentence = (
            f"not exposed: the path leads over {crossing}, but only {sent} packets went that way "
            f"in calm (at least {least} expected)"
        )
        return aims, Exposure(False, sentence, taken, packets)
    return aims, Exposure(True, f"{sent} packets crossed {crossing} in calm", taken, packets)


def trace(ground: Ground) -> tuple[list[tuple[Crossing, ...]], tuple[str, ...]]:
    """Links that the exposed probe's streams cross, and the same as text."""
    label = ground.experiment.exposed or "none"
    probe = ground.observer.probes.get(label)
    if not isinstance(probe, Traffic):
        return [], ()
    streams = probe.streams(ground.driver.addresses(), ground.observer.records(label))
    paths, taken = [], []
    for stream in streams:
        path = ground.tracer.crossings(
            stream.source,
            stream.source_ip,
            stream.target_ip,
            stream.proto,
            stream.sport,
            stream.dport,
        )
        paths.append(path)
        hops = " -> ".join([stream.source, *(crossing.target for crossing in path)])
        taken.append(f"{stream}: {hops}")
    return paths, tuple(taken)
