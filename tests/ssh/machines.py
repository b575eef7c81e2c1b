"""Machines with real OpenSSH servers, made of namespaces: each its own network, mounts and pids.

    machines("h1", "r1", "h2") ──▶ Machines; `link` draws cables between them
                    mgmt (a bridge in a namespace of its own; the controller's side joins it)
                 ┌────────┼────────┐
                h1 ─eth1─ r1 ─eth2─ h2          198.18/16 management, 198.19/16 cables

A machine has its own /run and /tmp, a host key and one authorized key; nothing leads out of it. All
of it dies with the test process.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

from chaos.drivers.ssh.target import Target
from chaos.netns import inside, setns
from tests.ssh.box import CONFIG, INIT, ROOT, SSHD, Box
from tests.waiting import wait_until

_numbers = itertools.count()


def _run(*argv, **more):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def _answers(address):
    try:
        with socket.create_connection((address, 22), 1):
            return True
    except OSError:
        return False


class Machines:
    """A set of machines and the management network that reaches them."""

    def __init__(self, folder):
        self.folder = folder
        self.prefix = f"rbs{os.getpid()}n{next(_numbers)}"
        self.boxes = {}
        self.cables = []
        self.mgmt = f"/run/netns/{self.prefix}mgmt"
        self.key, self.known_hosts = folder / "key", folder / "known_hosts"
        self.addresses = {}
        self._made = []

    def __getitem__(self, name):
        return self.boxes[name]

    def up(self):
        self._keygen(self.key)
        shutil.copy(f"{self.key}.pub", self.folder / "authorized")
        self.known_hosts.write_text("")
        self._netns("mgmt")
        self.ip("mgmt", "link add br0 type bridge")
        self.ip("mgmt", "addr add 198.18.0.1/16 dev br0")
        self.ip("mgmt", "link set br0 up")
        return self

    def _keygen(self, path):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))

    def _netns(self, name):
        _run("ip", "netns", "add", self.prefix + name)
        self._made.append(self.prefix + name)
        self.ip(name, "link set lo up")

    def ip(self, name, command):
        _run("ip", "-n", self.prefix + name, *command.split())

    def add(self, *names, monotonic=None, run_size="", tmp_size="", setup="", more="", known=True):
        """Machines with an SSH server each.

        Args:
            names: Their names.
            monotonic: Seconds that their CLOCK_MONOTONIC is ahead of ours.
            run_size: Such as `64k`: how much fits into /run (and `tmp_size` /tmp).
            setup: Shell lines run as its init before the server starts.
            more: Lines of its sshd_config.
            known: Its host key goes into the file of known hosts.
        """
        for name in names:
            number = len(self.boxes) + 2
            address = f"198.18.{number // 250}.{number % 250 + 1}"
            self._netns(name)
            # an index of its own per port: the bridge end never has the machine's
            first = ("link", "add", "mgmt0", "netns", self.prefix + name, "type", "veth")
            _run("ip", *first, "peer", "name", f"m{number}", "netns", self.prefix + "mgmt")
            self.ip("mgmt", f"link set m{number} master br0 up")
            self.ip(name, f"addr add {address}/16 dev mgmt0")
            self.ip(name, "link set mgmt0 up")
            self._keygen(self.folder / f"host_{name}")
            public = (self.folder / f"host_{name}.pub").read_text().split()
            if known:
                with self.known_hosts.open("a") as file:
                    file.write(f"{address} {public[0]} {public[1]}\n")
            config = CONFIG.format(folder=self.folder, name=name, more=more)
            (self.folder / f"config_{name}").write_text(config)
            init = INIT.format(
                folder=self.folder,
                root=ROOT,
                name=name,
                sshd=SSHD,
                setup=setup,
                run_size=f",size={run_size}" if run_size else "",
                tmp_size=f",size={tmp_size}" if tmp_size else "",
            )
            clock = ("--time", f"--monotonic={monotonic}") if monotonic is not None else ()
            process = subprocess.Popen(
                (
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("nsenter", f"--net=/run/netns/{self.prefix}{name}", "unshare", "--mount"),
                    *("--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", *clock),
                    *("sh", "-c", init),
                ),
                stdin=subprocess.DEVNULL,
            )
            self.boxes[name] = Box(name, address, f"/run/netns/{self.prefix}{name}", process)
        for name in names:
            self._await_server(name)
        return self

    def _await_server(self, name):
        log = self.folder / f"log_{name}"
        wait_until(
            lambda: inside(self.mgmt, lambda: _answers(self[name].address)),
            lambda: f"a server on {name}: {log.read_text() if log.exists() else ''}",
        )

    def link(self, a, b, mtu=1500):
        """A cable `h1:eth1`, `r1:eth1`; addresses and routes are the caller's (`ip`)."""
        (x, xn), (y, yn) = a.split(":"), b.split(":")
        first = ("link", "add", xn, "netns", self.prefix + x, "type", "veth")
        _run("ip", *first, "peer", "name", yn, "netns", self.prefix + y)
        for node, port in ((x, xn), (y, yn)):
            self.ip(node, f"link set {port} mtu {mtu} up")
        self.cables.append((a, b))

    def star(self, hosts, router="r1"):
        """Every host on a port of one router; addresses and routes set; pings go through."""
        inside(
            f"/run/netns/{self.prefix}{router}",
            lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"),
        )
        for number, host in enumerate(hosts, 1):
            self.link(f"{host}:eth1", f"{router}:eth{number}")
            self.ip(host, f"addr add 198.19.{number}.2/24 dev eth1")
            self.ip(router, f"addr add 198.19.{number}.1/24 dev eth{number}")
            self.ip(host, f"route add 198.19.0.0/16 via 198.19.{number}.1")
            self.addresses[host] = f"198.19.{number}.2"
        return self

    def acquainted(self):
        """Ends of cables know each other for good: traffic that comes back waits for no look-up."""
        for pair in self.cables:
            for here, there in (pair, pair[::-1]):
                (node, port), (other, far) = here.split(":"), there.split(":")
                told = self[other].run("ip", "-4", "-o", "addr", "show", "dev", far).split()
                mac = self[other].run("cat", f"/sys/class/net/{far}/address").strip()
                address = told[told.index("inet") + 1].partition("/")[0]
                words = f"neigh replace {address} lladdr {mac} dev {port} nud permanent"
                self.ip(node, words)
        return self

    def target(self, name, **more):
        """How a machine is reached."""
        given = {"user": "root", "key_file": str(self.key), "known_hosts": str(self.known_hosts)}
        return Target(name, self[name].address, **(given | more))

    def targets(self, **more):
        return [self.target(name, **more) for name in self.boxes]

    def inventory(self, names=None, *, routers=("r1",), extra=""):
        """An Ansible inventory of them and a table of the cables; both paths."""
        args = f"-o UserKnownHostsFile={self.known_hosts}"
        lines = [
            "all:",
            "  vars:",
            "    ansible_user: root",
            f"    ansible_ssh_common_args: {args}",
        ]
        lines += [f"    ansible_ssh_private_key_file: {self.key}", "  children:"]
        names = list(self.boxes if names is None else names)
        for group, members in (
            ("hosts", [one for one in names if one not in routers]),
            ("routers", [one for one in names if one in routers]),
        ):
            lines += [f"    {group}:", "      hosts:"] if members else []
            for name in members:
                lines.append(f"        {name}: {{ansible_host: {self[name].address}}}")
        hosts = self.folder / "hosts.yml"
        hosts.write_text("\n".join(lines) + "\n" + extra)
        table = self.folder / "links.csv"
        rows = [",".join((*a.split(":"), *b.split(":"))) for a, b in self.cables]
        table.write_text("\n".join(("StartDevice,StartPort,EndDevice,EndPort", *rows)) + "\n")
        return hosts, table

    def blackhole(self, *names):
        """Lose every packet of the management network to and from machines; returns the undo."""
        table = "inet blackhole"
        chosen = ", ".join(self[name].address for name in names)
        rules = "\n".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; ip {word} {{ {chosen} }} drop; }}"
            for hook, word in (("input", "saddr"), ("output", "daddr"))
        )
        argv = ("nsenter", f"--net={self.mgmt}", "nft")
        _run(*argv, f"table {table} {{\n{rules}\n}}")
        return lambda: _run(*argv, f"delete table {table}")

    def control(self, work, deadline_s=120.0):
        """Run a coroutine function on the controller's side (in the management namespace)."""
        result, failure = [], []

        async def limited():
            async with asyncio.timeout(deadline_s):
                return await work()

        def body():
            fd = os.open(self.mgmt, os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd)
                result.append(asyncio.run(limited()))
            except BaseException as error:
                failure.append(error)
            finally:
                os.close(fd)

        thread = threading.Thread(target=body, name="controller")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def python(self, *argv, **more):
        """A Python of ours as a process on the controller's side."""
        return subprocess.Popen(("nsenter", f"--net={self.mgmt}", sys.executable, *argv), **more)

    def left(self):
        """What of ours is on any machine."""
        return [sentence for box in self.boxes.values() for sentence in box.left()]

    def await_clean(self, deadline_s=60):
        """Until nothing of ours is on any machine."""
        wait_until(
            lambda: not self.left(), lambda: f"nothing to be left: {self.left()[:5]}", deadline_s
        )

    def down(self):
        for box in self.boxes.values():
            with contextlib.suppress(ProcessLookupError):
                box.process.kill()
        for box in self.boxes.values():
            box.process.wait()
        for name in reversed(self._made):
            subprocess.run(("ip", "netns", "del", name), check=False)
