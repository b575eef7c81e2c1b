"""Fixtures that tests of several folders use."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from chaos.change import Where
from chaos.fabric import Fabric, Link, Node, Port
from chaos.hands import Hands
from chaos.native import process_state
from chaos.netns import inode
from chaos.units import Duration
from tests.leftovers import reap
from tests.waiting import wait_until

pytest_plugins = ["pytester"]
pytest.register_assert_rewrite("tests.netns", "tests.ssh")  # rooms beside the tests tell as much


def pytest_configure(config):
    """SIGTERM ends a run as Ctrl-C does, with its fixtures taken down."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, partial(_end, os.getpid()))
    if os.geteuid() == 0 and not hasattr(config, "workerinput"):
        reap()


def _end(run, number, frame):
    """A process forked off a run has this handler too; the fixtures are not its to take down."""
    if os.getpid() != run:
        os._exit(128 + number)
    signal.default_int_handler(number, frame)


def pytest_unconfigure(config):
    """Workers of xdist are not asked to tidy up when their run is broken off."""
    if os.geteuid() == 0 and not hasattr(config, "workerinput"):
        reap()


SUPERVISOR = """
import ctypes, os, signal, sys, time

def born():
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        libc.prctl(15, sys.argv[1].encode(), 0, 0, 0)  # PR_SET_NAME
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        while True:
            time.sleep(1000)
    return pid

wanted = {signal.SIGUSR1, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
signal.signal(signal.SIGUSR1, lambda *_: None)
child = born()
while open(f"/proc/{child}/comm").read().strip() != sys.argv[1]:
    time.sleep(0.001)  # it names itself
print(child, flush=True)
while True:
    told = signal.sigwait(wanted)
    if child and os.waitpid(child, os.WNOHANG)[0]:
        child = 0
    if told == signal.SIGUSR1 and not child:
        child = born()
"""
_numbers = itertools.count()


class TwoHosts:
    """h1 and h2 with two cables between them, each through a hidden namespace, as a driver does it.

    `fabric` is what is planned on, `resolve(place)` says where a place is, `run(node, *argv)` runs
    a command in a node (or in the hidden namespace `wire`), `start(name)` starts a process that
    faults may signal.
    """

    NODES = ("h1", "h2", "wire")

    def __init__(self, folder):
        self.folder = folder
        self.prefix = f"rb{os.getpid()}x{next(_numbers)}"
        ports = [(Port("h1", f"eth{n}"), Port("h2", f"eth{n}")) for n in (1, 2)]
        links = tuple(Link(a, b) for a, b in ports)
        self.fabric = Fabric("two-hosts", {"h1": Node("h1"), "h2": Node("h2")}, links)
        self.index = {}
        self.processes = {}
        self.children = {}

    def path(self, node):
        return f"/run/netns/{self.prefix}{node}"

    @property
    def namespaces(self):
        return {node: self.path(node) for node in self.NODES}

    def up(self):
        for node in self.NODES:
            self._must("ip", "netns", "add", self.prefix + node)
            for name in ("all", "default"):
                self.run(node, "sysctl", "-qw", f"net.ipv6.conf.{name}.accept_dad=0")
        rules = []
        for number, link in enumerate(self.fabric.links):
            for side, port in zip("ab", link.ports, strict=True):
                self._cable(number, side, port)
            for one, other in (("a", "b"), ("b", "a")):
                hook = f"type filter hook ingress device w{number}{one} priority 0;"
                rules.append(f"chain {one}{number} {{ {hook} fwd to w{number}{other}; }}")
        self.run("wire", "nft", "\n".join(("table netdev wires {", *rules, "}")))
        self._wait_for_carriers()
        return self

    def _cable(self, number, side, port):
        at = 7000 + 10 * number + 2 * "ab".index(side)
        self.index[port.id, "node"], self.index[port.id, "wire"] = at, at + 1
        node, wire = self.prefix + port.node, self.prefix + "wire"
        first = ("link", "add", port.name, "index", str(at), "netns", node, "type", "veth")
        second = ("peer", "name", f"w{number}{side}", "index", str(at + 1), "netns", wire)
        self._must("ip", *first, *second)
        self.run("wire", "ip", "link", "set", f"w{number}{side}", "up")
        last = port.node[-1]
        for address in (f"10.{number}.0.{last}/24", f"2001:db8:{number}::{last}/64"):
            self.run(port.node, "ip", "addr", "add", address, "dev", port.name)
        self.run(port.node, "ip", "link", "set", port.name, "up")

    def _wait_for_carriers(self):
        def lit():
            links = [self.run(node, "ip", "-o", "link") for node in ("h1", "h2")]
            return not any("NO-CARRIER" in one for one in links)

        wait_until(lit, "the cables' carriers", 5)

    def down(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        for node in self.NODES:
            subprocess.run(["ip", "netns", "del", self.prefix + node], check=False)

    def run(self, node, *argv):
        return self._must("nsenter", f"--net={self.path(node)}", *argv)

    def ping(self, *options):
        """How many of the pings from h1 to h2 over the first cable were answered."""
        argv = (
            "ping",
            "-n",
            "-q",
            *(options or ("-c", "3", "-i", "0.01", "-W", "0.3")),
            "10.0.0.2",
        )
        enter = ("nsenter", f"--net={self.path('h1')}")
        done = subprocess.run((*enter, *argv), capture_output=True, text=True, check=False)
        found = re.search(r"(\d+) received", done.stdout)
        return int(found[1]) if found else 0  # no route: nothing was even sent

    def reaches(self, within_s=5.0):
        """Whether h1 reaches h2 again in time; a failed neighbour look-up takes a second."""
        until = time.monotonic() + within_s
        while self.ping() < 3:
            if time.monotonic() >= until:
                return False
        return True

    def start(self, name):
        """A process named `name`, living in h1."""
        argv = ("nsenter", f"--net={self.path('h1')}", "sleep", "1000")
        self.processes[name] = subprocess.Popen(argv)
        return self.processes[name]

    def supervise(self, name):
        """A process named `name` whose parent starts it again on SIGUSR1."""
        argv = (sys.executable, "-c", SUPERVISOR, name)
        made = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.processes[f"{name} of {made.pid}"] = made
        with made.stdout:
            self.children[name] = int(made.stdout.readline())

    def resolve(self, place):
        if place.process:
            pid = self.children.get(place.process) or self.processes[place.process].pid
            return Where(pid=pid, started=process_state(pid)[1])
        node = place.node if place.side == "node" else "wire"
        if not place.port:
            return Where(self.path(node), inode(self.path(node)))
        index = self.index[f"{place.node}:{place.port}", place.side]
        number = int(place.port[-1]) - 1
        name = place.port if place.side == "node" else f"w{number}{'ab'[int(place.node[-1]) - 1]}"
        across = "" if place.side == "node" else name[:-1] + {"a": "b", "b": "a"}[name[-1]]
        return Where(self.path(node), inode(self.path(node)), name, index, across=across)

    def wheres(self, changes):
        return {change.place: self.resolve(change.place) for change in changes}

    async def arm(self, changes, journal="journal.jsonl", *, life="30 s"):
        """Hands that hold the changes ready; their journal and logs are in `folder`."""
        return await Hands.arm(
            changes,
            self.wheres(changes),
            journal=self.folder / journal,
            max_life=Duration.parse(life),
            log_dir=self.folder,
        )

    @staticmethod
    def _must(*argv):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout


@pytest.fixture
def two_hosts(tmp_path):
    """Two hosts joined by two interposed cables; everything is removed afterwards."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    made = TwoHosts(tmp_path)
    try:
        yield made.up()
    finally:
        made.down()
