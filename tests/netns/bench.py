"""Two hosts with a packet rule between them: frames go in at h1, what arrives at h2 is read.

    h1 ── frames, numbered ──▶ hidden namespace, where the rule stands ──▶ h2

Every frame carries its number in its last four bytes, beyond what its headers account for.
"""

import contextlib
import os
import socket
import struct
import time
from types import SimpleNamespace

import pytest

from chaos import native
from chaos.change import PacketRule, Place
from chaos.natives.able import Here
from chaos.netns import inside
from chaos.nft import Tables
from tests.waiting import wait_until

WIRE, TABLE = Place("h1", "eth1", "wire"), "railbreak_test_packets"
OURS, THEIRS = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"  # h1's and h2's addresses
QUIET_S = 0.03  # after the last expected frame: would one too many still come?
_ALL, _FORCE = 3, 33  # ETH_P_ALL, SO_RCVBUFFORCE
_STAMP = 35  # SO_TIMESTAMPNS: the kernel's, when the frame arrived
_PACKET, _NOTES, _TAGGED = 263, 8, 1 << 4  # SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID
OUTGOING = 4  # PACKETOUTGOING


def numbered(number, frame):
    return frame + struct.pack(">I", number)


def numbers(came):
    return [one.number for one in came]


@contextlib.contextmanager
def one_cpu():
    """What is sent meanwhile is sent on one CPU, so that it also meets a rule in order."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def made_ready(two_hosts, one, place=WIRE, engine="auto", saved=None, table=TABLE):
    """A rule as prebuilt messages; `done` and `close` are the caller's."""
    return native.build(PacketRule(place, table, one, engine), two_hosts.resolve(place), saved)


@contextlib.contextmanager
def acting(two_hosts, one, place=WIRE, engine="auto"):
    """A rule in force; taken back afterwards, also where the body has done so already."""
    made = made_ready(two_hosts, one, place, engine)
    try:
        made.do()
        yield made
    finally:
        made.undo()
        made.close()


def needed(engine):
    """Skip, with what the probe says, where an engine is not here."""
    if engine != "auto" and (why := Here()[engine]):
        pytest.skip(f"{engine}: {why}")
    return engine


def by(*engines):
    """The same body by each engine that is here; `road` takes it."""
    marks = {"netem": pytest.mark.vm}
    params = [pytest.param(one, marks=marks.get(one, ())) for one in engines]
    return pytest.mark.parametrize("road", params, indirect=True)


class Bench:
    """`run(rule, frames)`: which arrived, as they arrived; the counters in `counted`."""

    def __init__(self, two_hosts):
        self.two_hosts = two_hosts
        # nothing but our frames may be counted: h1 asks for no neighbours and no routers
        two_hosts.run("h1", "sysctl", "-qw", "net.ipv6.conf.eth1.disable_ipv6=1")
        two_hosts.run("h1", "ip", "address", "flush", "dev", "eth1")
        two_hosts.run("h1", "ip", "link", "set", "eth1", "arp", "off")
        self.out = self.door("h1", 0)
        self.come = self.door("h2", _ALL)
        self.tables = inside(two_hosts.path("wire"), Tables.open)
        self.counted = {}

    def door(self, node, protocol=_ALL):
        """A packet socket at eth1 of a node; it does not block."""

        def opened():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
            made.setsockopt(socket.SOL_SOCKET, _FORCE, 64 << 20)
            made.bind(("eth1", protocol))
            made.setblocking(False)
            return made

        return inside(self.two_hosts.path(node), opened)

    def send(self, number, frame):
        """One frame, with its number; when, in nanoseconds of the wall's clock."""
        at_ns = time.time_ns()
        self.out.send(numbered(number, frame))
        return at_ns

    def run(self, rule, frames):
        """Send the frames in order; the rule meets them in that order."""
        made = made_ready(self.two_hosts, rule)
        try:
            with one_cpu():
                made.do()
                got = self.exchange(frames, rule)
                self.counted = self.tables.counters(TABLE)
                hits = made.hits()
        finally:
            assert made.undo() == ()
            made.close()
        assert (hits.seen, hits.hit) == (self.counted["seen"], self.counted["hit"])
        assert self.counted["seen"] == self.counted["hit"] + self.counted["passed"]
        return got

    def exchange(self, frames, rule):
        """Send the frames and wait for those that the rule in force does not lose."""
        got = {}
        for number, frame in enumerate(frames):
            self.send(number, frame)
            if number % 256 == 255:
                self.receive(got)

        def all_there():
            self.receive(got)
            lost = 0 if rule.then.rewrites else self.tables.counters(TABLE)["hit"]
            return len(got) + lost == len(frames)  # seen - hit of the selected, and all the others

        wait_until(all_there, lambda: f"{len(frames)} frames; {len(got)} arrived", 30)
        return got

    def receive(self, got):
        """What has come since, by its number."""
        for frame, (_, _, kind, _, mac) in drained(lambda: self.come.recvfrom(2048)):
            if mac == OURS and kind != OUTGOING:
                number = struct.unpack(">I", frame[-4:])[0]
                assert number not in got, f"frame {number} came twice"
                got[number] = frame[:-4]

    def lost(self, rule, frames):
        """Numbers of the frames that did not arrive."""
        return tuple(sorted(set(range(len(frames))) - set(self.run(rule, frames))))

    def close(self):
        self.out.close()
        self.come.close()
        self.tables.close()


