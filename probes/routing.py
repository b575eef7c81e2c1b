"""BGP and BFD session changes of every FRR router, with the daemons' own times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import Program, probe
from chaos.timeline import Event, Measure, Readings, Windows, known_to

Record = dict[str, Any]
HOLD_TIMER_EXPIRED = "4/0"  # RFC 4271, section 6.5
NOTIFIED_NS = 100_000_000  # a notification this long before a loss is its reason
SILENT_NS, CLOCK_STEP_NS = 2_000_000_000, 1_000_000
STAMP = "stamp of the daemon's log"


@probe("routing")
@dataclass(frozen=True, slots=True)
class Routing:
    """Sessions of BGP and BFD that went down and came back, router by router.

    The source is FRR's log, and the time is the stamp that the daemon itself put on the line when
    it acted, to the microsecond; turned to the monotonic clock its error is some microseconds
    (`error_us` in each event). It tells when the daemon *acted*: a daemon that was stopped
    acts, and stamps, after it went on; and bfdd tells bgpd of a loss just before it stamps its own
    line, so on a busy machine the BGP session may seem to go first, by some milliseconds.

    A loss by the hold timer is a symptom for the detector `hold_timer`, any other loss of a BGP
    session for `bgp`, and of a BFD session for `bfd`. Each blames the port that the session runs
    over; a session that runs over no one port (loopbacks) blames nothing.

    Args:
        nodes: Routers to follow; empty is every router that runs FRR.

    Needs: FRR with `log timestamp precision 6`, `bgp log-neighbor-changes`, and for BFD
    `debug bfd peer` at level debugging; the embedded driver sees to it.

    Examples:
        >>> Routing().detectors
        ('bfd', 'bgp', 'hold_timer')
    """

    name: ClassVar[str] = "routing"
    schema: ClassVar[Mapping[str, str]] = {
        "routing_bfd_lost_count": "BFD sessions that went down, fault to end, both ends counted",
        "routing_bgp_lost_count": "BGP sessions that went down, fault to end, both ends counted",
        "routing_hold_timer_expired_count": "of these, those whose hold timer expired at that end",
        "routing_bfd_reestablished_ms": "heal to the last lost BFD session being up again",
        "routing_bgp_reestablished_ms": "heal to the last lost BGP session being up again",
    }
    detectors: ClassVar[tuple[str, ...]] = ("bfd", "bgp", "hold_timer")

    nodes: tuple[str, ...] = ()

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One follower of all logs, born in the machine's own namespace.

        Raises:
            SpecError: no node of the fabric runs FRR, or a named one does not.
        """
        routers = tuple(node.name for node in fabric.nodes.values() if node.runs == "frr")
        for node in self.nodes:
            if fabric.node(node).runs != "frr":
                raise SpecError(
                    f"routing: {node} does not run FRR; routers that do: {', '.join(routers)}",
                    field="nodes",
                )
        if not routers:
            raise SpecError(f"routing: no node of fabric {fabric.name} runs FRR")
        config = {"nodes": list(self.nodes or routers), "logs": {}}
        return (Program("follower", "probes.jobs.routing", config, span="copies"),)

    def read(self, records: Mapping[str, list[Record]]) -> Readings:
        """Records -> events."""
        lines = records.get("follower", [])
        changes = sorted((line for line in lines if "port" in line), key=lambda line: line["t"])
        notified: dict[tuple[str, str], Record] = {}
        events: list[Event] = []
        for line in changes:
            if line["ev"] == "notification":
                notified[line["node"], line["peer"]] = line
            elif line["ev"] == "bgp":
                events.append(_bgp(line, notified.get((line["node"], line["peer"]))))
            elif line["ev"] == "bfd":
                events += _bfd(line)
        events = known_to(events, lines)
        heard = any(line["ev"] == "ready" for line in lines)
        return Readings(
            self.name, tuple(events), trouble=tuple(_trouble(lines)), extra={"heard": heard}
        )

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Sessions lost since the fault, and how long after the heal they took to return."""
        if not readings.extra.get("heard"):
            return tuple(
                Measure(name, None, n=0, note="the follower told nothing") for name in self.schema
            )
        start, end = windows.event.earliest_ns, windows.end_ns
        since = [event for event in readings.events if start <= event.at_ns <= end]
        lost = [event for event in since if event.name.endswith(".lost")]
        counts = {
            "routing_bfd_lost_count": sum(event.name == "bfd.lost" for event in lost),
            "routing_bgp_lost_count": sum(event.name == "bgp.lost" for event in lost),
            "routing_hold_timer_expired_count": sum(
                event.detector == "hold_timer" for event in lost
            ),
        }
        found = [Measure(name, float(count)) for name, count in counts.items()]
        found += [_reestablished(kind, since, windows) for kind in ("bfd", "bgp")]
        return tuple(found)

    @staticmethod
    def notice(record: Record) -> str | None:
        """A session that was lost or is back, such as `spine2:eth1 bfd lost (control-expired)`."""
        if record["ev"] == "bgp":
            event = _bgp(record, None)
        elif record["ev"] == "bfd" and (found := _bfd(record)):
            event = found[0]
        else:
            return None
        what, _, state = event.name.partition(".")
        reason = event.facts.get("reason")
        return f"{event.element} {what} {state}" + (f" ({reason})" if reason else "")


def _element(line: Record) -> str:
    return f"{line['node']}:{line['port'] or line['peer']}"


def _event(line: Record, name: str, detector: str, facts: Mapping[str, Any]) -> Event:
    element = _element(line)
    return Event(
        at_ns=line["t"],
        source="routing",
        name=name,
        node=line["node"],
        element=element,
        detector=detector,
        blames=element if detector and line["port"] else "",
        facts={"peer": line["peer"], **facts, "error_us": line["clock_error"] / 1e3, "time": STAMP},
    )


def _bgp(line: Record, notified: Record | None) -> Event:
    facts: dict[str, Any] = {"neighbour": line["host"]} if line["host"] else {}
    if line["up"]:
        return _event(line, "bgp.back", "", facts)
    facts["reason"] = line["reason"]
    expired = False
    if notified is not None and line["t"] - notified["t"] <= NOTIFIED_NS:
        way = "sent" if notified["sent"] else "received"
        facts["notification"] = f"{way} {notified['code']} ({notified['words']})"
        expired = notified["sent"] and notified["code"] == HOLD_TIMER_EXPIRED
    return _event(line, "bgp.lost", "hold_timer" if expired else "bgp", facts)


def _bfd(line: Record) -> list[Event]:
    if line["after"] == "up":
        return [_event(line, "bfd.back", "", {})]
    if line["before"] != "up":
        return []
    meant = "admin" in line["after"] or "admin" in line["reason"]
    return [_event(line, "bfd.lost", "" if meant else "bfd", {"reason": line["reason"]})]


def _reestablished(kind: str, events: Sequence[Event], windows: Windows) -> Measure:
    """When the last session was up again that had been lost since the fault."""
    name = f"routing_{kind}_reestablished_ms"
    down: set[tuple[str, Any]] = set()
    last_back_ns = error_ns = 0
    ever = False
    for event in events:
        session = event.element, event.facts["peer"]
        if event.name == f"{kind}.lost":
            down.add(session)
            ever = True
        elif event.name == f"{kind}.back" and session in down:
            down.discard(session)
            last_back_ns, error_ns = event.at_ns, event.error_ns
    if not ever:
        return Measure(name, None, n=0, note=f"no {kind.upper()} session was lost")
    if down:
        waited = (windows.end_ns - windows.heal.latest_ns) / 1e6
        sessions = ", ".join(sorted(element for element, _ in down)[:4])
        return Measure(name, waited, censored=True, note=f"still down: {sessions}")
    low = max(0.0, (last_back_ns - error_ns - windows.heal.latest_ns) / 1e6)
    high = max(0.0, (last_back_ns + error_ns - windows.heal.earliest_ns) / 1e6)
    note = "all were back before the heal" if not high else ""
    return Measure(name, (low + high) / 2, low, high, note=note)


def _trouble(lines: Sequence[Record]) -> list[str]:
    if not any(line["ev"] == "ready" for line in lines):
        return ["routing: the follower never became ready"]
    sentences = []
    told = [line for line in lines if "n" in line and line["ev"] != "ready"]
    beats = [line for line in told if line["ev"] == "beat"]
    if len(beats) > 2 and _missing(told, beats[1]["n"], beats[-1]["n"]):
        sentences.append("routing: records of the follower are missing")
    if any(after["t"] - before["t"] > SILENT_NS for before, after in pairwise(beats)):
        sentences.append("routing: the follower fell silent for seconds")
    offsets: dict[str, list[int]] = {}
    for line in beats:
        offsets.setdefault(line.get("from", ""), []).append(line["clock_offset"])
    pairs = (pair for some in offsets.values() for pair in pairwise(some))
    step = max((abs(after - before) for before, after in pairs), default=0)
    if step > CLOCK_STEP_NS:
        sentences.append(f"routing: the wall clock stepped by {step / 1e6:.1f} ms")
    coarse = sorted({line["node"] for line in told if line.get("coarse")})
    if coarse:
        sentences.append(
            f"routing: logs of {', '.join(coarse)} have no microseconds; "
            "FRR needs `log timestamp precision 6`"
        )
    return sentences


def _missing(told: Sequence[Record], first: int, last: int) -> bool:
    """Whether numbers lack; a change is stamped before it is told, so a cut has ragged ends."""
    return len({line["n"] for line in told if first <= line["n"] <= last}) != last - first + 1
