"""Fixtures of tests that make real network namespaces."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chaos.drivers.netns import NetnsDriver
from chaos.fabric import Fabric, Link, Node, Port
from chaos.netns import inside

_numbers = itertools.count()

# ---- two hosts, two routers, two equal paths ----------------------------------------------------

TWO_PATHS = {
    # node: port: address
    "h1": {"eth1": "10.9.1.2/24"},
    "r1": {"eth1": "10.9.1.1/24", "eth2": "10.9.12.1/24", "eth3": "10.9.13.1/24"},
    "r2": {"eth1": "10.9.8.1/24", "eth2": "10.9.12.2/24", "eth3": "10.9.13.2/24"},
    "h2": {"eth1": "10.9.8.2/24"},
}
TWO_PATHS_LINKS = (
    ("h1:eth1", "r1:eth1"),
    ("r1:eth2", "r2:eth2"),
    ("r1:eth3", "r2:eth3"),
    ("r2:eth1", "h2:eth1"),
)
TWO_PATHS_ROUTES = {
    "h1": "route add default via 10.9.1.1",
    "h2": "route add default via 10.9.8.1",
    "r1": "route add 10.9.8.0/24 nexthop via 10.9.12.2 dev eth2 nexthop via 10.9.13.2 dev eth3",
    "r2": "route add 10.9.1.0/24 nexthop via 10.9.12.1 dev eth2 nexthop via 10.9.13.1 dev eth3",
}


class TwoPaths:
    """A running little fabric: `fabric`, `namespaces`, `addresses`, and `ip` to poke it."""

    def __init__(self):
        self.prefix = f"rbt{os.getpid()}"
        self.namespaces = {node: f"/run/netns/{self.prefix}{node}" for node in TWO_PATHS}
        self.addresses = {"h1": "10.9.1.2", "h2": "10.9.8.2"}
        nodes = {
            name: Node(name, role="host" if name.startswith("h") else "router")
            for name in TWO_PATHS
        }
        links = tuple(Link(_port(a), _port(b)) for a, b in TWO_PATHS_LINKS)
        self.fabric = Fabric("two-paths", nodes, links)

    def up(self):
        for node in TWO_PATHS:
            _run("ip", "netns", "add", self.prefix + node)
            for setting, value in (
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/fib_multipath_hash_policy", "1"),
                ("net/ipv4/conf/all/rp_filter", "0"),
                ("net/ipv4/conf/default/rp_filter", "0"),
                ("net/ipv4/conf/default/ignore_routes_with_linkdown", "1"),
                ("net/ipv4/conf/all/ignore_routes_with_linkdown", "1"),
            ):
                self.inside(node, lambda s=setting, v=value: Path("/proc/sys", s).write_text(v))
        for number, (a, b) in enumerate(TWO_PATHS_LINKS):
            (x, xn), (y, yn) = a.split(":"), b.split(":")
            first = ("link", "add", xn, "index", str(1000 + 2 * number), "netns", self.prefix + x)
            second = ("peer", "name", yn, "index", str(1001 + 2 * number))
            _run("ip", *first, "type", "veth", *second, "netns", self.prefix + y)
        for node, ports in TWO_PATHS.items():
            self.ip(node, "link set lo up")
            for port, address in ports.items():
                self.ip(node, f"address add {address} dev {port}")
                self.ip(node, f"link set {port} up")
        for node, route in TWO_PATHS_ROUTES.items():
            self.ip(node, route)
        return self

    def down(self):
        for node in TWO_PATHS:
            subprocess.run(["ip", "netns", "del", self.prefix + node], check=False)

    def ip(self, node, command):
        _run("ip", "-n", self.prefix + node, *command.split())

    def drop_at(self, node, port):
        """Silently lose what arrives at a port; the returned function ends it."""
        table = "netdev railbreak_test"
        hook = f"type filter hook ingress device {port} priority -500;"
        chain = f"{{ {hook} counter drop; }}"
        self.run(node, "nft", f"table {table} {{ chain c {chain}; }}")
        return lambda: self.run(node, "nft", f"delete table {table}")

    def run(self, node, *argv):
        _run("ip", "netns", "exec", self.prefix + node, *argv)

    def inside(self, node, work):
        return inside(self.namespaces[node], work)


def _port(text):
    return Port(*text.split(":"))


def _run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"


@pytest.fixture
def two_paths():
    """h1 -- r1 == two links == r2 -- h2, static multipath routes, hash over ports."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    made = TwoPaths()
    try:
        yield made.up()
    finally:
        made.down()


# ---- a probe's programs, run as the observer runs them ------------------------------------------