class Road(Bench):
    """`go(rule, frames)`: the frames that arrived, in their order, and when."""

    def __init__(self, two_hosts, engine="auto"):
        super().__init__(two_hosts)
        self.come.setsockopt(socket.SOL_SOCKET, _STAMP, 1)
        self.come.setsockopt(_PACKET, _NOTES, 1)
        self.told, self.met, self.engine = {}, None, engine

    @contextlib.contextmanager
    def in_force(self, one):
        """The rule is in force; afterwards everything that it met is accounted for."""
        made = made_ready(self.two_hosts, one, engine=self.engine)
        try:
            with one_cpu():
                made.do()
                yield made
        finally:
            refused, self.counted = made.undo(), dict(made.counted)
            self.told = dict(getattr(made, "told", {}))
            self.met = getattr(made, "met", None)
            trouble = made.trouble
            made.close()
        assert (refused, trouble) == ((), ())
        assert self.counted["seen"] == self.counted["hit"] + self.counted["passed"]
        if self.told:
            gone = ("sent", "unsent", "dropped", *(("unfit",) if one.then.answers else ()))
            assert self.told["taken"] == sum(self.told[name] for name in gone)
        if self.met is not None:
            assert self.met.sent + self.met.dropped == self.counted["hit"]
            assert self.met.waiting == 0

    def go(self, one, frames, *, expect=None, gap_s=0.0):
        """Send frames, wait until as many as expected came; number, frame, sent to arrival."""
        came, sent = [], []
        expect = len(frames) if expect is None else expect
        with self.in_force(one):
            for number, frame in enumerate(frames):
                sent.append(self.send(number, frame))
                time.sleep(gap_s) if gap_s else None
                if number % 128 == 127:
                    came += self.gather()
            came += self.arrivals(expect - len(came))
        for got in came:
            got.took_ns = got.at_ns - sent[got.number]
        return came

    def arrivals(self, expect):
        """So many frames, and no more."""
        came = []

        def enough():
            came.extend(self.gather())
            return len(came) >= expect

        wait_until(enough, lambda: f"{expect} frames; {len(came)} came")
        time.sleep(QUIET_S)
        came += self.gather()
        assert len(came) == expect
        return came

    def last(self, number):
        """What has come since, once a frame with that number is there."""
        came = []

        def there():
            came.extend(self.gather())
            return any(one.number == number for one in came[-1:])

        wait_until(there, f"frame {number}", 5)
        return came

    def gather(self):
        """What has come since, in its order."""
        came = []
        for data, notes, _, address in drained(lambda: self.come.recvmsg(1 << 17, 256)):
            if address[2] == OUTGOING or address[4] != OURS:
                continue
            noted = {(level, kind): one for level, kind, one in notes}
            seconds, ns = struct.unpack("=qq", noted[socket.SOL_SOCKET, _STAMP])
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", noted[_PACKET, _NOTES])
            if status & _TAGGED:
                data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
            (number,) = struct.unpack(">I", data[-4:])
            at_ns = seconds * 10**9 + ns
            came.append(SimpleNamespace(number=number, frame=data[:-4], at_ns=at_ns, took_ns=0))
        return came


def drained(read):
    """What `read` gives until it would wait."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield read()
