"""Losses, outages and convergence of one trial, from the gaps that `flow_reading` found; all pure.

Two methods stand side by side: *loss-derived* (packets not delivered / offered rate) and
*rate-derived* (time in which the arrival rate was down), as in RFC 6412 and 6413. Where several
flows run, a duration is that of the flow that suffered most; counts are summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chaos.timeline import Measure, Readings, Windows
from probes.flow_reading import Gap

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
DIP = 0.9  # below this share of the offered rate a bin is down


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
    after = [
        gap
        for flow in flows
        for gap in flow.gaps_within(windows.heal.latest_ns + 1, windows.end_ns)
    ]
    calm = [gap for flow in flows for gap in flow.gaps_calm(windows)]
    step_ms = _ms(max(flow.interval_ns for flow in flows))
    missing = sum(flow.count("missing", *_storm(windows)) for flow in flows)
    since, until = windows.event.earliest_ns, windows.end_ns
    counts = {
        "flow_outage_count": len(every),
        "flow_lost_packets": sum(gap.lost for gap in every),
        "flow_refused_packets": sum(gap.refused for gap in every),
        "flow_reordered_packets": sum(
            _within(flow.kept["reordered"], since, until) for flow in flows
        ),
        "flow_duplicated_packets": _within(readings.extra["duplicated"], since, until),
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
    error_ms = _ms(readings.extra["clock_error_ns"])
    by_name = {item.name: _widened(item, error_ms) for item in found}
    return tuple(by_name[name] for name in SCHEMA)


def _widened(measure: Measure, error_ms: float) -> Measure:
    """A time with the error of the two machines' clocks; on one machine there is none."""
    if not error_ms or measure.value is None or not measure.name.endswith("_ms"):
        return measure
    low = measure.value if measure.low is None else measure.low
    high = measure.value if measure.high is None else measure.high
    said = f"clocks of sender and receiver agree within {error_ms:.2g} ms"
    note = f"{measure.note}; {said}" if measure.note else said
    return replace(measure, low=max(0.0, low - error_ms), high=high + error_ms, note=note)


def _storm(windows: Windows) -> tuple[int, int]:
    return windows.event.earliest_ns, windows.heal.latest_ns


def _within(times: Sequence[int], since_ns: int, until_ns: int) -> int:
    return sum(since_ns <= at <= until_ns for at in times)


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

    def gaps_within(self, since_ns: int, until_ns: int) -> list[Gap]:
        """Gaps that began there; the packet in flight at the first instant belongs to it."""
        first = since_ns - self.interval_ns
        return [gap for gap in self.gaps if first < gap.first_ns <= until_ns]

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
    gaps = flow.gaps_within(windows.event.earliest_ns, windows.end_ns)
    if not any(gap.first_ns <= windows.heal.latest_ns for gap in gaps):
        step_ms = _ms(flow.interval_ns)
        return Measure(name, 0.0, 0.0, step_ms, note="forwarding never stopped")
    horizon = min(windows.end_ns, flow.end_ns)
    starts = [gap.first_ns for gap in gaps] + [horizon]
    for gap, following in zip(gaps, starts[1:], strict=True):
        if gap.open or following - gap.end_ns < validation_ns:
            continue
        if gap.end_ns + validation_ns > windows.heal.earliest_ns:
            break  # it did not hold without the heal's help
        low = _ms(max(0, gap.last_ns - windows.event.latest_ns))
        high = _ms(gap.end_ns - windows.event.earliest_ns)
        return Measure(name, _ms(gap.end_ns - event), low, high)
    lasted = _ms(windows.heal.earliest_ns - event)
    note = f"not restored for {_ms(validation_ns):g} ms before the fault was healed"
    return Measure(name, lasted, censored=True, note=note)
