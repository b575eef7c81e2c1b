"""Link, route, next-hop and neighbour events of every node, by one process with raw sockets.

Each event carries the time just after it was read. Netlink has no stamp of its own, so a time is
late by the wake-up of this process (below a millisecond, more under load), never early.

The kernel says nothing of IPv4 routes and next hops that it drops by itself together with a link.
Where it merges changes of carrier or drops events, `IFLA_CARRIER_CHANGES` still counts exactly:
every port's counter is compared with what was told, node after node, twice a second (`audit`).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from chaos import netlink
from chaos.netlink import Netlink, attrs, ifinfo, u32
from chaos.netns import inside
from chaos.timeline import now_ns
from probes.jobs.lines import Lines, be_punctual

GROUPS = (
    netlink.RTNLGRP_LINK,
    netlink.RTNLGRP_NEIGH,
    netlink.RTNLGRP_IPV4_ROUTE,
    netlink.RTNLGRP_IPV6_ROUTE,
    netlink.RTNLGRP_NEXTHOP,
)
AUDIT_ROUND_S = 0.5
_IFLA_IFNAME, _IFLA_EXT_MASK, _IFLA_CARRIER_CHANGES = 3, 29, 35
_SKIP_STATS = 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 9, 15, 18
_RTA_PRIORITY, _RTA_NH_ID = 6, 30
_RTNH_F_DEAD, _RTNH_F_LINKDOWN = 0x1, 0x10
_MAIN, _UNICAST = 254, 1
_NUD = {0x02: "reachable", 0x20: "failed"}

Leg = tuple[str, str]  # interface, gateway
Key = tuple[str, int]  # prefix, metric
Record = tuple[str, dict[str, Any]]


@dataclass(slots=True)
class LinkView:
    """What is known of one interface; `audited` and `told` count changes of carrier."""

    name: str
    admin: bool
    carrier: bool
    audited: int
    told: int = 0


@dataclass(slots=True)
class NodeView:
    """What is known of one node, so that only differences are told."""

    node: str
    links: dict[int, LinkView] = field(default_factory=dict)
    routes: dict[Key, list[Leg]] = field(default_factory=dict)

    def digest(self, kind: int, flags: int, body: bytes) -> list[Record]:
        """Records that one message gives rise to."""
        if kind in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK):
            return self.link(kind, body)
        if kind in (netlink.RTM_NEWROUTE, netlink.RTM_DELROUTE):
            return self.route(kind, flags, body)
        if kind in (netlink.RTM_NEWNEIGH, netlink.RTM_DELNEIGH):
            return self.neighbour(kind, body)
        if kind in (netlink.RTM_NEWNEXTHOP, netlink.RTM_DELNEXTHOP):
            return self.nexthop(kind, body)
        return []

    def link(self, kind: int, body: bytes) -> list[Record]:
        """Differences of admin state and carrier; AF_BRIDGE and others' chatter is ignored."""
        family, index, flags = body[0], *struct.unpack_from("=iI", body, 4)
        if family != socket.AF_UNSPEC:
            return []
        if kind == netlink.RTM_DELLINK:
            gone = self.links.pop(index, None)
            return [("link_gone", {"port": gone.name})] if gone else []
        found = attrs(body, 16)
        name = found[_IFLA_IFNAME].rstrip(b"\0").decode()
        changes = struct.unpack("=I", found.get(_IFLA_CARRIER_CHANGES, bytes(4)))[0]
        up, carrier = bool(flags & netlink.IFF_UP), bool(flags & netlink.IFF_LOWER_UP)
        view = self.links.get(index)
        if view is None:
            self.links[index] = LinkView(name, up, carrier, changes)
            return [("link_new", {"port": name, "up": up, "carrier": carrier})]
        records: list[Record] = []
        if view.admin != up:
            records.append(("link_admin", {"port": name, "up": up}))
        if view.carrier != carrier:
            view.told += 1
            records.append(("link_carrier", {"port": name, "up": carrier, "changes": changes}))
        view.name, view.admin, view.carrier = name, up, carrier
        return records

    def route(self, kind: int, flags: int, body: bytes) -> list[Record]:
        """Unicast routes of the main table, link-local ones left out, with their legs."""
        family, bits, table, type_ = body[0], body[1], body[4], body[7]
        found = attrs(body, 12)
        if _RTA_TABLE in found:
            (table,) = struct.unpack("=I", found[_RTA_TABLE])
        if table != _MAIN or type_ != _UNICAST or family not in (socket.AF_INET, socket.AF_INET6):
            return []
        raw = found.get(_RTA_DST, bytes(4 if family == socket.AF_INET else 16))
        address = ipaddress.ip_address(raw)
        if address.is_link_local or address.is_multicast:
            return []
        key = f"{address}/{bits}", struct.unpack("=I", found.get(_RTA_PRIORITY, bytes(4)))[0]
        before, legs = self.routes.get(key, []), self.legs(found)
        if kind == netlink.RTM_NEWROUTE:
            appended = family == socket.AF_INET6 and flags & netlink.NLM_F_APPEND
            after = [*before, *(leg for leg in legs if leg not in before)] if appended else legs
        else:
            after = [leg for leg in before if leg not in legs] if family == socket.AF_INET6 else []
        if after:
            self.routes[key] = after
        else:
            self.routes.pop(key, None)
        if sorted(before) == sorted(after):
            return []
        return [route_record(key, before, after)]

    def legs(self, found: dict[int, bytes]) -> list[Leg]:
        """Interface and gateway of each usable path of a route."""
        if _RTA_NH_ID in found and _RTA_OIF not in found and _RTA_MULTIPATH not in found:
            return [("", f"nexthop {struct.unpack('=I', found[_RTA_NH_ID])[0]}")]
        if _RTA_MULTIPATH not in found:
            (index,) = struct.unpack("=I", found.get(_RTA_OIF, bytes(4)))
            return [(self.name(index), gateway(found))]
        legs, data = [], found[_RTA_MULTIPATH]
        while len(data) >= 8:
            length, flags, _, index = struct.unpack_from("=HBBi", data)
            if not flags & (_RTNH_F_DEAD | _RTNH_F_LINKDOWN):
                legs.append((self.name(index), gateway(attrs(data[:length], 8))))
            data = data[max(8, (length + 3) & ~3) :]
        return legs

    def neighbour(self, kind: int, body: bytes) -> list[Record]:
        """Neighbours that became reachable, failed or went."""
        family, index, state = body[0], *struct.unpack_from("=iH", body, 4)
        if family not in (socket.AF_INET, socket.AF_INET6):
            return []
        word = "gone" if kind == netlink.RTM_DELNEIGH else _NUD.get(state, "")
        raw = attrs(body, 12).get(1)
        if not word or not raw:
            return []
        address = ipaddress.ip_address(raw)
        if address.is_multicast:
            return []
        return [("neigh", {"port": self.name(index), "address": str(address), "state": word})]

    def nexthop(self, kind: int, body: bytes) -> list[Record]:
        """Next-hop objects made and removed."""
        found = attrs(body, 8)
        number = struct.unpack("=I", found.get(1, bytes(4)))[0]
        return [("nexthop", {"id": number, "up": kind == netlink.RTM_NEWNEXTHOP})]

    def name(self, index: int) -> str:
        """Interface name; the number where the name is not known."""
        view = self.links.get(index)
        return view.name if view else f"if{index}"

    def audit(self, sock: Netlink) -> dict[str, dict[str, int]]:
        """Changes of carrier since the last audit by the ports' counters, and those not told."""
        changes, untold = dict[str, int](), dict[str, int]()
        for got in sock.dump(netlink.RTM_GETLINK, ifinfo() + u32(_IFLA_EXT_MASK, _SKIP_STATS)):
            view = self.links.get(struct.unpack_from("=i", got.body, 4)[0])
            raw = attrs(got.body, 16).get(_IFLA_CARRIER_CHANGES)
            if view is None or raw is None:
                continue
            (counter,) = struct.unpack("=I", raw)
            changes[view.name] = counter - view.audited
            untold[view.name] = changes[view.name] - view.told
            view.audited, view.told = counter, 0
        return {
            "changes": {port: count for port, count in changes.items() if count},
            "untold": {port: count for port, count in untold.items() if count},
        }

    def resync(self, sock: Netlink) -> list[Record]:
        """Dump links and routes; the differences to what was known."""
        records: list[Record] = []
        for got in sock.dump(netlink.RTM_GETLINK, ifinfo()):
            records += self.link(netlink.RTM_NEWLINK, got.body)
        known, self.routes = self.routes, {}
        for family in (socket.AF_INET, socket.AF_INET6):
            header = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
            for got in sock.dump(netlink.RTM_GETROUTE, header):
                flags = netlink.NLM_F_APPEND if family == socket.AF_INET6 else 0
                self.route(netlink.RTM_NEWROUTE, flags, got.body)
        for key in sorted(known.keys() | self.routes.keys()):
            before, after = known.get(key, []), self.routes.get(key, [])
            if sorted(before) != sorted(after):
                records.append(route_record(key, before, after))
        return records


