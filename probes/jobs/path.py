"""Looks up, again and again, which links one 5-tuple crosses, and counts what crosses them.

Kernels do not announce a change of hashing, so the path is asked for: a change lies between the
look that tells it and the one before (`before_ns`). Twice a second the path in force is told even
when it did not change, with the packets that each port on it sent since the last time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from chaos.errors import FabricError
from chaos.fabric import Crossing, Fabric, Link, Node, Port
from chaos.path import Tracer
from chaos.timeline import now_ns
from probes.jobs.lines import Lines, be_punctual

BEAT_NS = 500_000_000


def fabric_of(config: Mapping[str, Any]) -> Fabric:
    """The fabric as far as a path needs it: nodes and links."""
    ends = [(Port(*a), Port(*b)) for a, b in config["links"]]
    names = {port.node for pair in ends for port in pair}
    nodes = {name: Node(name) for name in sorted(names)}
    return Fabric(config["fabric"], nodes, tuple(Link(a, b) for a, b in ends))


class Looker:
    """The path as last seen, and its ports' counters as last told."""

    def __init__(self, lines: Lines, tracer: Tracer, flow: Mapping[str, Any]) -> None:
        self.lines, self.tracer, self.flow = lines, tracer, flow
        self.path: tuple[Crossing, ...] = ()
        self.error = "never looked"
        self.sent: dict[str, int] = {}
        self.looked_ns = self.told_ns = 0

    def look(self) -> None:
        """One look-up; tells a change, and the path in force every now and then."""
        try:
            path, error = self.tracer.crossings(**self.flow), ""
        except FabricError as failed:
            path, error = (), str(failed)
        at = now_ns()
        changed = path != self.path or bool(error) != bool(self.error)
        self.path, self.error = path, error
        if changed or at - self.told_ns >= BEAT_NS:
            self.tell(at, "changed" if changed else "path")
        self.looked_ns = at

    def tell(self, at: int, event: str) -> None:
        """Print the path, and packets sent since the last time by the ports that stayed on it."""
        self.told_ns = at
        hops = [[crossing.link.id, crossing.source, crossing.target] for crossing in self.path]
        counted: dict[str, int] = {}
        if self.path:
            ports = [crossing.link.port_of(crossing.source) for crossing in self.path]
            found = self.tracer.port_counters(ports)
            counted = {port.id: found[port].tx_packets for port in ports}
        grown = {port: n - self.sent[port] for port, n in counted.items() if port in self.sent}
        self.sent = counted
        before_ns = self.looked_ns or at
        facts = {"hops": hops, "error": self.error, "packets": grown, "before_ns": before_ns}
        self.lines.emit(event, at, **facts)


def main() -> None:
    """Look until told to stop."""
    lines = Lines()
    setup = lines.setup()
    config = setup.config
    be_punctual(5)
    with Tracer(fabric_of(config), setup.namespaces) as tracer:
        looker = Looker(lines, tracer, config["flow"])
        lines.emit("ready")
        looker.look()
        due, step_s = time.monotonic(), float(config["every_s"])
        while not lines.poll(max(0.0, due - time.monotonic())):
            due = max(due + step_s, time.monotonic())
            looker.look()
    lines.emit("end")


if __name__ == "__main__":
    main()
