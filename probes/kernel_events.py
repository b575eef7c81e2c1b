"""Link, route, next-hop and neighbour events of every node, as their kernels tell them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from chaos.fabric import Fabric
from chaos.registry import Program, probe
from chaos.timeline import Event, Measure, Readings, Windows, known_to

Record = dict[str, Any]
BUFFER_BYTES = 8 << 20  # per node; some 8000 events may wait
SILENT_NS = 2_000_000_000


@probe("kernel_events")
@dataclass(frozen=True, slots=True)
class KernelEvents:
    """Carrier, admin state, routes, next hops and neighbours of nodes, event by event.

    One process listens in all namespaces. A time stamp is taken right after the read: late by the
    wake-up of that process, never early. `carrier.lost` is a symptom for the detector `carrier`; a
    main-table unicast route that went or lost a path (`route.changed`) is one for `fib`.

    Above some 100 changes of carrier per second the kernel merges events; the ports' own counters
    (IFLA_CARRIER_CHANGES) are read beside them, and what was merged is reported as a count. IPv4
    routes that a kernel drops by itself together with a link are not told by it.

    Args:
        nodes: Nodes to listen in; empty is every node that has a namespace.

    Needs: nodes whose network namespace is on this machine, and CAP_NET_ADMIN in it.

    Examples:
        >>> KernelEvents().programs(Fabric("f", {}), {})[0].module
        'probes.jobs.kernel_events'
    """

    name: ClassVar[str] = "kernel_events"
    schema: ClassVar[Mapping[str, str]] = {
        "carrier_lost_count": "carrier losses told from fault to end, all nodes",
        "carrier_changes_count": "changes of carrier by the ports' own counters, fault to end",
        "carrier_merged_count": "of these, changes that the kernel counted and never told",
        "route_changes_count": "main-table unicast routes that went, came or changed legs",
        "route_legs_lost_count": "paths that vanished from such routes from fault to end",
    }

    detectors: ClassVar[tuple[str, ...]] = ("carrier", "fib")

    nodes: tuple[str, ...] = ()

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One listener, born in the machine's own namespace."""
        for node in self.nodes:
            fabric.node(node)
        config = {"nodes": list(self.nodes), "buffer_bytes": BUFFER_BYTES}
        return (Program("listener", "probes.jobs.kernel_events", config, span="copies"),)

    def read(self, records: Mapping[str, list[Record]]) -> Readings:
        """Records -> events; what was lost is trouble."""
        lines = records.get("listener", [])
        events: list[Event] = []
        for line in lines:
            make = _MAKERS.get(line["ev"])
            events += make(line) if make else []
        events = known_to(events, lines)
        return Readings(
            self.name,
            events=tuple(sorted(events, key=lambda event: event.at_ns)),
            trouble=tuple(_trouble(lines)),
            extra={"heard": bool(lines), "audits": _audits(lines)},
        )

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Counts from the fault to the end; the audit spans the whole trial."""
        if not readings.extra.get("heard"):
            return tuple(
                Measure(name, None, n=0, note="the listener told nothing") for name in self.schema
            )
        start, end = windows.event.earliest_ns, windows.end_ns
        since = [event for event in readings.events if start <= event.at_ns <= end]
        routes = [event for event in since if event.name == "route.changed"]
        audits = [audit for audit in readings.extra["audits"] if audit["t"] >= start]
        values = {
            "carrier_lost_count": sum(event.name == "carrier.lost" for event in since),
            "carrier_changes_count": sum(sum(a["changes"].values()) for a in audits),
            "carrier_merged_count": max(0, sum(sum(a["untold"].values()) for a in audits)),
            "route_changes_count": len(routes),
            "route_legs_lost_count": sum(event.facts["lost"] for event in routes),
        }
        return tuple(Measure(name, float(value)) for name, value in values.items())

    @staticmethod
    def notice(record: Record) -> str | None:
        """A carrier that went or came, such as `leaf1:eth1 carrier lost`."""
        if record["ev"] != "link_carrier":
            return None
        return f"{_port(record)} carrier {'back' if record['up'] else 'lost'}"


def _event(line: Record, name: str, element: str, detector: str = "", **facts: Any) -> Event:
    if line.get("resync"):
        facts["resync"] = True
    return Event(
        at_ns=line["t"],
        source="kernel_events",
        name=name,
        node=line["node"],
        element=element,
        detector=detector,
        blames=element if detector == "carrier" else "",
        facts=facts,
    )


def _port(line: Record) -> str:
    return f"{line['node']}:{line['port']}"


def _carrier(line: Record) -> list[Event]:
    if line["up"]:
        return [_event(line, "carrier.back", _port(line), changes=line["changes"])]
    return [_event(line, "carrier.lost", _port(line), "carrier", changes=line["changes"])]


def _admin(line: Record) -> list[Event]:
    return [_event(line, "link.admin_up" if line["up"] else "link.admin_down", _port(line))]


def _route(line: Record) -> list[Event]:
    before = {tuple(leg) for leg in line["before"]}
    after = {tuple(leg) for leg in line["after"]}
    lost = len(before) if not after else max(0, len(before) - len(after))
    facts = {
        "route": line["route"],
        "metric": line["metric"],
        "before": [" ".join(filter(None, leg)) for leg in sorted(before)],
        "after": [" ".join(filter(None, leg)) for leg in sorted(after)],
        "lost": lost,
    }
    element = f"{line['node']} {line['route']}"
    return [_event(line, "route.changed", element, "fib" if lost else "", **facts)]


def _neigh(line: Record) -> list[Event]:
    name = {"reachable": "neigh.resolved", "failed": "neigh.failed"}.get(
        line["state"], "neigh.gone"
    )
    return [_event(line, name, _port(line), address=line["address"])]


def _nexthop(line: Record) -> list[Event]:
    name = "nexthop.made" if line["up"] else "nexthop.removed"
    return [_event(line, name, f"{line['node']} nexthop {line['id']}")]


def _link_new(line: Record) -> list[Event]:
    return [_event(line, "link.made", _port(line), up=line["up"], carrier=line["carrier"])]


def _link_gone(line: Record) -> list[Event]:
    return [_event(line, "link.removed", _port(line))]


_MAKERS: dict[str, Callable[[Record], list[Event]]] = {
    "link_carrier": _carrier,
    "link_admin": _admin,
    "route": _route,
    "neigh": _neigh,
    "nexthop": _nexthop,
    "link_new": _link_new,
    "link_gone": _link_gone,
}


def _audits(lines: list[Record]) -> list[dict[str, Any]]:
    """What the ports' own counters say, per audit, by port id."""
    return [
        {
            "t": line["t"],
            "changes": {f"{line['node']}:{port}": n for port, n in line["changes"].items()},
            "untold": {f"{line['node']}:{port}": n for port, n in line["untold"].items()},
        }
        for line in lines
        if line["ev"] == "audit"
    ]


def _trouble(lines: list[Record]) -> list[str]:
    if not any(line["ev"] == "ready" for line in lines):
        return ["kernel_events: the listener never became ready"]
    sentences = []
    told = [line for line in lines if "n" in line and line["ev"] != "ready"]
    if any(after["n"] != before["n"] + 1 for before, after in pairwise(told)):
        sentences.append("kernel_events: records of the listener are missing")
    times = sorted(line["t"] for line in told)
    if any(after - before > SILENT_NS for before, after in pairwise(times)):
        sentences.append("kernel_events: the listener fell silent for seconds")
    sentences += [
        f"kernel_events: {line['node']} told more events than the socket holds; "
        "states were read anew, times between are lost"
        for line in told
        if line["ev"] == "overrun"
    ]
    return sentences
