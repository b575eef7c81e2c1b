"""Which records of a collective job are symptoms, and whom they name. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chaos.timeline import Event
from probes.jobs.collective_blame import Matrix

Records = list[dict[str, Any]]
_FROZEN = ("T", "t")
#: How long after a heartbeat was lost the control channel may need to tell why.
_WHY_NS = 1_500_000_000

#: Kind of a `net` record -> event name, detector.
_NET = {
    "op_age": ("operation.aged", "op_age"),
    "hb_lost": ("heartbeat.lost", "heartbeat"),
    "hb_back": ("heartbeat.returned", ""),
    "hb_thinned": ("heartbeat.thinned", "heartbeat"),
    "hb_full": ("heartbeat.restored", ""),
    "retrans": ("tcp.timed_out", "tcp_retransmit"),
    "retrans_clear": ("tcp.answered", ""),
    "retrans_rate": ("tcp.repeated", "tcp_retransmit"),
}
#: Other records -> event name, detector.
_PLAIN = {
    "stall": ("job.stalled", "job_stall"),
    "unstall": ("job.resumed", ""),
    "error": ("job.failed", "job_error"),
    "corrupt": ("values.broken", ""),
    "aborted": ("job.aborted", ""),
    "stuck": ("abort.refused", ""),
    "decision": ("job.decided", ""),
    "suspect": ("rank.suspected", ""),
    "ctl_lost": ("control.lost", ""),
    "ctl_back": ("control.returned", ""),
}
_FRAME = frozenset({"v", "ev", "t", "rank", "inc", "n", "kind", "lost"})


def events(records: Records, interface: str) -> list[Event]:
    """Every record that tells of something, as an event; heartbeats put together name a rank."""
    nodes = {r["rank"]: r["node"] for r in records if r["ev"] in ("hello", "it")}
    made: list[Event] = []
    ours, late = our_errors(records), _late(records)
    for record in records:
        if id(record) in late:
            made.append(_event(record, "heartbeat.late", "", nodes))
        elif id(record) in ours:
            made.append(_event(record, "job.cut_off", "", nodes))
        elif record["ev"] == "net":
            made.append(_event(record, *_NET[record["kind"]], nodes))
        elif record["ev"] in _PLAIN:
            made.append(_event(record, *_PLAIN[record["ev"]], nodes))
        elif record["ev"] == "exited" and not record["expected"]:
            made.append(_exited(record))
        elif record["ev"] == "process" and _again(record, records):
            made.append(Event(
                record["t"], "collective", "process.started", record["node"], record["name"],
                facts={"pid": record["pid"]},
            ))  # fmt: skip
        elif record["ev"] == "group" and record["inc"] > 0:
            made.append(_event(record, "job.regrouped", "", nodes))
    counted = [record for record in records if id(record) not in late]
    return made + list(_named(counted, nodes, interface))


def _again(record: dict[str, Any], records: Records) -> bool:
    """Whether a `process` record is of a rank that had ended before."""
    return any(
        r["ev"] == "exited" and f"rank{r['who']}" == record["name"] and r["t"] < record["t"]
        for r in records
    )


def _late(records: Records) -> set[int]:
    """Heartbeats that were held up, not lost; by identity of the record.

    When the peer was heard again, no beat was missing in between: it was its sender that had no
    CPU for a moment. A process that was stopped keeps its alarm.
    """
    unheard: dict[tuple[int, int], dict[str, Any]] = {}
    found = set()
    for record in sorted(records, key=lambda r: int(r["t"])):
        pair = (record.get("rank", -1), record.get("peer", -1))
        if record.get("kind") == "hb_lost":
            unheard[pair] = record
        elif record.get("kind") == "hb_back" and pair in unheard:
            lost = unheard.pop(pair)
            stopped = cause_of(record["peer"], lost["t"], records) == "frozen"
            if record.get("missed") == 0 and not stopped:
                found.add(id(lost))
    return found


def our_errors(records: Records) -> set[int]:
    """Errors that our own abort caused in a peer; by identity of the record."""
    cutting, found = False, set()
    for record in sorted(records, key=lambda r: int(r["t"])):
        if record["ev"] == "aborting":
            cutting = True
        elif record["ev"] == "group":
            cutting = False
        elif record["ev"] == "error" and cutting:
            found.add(id(record))
    return found


def _event(record: dict[str, Any], name: str, detector: str, nodes: dict[int, str]) -> Event:
    rank = record["who"] if "who" in record else record.get("rank", -1)
    facts = {key: value for key, value in record.items() if key not in _FRAME}
    return Event(
        record["t"],
        "collective",
        name,
        node=nodes.get(rank, ""),
        element=f"rank{rank}" if rank >= 0 else "",
        detector=detector,
        facts=facts,
    )


def _exited(record: dict[str, Any]) -> Event:
    rank = f"rank{record['who']}"
    facts = {"cause": "killed" if record["code"] < 0 else "ended", "code": record["code"]}
    return Event(
        record["t"], "collective", "process.exited", record["node"], rank, "job_error", rank, facts
    )


def _named(records: Records, nodes: dict[int, str], interface: str) -> Iterable[Event]:
    """One event each time the heartbeats of all ranks together single out one of them."""
    matrix, before = Matrix(len(nodes)), None
    for record in sorted(records, key=lambda r: int(r["t"])):
        kind = record.get("kind", record["ev"])
        if kind == "hb_lost":
            matrix.lost(record["rank"], record["peer"])
        elif kind == "hb_back":
            matrix.back(record["rank"], record["peer"])
        elif kind == "exited":
            matrix.forget(record["who"])
        elif kind == "process":
            matrix.remember(int(record["name"].removeprefix("rank")))
        else:
            continue
        named = matrix.named()
        if named is not None and named != before:
            cause = cause_of(named, record["t"], records)
            node = nodes.get(named, "")
            blames = f"{node}:{interface}" if cause == "network" else f"rank{named}"
            facts = {"cause": cause, "rank": named}
            at, who = record["t"], f"rank{named}"
            yield Event(at, "collective", "heartbeat.named", node, who, "heartbeat", blames, facts)
        before = named


def cause_of(rank: int, at_ns: int, records: Records) -> str:
    """Why a rank is silent: `killed`, `frozen` or `network`.

    A dead process has ended; a frozen one is stopped, or silent on the control channel too, which
    does not use the fabric. One that still speaks there is cut off by the network.
    """
    near = [r for r in records if abs(int(r["t"]) - at_ns) <= _WHY_NS and r.get("who") == rank]
    if any(r["ev"] == "exited" and r["code"] < 0 for r in near):
        return "killed"
    stopped = any(r["ev"] == "suspect" and r["state"] in _FROZEN for r in near)
    if stopped or any(r["ev"] == "ctl_lost" for r in near):
        return "frozen"
    return "network"
