"""Reads the counters of ports and RDMA devices of nodes, again and again.

Three sources, each where it is there: the kernel's own (IFLA_STATS64, for every interface), the
driver's (what `ethtool -S` shows, by the ioctl it uses), and RDMA's (`hw_counters` and `counters`
in sysfs; only on the host itself, whose sysfs tells of its own devices). Only counters that
`probes.nic_names` knows are told. A counter that is not there is not told; no zero is made up.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
import time
from pathlib import Path

from chaos.netlink import RTM_GETLINK, Netlink, attrs, ifinfo
from chaos.netns import inside
from probes.jobs.lines import Lines
from probes.nic_names import LINK, wanted

_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSTATS, _GSSET_INFO, _SS_STATS = 0x1B, 0x1D, 0x37, 1
_NAME = 32
_RDMA = Path("/sys/class/infiniband")
#: Drivers tell counters of tens of queues; nobody tells as many as this.
_MOST = 100_000


class Driver:
    """Counters of interfaces' drivers in one namespace, through one socket."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._names: dict[str, list[str]] = {}

    def counters(self, port: str) -> dict[str, int]:
        """Every counter by name; empty where the driver has none, or the port is gone."""
        try:
            count = self._count(port)
            if len(self._names.get(port, ())) != count:
                self._names[port] = self._read_names(port, count)
            data = bytearray(struct.pack("=II", _GSTATS, count) + bytes(8 * count))
            self._ask(port, data)
        except OSError:
            self._names.pop(port, None)
            return {}
        values = struct.unpack_from(f"={count}Q", data, 8)
        return dict(zip(self._names[port], values, strict=True))

    def _count(self, port: str) -> int:
        data = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_STATS, 0))
        self._ask(port, data)
        mask, count = struct.unpack_from("=QI", data, 8)
        return count if mask and count < _MOST else 0

    def _read_names(self, port: str, count: int) -> list[str]:
        data = bytearray(struct.pack("=III", _GSTRINGS, _SS_STATS, count) + bytes(_NAME * count))
        self._ask(port, data)
        raw = (data[12 + _NAME * k : 12 + _NAME * (k + 1)] for k in range(count))
        return [bytes(one).split(b"\0")[0].decode(errors="replace").strip() for one in raw]

    def _ask(self, port: str, data: bytearray) -> None:
        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        request = struct.pack("16sP16x", port.encode()[:15], ctypes.addressof(buffer))
        fcntl.ioctl(self._sock, _SIOCETHTOOL, request)


def link_counters(warm: Netlink) -> dict[str, dict[str, int]]:
    """The kernel's counters per interface."""
    found = {}
    for got in warm.dump(RTM_GETLINK, ifinfo()):
        held = attrs(got.body, 16)
        raw = held.get(_IFLA_STATS64, b"")
        if len(raw) >= 8 * len(LINK):
            name = held[_IFLA_IFNAME].rstrip(b"\0").decode()
            found[name] = dict(zip(LINK, struct.unpack_from(f"={len(LINK)}Q", raw), strict=True))
    return found


def rdma_counters(root: Path = _RDMA) -> dict[str, dict[str, int]]:
    """Counters per RDMA device and port, such as `mlx5_0/1`."""
    found: dict[str, dict[str, int]] = {}
    for folder in sorted(root.glob("*/ports/*")):
        counters: dict[str, int] = {}
        for file in (*folder.glob("counters/*"), *folder.glob("hw_counters/*")):
            with contextlib.suppress(OSError, ValueError):
                counters[file.name] = int(file.read_text())
        found[f"{folder.parts[-3]}/{folder.name}"] = counters
    return found


class Node:
    """One node's sources."""

    def __init__(self, name: str, namespace: str, ports: list[str]) -> None:
        self.name, self.ports = name, ports
        self._host = not namespace
        self._link = inside(namespace, Netlink.open)
        self._driver = inside(namespace, Driver)

    def look(self, lines: Lines) -> None:
        """Tell every counter that is there."""
        for port, counters in link_counters(self._link).items():
            if port in self.ports:
                self._tell(lines, port, "link", counters)
        for port in self.ports:
            self._tell(lines, port, "ethtool", self._driver.counters(port))
        for device, counters in rdma_counters().items() if self._host else ():
            self._tell(lines, device, "rdma", counters)

    def _tell(self, lines: Lines, port: str, source: str, counters: dict[str, int]) -> None:
        values = wanted(source, counters)
        if values:
            lines.emit("counters", node=self.name, port=port, source=source, values=values)


def main() -> None:
    """Look until told to stop."""
    lines = Lines()
    setup = lines.setup()
    ports, step_s = setup.config["ports"], float(setup.config["step_s"])
    chosen = setup.config.get("nodes") or sorted(ports.keys() & setup.namespaces.keys())
    nodes = [Node(one, setup.namespaces[one], ports.get(one, [])) for one in chosen]
    lines.emit("ready", nodes=len(nodes))
    due = time.monotonic()
    while not lines.stopped:
        for node in nodes:
            node.look(lines)
        lines.emit("beat")
        due = max(due + step_s, time.monotonic())
        lines.poll(due - time.monotonic())  # a command other than stop only brings the look forward
    for node in nodes:
        node.look(lines)
    lines.emit("end")


if __name__ == "__main__":
    main()
