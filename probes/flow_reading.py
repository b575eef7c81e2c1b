"""From sends and arrivals of numbered packets to gaps, rates and events; all pure.

A packet counts as lost when its sender sent it while the receiver listened and it never arrived.
Skipped numbers (never sent) are no loss. Records may be a cut out of a longer run: only what both
sides tell of is read. The end of a gap lies between the last lost send and the
first arrival after it, its start likewise; a `Gap` keeps both, so every outage has its error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from chaos.timeline import Event, Readings, Series, Span
from probes.flow_trouble import trouble

Record = dict[str, Any]
GRACE_NS = 100_000_000  # a packet sent this long before the receiver stopped had time to arrive
BIN_NS, BIN_PACKETS = 10_000_000, 20
DETECT_PACKETS = 3
JITTER_NS = 2_000_000_000
STALL_INTERVALS = 5


class Gap(NamedTuple):
    """A run of packets of one flow that never arrived.

    `start_ns` and `end_ns` are the arrivals around it; `first_ns` and `last_ns` are when its first
    and last packet were sent; `open` says that nothing arrived afterwards.
    """

    start_ns: int
    end_ns: int
    first_ns: int
    last_ns: int
    lost: int
    refused: int
    open: bool

    @property
    def missing(self) -> int:
        """Packets not delivered."""
        return self.lost + self.refused


@dataclass(slots=True)
class Sends:
    """What the sender says: send time per slot (skipped ones absent), and refusals."""

    at: dict[int, int] = field(default_factory=dict)
    begin_ns: int = 0
    refused: set[int] = field(default_factory=set)
    stalls: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Arrivals:
    """What the receiver says: first arrival per slot; slot and time of those that came oddly."""

    at: dict[int, int] = field(default_factory=dict)
    duplicated: list[int] = field(default_factory=list)
    overtaken: list[tuple[int, int]] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0


def read(
    elements: Sequence[str], interval_ns: int, records: Mapping[str, list[Record]]
) -> Readings:
    """Records of `sender` and `receiver` -> readings; slot modulo flows is the flow."""
    sender, receiver = records.get("sender", []), records.get("receiver", [])
    sends = _sends(sender, interval_ns // len(elements))
    arrivals = _arrivals(receiver, len(elements))
    doubts = trouble(sender, receiver)
    if not arrivals.at:
        doubts.append(f"flow: no packet of {elements[0]} ever arrived")
        return Readings("flow", trouble=tuple(doubts))
    flows = [
        _Flow(element, interval_ns, number, len(elements), sends, arrivals)
        for number, element in enumerate(elements)
    ]
    return Readings(
        "flow",
        tuple(sorted((e for flow in flows for e in flow.events), key=lambda event: event.at_ns)),
        tuple(flow.arrived() for flow in flows),
        tuple(sorted((s for flow in flows for s in flow.spans()), key=lambda span: span.start_ns)),
        tuple(doubts),
        {
            "flows": {flow.element: flow.extra() for flow in flows},
            "stalls": [list(stall) for stall in sends.stalls],
            "clock_error_ns": _clock_error(sender) + _clock_error(receiver),
            "duplicated": arrivals.duplicated,
        },
    )


def _clock_error(records: Iterable[Record]) -> int:
    """How far a program's times may be off; 0 on the machine that measures."""
    return max((r["error_ns"] for r in records if r["ev"] == "clock"), default=0)


def _sends(records: Iterable[Record], slot_ns: int) -> Sends:
    sends, previous = Sends(), 0
    batches = [record for record in records if record["ev"] == "sent"]
    if batches:
        sends.begin_ns = batches[0]["t"]
    for record in batches:
        base = record["t"]
        found = [
            (slot, base + offset)
            for slot, offset in enumerate(record["at"], record["first"])
            if offset >= 0
        ]
        sends.at.update(found)
        for _, at in found:
            if at - previous > STALL_INTERVALS * slot_ns and previous:
                sends.stalls.append((at, at - previous))
            previous = at
        sends.refused.update(slot for slot, _ in record["refused"])
    return sends


def _arrivals(records: Iterable[Record], flows: int) -> Arrivals:
    arrivals = Arrivals()
    newest = dict.fromkeys(range(flows), -1)
    batches = [record for record in records if record["ev"] == "got"]
    if batches:
        arrivals.begin_ns, arrivals.end_ns = batches[0]["t"], batches[-1]["until"]
    for record in batches:
        base = record["t"]
        for slot, offset in zip(record["slots"], record["at"], strict=True):
            if slot in arrivals.at:
                arrivals.duplicated.append(base + offset)
                continue
            arrivals.at[slot] = base + offset
            if slot > newest[slot % flows]:
                newest[slot % flows] = slot
            else:
                arrivals.overtaken.append((slot, base + offset))
    return arrivals


