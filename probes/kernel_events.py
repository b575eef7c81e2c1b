"""Link, route, next-hop and neighbour events of every node, as their kernels tell them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.fabric import Fabric
from chaos.registry import Program, probe
from chaos.timeline import Event, Measure, Readings, Windows

Record = dict[str, Any]
BUFFER_BYTES = 8 << 20  # per node; some 8000 events may wait


@probe("kernel_events")
@dataclass(frozen=True, slots=True)
class KernelEvents:
    """Carrier, admin state, routes, next hops and neighbours of nodes, event by event.

    One process listens in all namespaces. A time stamp is taken right after the read: late by the
    wake-up of that process, never early. `carrier.lost` is a symptom for the detector `carrier`; a
    main-table unicast route that went or lost a path (`route.changed`) is one for `fib`.

    Above some 100 changes of carrier per second the kernel merges events; the port's own counter
    (IFLA_CARRIER_CHANGES) is read at start and end, and what was merged is reported as a count.

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
        "carrier_changes_count": "changes of carrier by the ports' own counters, whole trial",
        "carrier_merged_count": "changes of carrier that the kernel counted and never told",
        "route_changes_count": "main-table unicast routes that went, came or changed legs",
        "route_legs_lost_count": "paths that vanished from such routes from fault to end",
    }

    nodes: tuple[str, ...] = ()

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """One listener, born in the machine's own namespace."""
        for node in self.nodes:
            fabric.node(node)
        config = {"nodes": list(self.nodes), "buffer_bytes": BUFFER_BYTES}
        return (Program("listener", "probes.jobs.kernel_events", config),)

    def read(self, records: Mapping[str, list[Record]]) -> Readings:
        """Records -> events; what was lost is trouble."""
        lines = records.get("listener", [])
        events: list[Event] = []
        for line in lines:
            make = _MAKERS.get(line["ev"])
            events += make(line) if make else []
        return Readings(
            self.name,
            events=tuple(sorted(events, key=lambda event: event.at_ns)),
            trouble=tuple(_trouble(lines)),
            extra={"carrier_changes": _audit(lines)},
        )

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Counts from the fault to the end; the audit spans the whole trial."""
        audit = readings.extra.get("carrier_changes")
        if not audit:
            return tuple(
                Measure(name, None, n=0, note="the listener left no audit") for name in self.schema
            )
        since = [
            event
            for event in readings.events
            if windows.event.earliest_ns <= event.at_ns <= windows.end_ns
        ]
        routes = [event for event in since if event.name == "route.changed"]
        told = sum(event.name in ("carrier.lost", "carrier.back") for event in readings.events)
        counted = sum(audit.values())
        values = {
            "carrier_lost_count": sum(event.name == "carrier.lost" for event in since),
            "carrier_changes_count": counted,
            "carrier_merged_count": max(0, counted - told),
            "route_changes_count": len(routes),
            "route_legs_lost_count": sum(event.facts["lost"] for event in routes),
        }
        return tuple(Measure(name, float(value)) for name, value in values.items())


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
    "carrier": _carrier,
    "admin": _admin,
    "route": _route,
    "neigh": _neigh,
    "nexthop": _nexthop,
    "link_new": _link_new,
    "link_gone": _link_gone,
}


def _audit(lines: list[Record]) -> dict[str, int]:
    """Changes of carrier per port between the two audits; empty without both."""
    counts: dict[str, dict[str, int]] = {"start": {}, "end": {}}
    for line in lines:
        if line["ev"] == "audit":
            for port, changes in line["carrier_changes"].items():
                counts[line["when"]][f"{line['node']}:{port}"] = changes
    start, end = counts["start"], counts["end"]
    return {port: end[port] - start[port] for port in end if port in start}


def _trouble(lines: list[Record]) -> list[str]:
    sentences = []
    if [line["n"] for line in lines] != list(range(1, len(lines) + 1)):
        sentences.append("kernel_events: records of the listener are missing")
    if not any(line["ev"] == "ready" for line in lines):
        sentences.append("kernel_events: the listener never became ready")
    elif not any(line["ev"] == "end" for line in lines):
        sentences.append("kernel_events: the listener ended before it was told to")
    sentences += [
        f"kernel_events: {line['node']} told more events than the socket holds; "
        "states were read anew, times between are lost"
        for line in lines
        if line["ev"] == "overrun"
    ]
    return sentences
