"""What the engines of packet rules cost: per packet, and how late a delayed packet comes.

Crafted RoCEv2 packets go from one namespace through a hidden one, where the rule stands, to a
third: the wire of the embedded fabric. Where the rule stands at the port that receives (nfqueue),
the third forwards them to a fourth. Arrival is dated by the kernel of the last.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from benchmarks.ground import await_true, must, need
from benchmarks.reading import Contender, Outcome, Result
from chaos.change import PacketRule, Place, Where
from chaos.errors import FabricError
from chaos.native import Native, build
from chaos.natives.able import Here
from chaos.netns import inode, inside
from chaos.packets import Rule
from chaos.roce import IPv4, Packet, bth

_PREFIX = "rbbench"
_STAMPED, _FORCE = 35, 33  # SO_TIMESTAMPNS, SO_RCVBUFFORCE
_numbers = itertools.count(9000)
_PLACE, _TABLE = Place("a", "eth1", "wire"), "railbreak_bench_rule"
_SIZE = 1024
_HERE, _THERE = "02:00:00:00:00:01", "02:00:00:00:00:02"
_DELAY_NS = 2_000_000
#: Per engine, a rule that meets every packet and acts on it.
COST: dict[str, dict[str, str] | None] = {
    "no rule": None,
    "nftables: mark": {"then": "ce"},
    "nftables: corrupt": {"then": "corrupt"},
    "nftables: duplicate": {"then": "duplicate"},
    "htb: rate": {"then": "rate=1000Gbit/s", "engine": "htb"},
    "netem: delay": {"then": "delay=1us", "engine": "netem"},
    "worker: delay": {"then": "delay=1us"},
    "worker: reorder every 100th": {"when": "every=100", "then": "reorder=3"},
    "worker: corrupt silently": {"then": "corrupt=silent"},
    "worker: every 100th, delay": {"when": "every=100", "then": "delay=1us"},
}
#: The same where only the port is reached that receives.
RECEIVED: dict[str, dict[str, str] | None] = {
    "no rule": None,
    "nfqueue: delay": {"then": "delay=1us"},
    "nfqueue: reorder every 100th": {"when": "every=100", "then": "reorder=3"},
    "nfqueue: corrupt silently": {"then": "corrupt=silent"},
    "nfqueue: every 100th, delay": {"when": "every=100", "then": "delay=1us"},
}
#: Packets per second at which lateness is looked at.
RATES = (500, 2_000, 5_000)


@dataclass(slots=True)
class Wire:
    """Two ends and the hidden namespace between them; sockets that send and receive frames."""

    where: Where
    out: socket.socket
    come: socket.socket
    engine: str = "worker"

    @contextlib.contextmanager
    def under(self, words: dict[str, str] | None) -> Iterator[Native | None]:
        """With a rule in force."""
        if words is None:
            yield None
            return
        rule = Rule.parse(words)
        engine = words.get("engine", self.engine if rule.then.how else "nftables")
        native = build(PacketRule(_PLACE, _TABLE, rule, engine), self.where)
        try:
            native.do()
            yield native
            native.undo()
            for sentence in getattr(native, "trouble", ()):
                raise FabricError(sentence)
        finally:
            native.undo()
            native.close()

    def carry(self, count: int, gap_s: float = 0.0, copies: int = 1) -> list[tuple[int, int]]:
        """Send so many packets; per packet when it was sent and when it came, in ns.

        Raises:
            FabricError: one was lost, doubled, or did not come in time.
        """
        sent, came = [], []
        self._received()  # what others sent before
        due = time.monotonic()
        for number in range(count):
            if gap_s:
                due += gap_s
                time.sleep(max(0.0, due - time.monotonic()))
            sent.append(time.time_ns())
            self.out.send(self._numbered(number))
            if number % 64 == 63:
                came += self._received()
        until = time.monotonic() + 20
        while len(came) < count * copies and time.monotonic() < until:
            came += self._received()
        found = sorted(number for number, _ in came)
        if found != sorted(list(range(count)) * copies):
            raise FabricError(f"{count} packets sent, {len(came)} came")
        return [(sent[number], at) for number, at in came]

    def _numbered(self, number: int) -> bytes:
        return _FRAME + struct.pack(">I", number)

    def _received(self) -> list[tuple[int, int]]:
        found = []
        while True:
            try:
                data, notes, _, _ = self.come.recvmsg(4096, 256)
            except BlockingIOError:
                return found
            if data[:12] == _FRAME[:12] and data[23:24] == _FRAME[23:24]:
                seconds, ns = struct.unpack("=qq", notes[0][2])
                found.append((self._number(data), seconds * 10**9 + ns))

    def _number(self, frame: bytes) -> int:
        return int.from_bytes(frame[-4:])


class Port(Wire):
    """The rule stands where packets are received; a packet's number is its PSN."""

    def _numbered(self, number: int) -> bytes:
        return _FRAME[:_PSN_AT] + number.to_bytes(3) + _FRAME[_PSN_AT + 3 :]

    def _number(self, frame: bytes) -> int:
        return int.from_bytes(frame[_PSN_AT : _PSN_AT + 3])


