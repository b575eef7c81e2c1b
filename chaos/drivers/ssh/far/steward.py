"""The one program that stays on a machine while a controller uses it.

    python3 FILE.pyz chaos.drivers.ssh.far.steward FOLDER SILENCE_S

It answers questions, one JSON line each: the clock, interfaces, route look-ups, counters, the state
that faults may touch. When its input ends or is silent for too long it kills the programs that were
started beside it and removes the folder that everything was shipped into, so nothing stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chaos import load, snapshot
from chaos import netlink as nl
from chaos.errors import FabricError
from chaos.native import process_state
from chaos.natives import dcb
from chaos.netlink import Netlink
from chaos.path import lookup

OWN_NET = "/proc/thread-self/ns/net"
_NET = Path("/sys/class/net")
_INFINIBAND = Path("/sys/class/infiniband")
_IFNAME, _ADDRESS, _MTU, _LINK, _MASTER, _STATS = 3, 1, 4, 5, 10, 23
_PING_S = 1


class Steward:
    """Answers until its input ends; see the module."""

    def __init__(self, folder: Path, silence_s: float) -> None:
        self.folder, self.silence_s = folder, silence_s
        self.link = Netlink.open()
        self._in = b""

    def run(self) -> None:
        """Serve, then leave nothing."""
        try:
            while select.select([0], [], [], self.silence_s)[0]:
                got = os.read(0, 1 << 18)
                if not got:
                    return
                read_ns = time.monotonic_ns()
                *lines, self._in = (self._in + got).split(b"\n")
                for line in lines:
                    self._answer(json.loads(line), read_ns)
        finally:
            leave_nothing(self.folder)

    def _answer(self, asked: Mapping[str, Any], read_ns: int) -> None:
        word = asked["cmd"]
        if word == "beat":
            return
        if word == "echo":
            said: dict[str, Any] = {"t1": read_ns, "t2": time.monotonic_ns()}
        else:
            try:
                said = {"ok": _ANSWERS[word](self, asked)}
            except (FabricError, OSError, ValueError, KeyError) as error:
                said = {"no": str(error), "errno": getattr(error, "errno", None) or 0}
        data = json.dumps({"id": asked["id"], **said}, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]

    # ------------------------------------------------------------------ answers

    def facts(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the machine is."""
        system = os.uname()
        return {
            "kernel": system.release,
            "machine": system.machine,
            "hostname": system.nodename,
            "python": sys.version.split()[0],
            "boot": _text(Path("/proc/sys/kernel/random/boot_id")),
            "cores": os.cpu_count() or 0,
            "netns": os.stat(OWN_NET).st_ino,
            "root": os.geteuid() == 0,
            "frr": any(Path(one, "bgpd.vty").exists() for one in ("/run/frr", "/var/run/frr")),
        }

    def interfaces(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Every interface with what identifies it: index, PCI address, MAC, RDMA devices."""
        addresses = self._addresses()
        rdma = _rdma()
        found: dict[str, Any] = {}
        for one in self.link.dump(nl.RTM_GETLINK, nl.ifinfo()):
            index, flags = struct.unpack_from("=iI", one.body, 4)
            got = nl.attrs(one.body, 16)
            name = got[_IFNAME].rstrip(b"\0").decode()
            pci = _pci(name)
            found[name] = {
                "index": index,
                "up": bool(flags & nl.IFF_UP),
                "carrier": bool(flags & nl.IFF_LOWER_UP),
                "mac": got.get(_ADDRESS, b"").hex(":"),
                "mtu": struct.unpack("=I", got[_MTU])[0] if _MTU in got else 0,
                "master": struct.unpack("=I", got[_MASTER])[0] if _MASTER in got else 0,
                # the peer of a veth is in another namespace: its index says nothing here
                "below": struct.unpack("=I", got[_LINK])[0]
                if _LINK in got and 37 not in got
                else 0,
                "addresses": addresses.get(index, []),
                "pci": pci,
                "rdma": rdma.get(name, []) or rdma.get(pci, []),
                "pfc": dcb.honoured(self.link, name),
                "driver": _link_name(_NET / name / "device" / "driver"),
                "speed_mbps": _number(_NET / name / "speed"),
            }
        return _bonded(found)

    def _addresses(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for one in self.link.dump(nl.RTM_GETADDR, bytes(8)):
            family, prefix, _, scope, index = struct.unpack_from("=BBBBI", one.body)
            got = nl.attrs(one.body, 8)
            if family in (socket.AF_INET, socket.AF_INET6) and scope == 0 and 1 in got:
                own = socket.inet_ntop(family, got.get(2, got[1]))
                found.setdefault(index, []).append(f"{own}/{prefix}")
        return found

    def lookup(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Where the kernel would send a packet: interface, gateway, whether it is its own."""
        words = ("proto", "sport", "dport")
        more = {word: asked[word] for word in words if word in asked}
        iif = self._index(asked["iif"]) if asked.get("iif") else 0
        hop = lookup(self.link, asked["dst"], asked.get("src", ""), iif=iif, **more)
        name = socket.if_indextoname(hop.ifindex) if hop.ifindex else ""
        return {"ifname": name, "gateway": hop.gateway, "local": hop.local}

    def counters(self, asked: Mapping[str, Any]) -> dict[str, list[int]]:
        """Received and sent packets, received and sent bytes, per interface."""
        found = {}
        for name in asked["names"]:
            answer = self.link.ask(nl.RTM_GETLINK, nl.ifinfo(self._index(name)))
            stats = nl.attrs(answer.body, 16)[_STATS]
            found[name] = list(struct.unpack_from("=4Q", stats))
        return found

    def _index(self, name: str) -> int:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            raise FabricError(f"interface {name} is not there") from None

    def reach(self, asked: Mapping[str, Any]) -> list[str]:
        """The targets among `pairs` (source, target) that do not answer an echo."""
        running = [
            (
                target,
                subprocess.Popen(
                    ("ping", "-n", "-q", "-c", "1", "-W", str(_PING_S), "-I", source, target),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ),
            )
            for source, target in asked["pairs"]
        ]
        return [target for target, process in running if process.wait()]

    def snapshot(self, asked: Mapping[str, Any]) -> list[str]:
        """The state that faults may touch, in words."""
        return sorted(snapshot.take({"": OWN_NET}).nodes[""])

    def load(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """How busy the machine is, and with what of ours."""
        reading = load.read()
        ours = dict(reading.ours)
        parents = _parents() if any(self.folder.glob("pid-*")) else {}
        kept = {int(path.name[4:]) for path in self.folder.glob("pid-*")}
        for pid in parents:
            if _under(pid, kept, parents):
                with contextlib.suppress(OSError):  # it ended in between
                    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
                    ours[(pid, int(fields[19]))] = int(fields[11]) + int(fields[12])
        told = [[pid, started, ticks] for (pid, started), ticks in ours.items()]
        return {
            "total": reading.total,
            "busy": reading.busy,
            "stolen": reading.stolen,
            "ours": told,
        }


_ANSWERS: dict[str, Callable[[Steward, Mapping[str, Any]], Any]] = {
    "facts": Steward.facts,
    "interfaces": Steward.interfaces,
    "lookup": Steward.lookup,
    "counters": Steward.counters,
    "reach": Steward.reach,
    "snapshot": Steward.snapshot,
    "load": Steward.load,
}


def leave_nothing(folder: Path) -> None:
    """Kill the programs that were started from the folder, and remove it."""
    for path in folder.glob("pid-*"):
        pid = int(path.name[4:])
        started = _text(path)
        state, now = process_state(pid)
        if state and str(now) == started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # each leads a session of its own
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()  # only when nobody else's is left in it


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdecimal() and int(text) > 0 else 0


def _link_name(path: Path) -> str:
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def _pci(name: str) -> str:
    """PCI address of an interface's device; empty for one that is not on PCI."""
    found = _link_name(_NET / name / "device")
    return found if found.count(":") == 2 else ""


def _rdma() -> dict[str, list[str]]:
    """RDMA devices by the name of their interface, and by their PCI address."""
    found: dict[str, list[str]] = {}
    for device in sorted(_INFINIBAND.glob("*")):
        keys = {_text(one) for one in device.glob("ports/*/gid_attrs/ndevs/*")}
        keys |= {one.name for one in device.glob("device/net/*")}
        keys.add(_link_name(device / "device"))
        for key in keys - {""}:
            found.setdefault(key, []).append(device.name)
    return found


def _bonded(found: dict[str, Any]) -> dict[str, Any]:
    """With the RDMA devices of bonds at every port of theirs: sysfs names one port alone."""
    by_index = {facts["index"]: facts for facts in found.values()}
    for facts in found.values():
        above = by_index.get(facts["master"])
        if above is not None and not facts["rdma"]:
            facts["rdma"] = list(above["rdma"])
    return found


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                rest = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            found[int(name)] = int(rest[1])
    return found


def _under(pid: int, kept: set[int], parents: Mapping[int, int]) -> bool:
    while pid > 1:
        if pid in kept:
            return True
        pid = parents.get(pid, 0)
    return False


def main() -> None:
    """Serve until the controller is gone."""
    folder = Path(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    Steward(folder, float(sys.argv[2])).run()


if __name__ == "__main__":
    main()
