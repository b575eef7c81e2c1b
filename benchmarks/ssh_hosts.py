"""Hosts with a real OpenSSH server each, in network namespaces of their own.

    here ──veth── mgmt0 h1 eth1 ══veth══ eth1 h2 mgmt0 ──veth── here        198.18/16, 198.19/16

Made by a process in namespaces of its own (`benchmarks.ssh_contest`), with which all of it ends:
network, servers, keys, and whatever was started on a host.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.ground import await_true, must
from benchmarks.ssh_witness import INDEX
from chaos import netlink
from chaos.errors import FabricError
from chaos.netlink import Netlink
from chaos.netns import CLONE_NEWNET, inside, mount, unshare

FOLDER = Path("/run/rbbench")
PORT = "eth1"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
_OURS = "198.18.0.1"
_MS_BIND = 0x1000
_UP_WITHIN_S = 60.0
_SERVER = f"""
Port 22
HostKey {FOLDER}/host
AuthorizedKeysFile {FOLDER}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
MaxStartups 100
"""


class Hosts:
    """Hosts h1, h2 … in pairs, a cable between the two of each; up, with servers that answer.

    Attributes:
        names: Of the hosts; the nth is known to the kernel here as namespace n, from 1.
        inventory: An Ansible inventory of them.
        cables: A table of the cables.
    """

    def __init__(self, count: int) -> None:
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self.inventory, self.cables = FOLDER / "hosts.yml", FOLDER / "links.csv"
        for folder in (FOLDER, Path("/run/netns"), Path("/run/sshd")):
            folder.mkdir(parents=True)
        # no two threads may be moved at once, so that one makes all
        inside("/proc/thread-self/ns/net", lambda: _namespaces(self.names))
        self._cable()
        self._serve()
        self._list()
        self._links: list[Netlink] = [inside(_path(one), Netlink.open) for one in self.names]

    def all(self, up: bool) -> None:
        """Set every host's link up or down from here, one after another, without SSH."""
        for at, link in enumerate(self._links):
            link.send(netlink.set_updown(INDEX[at % 2], up))

    def await_carrier(self) -> None:
        """Return when every link is up with carrier."""
        await_true(lambda: all(self._carriers()), "every link's carrier", _UP_WITHIN_S)

    def _carriers(self) -> Iterator[bool]:
        wanted = netlink.IFF_UP | netlink.IFF_LOWER_UP
        for at, link in enumerate(self._links):
            found = link.ask(netlink.RTM_GETLINK, netlink.ifinfo(INDEX[at % 2]))
            yield int.from_bytes(found.body[8:12], sys.byteorder) & wanted == wanted

    # ------------------------------------------------------------------ made once

    def _cable(self) -> None:
        lines = ["link set lo up", f"addr add {_OURS}/32 dev lo"]
        for number, name in enumerate(self.names, 1):
            # permanent neighbours: the kernel's table of learned ones is the whole machine's
            own = f"address {_mac(1, number)} type veth peer name mgmt0"
            lines += [
                f"netns set {name} {number}",
                f"link add m{number} {own} address {_mac(2, number)} netns {name}",
                f"link set m{number} up",
                f"route add {address(number)}/32 dev m{number} src {_OURS}",
                f"neigh add {address(number)} lladdr {_mac(2, number)} dev m{number} nud permanent",
            ]
        for one, other in zip(self.names[::2], self.names[1::2], strict=True):
            ends = [f"{PORT} index {index} netns" for index in INDEX]
            lines.append(f"link add {ends[0]} {one} type veth peer name {ends[1]} {other}")
        _batch(lines)
        for number, name in enumerate(self.names, 1):
            beside = (
                f"addr add {address(number)}/32 dev mgmt0",
                "link set lo up",
                "link set mgmt0 up",
                f"route add {_OURS}/32 dev mgmt0",
                f"neigh add {_OURS} lladdr {_mac(1, number)} dev mgmt0 nud permanent",
                f"addr add {address(number - 1, 19)}/31 dev {PORT}",
                f"link set {PORT} up",
            )
            _batch(beside, "-n", name)

    def _serve(self) -> None:
        if SSHD is None:
            raise FabricError("no sshd here: apt-get install openssh-server")
        for name in ("key", "host"):
            must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(FOLDER / name))
        config = FOLDER / "sshd_config"
        config.write_text(_SERVER)
        for name in self.names:
            log = str(FOLDER / "sshd.log")
            must("nsenter", f"--net={_path(name)}", SSHD, "-f", str(config), "-E", log)
        for number in range(1, len(self.names) + 1):
            await_true(lambda at=number: _knock(address(at)), "a server", _UP_WITHIN_S)

    def _list(self) -> None:
        kind, key = (FOLDER / "host.pub").read_text().split()[:2]
        every = range(1, len(self.names) + 1)
        known = "".join(f"{address(number)} {kind} {key}\n" for number in every)
        (FOLDER / "known_hosts").write_text(known)
        lines = [
            "all:",
            "  vars:",
            "    ansible_user: root",
            f"    ansible_ssh_common_args: -o UserKnownHostsFile={FOLDER}/known_hosts",
            f"    ansible_ssh_private_key_file: {FOLDER}/key",
            "  children:",
            "    hosts:",
            "      hosts:",
            *(f"        h{number}: {{ansible_host: {address(number)}}}" for number in every),
        ]
        self.inventory.write_text("\n".join(lines) + "\n")
        pairs = zip(self.names[::2], self.names[1::2], strict=True)
        rows = ["StartDevice,StartPort,EndDevice,EndPort"]
        rows += [f"{one},{PORT},{other},{PORT}" for one, other in pairs]
        self.cables.write_text("\n".join(rows) + "\n")


def address(number: int, second: int = 18) -> str:
    """Address of the nth host, in 198.18/16 or 198.19/16.

    Examples:
        >>> address(1), address(500)
        ('198.18.1.1', '198.18.2.244')
    """
    return f"198.{second}.{1 + number // 256}.{number % 256}"


def _mac(end: int, number: int) -> str:
    return f"02:00:{end:02x}:00:{number >> 8:02x}:{number & 255:02x}"


def _path(name: str) -> str:
    return f"/run/netns/{name}"


def _namespaces(names: Sequence[str]) -> None:
    """Empty network namespaces under names that `ip` knows; the calling thread is moved."""
    for name in names:
        unshare(CLONE_NEWNET)
        for which in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
        Path(_path(name)).touch()
        mount("/proc/thread-self/ns/net", _path(name), "", _MS_BIND)


def _batch(lines: Sequence[str], *flags: str) -> None:
    text = "\n".join(lines) + "\n"
    argv = ("ip", *flags, "-batch", "-")
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FabricError(f"{' '.join(argv)}: {done.stderr.strip()}")


def _knock(to: str) -> bool:
    try:
        with socket.create_connection((to, 22), 1):
            return True
    except OSError:
        return False
