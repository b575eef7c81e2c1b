"""Follows the logs of every router's daemons and tells BGP and BFD session changes as they come.

The time of a change is the daemon's own stamp, so it does not matter when this process reads it.
The stamp is of CLOCK_REALTIME and is turned into CLOCK_MONOTONIC by an offset measured at each
look; its error (microseconds of the stamp, and of the offset) is told as `clock_error`. A log may
be in local time: the zone is the whole quarter of an hour by which a fresh line differs.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaos import netlink
from chaos.netlink import Netlink, attrs, ifinfo
from chaos.netns import inside
from chaos.timeline import now_ns
from probes.jobs.clock import clock_offset
from probes.jobs.lines import Lines
from probes.routing_log import parse

LOOK_S, BEAT_NS = 0.02, 500_000_000
_QUARTER_NS = 900_000_000_000
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL = 3, 1, 2

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Log:
    """One router's log, read from its present end on."""

    node: str
    path: str
    namespace: str | None = None
    ports: list[tuple[Network, str]] = field(default_factory=list)
    fd: int = -1
    rest: bytes = field(default=b"")

    def open(self) -> None:
        """Open at the end.

        Raises:
            OSError: there is no such log.
        """
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self) -> Iterator[str]:
        """Whole lines written since the last look; a log that was cut is read from its start."""
        if os.fstat(self.fd).st_size < os.lseek(self.fd, 0, os.SEEK_CUR):
            os.lseek(self.fd, 0, os.SEEK_SET)
            self.rest = b""
        while more := os.read(self.fd, 1 << 16):
            self.rest += more
        *whole, self.rest = self.rest.split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def port(self, peer: str) -> str:
        """Interface behind which a neighbour lies; empty when it is on no connected network.

        Args:
            peer: An interface name (unnumbered sessions) or an address.
        """
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return peer
        for again in (False, True):
            for network, name in self.read_ports() if again else self.ports:
                if address in network:
                    return name
        return ""

    def read_ports(self) -> list[tuple[Network, str]]:
        """The node's networks as they are now; what went with a link stays known."""
        if self.namespace is not None:
            found = connected(self.namespace)
            self.ports = found + [known for known in self.ports if known not in found]
        return self.ports


def connected(namespace: str) -> list[tuple[Network, str]]:
    """Networks on a node's interfaces, smallest first, without link-local ones."""
    warm = inside(namespace, Netlink.open)
    names = {}
    for got in warm.dump(netlink.RTM_GETLINK, ifinfo()):
        (index,) = struct.unpack_from("=i", got.body, 4)
        names[index] = attrs(got.body, 16).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
    found: list[tuple[Network, str]] = []
    for got in warm.dump(netlink.RTM_GETADDR, struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)):
        bits, index = got.body[1], struct.unpack_from("=I", got.body, 4)[0]
        held = attrs(got.body, 8)
        address = ipaddress.ip_address(held.get(_IFA_ADDRESS) or held[_IFA_LOCAL])
        if not address.is_link_local:
            network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
            found.append((network, names.get(index, "")))
    warm.close()
    return sorted(found, key=lambda item: -item[0].prefixlen)


class Follower:
    """Reads all logs in turn."""

    def __init__(self, lines: Lines, logs: list[Log]) -> None:
        self.lines, self.logs = lines, logs
        self.offset, self.error = clock_offset()

    def look(self) -> None:
        """Tell what was logged since the last look."""
        self.offset, self.error = clock_offset()
        for log in self.logs:
            for line in log.lines():
                change = parse(line)
                if change is not None:
                    self.tell(log, change)

    def tell(self, log: Log, change: dict[str, Any]) -> None:
        """Print one change on the monotonic clock."""
        wall_ns = int(change.pop("wall_ns"))
        zone = round((now_ns() + self.offset - wall_ns) / _QUARTER_NS) * _QUARTER_NS
        at = wall_ns + zone - self.offset
        port = change.pop("port", "") or log.port(change["peer"])
        event = change.pop("ev")
        self.lines.emit(
            event, at, node=log.node, port=port, clock_error=self.error + 1000, **change
        )

    def beat(self) -> None:
        """Say that we live, and how the clocks stand."""
        self.lines.emit("beat", clock_offset=self.offset)


def main() -> None:
    """Follow until told to stop."""
    lines = Lines()
    setup = lines.setup()
    paths = setup.logs or setup.config.get("logs") or {}
    nodes = setup.config["nodes"]
    missing = [node for node in nodes if node not in paths or not os.path.exists(paths[node])]
    if missing:
        why = "; ".join(setup.unlogged[node] for node in missing if node in setup.unlogged)
        raise SystemExit(why or f"no log of a routing daemon known for {', '.join(missing)}")
    logs = [Log(node, paths[node], setup.namespaces.get(node)) for node in nodes]
    for log in logs:
        log.read_ports()
        log.open()
    follower = Follower(lines, logs)
    lines.emit("ready", nodes=len(nodes))
    due = now_ns()
    while not lines.poll(LOOK_S):
        follower.look()
        if now_ns() >= due:
            due = now_ns() + BEAT_NS
            follower.beat()
    follower.look()
    lines.emit("end")


if __name__ == "__main__":
    main()
