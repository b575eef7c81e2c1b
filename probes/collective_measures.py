"""Numbers of one trial of a collective job. Pure; definitions stand in `SCHEMA`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from chaos.timeline import Measure, Readings, Windows
from probes.jobs.collective_calm import quantile
from probes.jobs.collective_values import busbw_factor

STEADY_ITERATIONS, STEADY_NS, BAND = 10, 500_000_000, 1.25
HEAL_NS = 5_000_000_000
STALL_MS = 200.0

SCHEMA: Mapping[str, str] = {
    "job_stall_ms": "longest time without a completed iteration that the fault's time falls into, "
    "of the slowest rank",
    "job_recovery_ms": "event to the first half second (and ten iterations) in the calm band and "
    "without a stall; 0 when the job never left the band",
    "job_recovery_after_heal_ms": "the same counted from healing; negative when it came before",
    "job_heal_stall_ms": "longest stall that began at or within 5 s after healing; 0 for none",
    "job_iterations_calm_median_ms": "median time per iteration in calm",
    "job_iterations_calm_p99_ms": "99th percentile in calm, from 100 iterations on",
    "job_iterations_storm_p99_ms": "99th percentile from fault to heal, from 100 iterations on",
    "job_busbw_calm_gbytes_per_s": "bus bandwidth in calm, by the formulas of nccl-tests",
    "job_busbw_storm_gbytes_per_s": "bus bandwidth from fault to heal",
    "job_busbw_ratio": "storm / calm",
    "job_degradation_percent": "goodput lost against calm, from fault to end of observation",
    "job_gpu_seconds_lost": "the same as time, summed over ranks",
    "job_jct_ratio": "time the work took from fault to end / time it would have taken in calm",
    "job_wrong_values": "iterations in which a checked value was wrong",
    "job_down_ms": "last iteration before the job met anew to the first after it, slowest rank",
    "job_lost_iterations_count": "iterations that calm would have completed in that time",
    "job_regroup_s": "time to meet in a new group, slowest rank of the slowest regroup",
}
#: Measures that count from the fault, which is timed by another machine than the ranks'.
_ACROSS = ("job_recovery_ms", "job_recovery_after_heal_ms")


@dataclass(frozen=True, slots=True)
class Lane:
    """One rank's iterations and what calm was for it.

    Attributes:
        rank: Such as `rank2`.
        done_ns: Completions, ascending.
        took_ms: Time inside each operation.
        limit_ns: Stall threshold.
        calm_ns: Gaps between completions in calm.
    """

    rank: str
    done_ns: tuple[int, ...]
    took_ms: tuple[float, ...]
    limit_ns: float
    calm_ns: tuple[int, ...]

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """From one completion to the next."""
        return tuple(pairwise(self.done_ns))

    @property
    def slack_ns(self) -> float:
        """How long an operation in flight at an instant may still need: p99 of calm."""
        return quantile([float(gap) for gap in sorted(self.calm_ns)], 0.99)


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest gap of one rank in some stretch of time."""

    rank: str
    start_ns: int
    end_ns: int
    open: bool
    limit_ns: float

    @property
    def ns(self) -> int:
        """How long."""
        return self.end_ns - self.start_ns

    @property
    def beyond(self) -> bool:
        """Whether calm never came near it."""
        return self.ns > self.limit_ns


def measure(readings: Readings, windows: Windows) -> tuple[Measure, ...]:
    """All measures of `SCHEMA`, in its order."""
    lanes = _lanes(readings, windows)
    if not lanes:
        why = "no rank completed two iterations in calm"
        return tuple(
            _wrong(readings) if name == "job_wrong_values" else Measure(name, None, n=0, note=why)
            for name in SCHEMA
        )
    stalls = [_stall(lane, windows) for lane in lanes]
    made = [
        _longest("job_stall_ms", [stall for stall in stalls if stall]),
        *_recovery(lanes, stalls, windows),
        _heal_stall(lanes, windows),
        *_iterations(lanes, windows),
        *_busbw(readings, lanes, windows),
        *_degradation(lanes, windows),
        _wrong(readings),
        *_down(readings, lanes, windows),
        _regroup(readings),
    ]
    return tuple(_widened(item, readings.extra.get("clock_error_ns", 0) / 1e6) for item in made)


