"""From the records of a collective job to events, goodput, stalls and its fate. Pure.

Records may be those of a part of a job's life (one trial of many); what is true for the whole life
(`hello`, `sock`, `baseline`, `group`, `process`) is expected to be among them, and missed quietly.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chaos.fabric import Stream
from chaos.timeline import Event, Readings, Series, Span, known_to
from probes.collective_events import Records, events, our_errors

BIN_NS = 100_000_000
STEAL_PERCENT = 10.0
SILENT_NS = 3_000_000_000
STALL_MS = 200.0
LADDER_MS = 120_000.0


@dataclass(slots=True)
class Track:
    """The completed iterations of one rank, ascending.

    Attributes:
        done_ns: When the operation was complete.
        took_ns: Time inside the operation.
    """

    done_ns: list[int] = field(default_factory=list)
    took_ns: list[int] = field(default_factory=list)


def tracks(records: Records) -> dict[int, Track]:
    """Completed iterations per rank."""
    found: dict[int, Track] = {}
    for record in records:
        if record["ev"] == "it":
            track = found.setdefault(record["rank"], Track())
            track.done_ns += record["t1"]
            track.took_ns += [b - a for a, b in zip(record["t0"], record["t1"], strict=True)]
    return dict(sorted(found.items()))


def read(records: Records, interface: str) -> Readings:
    """Readings of one trial."""
    found = tracks(records)
    limits = stall_limits(records)
    spans = [
        span for rank, track in found.items() for span in _stalls(rank, track, limits, records)
    ]
    extra = _extra(records, spans, found) | {
        "stall_limit_ms": {f"rank{rank}": limit for rank, limit in limits.items()},
        "rto_ladder_ms": ladder(records),
        "flows": flows(records),
        "clock_error_ns": max((r["error_ns"] for r in records if r["ev"] == "clock"), default=0),
    }
    happened = known_to(events(records, interface), records)
    told = [r["t"] for r in records if r["ev"] == "fate"]
    last = told[-1] if told else max((record["t"] for record in records), default=0)
    fate = {k: extra[k] for k in ("fate", "error", "world")}
    happened.append(Event(last, "collective", "job.fate", facts=fate))
    return Readings(
        "collective",
        events=tuple(sorted(happened, key=lambda event: event.at_ns)),
        series=(*_operations(found), *_goodput(records, found)),
        spans=tuple(sorted(spans, key=lambda span: span.start_ns)),
        trouble=tuple(_trouble(records, found)),
        extra=extra,
    )


def stall_limits(records: Records) -> dict[int, float]:
    """Learned stall threshold per rank, in ms: the latest one told."""
    return {
        record["rank"]: record["limits"]["stall_ms"]
        for record in records
        if record["ev"] == "baseline" and record.get("limits")
    }


def _stalls(
    rank: int, track: Track, limits: Mapping[int, float], records: Records
) -> Iterable[Span]:
    limit_ns = limits.get(rank, STALL_MS) * 1e6
    for start, end in pairwise(track.done_ns):
        if end - start > limit_ns:
            yield Span(start, end, "stall", f"rank{rank}", {"open": False})
    ends = [r["t"] for r in records if r["ev"] not in ("it", "env", "end", "exited")]
    last, end = track.done_ns[-1], max(ends, default=0)
    told = any(r["ev"] == "paused" and r["rank"] == rank and r["t"] >= last for r in records)
    if end - last > limit_ns and not told:
        yield Span(last, end, "stall", f"rank{rank}", {"open": True})


def _operations(found: Mapping[int, Track]) -> Iterable[Series]:
    for rank, track in found.items():
        took = tuple(round(ns / 1e6, 3) for ns in track.took_ns)
        yield Series("operation_ms", f"rank{rank}", tuple(track.done_ns), took)


def _goodput(records: Records, found: Mapping[int, Track]) -> Iterable[Series]:
    """Message bytes per time, in bins; an operation's bytes count over its last calm-long part.

    The bytes of an operation that hung for seconds moved at its end, not all along.
    """
    sizes = {r["rank"]: r["bytes"] for r in records if r["ev"] == "it"}
    starts = [track.done_ns[0] - track.took_ns[0] for track in found.values()]
    stamps = [r["t"] for r in records if r["ev"] in ("it", "alive")]
    if not starts:
        return
    first, count = min(starts), (max(stamps) - min(starts)) // BIN_NS + 1
    at = tuple(first + BIN_NS * k for k in range(count))
    for rank, track in found.items():
        usual = statistics.median(track.took_ns)
        bins = [0.0] * count
        for done, took in zip(track.done_ns, track.took_ns, strict=True):
            _spread(bins, done - min(took, usual) - first, done - first, sizes[rank])
        rate = tuple(round(amount / (BIN_NS / 1e9) / 1e6, 3) for amount in bins)
        yield Series("goodput_mbytes_per_s", f"rank{rank}", at, rate)


def _spread(bins: list[float], start: float, end: float, amount: float) -> None:
    start = min(max(start, 0.0), end - 1)
    for k in range(int(start // BIN_NS), min(int(end // BIN_NS), len(bins) - 1) + 1):
        inside = min(end, (k + 1) * BIN_NS) - max(start, k * BIN_NS)
        bins[k] += amount * max(0.0, inside) / (end - start)


def _extra(records: Records, spans: Sequence[Span], found: Mapping[int, Track]) -> dict[str, Any]:
    its = [r for r in records if r["ev"] == "it"]
    last = its[-1] if its else {}
    checked = sum(len(r["t0"]) for r in its)
    wrong = {(r["inc"], i) for r in its for i in r["bad"]} | disagreements(records)
    groups = [r for r in records if r["ev"] == "group" and r["inc"] > 0]
    return {
        "restarts": restarts(records),
        **_fate(records, spans, found),
        "op": last.get("op"),
        "bytes": last.get("bytes"),
        "world": last.get("world"),
        "checked_iterations": checked,
        "wrong_iterations": len(wrong),
        "regroups": [
            {"inc": r["inc"], "rank": r["rank"], "world": r["world"], "took_s": r["took_s"]}
            for r in groups
        ],
    }


def restarts(records: Records) -> list[dict[str, Any]]:
    """Per rank and new group: the time between the last iteration before and the first in it."""
    lasts: dict[int, int] = {}
    known: dict[int, int] = {}
    found = []
    for record in (r for r in records if r["ev"] == "it" and r["t1"]):
        rank, inc = record["rank"], record["inc"]
        if inc > known.get(rank, inc):
            down = {"start_ns": lasts[rank], "end_ns": record["t1"][0]}
            found.append({"rank": rank, "inc": inc, "world": record["world"], **down})
        lasts[rank], known[rank] = record["t1"][-1], inc
    return found


def disagreements(records: Records) -> set[tuple[int, int]]:
    """Iterations, as (incarnation, i), whose outputs differ between ranks that told their hash."""
    seen: dict[tuple[int, int], set[str]] = {}
    for record in records:
        if record["ev"] == "hash":
            seen.setdefault((record["inc"], record["i"]), set()).add(record["hash"])
    return {key for key, hashes in seen.items() if len(hashes) > 1}


def _fate(records: Records, spans: Sequence[Span], found: Mapping[int, Track]) -> dict[str, Any]:
    """How the job ended up: survived, degraded, restarted, aborted or hung."""
    told = [r for r in records if r["ev"] == "fate"]
    ours = our_errors(records)
    errors = [r["msg"] for r in records if r["ev"] == "error" and id(r) not in ours]
    if told:
        return {"fate": told[-1]["fate"], "error": errors[0] if errors else told[-1]["msg"]}
    running = {rank for rank, track in found.items()}
    stuck = {span.element for span in spans if span.facts["open"]}
    if running and len(stuck) == len(running):
        return {"fate": "hung", "error": errors[0] if errors else ""}
    if any(r["ev"] == "group" and r["inc"] > 0 for r in records):
        return {"fate": "restarted", "error": errors[0] if errors else ""}
    calm = {r["rank"]: band(r) for r in records if r["ev"] == "baseline" and "p50_ms" in r}
    slow = [rank for rank, track in found.items() if _slow(track, calm.get(rank))]
    fate = "degraded" if slow else ("survived" if running else None)
    return {"fate": fate, "error": errors[0] if errors else ""}


def band(baseline: dict[str, Any]) -> float:
    """Slowest median, in ms, that still counts as calm: see `docs/decisions/collective.md`."""
    return float(max(1.25 * baseline["p50_ms"], baseline["p90_ms"]))


def _slow(track: Track, band_ms: float | None) -> bool:
    """Whether the last second ran outside the calm band."""
    if band_ms is None:
        return False
    last = [done for done in track.done_ns if done > track.done_ns[-1] - 1_000_000_000]
    gaps = [b - a for a, b in pairwise(last)]
    return bool(gaps) and statistics.median(gaps) / 1e6 > band_ms


def ladder(records: Records) -> list[float]:
    """When TCP tries again after a silent break, in ms since the first lost segment."""
    timeouts = [
        sock["rto_ms"]
        for r in records
        if r["ev"] == "sock"
        for sock in r["socks"]
        if sock["rto_ms"] and sock["bytes_sent"] and sock["bytes_sent"] > 100_000
    ]
    if not timeouts:
        return []
    rung, wait, rungs = 0.0, statistics.median(timeouts), []
    while rung + wait < LADDER_MS:
        rung += wait
        rungs.append(round(rung, 1))
        wait = min(2 * wait, LADDER_MS)
    return rungs


def flows(records: Records) -> list[dict[str, Any]]:
    """The job's connections with the bytes each sent lately, largest first."""
    nodes = {r["rank"]: r["node"] for r in records if r["ev"] == "hello"}
    seen: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for record in records:
        for item in record["flows"] if record["ev"] == "flows" else ():
            key = (record["rank"], record["inc"], *item[:4], item[4])
            seen.setdefault(key, []).append((record["t"], item[5]))
    latest = max((key[1] for key in seen), default=0)
    made = []
    for (rank, inc, local, sport, peer, dport, peer_rank), counts in seen.items():
        if inc == latest:
            before = counts[-2][1] if len(counts) > 1 else 0
            made.append(
                {
                    "source": nodes.get(rank, ""),
                    "target": nodes.get(peer_rank, ""),
                    "rank": rank,
                    "local": [local, sport],
                    "peer": [peer, dport],
                    "bytes": counts[-1][1] - before,
                }
            )
    return sorted(made, key=lambda flow: -flow["bytes"])