class _Flow:
    """One flow's numbers, between the receiver's first and last moment."""

    def __init__(
        self,
        element: str,
        interval_ns: int,
        number: int,
        flows: int,
        sends: Sends,
        arrivals: Arrivals,
    ) -> None:
        self.element, self.interval_ns = element, interval_ns
        self.sends, self.arrivals = sends, arrivals
        self.begin_ns = max(arrivals.begin_ns, sends.begin_ns)
        self.end_ns = arrivals.end_ns - GRACE_NS
        self.slots = [
            slot
            for slot, at in sends.at.items()
            if slot % flows == number and self.begin_ns <= at <= self.end_ns
        ]
        self.gaps: list[Gap] = []
        self.events: list[Event] = []
        self._find()
        packets = -(-BIN_PACKETS * interval_ns // BIN_NS)
        self.bin_ns = max(1, packets) * BIN_NS
        self.bins = max(0, (self.end_ns - self.begin_ns) // self.bin_ns)

    def _find(self) -> None:
        """Gaps in the order of sending."""
        arrived, first = self.arrivals.at, -1
        for place, slot in enumerate(self.slots):
            if slot not in arrived:
                first = place if first < 0 else first
            elif first >= 0:
                self._close(first, place)
                first = -1
        if first >= 0:
            self._close(first, len(self.slots))

    def _close(self, first: int, end: int) -> None:
        """Keep the gap at places [first, end) of `slots`; tell it when it was long enough."""
        sent, arrived = self.sends.at, self.arrivals.at
        run = self.slots[first:end]
        refused = sum(slot in self.sends.refused for slot in run)
        still = end == len(self.slots)
        started = arrived[self.slots[first - 1]] if first else sent[run[0]]
        ended = self.end_ns if still else arrived[self.slots[end]]
        gap = Gap(
            min(started, sent[run[0]]),
            max(ended, sent[run[-1]]),
            sent[run[0]],
            sent[run[-1]],
            len(run) - refused,
            refused,
            still,
        )
        self.gaps.append(gap)
        if len(run) >= DETECT_PACKETS:
            self._tell(gap, run, self._jitter(first))

    def _tell(self, gap: Gap, run: Sequence[int], jitter_ns: int) -> None:
        needed = max(DETECT_PACKETS, -(-2 * jitter_ns // self.interval_ns))
        if len(run) < needed:
            return
        facts = {
            "threshold_packets": needed,
            "threshold_ms": needed * self.interval_ns / 1e6,
            "jitter_before_ms": jitter_ns / 1e6,
        }
        self._event(self.sends.at[run[needed - 1]], "flow.gap_started", "flow_gap", facts)
        if not gap.open:
            length_ms = (gap.end_ns - gap.start_ns) / 1e6
            ended = {"lost": gap.lost, "refused": gap.refused, "gap_ms": length_ms}
            self._event(gap.end_ns, "flow.restored", "", ended)

    def _jitter(self, place: int) -> int:
        """Most that one arrival lagged behind the one before it, in the time before a gap.

        The sender's own pauses are taken out: it is what the network did while nothing was lost.
        """
        sent, arrived = self.sends.at, self.arrivals.at
        since = max(0, place - max(2, JITTER_NS // self.interval_ns))
        delays = [
            arrived[slot] - sent[slot] if slot in arrived else None
            for slot in self.slots[since:place]
        ]
        return max(
            (b - a for a, b in pairwise(delays) if a is not None and b is not None), default=0
        )

    def _event(self, at_ns: int, name: str, detector: str, facts: Mapping[str, Any]) -> None:
        event = Event(at_ns, "flow", name, "", self.element, detector, "", facts)
        self.events.append(event)

    def spans(self) -> list[Span]:
        """Gaps that the detector could see are outages, shorter ones are losses."""
        return [
            Span(
                gap.start_ns,
                gap.end_ns,
                "outage" if gap.missing >= DETECT_PACKETS else "loss",
                self.element,
                {"lost": gap.lost, "refused": gap.refused, "restored": not gap.open},
            )
            for gap in self.gaps
        ]

    def arrived(self) -> Series:
        """Arrivals per second in bins; a time is the start of its bin."""
        at = tuple(self.begin_ns + number * self.bin_ns for number in range(self.bins))
        per_s = 1e9 / self.bin_ns
        got = self._binned(self._arrival_times())
        return Series("arrived_pps", self.element, at, tuple(count * per_s for count in got))

    def _arrival_times(self) -> list[int]:
        arrived = self.arrivals.at
        return [arrived[slot] for slot in self.slots if slot in arrived]

    def _binned(self, times: Iterable[int]) -> list[int]:
        counts = [0] * self.bins
        begin, width, bins = self.begin_ns, self.bin_ns, self.bins
        for at in times:
            place = (at - begin) // width
            if 0 <= place < bins:
                counts[place] += 1
        return counts

    def extra(self) -> dict[str, Any]:
        """What `flow_measures` needs, as plain values."""
        sent, arrived = self.sends.at, self.arrivals.at
        mine = set(self.slots) if self.arrivals.overtaken else set()
        return {
            "interval_ns": self.interval_ns,
            "begin_ns": self.begin_ns,
            "end_ns": self.end_ns,
            "bin_ns": self.bin_ns,
            "sent": self._binned(sent[slot] for slot in self.slots),
            "missing": self._binned(sent[slot] for slot in self.slots if slot not in arrived),
            "arrived": self._binned(self._arrival_times()),
            "gaps": [list(gap) for gap in self.gaps],
            "reordered": [at for slot, at in self.arrivals.overtaken if slot in mine],
        }
