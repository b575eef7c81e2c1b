"""A sequence-numbered UDP stream from one node to another: what was lost, when, how long."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.errors import SpecError
from chaos.fabric import Fabric, Stream
from chaos.registry import Program, probe
from chaos.timeline import Measure, Readings, Windows
from chaos.units import Duration, Pps, Size
from probes.flow_measures import SCHEMA, measure
from probes.flow_reading import read
from probes.flow_watch import WATCHED, watch

ROCE_PORT, PLAIN_PORT = 4791, 5201
FIRST_SOURCE_PORT = 49152
HEADER_BYTES, MOST_BYTES, MOST_PORTS = 24, 8900, 256
FASTEST_PPS = 20_000.0
_UDP = 17
RATE, PAYLOAD, VALIDATION = Pps(2000), Size(256), Duration(500_000_000)


@probe("flow")
@dataclass(frozen=True, slots=True)
class Flow:
    """Numbered UDP packets on a fixed schedule, stamped by the receiving kernel.

    Packets go round-robin over `ports` source ports, starting at 49152, so that the paths that ECMP
    chooses are known beforehand and repeat; each source port is a flow of its own with its own
    sequence. A gap is a run of numbers of one flow that never arrived: it starts at the last good
    packet before and ends at the first good one after. Packets that the sender never sent, because
    it was held up, are not lost; packets that its own kernel refused are counted apart, but their
    time is outage.

    Args:
        source: Node that sends.
        target: Node that receives.
        rate: Packets per second over all source ports.
        ports: How many source ports.
        roce: Send to UDP port 4791, as RoCEv2 does, instead of 5201.
        size: UDP payload.
        validation: How long forwarding must hold to count as restored.

    Needs: two nodes with addresses, and Python on both.

    Examples:
        >>> flow = Flow("host1", "host8", rate=Pps(2000))
        >>> str(flow.rate), flow.dport
        ('2 kpps', 5201)
    """

    name: ClassVar[str] = "flow"
    schema: ClassVar[Mapping[str, str]] = SCHEMA
    detectors: ClassVar[tuple[str, ...]] = ("flow_gap",)
    watched: ClassVar[Mapping[str, str]] = WATCHED

    source: str
    target: str
    rate: Pps = RATE
    ports: int = 1
    roce: bool = False
    size: Size = PAYLOAD
    validation: Duration = VALIDATION

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise SpecError(f"flow needs two nodes, got {self.source} twice", field="target")
        if not 1 <= self.ports <= MOST_PORTS:
            raise SpecError(f"ports must be 1 to {MOST_PORTS}, got {self.ports}", field="ports")
        if self.rate.value > FASTEST_PPS:
            raise SpecError(
                f"rate must be at most {Pps(FASTEST_PPS)} (this sender's limit), got {self.rate}",
                field="rate",
            )
        if not HEADER_BYTES <= self.size.bytes <= MOST_BYTES:
            raise SpecError(
                f"size must be {HEADER_BYTES} to {MOST_BYTES} bytes, got {self.size}", field="size"
            )

    @property
    def dport(self) -> int:
        """Destination port."""
        return ROCE_PORT if self.roce else PLAIN_PORT

    @property
    def source_ports(self) -> tuple[int, ...]:
        """Source ports, one flow each."""
        return tuple(range(FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + self.ports))

    @property
    def elements(self) -> tuple[str, ...]:
        """Name of each flow: `host1->host8`, with the source port appended where there are more."""
        pair = f"{self.source}->{self.target}"
        return (pair,) if self.ports == 1 else tuple(f"{pair}#{port}" for port in self.source_ports)

    @property
    def interval_ns(self) -> int:
        """Time between two packets of one flow."""
        return round(1e9 / self.rate.value) * self.ports

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """The receiver first, so that it listens before the sender sends."""
        for node in (self.source, self.target):
            fabric.node(node)
        address = addresses.get(self.target)
        if address is None:
            known = ", ".join(sorted(addresses)) or "none"
            raise SpecError(
                f"flow: {self.target} has no address that carries traffic; those with one: {known}",
                field="target",
            )
        identity = f"{self.source}>{self.target}:{self.dport}:{self.rate.value}:{self.ports}"
        common = {
            "address": address,
            "dport": self.dport,
            "token": f"{zlib.crc32(identity.encode()):08x}",
        }
        sender = common | {
            "first_source_port": FIRST_SOURCE_PORT,
            "ports": self.ports,
            "rate_pps": self.rate.value,
            "bytes": self.size.bytes,
        }
        return (
            Program("receiver", "probes.jobs.flow_receiver", common, self.target),
            Program("sender", "probes.jobs.flow_sender", sender, self.source),
        )

    def streams(
        self, addresses: Mapping[str, str], records: Mapping[str, list[dict[str, Any]]]
    ) -> tuple[Stream, ...]:
        """One UDP stream per source port; known without any record."""
        ends = (self.source, self.target, addresses[self.source], addresses[self.target])
        return tuple(Stream(*ends, _UDP, port, self.dport) for port in self.source_ports)

    def read(self, records: Mapping[str, list[dict[str, Any]]]) -> Readings:
        """Sends and arrivals -> gaps, arrival rates, events."""
        return read(self.elements, self.interval_ns, records)

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Losses and outages of this trial; see `schema`."""
        return measure(readings, windows, self.validation.ns)

    @staticmethod
    def watch(
        records: Mapping[str, list[dict[str, Any]]], since_ns: int, over_ns: int
    ) -> Mapping[str, float]:
        """Loss and silence of the last half second or so, for abort conditions."""
        return watch(records, since_ns, over_ns)

    @staticmethod
    def live(record: Mapping[str, Any]) -> Mapping[str, float] | None:
        """Arrivals per second of one batch of the receiver."""
        if record["ev"] != "got" or record["until"] <= record["t"]:
            return None
        return {"flow pps": len(record["slots"]) * 1e9 / (record["until"] - record["t"])}
