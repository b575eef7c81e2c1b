"""From sends and arrivals of numbered packets to gaps, rates, events and their measures; all pure.

A packet counts as lost when its sender sent it while the receiver listened and it never arrived.
Skipped numbers (never sent) are no loss. The end of a gap lies between the last lost send and the
first arrival after it, its start likewise; a `Gap` keeps both, so every outage has its error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from chaos.timeline import Event, Measure, Readings, Series, Span, Windows

Record = dict[str, Any]
SCHEMA: Mapping[str, str] = {
    "flow_outage_longest_ms": "longest gap that began under the fault, over all flows",
    "flow_outage_total_ms": "sum of those gaps, of the flow that suffered most",
    "flow_outage_count": "number of those gaps, all flows",
    "flow_lost_packets": "packets sent and never received in those gaps, all flows",
    "flow_refused_packets": "packets that the sender's own kernel refused in those gaps",
    "flow_loss_derived_ms": "packets not delivered / offered rate, of the flow that suffered most",
    "flow_rate_derived_ms": "time in which under 90 % of the offered rate arrived, worst flow",
    "flow_loss_percent": "share not delivered of what was offered from fault to heal, all flows",
    "flow_reordered_packets": "packets overtaken by a later one of their flow, fault to end",
    "flow_duplicated_packets": "packets that arrived again, fault to end",
    "flow_convergence_ms": "fault to forwarding restored and holding, of the slowest flow",
    "heal_lost_packets": "packets not delivered in gaps that began after the heal, all flows",
    "calm_lost_packets": "packets not delivered in gaps that began in the calm phase, all flows",
    "flow_sender_stall_longest_ms": "longest time the sender itself was held up, fault to end",
}
GRACE_NS = 100_000_000  # a packet sent this long before the receiver stopped had time to arrive
BIN_NS, BIN_PACKETS = 10_000_000, 20
DETECT_PACKETS = 3
DIP = 0.9
STALL_INTERVALS = 5
CLOCK_STEP_NS = 1_000_000


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
    trouble = [*_sender_trouble(sender), *_receiver_trouble(receiver)]
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
        series += flow.series()
    events.sort(key=lambda event: event.at_ns)
    spans.sort(key=lambda span: span.start_ns)
    extra = {"flows": flows, "stalls": [list(stall) for stall in sends.stalls]}
    return Readings("flow", tuple(events), tuple(series), tuple(spans), tuple(trouble), extra)


def _sends(records: Iterable[Record], slot_ns: int) -> Sends:
    sends, previous = Sends(), 0
    for record in records:
        if record["ev"] != "sent":
            continue
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
        if record["ev"] == "ready":
            arrivals.begin_ns = record["t"]
        arrivals.end_ns = max(arrivals.end_ns, record["t"])
        if record["ev"] != "got":
            continue
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
        self.begin_ns, self.end_ns = arrivals.begin_ns, arrivals.end_ns - GRACE_NS
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
            ended = {"lost": gap.lost, "refused": gap.refused, "gap_ms": _ms(end - start)}
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

    def series(self) -> list[Series]:
        """Rates per bin; a time is the start of its bin."""
        at = tuple(self.begin_ns + number * self.bin_ns for number in range(self.bins))
        mine = set(self.slots)
        sent = self._binned(self.sends.at[slot] for slot in self.slots)
        got = self._binned(at for slot, at in self.arrivals.at.items() if slot in mine)
        per_s = 1e9 / self.bin_ns
        return [
            Series("arrived_pps", self.element, at, tuple(count * per_s for count in got)),
            Series("sent_pps", self.element, at, tuple(count * per_s for count in sent)),
        ]

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
    ends = [record for record in records if record["ev"] == "end"]
    batches = [record for record in records if record["ev"] == "sent"]
    expected = 0
    for batch in batches:
        if batch["first"] != expected:
            sentences.append(f"flow: the sender's records lack numbers from {expected}")
            break
        expected += len(batch["at"])
    if ends and expected != ends[0]["slots"]:
        sentences.append(f"flow: the sender counted {ends[0]['slots']} numbers, told {expected}")
    return sentences


def _receiver_trouble(records: Sequence[Record]) -> list[str]:
    sentences = _process_trouble("receiver", records)
    batches = [record for record in records if record["ev"] == "got"]
    told = sum(len(batch["slots"]) for batch in batches)
    ends = [record for record in records if record["ev"] == "end"]
    if ends and told != ends[0]["received"]:
        sentences.append(f"flow: the receiver counted {ends[0]['received']} packets, told {told}")
    if batches and batches[-1]["dropped"] and batches[-1]["buffer_errors"]:
        sentences.append(
            f"flow: the receiver's own buffer overflowed ({batches[-1]['buffer_errors']} packets); "
            "they would look like losses"
        )
    offsets = [batch["clock_offset"] for batch in batches]
    step = max((abs(b - a) for a, b in pairwise(offsets)), default=0)
    if step > CLOCK_STEP_NS:
        sentences.append(f"flow: the wall clock stepped by {step / 1e6:.1f} ms during the trial")
    return sentences


def _process_trouble(who: str, records: Sequence[Record]) -> list[str]:
    if not any(record["ev"] == "ready" for record in records):
        return [f"flow: the {who} never became ready"]
    sentences = []
    if [record["n"] for record in records] != list(range(1, len(records) + 1)):
        sentences.append(f"flow: records of the {who} are missing")
    if not any(record["ev"] == "end" for record in records):
        sentences.append(f"flow: the {who} ended before it was told to")
    return sentences


def measure(readings: Readings, windows: Windows, validation_ns: int) -> tuple[Measure, ...]:
    """Every quantity of `SCHEMA`; None with a note where nothing was offered under the fault."""
    flows = [_Flown(found) for found in readings.extra.get("flows", {}).values()]
    offered = sum(flow.count("sent", *_storm(windows)) for flow in flows)
    if not offered:
        note = "; ".join(readings.trouble) or "no packet was sent from fault to heal"
        return tuple(Measure(name, None, n=0, note=note) for name in SCHEMA)
    n = len(flows)
    during = [flow.gaps_within(*_storm(windows)) for flow in flows]
    every = [gap for gaps in during for gap in gaps]
    after = [gap for flow in flows for gap in flow.gaps_within(windows.heal.latest_ns + 1, None)]
    calm = [gap for flow in flows for gap in flow.gaps_calm(windows)]
    step_ms = _ms(max(flow.interval_ns for flow in flows))
    missing = sum(flow.count("missing", *_storm(windows)) for flow in flows)
    since, until = windows.event.earliest_ns, windows.end_ns
    counts = {
        "flow_outage_count": len(every),
        "flow_lost_packets": sum(gap.lost for gap in every),
        "flow_refused_packets": sum(gap.refused for gap in every),
        "flow_reordered_packets": sum(flow.odd("reordered", since, until) for flow in flows),
        "flow_duplicated_packets": flows[0].odd("duplicated", since, until),
        "heal_lost_packets": sum(gap.missing for gap in after),
        "calm_lost_packets": sum(gap.missing for gap in calm),
    }
    stalls = [late for at, late in readings.extra["stalls"] if since <= at <= until]
    share = 100 * min(1.0, missing / offered)
    found = [Measure(name, float(value), n=n) for name, value in counts.items()]
    found += [
        _longest(every, step_ms, n),
        _total(during, step_ms, n),
        _loss_derived(flows, during, n),
        _rate_derived(flows, windows, n),
        Measure("flow_loss_percent", share, n=n),
        _convergence(flows, windows, validation_ns, n),
        Measure("flow_sender_stall_longest_ms", _ms(max(stalls, default=0)), n=n),
    ]
    by_name = {item.name: item for item in found}
    return tuple(by_name[name] for name in SCHEMA)


def _storm(windows: Windows) -> tuple[int, int]:
    return windows.event.earliest_ns, windows.heal.latest_ns


def _ms(ns: float) -> float:
    return ns / 1e6


class _Flown:
    """What `extra` kept of one flow."""

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self.kept = kept
        self.interval_ns: int = kept["interval_ns"]
        self.bin_ns: int = kept["bin_ns"]
        self.begin_ns: int = kept["begin_ns"]
        self.end_ns: int = kept["end_ns"]
        self.gaps = [Gap(*row) for row in kept["gaps"]]

    def gaps_within(self, since_ns: int, until_ns: int | None) -> list[Gap]:
        """Gaps that began there; the packet in flight at the first instant belongs to it."""
        first = since_ns - self.interval_ns
        return [
            gap
            for gap in self.gaps
            if first < gap.first_ns and (until_ns is None or gap.first_ns <= until_ns)
        ]

    def gaps_calm(self, windows: Windows) -> list[Gap]:
        """Gaps that began in the calm phase, before the fault."""
        until = windows.event.earliest_ns - self.interval_ns
        return [gap for gap in self.gaps if windows.calm_ns[0] <= gap.first_ns <= until]

    def count(self, what: str, since_ns: int, until_ns: int) -> float:
        """Packets in a window, to the fraction of a bin."""
        total = 0.0
        for number, packets in enumerate(self.kept[what]):
            start = self.begin_ns + number * self.bin_ns
            inside = min(until_ns, start + self.bin_ns) - max(since_ns, start)
            if inside > 0:
                total += packets * inside / self.bin_ns
        return total

    def odd(self, what: str, since_ns: int, until_ns: int) -> int:
        """Arrivals of a kind within a window."""
        return sum(since_ns <= at <= until_ns for at in self.kept[what])

    def dips(self, since_ns: int, until_ns: int) -> int:
        """Bins from fault to heal in which the rate was down and the sender was not to blame.

        A dip that lasts beyond the heal is counted to its end.
        """
        usual = self.bin_ns / self.interval_ns
        first = max(0, (since_ns - self.begin_ns) // self.bin_ns)
        last = (until_ns - self.begin_ns) // self.bin_ns
        dipped = 0
        pairs = zip(self.kept["sent"], self.kept["arrived"], strict=True)
        for number, (sent, arrived) in enumerate(pairs):
            down = arrived < DIP * usual and sent - arrived > (1 - DIP) * usual
            if number >= first and down:
                dipped += 1
            if number > last and not down:
                break
        return dipped


def _longest(gaps: Sequence[Gap], step_ms: float, n: int) -> Measure:
    name = "flow_outage_longest_ms"
    if not gaps:
        return Measure(name, 0.0, 0.0, step_ms, n, note="nothing was lost")
    gap = max(gaps, key=lambda gap: gap.end_ns - gap.start_ns)
    length, lost = _ms(gap.end_ns - gap.start_ns), _ms(gap.last_ns - gap.first_ns)
    return Measure(name, length, lost, length, n, gap.open, _open_note(gap.open))


def _total(during: Sequence[Sequence[Gap]], step_ms: float, n: int) -> Measure:
    name = "flow_outage_total_ms"
    worst = max(during, key=lambda gaps: sum(gap.end_ns - gap.start_ns for gap in gaps))
    if not worst:
        return Measure(name, 0.0, 0.0, step_ms, n, note="nothing was lost")
    total = _ms(sum(gap.end_ns - gap.start_ns for gap in worst))
    least = _ms(sum(gap.last_ns - gap.first_ns for gap in worst))
    still = any(gap.open for gap in worst)
    return Measure(name, total, least, total, n, still, _open_note(still))


def _open_note(still: bool) -> str:
    return "nothing arrived until the observation ended" if still else ""


def _loss_derived(flows: Sequence[_Flown], during: Sequence[Sequence[Gap]], n: int) -> Measure:
    worst = max(
        sum(gap.missing for gap in gaps) * flow.interval_ns
        for flow, gaps in zip(flows, during, strict=True)
    )
    return Measure("flow_loss_derived_ms", _ms(worst), n=n)


def _rate_derived(flows: Sequence[_Flown], windows: Windows, n: int) -> Measure:
    worst = max(flow.dips(*_storm(windows)) * flow.bin_ns for flow in flows)
    one = max(flow.bin_ns for flow in flows)
    return Measure(
        "flow_rate_derived_ms",
        _ms(worst),
        _ms(max(0, worst - 2 * one)),
        _ms(worst + 2 * one),
        n,
        note=f"in bins of {_ms(one):g} ms",
    )


def _convergence(flows: Sequence[_Flown], windows: Windows, validation_ns: int, n: int) -> Measure:
    found = [_converged(flow, windows, validation_ns) for flow in flows]
    slowest = max(found, key=lambda item: (item.censored, item.value or 0.0))
    return Measure(
        slowest.name, slowest.value, slowest.low, slowest.high, n, slowest.censored, slowest.note
    )


def _converged(flow: _Flown, windows: Windows, validation_ns: int) -> Measure:
    """RFC 6412's full convergence: the first good packet after which all is good for a while."""
    name = "flow_convergence_ms"
    event = (windows.event.earliest_ns + windows.event.latest_ns) / 2
    gaps = flow.gaps_within(windows.event.earliest_ns, None)
    if not any(gap.first_ns <= windows.heal.latest_ns for gap in gaps):
        step_ms = _ms(flow.interval_ns)
        return Measure(name, 0.0, 0.0, step_ms, note="forwarding never stopped")
    horizon = min(windows.end_ns, flow.end_ns)
    starts = [gap.first_ns for gap in gaps] + [horizon]
    for gap, following in zip(gaps, starts[1:], strict=True):
        if gap.open or following - gap.end_ns < validation_ns:
            continue
        if gap.end_ns >= windows.heal.earliest_ns:
            break
        low = _ms(max(0, gap.last_ns - windows.event.latest_ns))
        high = _ms(gap.end_ns - windows.event.earliest_ns)
        return Measure(name, _ms(gap.end_ns - event), low, high)
    lasted = _ms(windows.heal.earliest_ns - event)
    return Measure(name, lasted, censored=True, note="not restored before the fault was healed")