def _widened(measure: Measure, error_ms: float) -> Measure:
    """A time between the fault and a rank on another machine, with the error of its clock."""
    if not error_ms or measure.value is None or measure.name not in _ACROSS:
        return measure
    low = measure.value if measure.low is None else measure.low
    high = measure.value if measure.high is None else measure.high
    said = f"clocks of the ranks' hosts are known within {error_ms:.2g} ms"
    note = f"{measure.note}; {said}" if measure.note else said
    return replace(measure, low=low - error_ms, high=high + error_ms, note=note)


def _lanes(readings: Readings, windows: Windows) -> list[Lane]:
    limits = readings.extra.get("stall_limit_ms", {})
    made = []
    for series in readings.series:
        if series.name != "operation_ms":
            continue
        start, end = windows.calm_ns
        calm = [at for at in series.at_ns if start <= at <= end]
        gaps = tuple(b - a for a, b in pairwise(calm))
        if gaps:
            limit = limits.get(series.element, STALL_MS) * 1e6
            made.append(Lane(series.element, series.at_ns, series.values, limit, gaps))
    return made


def _edge(lane: Lane, windows: Windows) -> float:
    """A gap that begins before this belongs to the fault, one that begins after it to healing."""
    return max(windows.event.latest_ns + lane.slack_ns, windows.heal.earliest_ns - lane.slack_ns)


def _all_gaps(lane: Lane, windows: Windows) -> Iterable[tuple[int, int, bool]]:
    yield from ((a, b, False) for a, b in lane.gaps)
    if windows.end_ns - lane.done_ns[-1] > lane.limit_ns:
        yield lane.done_ns[-1], windows.end_ns, True


def _stall(lane: Lane, windows: Windows) -> Stall | None:
    """The longest gap that the fault's time falls into; others are other stories."""
    edge = _edge(lane, windows)
    found = [
        Stall(lane.rank, a, b, is_open, lane.limit_ns)
        for a, b, is_open in _all_gaps(lane, windows)
        if b > windows.event.earliest_ns and a < edge
    ]
    return max(found, key=lambda stall: stall.ns, default=None)


def _longest(name: str, stalls: Sequence[Stall]) -> Measure:
    if not stalls:
        return Measure(name, None, n=0, note="no iteration ended after the fault, and none was due")
    worst = max(stalls, key=lambda stall: stall.ns)
    ms, limit = worst.ns / 1e6, worst.limit_ns / 1e6
    note = f"{worst.rank}; beyond calm from {limit:.0f} ms on"
    if not worst.beyond:
        note = f"{worst.rank}; no stall: calm reaches to {limit:.0f} ms"
    if worst.open:
        note = f"{worst.rank} had not resumed at the end of observation"
    return Measure(name, ms, ms, ms, n=1, censored=worst.open, note=note)


def _heal_stall(lanes: Sequence[Lane], windows: Windows) -> Measure:
    name = "job_heal_stall_ms"
    if windows.end_ns <= windows.heal.latest_ns:
        return Measure(name, None, n=0, note="nothing was observed after healing")
    found = []
    for lane in lanes:
        edge = _edge(lane, windows)
        for a, b, is_open in _all_gaps(lane, windows):
            if edge <= a <= windows.heal.latest_ns + HEAL_NS and b - a > lane.limit_ns:
                found.append(Stall(lane.rank, a, b, is_open, lane.limit_ns))
    if not found:
        return Measure(name, 0.0, 0.0, 0.0, note="no stall began within 5 s of healing")
    return _longest(name, found)