def streams(records: Records, addresses: Mapping[str, str]) -> tuple[Stream, ...]:
    """Connections that carried at least a hundredth of what the busiest one did."""
    homes = {address: node for node, address in addresses.items()}
    found = flows(records)
    least = max(1, found[0]["bytes"] // 100) if found else 1
    made = []
    for flow in found:
        source = flow["source"] or homes.get(flow["local"][0], "")
        target = flow["target"] or homes.get(flow["peer"][0], "")
        if flow["bytes"] >= least and source and target and source != target:
            ends = (*flow["local"], *flow["peer"])
            made.append(Stream(source, target, ends[0], ends[2], 6, ends[1], ends[3]))
    return tuple(made)


def _trouble(records: Records, found: Mapping[int, Track]) -> Iterable[str]:
    lost: dict[int, int] = {}
    for record in (r for r in records if r["ev"] != "trouble"):
        lost[record.get("rank", -1)] = lost.get(record.get("rank", -1), 0) + record.get("lost", 0)
    for rank, number in lost.items():
        if number:
            yield f"rank{rank} lost {number} of its records: its control channel was full"
    for rank, number in sorted(_missing(records).items()):
        yield f"{number} records of rank{rank} are missing: they were numbered but never came"
    if not found:
        return
    start, end = (f(t.done_ns[k] for t in found.values()) for f, k in ((min, 0), (max, -1)))
    during = [r for r in records if r["ev"] == "env" and start <= r["t"] <= end]
    if during and (steal := statistics.fmean(r["steal"] for r in during)) > STEAL_PERCENT:
        most = f"at most {STEAL_PERCENT:.0f} % expected"
        yield f"the hypervisor took {steal:.0f} % of the CPU ({most})"
    stamps = [start, *(r["t"] for r in during), end]
    quiet = max(b - a for a, b in pairwise(stamps))
    if quiet > SILENT_NS:
        yield f"the coordinator was silent for {quiet / 1e9:.1f} s (it speaks every second)"


def _missing(records: Records) -> dict[int, int]:
    """Numbers skipped between consecutive timed records of a rank; a new process counts anew."""
    lives: dict[int, list[list[tuple[int, bool]]]] = {}
    for record in records:
        if "n" not in record:
            continue
        number, told = record["n"], lives.setdefault(record["rank"], [[]])
        if told[-1] and number < told[-1][-1][0]:
            told.append([])
        told[-1].append((number, record["ev"] not in LASTING))
    found = {rank: sum(map(_skipped, told)) for rank, told in lives.items()}
    return {rank: gap for rank, gap in found.items() if gap}


def _skipped(numbers: Sequence[tuple[int, bool]]) -> int:
    """Numbers that are missing between the first and the last timed record of one process."""
    timed = [number for number, is_timed in numbers if is_timed]
    if not timed:
        return 0
    return len(set(range(timed[0], timed[-1])) - {number for number, _ in numbers})


#: Kinds that a part of a job's life is given from elsewhere in it.
LASTING = frozenset({"hello", "sock", "baseline", "group", "phase"})
