"""Pause storms against a port that honours them.

No port of this kernel's own honours PFC. So the port is a program at the other end of a tap: it
sends two classes of frames, and stops sending a class for as long as a frame tells it to. It reads
pause frames with scapy, which knows them from the standard and not from us.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from scapy.contrib.mac_control import MACControlClassBasedFlowControl
from scapy.layers.l2 import Ether

from chaos import native, recover
from chaos.change import PauseStorm, Place, Where, tag_of
from chaos.errors import BlockedError
from chaos.hands import Hands
from chaos.netns import inode, inside
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.waiting import until, wait_until

pytestmark = pytest.mark.netns

SPEED = 10**8  # so 65535 quanta last 336 ms: more than a busy machine may be late
CLASSES = {0: 0x88B5, 3: 0x88B6}  # a class of frames is told by its EtherType here
EVERY_S = 0.002
_TUNSETIFF, _TAP, _PLAIN = 0x400454CA, 0x0002, 0x1000


class HonouringPort:
    """The far end of a tap: sends both classes, obeys PFC, and keeps what it was told."""

    def __init__(self, netns):
        self.netns, self.path = netns, f"/run/netns/{netns}"
        self.fd = inside(self.path, self._tap)
        self.told = []  # (when, quanta of class 3)
        self.paused_until = dict.fromkeys(CLASSES, 0.0)
        self.sent = {one: [] for one in CLASSES}
        self.over = threading.Event()
        self.threads = [threading.Thread(target=one) for one in (self._hear, self._send)]
        for one in self.threads:
            one.start()

    @staticmethod
    def _tap():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _TAP | _PLAIN))
        return fd

    def _hear(self):
        while not self.over.is_set():
            frame = Ether(os.read(self.fd, 2048))
            if MACControlClassBasedFlowControl not in frame:
                continue
            now, said = time.monotonic(), frame[MACControlClassBasedFlowControl]
            assert frame.dst == "01:80:c2:00:00:01"
            for one in CLASSES:
                if getattr(said, f"c{one}_enabled"):
                    quanta = getattr(said, f"c{one}_pause_time")
                    self.paused_until[one] = now + quanta * 512 / SPEED
                    self.told.append((now, quanta))

    def _send(self):
        head = bytes.fromhex("ffffffffffff020000000001")
        while not self.over.wait(EVERY_S):
            for one, kind in CLASSES.items():
                if time.monotonic() < self.paused_until[one]:
                    continue
                with contextlib.suppress(OSError):  # the tap is down
                    os.write(self.fd, head + struct.pack("!H", kind) + bytes(46))
                    self.sent[one].append(time.monotonic())

    def between(self, one, since, until):
        return [at for at in self.sent[one] if since <= at <= until]

    def close(self):
        self.over.set()
        self.threads[1].join()
        subprocess.run(("ip", "-n", self.netns, "link", "set", "tap0", "down"), check=True)
        subprocess.run(("ip", "-n", self.netns, "link", "set", "tap0", "up"), check=True)
        poke = inside(self.path, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        poke.bind(("tap0", 0))
        poke.send(bytes(60))  # the reader waits for a frame
        poke.close()
        self.threads[0].join()
        os.close(self.fd)


@pytest.fixture
def port():
    if os.geteuid() != 0:
        pytest.skip("makes a network namespace, which needs root")
    netns = f"rbp{os.getpid()}"
    subprocess.run(("ip", "netns", "add", netns), check=True)
    try:
        made = HonouringPort(netns)
        try:
            subprocess.run(("ip", "-n", netns, "link", "set", "tap0", "up"), check=True)
            yield made
        finally:
            made.close()
    finally:
        subprocess.run(("ip", "netns", "del", netns), check=True)


def storm(speed=SPEED, most_s=30.0, priorities=(3,)):
    place = Place("gpu1", "eth1")
    most = int(most_s * 1e9)
    return PauseStorm(place, tag_of(place, speed), "leaf1:eth4", priorities, speed, most)


def where(port):
    index = inside(port.path, lambda: socket.if_nametoindex("tap0"))
    return Where(port.path, inode(port.path), "tap0", index)


def running(tag):
    """Those that live; one whose parent died may wait for its burial."""
    argv = ("pgrep", "-x", "-r", "R,S,D,T", tag)
    found = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def paused(port):
    """When the port had been told for the first time, and what was under way had passed."""
    wait_until(lambda: port.told, "a pause frame", 5)
    time.sleep(0.05)
    return time.monotonic()


def test_the_class_stands_still_and_the_others_do_not(port):
    change = storm()
    made = native.build(change, where(port))
    time.sleep(0.3)  # what is asked is of a time that passes, here and wherever one is slept below
    calm = time.monotonic()
    assert len(port.between(3, calm - 0.2, calm)) > 10
    assert not port.told, "nothing may be sent before the deed"

    made.do()
    assert made.in_force()
    begun = paused(port)
    time.sleep(1)
    ended = time.monotonic()
    hits = made.hits()
    assert made.undo() == ()
    wait_until(lambda: port.told[-1][1] == 0, "a frame that lets it go on", 5)

    assert port.between(3, begun, ended) == []
    assert len(port.between(0, begun, ended)) > 100
    refreshed = [at for at, quanta in port.told if begun <= at <= ended and quanta == 65535]
    assert 5 <= len(refreshed) <= 7, "a frame each 168 ms"
    assert hits.seen == hits.hit >= len(refreshed)
    assert not made.in_force()
    assert made.trouble == ()
    resumed = wait_until(lambda: port.between(3, ended, time.monotonic()), "it to go on", 5)
    assert resumed[0] - ended < change.lasts_ns / 1e9, "it waited for the last quanta to run out"
    assert made.undo() == ()
    assert running(change.tag) == []
    made.close()


def test_when_the_sender_dies_the_class_goes_on_by_itself(port):
    change = storm()
    made = native.build(change, where(port))
    made.do()
    paused(port)
    (pid,) = running(change.tag)
    os.kill(pid, signal.SIGKILL)
    died = time.monotonic()
    time.sleep(1)

    assert not made.in_force()
    assert len(port.between(3, died + change.lasts_ns / 1e9, died + 1)) > 20
    assert all(quanta for _, quanta in port.told)
    made.close()


@pytest.mark.parametrize("how", ["killed", "told to leave"])
def test_when_the_injector_dies_its_sender_does_and_the_class_goes_on(port, how, tmp_path):
    change = storm()

    async def die():
        hands = await Hands.arm(
            [change],
            {change.place: where(port)},
            journal=tmp_path / "journal.jsonl",
            max_life=Duration.parse("60 s"),
            log_dir=tmp_path,
        )
        await hands.start(now_ns() + 10**8, (InForce(0, 30 * 10**9),))
        await until(lambda: port.told, "a pause frame")
        assert running(change.tag)
        os.kill(hands.pid, signal.SIGKILL if how == "killed" else signal.SIGTERM)
        await hands.close()

    asyncio.run(die())
    died = time.monotonic()
    time.sleep(1)
    assert running(change.tag) == []
    assert len(port.between(3, died + change.lasts_ns / 1e9, died + 1)) > 20
    assert bool(port.told[-1][1]) is (how == "killed"), "only a living injector can say: go on"
    found = recover.undo([tmp_path / "journal.jsonl"])
    assert [one.outcome for one in found] == ["taken_back"] * (how == "killed")


def test_it_ends_by_itself_after_its_life(port):
    made = native.build(storm(most_s=0.3), where(port))
    made.do()
    wait_until(lambda: not made.in_force(), "its end", 5)
    paused(port)
    assert port.told[-1][0] - port.told[0][0] < 0.5
    made.close()


def test_another_process_finds_the_sender_and_ends_it(port):
    change = storm()
    made = native.build(change, where(port))
    made.do()
    later = native.build(change, where(port), dict(made.saved))
    assert later.in_force()
    assert later.undo() == ()
    assert not later.in_force()
    assert running(change.tag) == []
    wait_until(lambda: port.told and port.told[-1][1] == 0, "a frame that lets it go on", 5)
    later.close()
    made.close()


def test_only_the_priorities_that_are_meant(port):
    made = native.build(storm(priorities=(0, 5)), where(port))
    made.do()
    begun = paused(port)
    time.sleep(0.3)
    ended = time.monotonic()
    made.undo()
    made.close()
    assert port.between(0, begun, ended) == []
    assert len(port.between(3, begun, ended)) > 20


def test_a_port_that_is_down_sends_nothing_and_is_refused(port):
    there = where(port)
    subprocess.run(("ip", "-n", port.netns, "link", "set", "tap0", "down"), check=True)
    with pytest.raises(BlockedError, match="tap0 is down, so no frame would leave it"):
        native.build(storm(), there)


def test_a_pause_that_ran_out_is_told(port):
    """The sender stands still for three times as long as its frame lasts."""
    change = storm()
    made = native.build(change, where(port))
    made.do()
    paused(port)
    (pid,) = running(change.tag)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    sent = len(port.told)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: len(port.told) > sent + 1, "it to go on sending", 5)
    made.undo()
    (sentence,) = made.trouble
    assert sentence.startswith("gpu1:eth1: the pause ran out 1 times, for ")
    made.close()