_PSN_AT = 14 + 20 + 8 + 9
_FRAME = Packet(
    IPv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")),
    bth("rc_send_only", 17, 1),
    (),
    bytes(_SIZE),
).write()


@contextlib.contextmanager
def wired() -> Iterator[tuple[Wire, Port]]:
    """Three namespaces as a driver joins them; gone afterwards."""
    own = f"{_PREFIX}{os.getpid()}x{next(_numbers)}"
    names = {"a": f"{own}a", "b": f"{own}b", "wire": f"{own}1a", "c": f"{own}c"}
    try:
        for name in names.values():
            must("ip", "netns", "add", name)
            must(
                "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"
            )
        for end, index in (("a", 7101), ("b", 7103)):
            first = ("link", "add", "eth1", "index", str(index), "netns", names[end])
            second = ("peer", "name", f"w{end}", "index", str(index + 1), "netns", names["wire"])
            must("ip", *first, "type", "veth", *second)
            mac = _THERE if end == "b" else _HERE
            must("ip", "-n", names[end], "link", "set", "eth1", "address", mac, "arp", "off", "up")
            must("ip", "-n", names["wire"], "link", "set", f"w{end}", "up")
        _forward(names["b"], names["c"])
        chains = [
            f"chain {one} {{ type filter hook ingress device w{one} priority 0; fwd to w{two}; }}"
            for one, two in (("a", "b"), ("b", "a"))
        ]
        text = "\n".join(("table netdev wires {", *chains, "}"))
        must("ip", "netns", "exec", names["wire"], "nft", text)
        paths = {end: f"/run/netns/{name}" for end, name in names.items()}
        await_true(lambda: _up(names["b"]), "the wire's carrier")
        out, come = (inside(paths[end], lambda at=end: _open(at == "b")) for end in "ab")
        where = Where(paths["wire"], inode(paths["wire"]), "wa", 7102, across="wb")
        at_b = Where(paths["b"], inode(paths["b"]), "eth1", 7103)
        far = inside(paths["c"], lambda: _open(True))
        try:
            yield Wire(where, out, come), Port(at_b, out, far, "nfqueue")
        finally:
            for one in (out, come, far):
                one.close()
    finally:
        for name in names.values():
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)


def _forward(through: str, to: str) -> None:
    """What is for 10.0.0.2 goes on to another namespace, with the addresses that it came with."""
    for words in ("ipv4.ip_forward=1", "ipv4.conf.all.rp_filter=0", "ipv4.conf.eth1.rp_filter=0"):
        must("ip", "netns", "exec", through, "sysctl", "-qw", f"net.{words}")
    first = ("link", "add", "eth2", "index", "7105", "address", _HERE, "netns", through)
    must("ip", *first, "type", "veth", "peer", "name", "eth1", "address", _THERE, "netns", to)
    must("ip", "-n", through, "link", "set", "eth2", "up")
    must("ip", "-n", to, "link", "set", "eth1", "arp", "off", "up")
    must("ip", "-n", through, "addr", "add", "10.0.0.254/32", "dev", "eth2")
    must("ip", "-n", through, "route", "add", "10.0.0.2/32", "dev", "eth2")
    must("ip", "-n", through, "route", "add", "10.0.0.1/32", "dev", "eth1")
    must("ip", "-n", through, "neigh", "add", "10.0.0.2", "lladdr", _THERE, "dev", "eth2")


