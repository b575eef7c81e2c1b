"""Which links a 5-tuple crosses, by the kernels' own look-ups, and packets counted on them."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import Program, probe
from chaos.timeline import Event, Measure, Readings, Series, Windows
from chaos.units import Duration

Record = dict[str, Any]
EVERY, FASTEST = Duration(100_000_000), Duration(5_000_000)
SILENT_NS = 2_000_000_000
PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}


@probe("path")
@dataclass(frozen=True, slots=True)
class Path:
    """The links that packets of one 5-tuple would cross, looked up again and again.

    Every node on the way is asked by RTM_GETROUTE with the packet's own ports and incoming
    interface, so the answer is the kernel's own hash. Beside it stand the transmit counters of the
    ports on the path. A change is dated by the look that saw it; it happened at most `every`
    earlier, which the event says.

    Args:
        source: Node that sends.
        target: Node that receives.
        proto: `udp` or `tcp`.
        sport: Source port; the flow probe's first is 49152.
        dport: Destination port.
        every: Time between two looks.

    Needs: nodes whose network namespace is on this machine, and CAP_NET_ADMIN in it.

    Examples:
        >>> Path("host1", "host8").element
        'host1->host8 udp 49152->5201'
    """

    name: ClassVar[str] = "path"
    schema: ClassVar[Mapping[str, str]] = {
        "path_changes_count": "changes of the path seen, fault to end",
        "path_absent_ms": "time without any path, fault to end",
        "path_reverted_ms": "heal to the path of the calm phase being taken again",
    }

    source: str
    target: str
    proto: Literal["udp", "tcp"] = "udp"
    sport: int = 49152
    dport: int = 5201
    every: Duration = EVERY

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise SpecError(f"path needs two nodes, got {self.source} twice", field="target")
        for name in ("sport", "dport"):
            port = getattr(self, name)
            if not 1 <= port <= 65535:
                raise SpecError(f"{name} must be 1 to 65535, got {port}", field=name)
        if self.every < FASTEST:
            raise SpecError(f"every must be at least {FASTEST}, got {self.every}", field="every")

    @property
    def element(self) -> str:
        """The 5-tuple in words."""
        return f"{self.source}->{self.target} {self.proto} {self.sport}->{self.dport}"

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One looker, born in the machine's own namespace."""
        for field, node in (("source", self.source), ("target", self.target)):
            fabric.node(node)
            if node not in addresses:
                known = ", ".join(sorted(addresses)) or "none"
                raise SpecError(
                    f"path: {node} has no address that carries traffic; those with one: {known}",
                    field=field,
                )
        cables = [link for link in fabric.links if len(link.ports) == 2]
        config = {
            "fabric": fabric.name,
            "links": [[[port.node, port.name] for port in link.ports] for link in cables],
            "every_s": self.every.s,
            "flow": {
                "source": self.source,
                "source_ip": addresses[self.source],
                "target_ip": addresses[self.target],
                "proto": PROTOCOLS[self.proto],
                "sport": self.sport,
                "dport": self.dport,
            },
        }
        return (Program("looker", "probes.jobs.path", config),)

    def read(self, records: Mapping[str, list[Record]]) -> Readings:
        """Looks -> changes, and packets per second by port on the path."""
        lines = records.get("looker", [])
        looks = [line for line in lines if line["ev"] in ("path", "changed")]
        events = [
            self._changed(before, after)
            for before, after in pairwise(looks)
            if after["ev"] == "changed"
        ]
        kept = [[line["t"], line["before_ns"], _words(line)] for line in looks]
        return Readings(
            self.name,
            tuple(events),
            tuple(_packets(looks)),
            trouble=tuple(_trouble(lines, looks)),
            extra={"looks": kept},
        )

    def _changed(self, before: Record, after: Record) -> Event:
        facts = {
            "before": _words(before) or before["error"],
            "after": _words(after) or after["error"],
            "seen_within_ms": (after["t"] - after["before_ns"]) / 1e6,
        }
        name = "path.changed" if after["hops"] else "path.lost"
        return Event(after["t"], self.name, name, "", self.element, "", "", facts)

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """How the path moved after the fault and back after the heal."""
        looks = readings.extra.get("looks", [])
        start, end = windows.event.earliest_ns, windows.end_ns
        calm = [words for at, _, words in looks if at <= start]
        since = [look for look in looks if start < look[0] <= end]
        if not calm or not since:
            note = "; ".join(readings.trouble) or "the path was not looked up in calm and after"
            return tuple(Measure(name, None, n=0, note=note) for name in self.schema)
        changes = sum(start < event.at_ns <= end for event in readings.events)
        return (
            Measure("path_changes_count", float(changes)),
            _absent(since, windows),
            _reverted(calm[-1], since, windows),
        )

    @staticmethod
    def notice(record: Record) -> str | None:
        """A path that was found, changed or lost."""
        if record["ev"] != "changed":
            return None
        return f"path now {_words(record)}" if record["hops"] else f"no path: {record['error']}"


def _words(look: Record) -> str:
    """`host1 -> leaf1 -> spine2`, with the link where two nodes could have several."""
    hops = look["hops"]
    return " -> ".join(f"{source} ({link})" for link, source, _ in hops) + (
        f" -> {hops[-1][2]}" if hops else ""
    )


def _packets(looks: Sequence[Record]) -> list[Series]:
    """Transmit rate of each port while it was on the path."""
    rates: dict[str, list[tuple[int, float]]] = {}
    for before, after in pairwise(looks):
        passed_s = (after["t"] - before["t"]) / 1e9
        for port, packets in after["packets"].items():
            rates.setdefault(port, []).append((after["t"], packets / passed_s))
    return [
        Series("port_transmit_pps", port, *(tuple(part) for part in zip(*found, strict=True)))
        for port, found in sorted(rates.items())
    ]


def _absent(since: Sequence[Sequence[Any]], windows: Windows) -> Measure:
    """Every absence is between looks, so it may be longer or shorter by one look at each end."""
    total = error = 0
    for look, following in pairwise([*since, [windows.end_ns, windows.end_ns, ""]]):
        if not look[2]:
            total += following[0] - look[0]
            error += look[0] - look[1] + following[0] - following[1]
    low, high = max(0, total - error), total + error
    return Measure("path_absent_ms", total / 1e6, low / 1e6, high / 1e6)


def _reverted(calm: str, since: Sequence[Sequence[Any]], windows: Windows) -> Measure:
    name = "path_reverted_ms"
    left = [index for index, look in enumerate(since) if look[2] != calm]
    if not left:
        return Measure(name, None, n=0, note="the path never left that of calm")
    healed_ns = windows.heal.latest_ns
    if left[-1] + 1 == len(since):
        waited = max(0, windows.end_ns - healed_ns) / 1e6
        return Measure(name, waited, censored=True, note=f"now {since[-1][2] or 'no path'}")
    seen_ns, before_ns, _ = since[left[-1] + 1]
    low, high = max(0, before_ns - healed_ns) / 1e6, max(0, seen_ns - healed_ns) / 1e6
    return Measure(name, high, low, high)


def _trouble(lines: Sequence[Record], looks: Sequence[Record]) -> list[str]:
    if not any(line["ev"] == "ready" for line in lines):
        return ["path: the looker never became ready"]
    sentences = []
    numbers = [line["n"] for line in lines if "n" in line and line["ev"] != "ready"]
    if any(after != before + 1 for before, after in pairwise(numbers)):
        sentences.append("path: records of the looker are missing")
    if any(after["t"] - before["t"] > SILENT_NS for before, after in pairwise(looks)):
        sentences.append("path: the looker fell silent for seconds")
    return sentences