class Running:
    """One program: `records` grow as it prints; `wait_for` an event; `stop` and get them all."""

    def __init__(self, program, namespaces, logs):
        path = namespaces.get(program.node, "/proc/self/ns/net")
        self.records = []
        self.came = threading.Condition()
        self.process = inside(path, lambda: self._start(program.module))
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        setup = {"config": dict(program.config), "namespaces": namespaces, "logs": logs}
        self._say(setup)

    @staticmethod
    def _start(module):
        return subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _say(self, value):
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def _read(self):
        for line in self.process.stdout:
            with self.came:
                self.records.append(json.loads(line))
                self.came.notify_all()
        with self.came:
            self.records.append(None)
            self.came.notify_all()

    def wait_for(self, test, deadline_s=20.0):
        """The first record that passes `test` (a function, or the name of an event)."""
        wanted = test if callable(test) else lambda record: record["ev"] == test

        def found():
            return next((r for r in self.records if r is not None and wanted(r)), None)

        with self.came:
            came = self.came.wait_for(lambda: found() or None in self.records, deadline_s)
            assert came, f"no such record; had {self.records[-3:]}"
            record = found()
        assert record is not None, f"the program ended with {self.process.wait()}"
        return record

    def wait_count(self, event, count, deadline_s=20.0):
        """Until it has told `count` more records of that event."""

        def told():
            return sum(r is not None and r["ev"] == event for r in self.records)

        with self.came:
            wanted = told() + count
            came = self.came.wait_for(lambda: told() >= wanted or None in self.records, deadline_s)
            assert came, f"{told()} records {event}, waited for {wanted}"
            assert told() >= wanted, f"the program ended with {self.process.wait()}"

    def stop(self):
        """Ask it to stop; its records."""
        if self.process.poll() is None:
            self._say({"cmd": "stop"})
        return self.end()

    def end(self):
        self.process.stdin.close()
        self.reader.join(20)
        assert self.process.wait(20) is not None
        self.process.stdout.close()
        return [record for record in self.records if record is not None]


@pytest.fixture
def start():
    """`start(program, namespaces, logs={})` runs one program of a probe until the test ends."""
    running = []

    def begin(program, namespaces, logs=None):
        running.append(Running(program, namespaces, logs or {}))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


# ---- the embedded driver ------------------------------------------------------------------------


@pytest.fixture
def state_root(monkeypatch):
    """A state folder of this test's own; afterwards nothing may be left that came from it."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    root = Path("/run", f"railbreak-test-{os.getpid()}-{next(_numbers)}")
    root.mkdir()
    monkeypatch.setenv("RAILBREAK_STATE", str(root))
    yield root
    left = leftovers(root)
    subprocess.run(["rm", "-rf", str(root)], check=True)
    assert left == []


def leftovers(root):
    """Everything on this machine that stems from a state folder: files, mounts, processes."""
    found = [str(path) for path in root.iterdir()] if root.exists() else []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            seen = (process / "mountinfo").read_text() + (process / "cmdline").read_text()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # gone meanwhile, or a zombie
            continue
        if root.name in seen and state not in "ZX":
            found.append(f"process {process.name}")
    if root.name in Path("/proc/self/mountinfo").read_text():
        found.append("a mount in our own namespace")
    return found


@pytest.fixture
def left(state_root):
    """`left()` lists what there is of this test's fabrics right now."""
    return lambda: leftovers(state_root)


@pytest.fixture
def bring_up(state_root):
    """`async with bring_up(fabric) as driver`: up, ready unless told otherwise, down at the end."""

    @contextlib.asynccontextmanager
    async def begin(fabric, *, ready=True, deadline_s=60.0, **words):
        driver = await NetnsDriver.up(fabric, **words)
        try:
            if ready:
                await driver.wait_ready(deadline_s)
            yield driver
        finally:
            await driver.down()

    return begin


SQUARE_CONF = """frr defaults datacenter
hostname {name}
interface eth1
 no ipv6 nd suppress-ra
interface eth2
 no ipv6 nd suppress-ra
interface eth3
 ip address 10.7.{number}.1/24
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
 exit
exit
router bgp 6500{number}
 bgp router-id 10.7.255.{number}
 no bgp ebgp-requires-policy
 neighbor fab peer-group
 neighbor fab remote-as external
 neighbor fab timers 1 3
 neighbor fab timers connect 1
 neighbor fab bfd
 neighbor fab bfd profile fast
 neighbor eth1 interface peer-group fab
 neighbor eth2 interface peer-group fab
 address-family ipv4 unicast
  redistribute connected
  neighbor fab activate
 exit-address-family
exit
"""


@pytest.fixture
def square(tmp_path):
    """h1 -- r1 == two links == r2 -- h2: FRR with BGP unnumbered and BFD, each host behind one."""
    nodes = {}
    for number in (1, 2):
        name = f"r{number}"
        (tmp_path / f"{name}.conf").write_text(SQUARE_CONF.format(name=name, number=number))
        (tmp_path / "daemons").write_text("bgpd=yes\nbfdd=yes\nstaticd=no\n")
        binds = [f"{name}.conf:/etc/frr/frr.conf", "daemons:/etc/frr/daemons"]
        nodes[name] = Node(name, role="router", runs="frr", settings={"binds": binds})
        lines = [
            f"ip addr add 10.7.{number}.2/24 dev eth1",
            f"ip route add default via 10.7.{number}.1",
        ]
        nodes[f"h{number}"] = Node(f"h{number}", settings={"exec": lines})
    links = tuple(
        Link(_port(a), _port(b))
        for a, b in (
            ("r1:eth1", "r2:eth1"),
            ("r1:eth2", "r2:eth2"),
            ("h1:eth1", "r1:eth3"),
            ("h2:eth1", "r2:eth3"),
        )
    )
    return Fabric("square", nodes, links, source=str(tmp_path / "square.clab.yml"))