def _up(name: str) -> bool:
    return "LOWER_UP" in must("ip", "-n", name, "-o", "link", "show", "dev", "eth1")


def _open(receives: bool) -> socket.socket:
    protocol = 3 if receives else 0  # ETH_P_ALL
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    made.bind(("eth1", protocol))
    made.setblocking(not receives)
    if receives:
        made.setsockopt(socket.SOL_SOCKET, _FORCE, 64 << 20)
        made.setsockopt(socket.SOL_SOCKET, _STAMPED, 1)
    return made


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Cost per packet, then lateness; each contender in turn."""
    need("ip", "nft")
    rounds, count = (3, 1000) if quick else (8, 2000)
    with wired() as (wire, port):
        results = []
        for one, what, among in (
            (wire, "a packet through the wire", COST),
            (port, "a packet received", RECEIVED),
        ):
            tell(f"cost of {what}, {rounds} rounds of {count}")
            results.append(_cost(one, what, _able(among), rounds, count))
        held = [] if Here()["netem"] else [replace(wire, engine="netem")]
        for one, pps in itertools.product((*held, wire, port), RATES):
            tell(f"lateness by {one.engine} at {pps} packets per second")
            results.append(_lateness(one, pps, 300 if quick else 1500))
    return Outcome("packet_engines", tuple(results))


def _able(among: dict[str, dict[str, str] | None]) -> dict[str, dict[str, str] | None]:
    """Those whose engine is on this machine."""
    here = Here()
    asked = {who: (words or {}).get("engine", "") for who, words in among.items()}
    return {who: words for who, words in among.items() if not asked[who] or not here[asked[who]]}


def _cost(
    wire: Wire, what: str, among: dict[str, dict[str, str] | None], rounds: int, count: int
) -> Result:
    """From the first packet sent to the last that came, per packet: flooded by one sender."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for who, words in among.items():
            copies = 2 if words == {"then": "duplicate"} else 1
            with wire.under(words):
                times = wire.carry(count, copies=copies)
            begin, end = min(one for one, _ in times), max(one for _, one in times)
            found.setdefault(who, []).append((end - begin) / count / 1e9)
    ours = "nftables: mark" if "nftables: mark" in found else f"{wire.engine}: delay"
    carried = 1 / statistics.median(found[f"{wire.engine}: delay"])
    contenders = (Contender(ours, found.pop(ours), ours=True),)
    others = tuple(Contender(who, listed) for who, listed in found.items())
    note = (
        f"flooded by one Python sender, {_SIZE} bytes of payload; a worker that gets all of it "
        f"carried {carried:,.0f} packets per second in the median, and none was lost or doubled"
    )
    return Result(what, (*contenders, *others), note)


def _lateness(wire: Wire, pps: int, count: int) -> Result:
    """How much later than asked a packet came; without a rule: how long it takes at all."""
    ours = f"{wire.engine}, 2 ms"
    late: dict[str, list[float]] = {ours: [], "no rule": []}
    for _ in range(3):
        for who, words, asked in ((ours, {"then": "delay=2ms"}, _DELAY_NS), ("no rule", None, 0)):
            with wire.under(words):
                times = wire.carry(count // 3, 1 / pps)
            late[who] += [(came - sent - asked) / 1e9 for sent, came in times]
    made = (Contender(ours, late[ours], ours=True), Contender("no rule", late["no rule"]))
    return Result(f"lateness by {wire.engine} at {pps} packets/s", made)