def _recovery(
    lanes: Sequence[Lane], stalls: Sequence[Stall | None], windows: Windows
) -> tuple[Measure, Measure]:
    found = [_steady(lane, windows) for lane in lanes]
    event, heal = windows.event, windows.heal
    if any(at is None for at in found):
        who = ", ".join(lane.rank for lane, at in zip(lanes, found, strict=True) if at is None)
        note = f"{who} not back in the calm band at the end of observation"
        since, after = windows.end_ns - event.latest_ns, windows.end_ns - heal.latest_ns
        return (
            Measure("job_recovery_ms", since / 1e6, since / 1e6, censored=True, note=note),
            Measure(
                "job_recovery_after_heal_ms", after / 1e6, after / 1e6, censored=True, note=note
            ),
        )
    last = max(at for at in found if at is not None)
    if last <= event.latest_ns:
        note = "the job never left the calm band"
        low = high = value = 0.0
    else:
        low = (last - event.latest_ns) / 1e6
        high, note = (last - event.earliest_ns) / 1e6, ""
        value = (low + high) / 2
    span = ((last - heal.latest_ns) / 1e6, (last - heal.earliest_ns) / 1e6)
    return (
        Measure("job_recovery_ms", value, low, high, note=note),
        Measure("job_recovery_after_heal_ms", sum(span) / 2, *span, note=note),
    )


def _steady(lane: Lane, windows: Windows) -> int | None:
    """Start of the first sustained stretch in the calm band after the fault's last stall.

    The event itself when that stretch began before it.
    """
    event, edge = windows.event.earliest_ns, _edge(lane, windows)
    stalls = [b for a, b in lane.gaps if b - a > lane.limit_ns and b > event and a < edge]
    begin = max(stalls, default=event)
    calm = [float(gap) for gap in sorted(lane.calm_ns)]
    band = max(BAND * statistics.median(calm), quantile(calm, 0.9))
    gaps = [(a, b) for a, b in lane.gaps if b > begin and b <= windows.end_ns]
    if stalls:
        gaps = [(a, b) for a, b in gaps if a >= begin]
    for k, (start, _) in enumerate(gaps):
        stretch: list[int] = []
        for a, b in gaps[k:]:
            stretch.append(b - a)
            if len(stretch) >= STEADY_ITERATIONS and b - start >= STEADY_NS:
                if statistics.median(stretch) <= band and max(stretch) <= lane.limit_ns:
                    return max(start, event)
                break
    return None


def _iterations(lanes: Sequence[Lane], windows: Windows) -> Iterable[Measure]:
    calm = sorted(gap / 1e6 for lane in lanes for gap in lane.calm_ns)
    middle = statistics.median(calm)
    yield Measure("job_iterations_calm_median_ms", middle, calm[0], calm[-1], n=len(calm))
    yield _p99("job_iterations_calm_p99_ms", calm)
    start, end = windows.event.latest_ns, windows.heal.earliest_ns
    storm = sorted((b - a) / 1e6 for lane in lanes for a, b in lane.gaps if start <= b <= end)
    yield _p99("job_iterations_storm_p99_ms", storm)


def _p99(name: str, ordered: list[float]) -> Measure:
    if len(ordered) < 100:
        note = f"{len(ordered)} iterations carry no 99th percentile (100 do)"
        return Measure(name, None, n=len(ordered), note=note)
    value = quantile(ordered, 0.99)
    return Measure(name, value, value, ordered[-1], n=len(ordered))


def _mean_ms(lane: Lane, start: float, end: float) -> tuple[float | None, float]:
    """Mean time of the operations in a stretch, those at its edges by their share; their number."""
    spent = number = 0.0
    for done, took in zip(lane.done_ns, lane.took_ms, strict=True):
        took_ns = took * 1e6
        inside = min(done, end) - max(done - took_ns, start)
        if inside > 0 and took_ns > 0:
            spent += inside
            number += inside / took_ns
    return (spent / number / 1e6 if number else None), number


