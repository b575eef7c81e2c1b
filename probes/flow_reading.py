"""From sends and arrivals of numbered packets to gaps, rates and events; all pure.

A packet counts as lost when its sender sent it while the receiver listened and it never arrived.
Skipped numbers (never sent) are no loss. Records may be a cut out of a longer run: only what both
sides tell of is read. The end of a gap lies between the last lost send and the
first arrival after it, its start likewise; a `Gap` keeps both, so every outage has its error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from chaos.timeline import Event, Readings, Series, Span

Record = dict[str, Any]
GRACE_NS = 100_000_000  # a packet sent this long before the receiver stopped had time to arrive
BIN_NS, BIN_PACKETS = 10_000_000, 20
DETECT_PACKETS = 3
STALL_INTERVALS = 5
CLOCK_STEP_NS = 1_000_000
SILENT_NS = 1_000_000_000


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
    """What the receiver says: first arrival per slot, and the times of oddities."""

    at: dict[int, int] = field(default_factory=dict)
    duplicated: list[int] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0


def read(
    elements: Sequence[str], interval_ns: int, records: Mapping[str, list[Record]]
) -> Readings:
    """Records of `sender` and `receiver` -> readings; slot modulo flows is the flow."""
    sender, receiver = records.get("sender", []), records.get("receiver", [])
    sends, arrivals = _sends(sender, interval_ns // len(elements)), _arrivals(receiver)
    trouble = [*_sender_trouble(sender), *_receiver_trouble(receiver), *_silence(sender, receiver)]
    if not arrivals.at:
        trouble.append(f"flow: no packet of {elements[0]} ever arrived")
        return Readings("flow", trouble=tuple(trouble))
    flows: dict[str, Any] = {}
    events: list[Event] = []
    series: list[Series] = []
    spans: list[Span] = []
    for number, element in enumerate(elements):
        slots = [slot for slot in sends.at if slot % len(elements) == number]
        flow = _Flow(element, interval_ns, slots, sends, arrivals)
        flows[element] = flow.extra()
        events += flow.events
        spans += flow.spans()
        series.append(flow.arrived())
    events.sort(key=lambda event: event.at_ns)
    spans.sort(key=lambda span: span.start_ns)
    extra = {"flows": flows, "stalls": [list(stall) for stall in sends.stalls]}
    return Readings("flow", tuple(events), tuple(series), tuple(spans), tuple(trouble), extra)


def _sends(records: Iterable[Record], slot_ns: int) -> Sends:
    sends, previous = Sends(), 0
    for record in records:
        if record["ev"] != "sent":
            continue
        sends.begin_ns = sends.begin_ns or record["t"]
        for slot, offset in enumerate(record["at"], record["first"]):
            if offset < 0:
                continue
            at = sends.at[slot] = record["t"] + offset
            if previous and at - previous > STALL_INTERVALS * slot_ns:
                sends.stalls.append((at, at - previous))
            previous = at
        sends.refused.update(slot for slot, _ in record["refused"])
    return sends


def _arrivals(records: Iterable[Record]) -> Arrivals:
    arrivals = Arrivals()
    for record in records:
        if record["ev"] != "got":
            continue
        arrivals.begin_ns = arrivals.begin_ns or record["t"]
        arrivals.end_ns = record["until"]
        for slot, offset in zip(record["slots"], record["at"], strict=True):
            at = record["t"] + offset
            arrivals.order.append((slot, at))
            if slot in arrivals.at:
                arrivals.duplicated.append(at)
            else:
                arrivals.at[slot] = at
    return arrivals


class _Flow:
    """One flow's numbers, between the receiver's first and last moment."""

    def __init__(
        self, element: str, interval_ns: int, slots: list[int], sends: Sends, arrivals: Arrivals
    ) -> None:
        self.element, self.interval_ns = element, interval_ns
        self.sends, self.arrivals = sends, arrivals
        self.begin_ns = max(arrivals.begin_ns, sends.begin_ns)
        self.end_ns = arrivals.end_ns - GRACE_NS
        self.slots = [slot for slot in slots if self.begin_ns <= sends.at[slot] <= self.end_ns]
        self.gaps: list[Gap] = []
        self.events: list[Event] = []
        self._find()
        packets = -(-BIN_PACKETS * interval_ns // BIN_NS)
        self.bin_ns = max(1, packets) * BIN_NS
        self.bins = max(0, (self.end_ns - self.begin_ns) // self.bin_ns)

    def _find(self) -> None:
        """Gaps in the order of sending; the detector knows only the past."""
        run: list[int] = []
        good = -1
        jitter = 0
        for slot in self.slots:
            if slot not in self.arrivals.at:
                run.append(slot)
                continue
            if run:
                self._close(run, good, slot, jitter)
                run = []
            elif good >= 0:
                passed = self.arrivals.at[slot] - self.arrivals.at[good]
                jitter = max(jitter, passed - (self.sends.at[slot] - self.sends.at[good]))
            good = slot
        if run:
            self._close(run, good, -1, jitter)

    def _close(self, run: list[int], before: int, after: int, jitter: int) -> None:
        sent, arrived = self.sends.at, self.arrivals.at
        refused = sum(slot in self.sends.refused for slot in run)
        start = arrived[before] if before >= 0 else sent[run[0]]
        end = arrived[after] if after >= 0 else self.end_ns
        gap = Gap(
            min(start, sent[run[0]]),
            max(end, sent[run[-1]]),
            sent[run[0]],
            sent[run[-1]],
            len(run) - refused,
            refused,
            after < 0,
        )
        self.gaps.append(gap)
        needed = max(DETECT_PACKETS, -(-2 * jitter // self.interval_ns))
        if len(run) < needed:
            return
        facts = {
            "threshold_packets": needed,
            "threshold_ms": needed * self.interval_ns / 1e6,
            "calm_jitter_ms": jitter / 1e6,
        }
        self._event(sent[run[needed - 1]], "flow.gap_started", "flow_gap", facts)
        if not gap.open:
            ended = {"lost": gap.lost, "refused": gap.refused, "gap_ms": (end - start) / 1e6}
            self._event(gap.end_ns, "flow.restored", "", ended)

    def _event(self, at_ns: int, name: str, detector: str, facts: Mapping[str, Any]) -> None:
        event = Event(at_ns, "flow", name, "", self.element, detector, "", facts)
        self.events.append(event)

    def spans(self) -> list[Span]:
        """Gaps that the detector would see are outages, shorter ones are losses."""
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
        mine = set(self.slots)
        got = self._binned(at for slot, at in self.arrivals.at.items() if slot in mine)
        per_s = 1e9 / self.bin_ns
        return Series("arrived_pps", self.element, at, tuple(count * per_s for count in got))

    def _binned(self, times: Iterable[int]) -> list[int]:
        counts = Counter((at - self.begin_ns) // self.bin_ns for at in times)
        return [counts[number] for number in range(self.bins)]

    def extra(self) -> dict[str, Any]:
        """What `measure` needs, as plain values."""
        mine = set(self.slots)
        missing = [self.sends.at[slot] for slot in self.slots if slot not in self.arrivals.at]
        return {
            "interval_ns": self.interval_ns,
            "begin_ns": self.begin_ns,
            "end_ns": self.end_ns,
            "bin_ns": self.bin_ns,
            "sent": self._binned(self.sends.at[slot] for slot in self.slots),
            "missing": self._binned(missing),
            "arrived": self._binned(at for slot, at in self.arrivals.at.items() if slot in mine),
            "gaps": [list(gap) for gap in self.gaps],
            "reordered": self._reordered(mine),
            "duplicated": self.arrivals.duplicated,
        }

    def _reordered(self, mine: set[int]) -> list[int]:
        newest, late = -1, []
        seen: set[int] = set()
        for slot, at in self.arrivals.order:
            if slot not in mine or slot in seen:
                continue
            seen.add(slot)
            if slot < newest:
                late.append(at)
            newest = max(newest, slot)
        return late


def _sender_trouble(records: Sequence[Record]) -> list[str]:
    sentences = _process_trouble("sender", records)
    batches = [record for record in records if record["ev"] == "sent"]
    ends = [batch["first"] + len(batch["at"]) for batch in batches]
    for end, following in zip(ends, batches[1:], strict=False):
        if following["first"] != end:
            sentences.append(f"flow: the sender's records lack numbers from {end}")
            break
    totals = [record["slots"] for record in records if record["ev"] == "end"]
    if totals and ends and totals[0] != ends[-1]:
        sentences.append(f"flow: the sender counted {totals[0]} numbers and told {ends[-1]}")
    return sentences


def _receiver_trouble(records: Sequence[Record]) -> list[str]:
    sentences = _process_trouble("receiver", records)
    batches = [record for record in records if record["ev"] == "got"]
    for before, after in pairwise(batches):
        if before["received"] + len(after["slots"]) != after["received"]:
            sentences.append("flow: the receiver told fewer packets than it counted")
            break
    for before, after in pairwise(batches):
        overflowed = after["buffer_errors"] - before["buffer_errors"]
        if after["dropped"] > before["dropped"] and overflowed:
            sentences.append(
                f"flow: the receiver's own buffer overflowed ({overflowed} packets); "
                "they would look like losses"
            )
            break
    offsets = [batch["clock_offset"] for batch in batches]
    step = max((abs(b - a) for a, b in pairwise(offsets)), default=0)
    if step > CLOCK_STEP_NS:
        sentences.append(f"flow: the wall clock stepped by {step / 1e6:.1f} ms during the trial")
    return sentences


def _process_trouble(who: str, records: Sequence[Record]) -> list[str]:
    if not any(record["ev"] == "ready" for record in records):
        return [f"flow: the {who} never became ready"]
    numbers = [record["n"] for record in records if record["ev"] != "ready"]
    if any(b != a + 1 for a, b in pairwise(numbers)):
        return [f"flow: records of the {who} are missing"]
    return []


def _silence(sender: Sequence[Record], receiver: Sequence[Record]) -> list[str]:
    """One side that stopped telling while the other went on."""
    sent = max((record["t"] for record in sender if record["ev"] == "sent"), default=0)
    got = max((record["until"] for record in receiver if record["ev"] == "got"), default=0)
    if abs(sent - got) <= SILENT_NS:
        return []
    who, missing_s = ("receiver", sent - got) if got < sent else ("sender", got - sent)
    return [f"flow: the {who} fell silent {missing_s / 1e9:.1f} s before the other side did"]
