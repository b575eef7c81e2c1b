"""What NICs, RDMA devices and kernels counted at the ports: drops, pauses, repeats, marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import Program, probe
from chaos.timeline import Measure, Readings, Series, Windows
from chaos.units import Duration
from probes.nic_names import QUANTITIES, Quantity

Record = dict[str, Any]
EVERY, FASTEST, SLOWEST = Duration(500_000_000), Duration(50_000_000), Duration(2_000_000_000)
SILENT_NS = 4_000_000_000


@probe("nic_counters")
@dataclass(frozen=True, slots=True)
class NicCounters:
    """Counters of ports, read again and again; what they grew by since the fault.

    Three sources: the kernel's own counters, which every interface has; those of the NIC's driver
    (`ethtool -S`), which every vendor names differently (`probes.nic_names` has the table); and
    those of RDMA devices, on hosts that are machines. A quantity that no port has by any known
    name is absent, with a note; it is never 0. Which counters a figure is made of, and at which
    ports it grew, stands in its note.

    Counters are read every `every`. A figure spans the look before the fault to the last look, so
    it may hold what happened up to one look too early; its lower bound begins at the look after.

    Args:
        nodes: Nodes whose ports are read; empty is every node with a link.
        every: Time between two looks.

    Needs: nothing; what a NIC does not count is not told.

    Examples:
        >>> NicCounters(every=Duration.parse("1 s")).programs(Fabric("f", {}), {})[0].config
        {'nodes': [], 'ports': {}, 'step_s': 1.0}
    """

    name: ClassVar[str] = "nic_counters"
    schema: ClassVar[Mapping[str, str]] = {
        one.measure: f"{one.words}, fault to end, all ports" for one in QUANTITIES
    }

    nodes: tuple[str, ...] = ()
    every: Duration = EVERY

    def __post_init__(self) -> None:
        if not FASTEST <= self.every <= SLOWEST:
            raise SpecError(
                f"every must be {FASTEST} to {SLOWEST}, got {self.every}", field="every"
            )

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One reader for all nodes."""
        for node in self.nodes:
            fabric.node(node)
        ports: dict[str, list[str]] = {}
        for port in fabric.walk():
            if not self.nodes or port.node in self.nodes:
                kernel = fabric.node(port.node).settings.get("ssh", {}).get("kernel", {})
                ports.setdefault(port.node, []).append(kernel.get(port.name, [port.name])[0])
        config = {"nodes": list(self.nodes), "ports": ports, "step_s": self.every.s}
        return (Program("reader", "probes.jobs.nic_counters", config, span="copies"),)

    def read(self, records: Mapping[str, list[Record]]) -> Readings:
        """Looks -> what every quantity was, port by port."""
        lines = records.get("reader", [])
        looks: dict[str, dict[str, list[list[Any]]]] = {}
        for line in sorted(lines, key=lambda line: line["t"]):
            for one in QUANTITIES if line["ev"] == "counters" else ():
                if one.source != line["source"] or (got := one.of(line["values"])) is None:
                    continue
                element = f"{line['node']}:{line['port']}"
                found = looks.setdefault(one.measure, {}).setdefault(element, [])
                found.append([line["t"], got[0], " + ".join(got[1])])
        return Readings(
            self.name,
            series=tuple(_series(looks)),
            trouble=tuple(_trouble(lines)),
            extra={"looks": looks},
        )

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """What each quantity grew by since the fault."""
        looks = readings.extra.get("looks", {})
        return tuple(_grown(one, looks.get(one.measure, {}), windows) for one in QUANTITIES)


def _grown(
    one: Quantity, looks: Mapping[str, Sequence[Sequence[Any]]], windows: Windows
) -> Measure:
    """Sum over the ports that have it; a port whose counter began anew is left out, and named."""
    total = least = 0
    ports, where, anew, names = 0, list[str](), list[str](), dict[str, None]()
    for element, found in sorted(looks.items()):
        before = [look for look in found if look[0] <= windows.event.earliest_ns]
        after = [look for look in found if windows.event.latest_ns <= look[0] <= windows.end_ns]
        if not before or not after:
            continue
        span = [before[-1], *after]
        if any(b[1] < a[1] or b[2] != a[2] for a, b in pairwise(span)):
            anew.append(element)
            continue
        ports += 1
        names[after[-1][2]] = None
        grown = after[-1][1] - before[-1][1]
        total, least = total + grown, least + after[-1][1] - after[0][1]
        if grown:
            where.append(f"{element} {grown}")
    note = f"counter began anew on {', '.join(anew[:4])}" if anew else ""
    if not ports:
        return Measure(one.measure, None, n=0, note=note or "no port told it in calm and after")
    parts = [", ".join(names), *([f"at {', '.join(where[:4])}"] if where else []), note]
    return Measure(
        one.measure,
        float(total),
        float(least),
        float(total),
        ports,
        note="; ".join(filter(None, parts)),
    )


def _series(looks: Mapping[str, Mapping[str, Sequence[Sequence[Any]]]]) -> list[Series]:
    """Growth since the first look, of what grew at all."""
    made = []
    for measure, elements in sorted(looks.items()):
        for element, found in sorted(elements.items()):
            if found[-1][1] != found[0][1]:
                at = tuple(look[0] for look in found)
                values = tuple(float(look[1] - found[0][1]) for look in found)
                made.append(Series(measure, element, at, values))
    return made


def _trouble(lines: Sequence[Record]) -> list[str]:
    if not any(line["ev"] == "ready" for line in lines):
        return ["nic_counters: the reader never became ready"]
    sentences = []
    told = [line for line in lines if "n" in line and line["ev"] != "ready"]
    if any(after["n"] != before["n"] + 1 for before, after in pairwise(told)):
        sentences.append("nic_counters: records of the reader are missing")
    beats = sorted(line["t"] for line in told if line["ev"] == "beat")
    if any(after - before > SILENT_NS for before, after in pairwise(beats)):
        sentences.append("nic_counters: the reader fell silent for seconds")
    return sentences