def _busbw(readings: Readings, lanes: Sequence[Lane], windows: Windows) -> Iterable[Measure]:
    names = ("job_busbw_calm_gbytes_per_s", "job_busbw_storm_gbytes_per_s")
    op, size, world = (readings.extra.get(key) for key in ("op", "bytes", "world"))
    spans = (windows.calm_ns, (windows.event.latest_ns, windows.heal.earliest_ns))
    rates: list[float | None] = []
    for name, (start, end) in zip(names, spans, strict=True):
        means = [_mean_ms(lane, start, end) for lane in lanes]
        slowest = max((mean for mean, _ in means if mean is not None), default=None)
        if slowest is None or not op or not size or not world:
            rates.append(None)
            yield Measure(name, None, n=0, note="no operation was complete in that time")
            continue
        rate = size / (slowest * 1e-3) / 1e9 * busbw_factor(op, world)
        rates.append(rate)
        yield Measure(name, rate, n=max(1, round(min(number for _, number in means))))
    calm, storm = rates
    if calm is None or storm is None:
        yield Measure("job_busbw_ratio", None, n=0, note="needs both bandwidths")
    else:
        yield Measure("job_busbw_ratio", storm / calm)


def _degradation(lanes: Sequence[Lane], windows: Windows) -> Iterable[Measure]:
    """Work not done between fault and end, against what calm would have done in that time."""
    start, end = windows.event.latest_ns, windows.end_ns
    shares = []
    for lane in lanes:
        due = (end - start) / statistics.fmean(lane.calm_ns)
        done = sum(max(0, min(b, end) - max(a, start)) / (b - a) for a, b in lane.gaps if b > a)
        shares.append(done / due if due > 0 else 1.0)
    done = statistics.fmean(shares)
    seconds = (end - start) / 1e9
    note = f"over {seconds:.1f} s from fault to end"
    yield Measure("job_degradation_percent", 100 * (1 - done), n=len(lanes), note=note)
    lost = sum((1 - share) * seconds for share in shares)
    yield Measure("job_gpu_seconds_lost", lost, n=len(lanes), note=note)
    if done > 0:
        yield Measure("job_jct_ratio", 1 / done, n=len(lanes), note=note)
    else:
        yield Measure("job_jct_ratio", None, n=0, note="no work was done after the fault")


def _wrong(readings: Readings) -> Measure:
    checked = readings.extra.get("checked_iterations", 0)
    if not checked:
        return Measure("job_wrong_values", None, n=0, note="no iteration was checked")
    return Measure("job_wrong_values", float(readings.extra["wrong_iterations"]), n=checked)


def _down(readings: Readings, lanes: Sequence[Lane], windows: Windows) -> Iterable[Measure]:
    """The time without a group: longest of all that ended after the fault."""
    calm = {lane.rank: statistics.fmean(lane.calm_ns) for lane in lanes}
    found = [
        (item["end_ns"] - item["start_ns"], calm[f"rank{item['rank']}"], f"rank{item['rank']}")
        for item in readings.extra.get("restarts", ())
        if windows.event.earliest_ns < item["end_ns"] and f"rank{item['rank']}" in calm
    ]
    if not found:
        for name in ("job_down_ms", "job_lost_iterations_count"):
            yield Measure(name, None, n=0, note="the job did not meet anew")
        return
    took, each, rank = max(found)
    yield Measure("job_down_ms", took / 1e6, n=len(found), note=rank)
    yield Measure("job_lost_iterations_count", took / each, n=len(found), note=rank)


def _regroup(readings: Readings) -> Measure:
    took = [item["took_s"] for item in readings.extra.get("regroups", ())]
    if not took:
        return Measure("job_regroup_s", None, n=0, note="the job was not regrouped")
    return Measure("job_regroup_s", max(took), min(took), max(took), n=len(took))
