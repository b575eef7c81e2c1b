"""Numbered RoCEv2 packets between two hosts: lost, marked, broken, overtaken, late, answered."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.errors import SpecError
from chaos.fabric import Fabric, Stream
from chaos.registry import Program, probe
from chaos.roce import PORT
from chaos.timeline import Measure, Readings, Windows
from chaos.units import Duration, Pps, Size
from probes.flow_watch import WATCHED, watch
from probes.roce_reading import SCHEMA, measure, read

SPORT, RESPONDER_SPORT = 49152, 49153
FASTEST_PPS, LEAST_BYTES, MOST_BYTES, MOST_MESSAGE = 5_000.0, 24, 4096, 1024
RATE, PAYLOAD, VALIDATION = Pps(2000), Size(256), Duration(500_000_000)
_UDP = 17


@probe("roce_flow")
@dataclass(frozen=True, slots=True)
class RoceFlow:
    """A counted stream of RoCEv2 sends with its answers, crafted packet by packet, with no RDMA.

    The requester sends reliable-connection sends (first, middle …, last) with rising PSN and a
    right ICRC to UDP port 4791. The responder checks IP checksum, ICRC and data as a NIC and an
    application would, acknowledges each message, answers a PSN that is ahead by one NAK, and a
    congestion mark by a CNP. Nothing is sent twice and nothing slows down: the packets are those of
    RoCE, the transport is not. Hosts with an RDMA device show what a real one makes of it.

    Args:
        source: Node that sends.
        target: Node that receives and answers.
        rate: Packets per second.
        message: Packets per message; its last one asks for an acknowledgement.
        size: Payload of each packet.
        qp: Destination queue pair, both ways.
        validation: How long forwarding must hold to count as restored.

    Needs: two nodes with addresses, Python on both, CAP_NET_RAW (a packet socket).

    Examples:
        >>> str(RoceFlow("host1", "host8").rate)
        '2 kpps'
    """

    name: ClassVar[str] = "roce_flow"
    schema: ClassVar[Mapping[str, str]] = SCHEMA
    detectors: ClassVar[tuple[str, ...]] = ("roce_gap", "roce_nak", "roce_icrc", "roce_cnp")
    watched: ClassVar[Mapping[str, str]] = WATCHED

    source: str
    target: str
    rate: Pps = RATE
    message: int = 4
    size: Size = PAYLOAD
    qp: int = 0x11
    validation: Duration = VALIDATION

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise SpecError(f"roce_flow needs two nodes, got {self.source} twice", field="target")
        if self.rate.value > FASTEST_PPS:
            raise SpecError(
                f"rate must be at most {Pps(FASTEST_PPS)} (this sender's limit), got {self.rate}",
                field="rate",
            )
        if not 1 <= self.message <= MOST_MESSAGE:
            raise SpecError(
                f"message must be 1 to {MOST_MESSAGE} packets, got {self.message}", field="message"
            )
        if not LEAST_BYTES <= self.size.bytes <= MOST_BYTES or self.size.bytes % 4:
            raise SpecError(
                f"size must be {LEAST_BYTES} to {MOST_BYTES} bytes in steps of 4 (RoCE pads to "
                f"that), got {self.size}",
                field="size",
            )
        if not 0 <= self.qp < 1 << 24:
            raise SpecError(f"qp must be 0 to 16777215 (24 bits), got {self.qp}", field="qp")

    @property
    def element(self) -> str:
        """Name of the stream."""
        return f"{self.source}->{self.target}"

    @property
    def interval_ns(self) -> int:
        """Time between two packets."""
        return round(1e9 / self.rate.value)

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """The responder first, so that it listens before the requester sends."""
        for field, node in (("source", self.source), ("target", self.target)):
            fabric.node(node)
            if node not in addresses:
                known = ", ".join(sorted(addresses)) or "none"
                raise SpecError(
                    f"roce_flow: {node} has no address that carries traffic; those with one: "
                    f"{known}",
                    field=field,
                )
        identity = f"{self.element}:{self.rate.value}:{self.qp}:{self.message}"
        common = {
            "source": addresses[self.source],
            "address": addresses[self.target],
            "token": f"{zlib.crc32(identity.encode()):08x}",
            "qp": self.qp,
        }
        sender = common | {
            "sport": SPORT,
            "rate_pps": self.rate.value,
            "message": self.message,
            "bytes": self.size.bytes,
        }
        receiver = common | {"sport": RESPONDER_SPORT}
        return (
            Program("receiver", "probes.jobs.roce_responder", receiver, self.target),
            Program("sender", "probes.jobs.roce_requester", sender, self.source),
        )

    def streams(
        self, addresses: Mapping[str, str], records: Mapping[str, list[dict[str, Any]]]
    ) -> tuple[Stream, ...]:
        """The data, then the answers; known without any record."""
        there = (self.source, self.target, addresses[self.source], addresses[self.target])
        back = (self.target, self.source, addresses[self.target], addresses[self.source])
        return (Stream(*there, _UDP, SPORT, PORT), Stream(*back, _UDP, RESPONDER_SPORT, PORT))

    def read(self, records: Mapping[str, list[dict[str, Any]]]) -> Readings:
        """Sends, arrivals and answers -> gaps, what was odd, events."""
        return read(self.element, self.interval_ns, records)

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Counts and outages of this trial; see `schema`."""
        return measure(readings, windows, self.validation.ns)

    @staticmethod
    def watch(
        records: Mapping[str, list[dict[str, Any]]], since_ns: int, over_ns: int
    ) -> Mapping[str, float]:
        """Loss and silence of the last half second or so, for abort conditions."""
        return watch(records, since_ns, over_ns)