def route_record(key: Key, before: list[Leg], after: list[Leg]) -> Record:
    """The record of one route's change."""
    return "route", {"route": key[0], "metric": key[1], "before": before, "after": after}


def gateway(found: dict[int, bytes]) -> str:
    """The next router's address, of either family; empty on-link."""
    raw = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]
    return str(ipaddress.ip_address(raw)) if raw else ""


class Watch:
    """One listening and one asking socket per node."""

    def __init__(self, lines: Lines, namespaces: dict[str, str], buffer_bytes: int) -> None:
        self.lines = lines
        self.views: dict[int, tuple[NodeView, Netlink, Netlink]] = {}
        self.poller = select.epoll()
        for node, path in namespaces.items():
            heard = inside(path, lambda: Netlink.open(GROUPS, buffer_bytes))
            asked = inside(path, Netlink.open)
            heard.sock.setblocking(False)
            view = NodeView(node)
            view.resync(asked)
            self.views[heard.sock.fileno()] = (view, heard, asked)
            self.poller.register(heard.sock.fileno(), select.EPOLLIN)
        self.poller.register(lines.read_fd, select.EPOLLIN)

    def run(self) -> None:
        """Until told to stop; what waits then is still read."""
        turn = cycle(self.views)
        step_s = AUDIT_ROUND_S / len(self.views)
        due, beat = time.monotonic() + step_s, time.monotonic()
        while not self.lines.stopped:
            wait_s = max(0.0, due - time.monotonic())
            for fd, _ in self.poller.poll(wait_s):
                if fd == self.lines.read_fd:
                    self.lines.take()
                else:
                    self.drain(fd)
            now = time.monotonic()
            if now >= due:
                due = now + step_s
                self.audit(next(turn))
            if now >= beat:
                beat = now + AUDIT_ROUND_S
                self.lines.emit("beat")
        for fd in self.views:
            self.audit(fd)

    def drain(self, fd: int) -> None:
        """Read one node's waiting events; after an overrun, what waited first, then the state."""
        view, heard, asked = self.views[fd]
        overrun = False
        while True:
            try:
                data = heard.sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = True
                continue
            at = now_ns()
            for got in netlink.split(data):
                self.tell(view, at, view.digest(got.kind, got.flags, got.body))
        if overrun:
            self.lines.emit("overrun", node=view.node)
            self.tell(view, now_ns(), view.resync(asked), resync=True)

    def tell(self, view: NodeView, at: int, records: list[Record], **more: Any) -> None:
        """Print records of one node."""
        for event, facts in records:
            self.lines.emit(event, at, node=view.node, **facts, **more)

    def audit(self, fd: int) -> None:
        """Compare one node's counters with what was told; silent when nothing changed."""
        self.drain(fd)
        view, _, asked = self.views[fd]
        found = view.audit(asked)
        if found["changes"] or found["untold"]:
            changes, untold = found["changes"], found["untold"]
            self.lines.emit("audit", node=view.node, changes=changes, untold=untold)


def main() -> None:
    """Listen until told to stop."""
    lines = Lines()
    setup = lines.setup()
    nodes = setup.config.get("nodes") or sorted(setup.namespaces)
    if not nodes:
        raise SystemExit("no network namespace to listen in")
    missing = [node for node in nodes if node not in setup.namespaces]
    if missing:
        raise SystemExit(f"no network namespace known for {', '.join(missing)}")
    namespaces = {node: setup.namespaces[node] for node in nodes}
    watch = Watch(lines, namespaces, int(setup.config["buffer_bytes"]))
    realtime = be_punctual()
    lines.emit("ready", nodes=len(nodes), realtime=realtime, pid=os.getpid())
    watch.run()
    lines.emit("end")


if __name__ == "__main__":
    main()
