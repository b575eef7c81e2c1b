"""A rule at the port of the host that receives: what its own IP is given is read, above the rule.

By a raw socket (IPv4, from the IP header on), and by a UDP socket, whose kernel has verified the
checksum before.
"""

import contextlib
import select
import socket
import threading
import time
from types import SimpleNamespace

from chaos.change import Place
from chaos.netns import inside
from chaos.roce import Packet
from tests.netns.bench import QUIET_S, Bench, drained, made_ready, one_cpu
from tests.netns.frames import PSN
from tests.waiting import wait_until

PORT = Place("h2", "eth1")
_AHEAD = slice(PSN.start - 14, PSN.stop - 14)  # without the Ethernet header


class Stack(Bench):
    """`go(rule, frames)`: what h2's IP was given, in its order, and when; PSN is the number."""

    def __init__(self, two_hosts):
        super().__init__(two_hosts)
        two_hosts.run("h2", "ip", "link", "set", "eth1", "address", "02:00:00:00:00:02")
        self.raw = inside(two_hosts.path("h2"), self._raw)
        self.six = inside(two_hosts.path("h2"), self._six)
        self.told = {}

    @staticmethod
    def _raw():
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        made.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        made.setblocking(False)
        return made

    @staticmethod
    def _six():
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(("::", 4791))
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def in_force(self, one):
        """The rule is in force; afterwards everything that it met is accounted for."""
        made = made_ready(self.two_hosts, one, PORT)
        try:
            with one_cpu():
                made.do()
                yield made
        finally:
            refused, self.counted, self.told = made.undo(), dict(made.counted), dict(made.told)
            trouble = made.trouble
            made.close()
        assert (refused, trouble) == ((), ())
        assert self.counted["seen"] == self.counted["hit"] + self.counted["passed"]

    def send_all(self, frames, gap_s=0.0):
        """Frames as they are, in order; when each was sent."""
        sent = []
        for frame in frames:
            sent.append(time.time_ns())
            self.out.send(frame)
            time.sleep(gap_s) if gap_s else None
        return sent

    def go(self, one, frames, *, gap_s=0.0):
        """Send frames, wait until as many came, and no more."""
        with self.in_force(one), self.reading() as came:
            sent = self.send_all(frames, gap_s)
            self.await_count(came, len(frames))
        psns = [int.from_bytes(frame[PSN]) for frame in frames]
        for got in came:
            got.took_ns = got.at_ns - sent[psns.index(got.number)]
        return came

    @contextlib.contextmanager
    def reading(self):
        """What a thread reads, so that it is known when a packet came; the kernel's stamp is older.

        The list grows until the end; what had come by then is in it.
        """
        over, came = threading.Event(), []

        def read():
            while not over.is_set():
                select.select([self.raw], [], [], 0.01)
                came.extend(self.gather())

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield came
        finally:
            over.set()
            thread.join()
            came.extend(self.gather())

    @staticmethod
    def await_count(came, expect):
        """So many in the list, and no more."""
        wait_until(lambda: len(came) >= expect, lambda: f"{expect} packets; {len(came)} came")
        time.sleep(QUIET_S)
        assert len(came) == expect

    def arrivals(self, expect):
        """So many packets, and no more."""
        with self.reading() as came:
            self.await_count(came, expect)
        return came

    def gather(self):
        """What has come since, in its order."""
        came = []
        for data in drained(lambda: self.raw.recv(1 << 17)):
            psn, at_ns = int.from_bytes(data[_AHEAD]), time.time_ns()
            came.append(SimpleNamespace(number=psn, data=data, at_ns=at_ns, took_ns=0))
        return came

    def datagrams(self):
        """What h2's UDP gave to a program since (IPv6)."""
        return list(drained(lambda: self.six.recv(2048)))

    def close(self):
        super().close()
        self.raw.close()
        self.six.close()


def as_packet(data):
    """What a raw socket read, as a packet."""
    return Packet.read(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + data)
