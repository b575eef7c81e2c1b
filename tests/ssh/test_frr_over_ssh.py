"""Hands on a real switch that runs Linux and FRR, through a real OpenSSH server in its node.

The fabric is the embedded one. The root namespace gets one link of our own into the router
(198.18.0.0/15, nothing is forwarded), and on it listens an sshd with keys made for this test.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chaos import journal as book
from chaos.change import BgpNeighbour, LinkState, PacketDrop, Place
from chaos.drivers.netns import NetnsDriver
from chaos.drivers.ssh.console import Console
from chaos.drivers.ssh.switch import SwitchHands, take_back
from chaos.drivers.ssh.target import Target
from chaos.errors import BlockedError, FabricError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.nos import platform
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = [
    pytest.mark.ssh,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
    pytest.mark.skipif(not Path(SSHD).exists(), reason="no sshd (apt-get install openssh-server)"),
    pytest.mark.skipif(shutil.which("vtysh") is None, reason="no vtysh (apt-get install frr)"),
]

ROUTER = """frr defaults datacenter
hostname r{n}
interface eth1
 no ipv6 nd suppress-ra
interface eth2
 ip address 10.7.12.{n}/24
interface eth3
 ip address 10.7.{n}.1/24
router bgp 6500{n}
 bgp router-id 10.7.255.{n}
 no bgp ebgp-requires-policy
 neighbor eth1 interface remote-as external
 neighbor 10.7.12.{m} remote-as external
 address-family ipv4 unicast
  redistribute connected
 exit-address-family
exit
"""

_numbers = itertools.count(os.getpid() % 200 * 40)


def run(*argv, **words):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **words)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stderr}"
    return done.stdout


class Lab:
    """A running fabric, and how r1 is reached."""

    def __init__(self, driver, target, link):
        self.driver, self.target, self.link = driver, target, link

    async def at(self, node, *argv):
        done = await self.driver.exec(node, argv)
        return done.stdout.decode()

    async def up(self, port):
        told = json.loads(await self.at("r1", "ip", "-j", "link", "show", "dev", port))
        return "UP" in told[0]["flags"]

    async def peers(self):
        told = json.loads(await self.at("r1", "vtysh", "-c", "show bgp summary json"))
        return {name: one["state"] for name, one in told["ipv4Unicast"]["peers"].items()}

    async def until(self, wanted, within_s=20.0):
        """Poll until an async condition holds; how long it took."""
        begun = time.monotonic()
        while not await wanted():
            assert time.monotonic() - begun < within_s, "it never came to be"
            await asyncio.sleep(0.05)
        return time.monotonic() - begun


@contextlib.asynccontextmanager
async def lab(folder, monkeypatch, user="root"):
    """h1 -- r1 == two links == r2 -- h2, an sshd in r1, and our link to it."""
    number = next(_numbers) % 16000
    instance = f"sw{os.getpid()}x{number}"
    monkeypatch.setenv("RAILBREAK_STATE", str(folder / "state"))
    nodes, links = {}, []
    for n, m in ((1, 2), (2, 1)):
        (folder / f"r{n}.conf").write_text(ROUTER.format(n=n, m=m))
        (folder / "daemons").write_text("bgpd=yes\nstaticd=no\n")
        binds = [f"r{n}.conf:/etc/frr/frr.conf", "daemons:/etc/frr/daemons"]
        nodes[f"r{n}"] = Node(f"r{n}", role="router", runs="frr", settings={"binds": binds})
        lines = [f"ip addr add 10.7.{n}.2/24 dev eth1", f"ip route add default via 10.7.{n}.1"]
        nodes[f"h{n}"] = Node(f"h{n}", settings={"exec": lines})
        links.append(Link(Port(f"h{n}", "eth1"), Port(f"r{n}", "eth3")))
    links += [Link(Port("r1", f"eth{at}"), Port("r2", f"eth{at}")) for at in (1, 2)]
    fabric = Fabric(instance, nodes, tuple(links), source=str(folder / "square.clab.yml"))
    driver = await NetnsDriver.up(fabric)
    try:
        await driver.wait_ready(90)
        base = number * 4
        ours, theirs = (f"198.18.{(base + one) // 256}.{(base + one) % 256}" for one in (1, 2))
        link = f"rbsw{number}"
        inside = ("nsenter", f"--net={driver.namespaces()['r1']}", "ip")
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "mgmt")
        try:
            run("ip", "link", "set", "mgmt", "netns", driver.namespaces()["r1"])
            run("ip", "address", "add", f"{ours}/30", "dev", link)
            run("ip", "link", "set", link, "up")
            run(*inside, "address", "add", f"{theirs}/30", "dev", "mgmt")
            run(*inside, "link", "set", "mgmt", "up")
            yield Lab(driver, await _sshd(driver, folder, theirs, user), link)
        finally:
            run("ip", "link", "del", link)
    finally:
        await driver.down()


async def _sshd(driver, folder, address, user):
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name)
    shutil.copy(keys / "user.pub", keys / "authorized_keys")
    (keys / "sshd_config").write_text(
        textwrap.dedent(
            f"""\
            Port 2022
            ListenAddress {address}
            HostKey {keys}/host
            AuthorizedKeysFile {keys}/authorized_keys
            PidFile {keys}/sshd.pid
            UsePAM no
            StrictModes no
            PermitRootLogin prohibit-password
            PasswordAuthentication no
            PrintMotd no
            """
        )
    )
    run("mkdir", "-p", "/run/sshd")
    await driver.exec("r1", ("mkdir", "-p", "/run/sshd"))
    argv = (SSHD, "-f", str(keys / "sshd_config"), "-E", str(keys / "sshd.log"))
    done = await driver.exec("r1", argv)
    assert done.code == 0, done.stderr
    public = (keys / "host.pub").read_text().split()
    (keys / "known_hosts").write_text(f"[{address}]:2022 {public[0]} {public[1]}\n")
    return Target(
        name="r1",
        address=address,
        port=2022,
        user=user,
        key_file=str(keys / "user"),
        known_hosts=str(keys / "known_hosts"),
        ssh_config="/dev/null",
        platform="frr",
    )


def scenario(test):
    """An async test, run."""

    def wrapped(tmp_path, monkeypatch):
        async def whole():
            async with lab(tmp_path, monkeypatch) as made:
                await test(made, tmp_path)

        asyncio.run(whole())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


async def armed(made, folder, *changes, life="30 s", lease_s=10.0, **words):
    return await SwitchHands.arm(
        changes,
        {"r1": made.target},
        journal=folder / "journal.jsonl",
        max_life=Duration.parse(life),
        lease_s=lease_s,
        **words,
    )


SECOND = 1_000_000_000


@scenario
async def test_a_port_goes_down_and_comes_back_with_what_the_kernel_forgot(made, folder):
    """Admin down, seen by another way; afterwards its address and a route set by hand are back."""
    ip = ("ip", "-6", "address", "add", "2001:db8::1/64", "dev", "eth2")
    await made.at("r1", *ip)
    await made.at("r1", "ip", "route", "add", "192.0.2.0/24", "via", "10.7.12.2", "dev", "eth2")
    hands = await armed(made, folder, LinkState(Place("r1", "eth2")))
    async with hands:
        assert await made.up("eth2")
        await hands.start(now_ns() + SECOND, [InForce(0, 2 * SECOND)])
        await made.until(lambda: _not(made.up("eth2")))
        await hands.wait()
        proof = await hands.heal()
    assert proof.in_force, proof
    assert proof.taken_back, proof
    assert proof.trouble == ()
    assert [one.kind for one in proof.actions] == ["do", "undo"]
    assert proof.changes[0].hit >= 1  # the carrier changed
    assert await made.up("eth2")
    assert "2001:db8::1" in await made.at("r1", "ip", "-6", "address", "show", "dev", "eth2")
    assert "192.0.2.0/24" in await made.at("r1", "ip", "route")
    assert book.open_changes(folder / "journal.jsonl") == ()
    history = book.read(folder / "journal.jsonl")[0].history
    assert history == ("intended", "in_force", "acted", "taken_back")
    assert await made.at("r1", "ls", "/run/railbreak-switch") == ""


async def _not(coming):
    return not await coming


@scenario
async def test_a_bgp_neighbour_is_shut_and_comes_back(made, folder):
    """By interface (unnumbered) and by address, both at once, twice."""
    changes = [BgpNeighbour(Place("r1"), "eth1"), BgpNeighbour(Place("r1"), "10.7.12.2")]
    hands = await armed(made, folder, *changes, life="60 s")
    async with hands:
        spans = [InForce(0, 2 * SECOND), InForce(4 * SECOND, 6 * SECOND)]
        await hands.start(now_ns() + SECOND, spans)

        async def shut():
            return set((await made.peers()).values()) == {"Idle (Admin)"}

        await made.until(shut)
        await hands.wait()
        proof = await hands.heal()
    assert proof.in_force, proof
    assert proof.taken_back, proof
    assert len(proof.actions) == 8

    async def established():
        return set((await made.peers()).values()) == {"Established"}

    await made.until(established, 60)


@scenario
async def test_roce_of_one_flow_is_dropped_and_counted_exactly(made, folder):
    """40 datagrams of one flow to port 4791 are lost at r1's port, another flow passes."""
    match = "ip saddr 10.7.1.2 udp dport 4791"
    change = PacketDrop(Place("r1", "eth3"), "railbreak_acl_r1_0000abcd", match)
    receive = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',int(sys.argv[1])))\n"
        "s.settimeout(4);n=0\n"
        "try:\n"
        "  while True: s.recv(99);n+=1\n"
        "except TimeoutError: print(n)\n"
    )
    send = (
        "import socket,time\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "for port in (4791,4792):\n"
        "  for n in range(40): s.sendto(b'x',('10.7.2.2',port));time.sleep(0.002)\n"
    )
    hands = await armed(made, folder, change)
    async with hands:
        await hands.start(now_ns() + SECOND // 2, [InForce(0, 6 * SECOND)])
        gets = [
            asyncio.create_task(made.at("h2", sys.executable, "-c", receive, port))
            for port in ("4791", "4792")
        ]

        async def ready():
            bound = await made.at("h2", "ss", "-Hlun")
            return bool(hands.actions) and ":4791 " in bound and ":4792 " in bound

        await made.until(ready)
        await made.at("h1", sys.executable, "-c", send)
        assert (await hands.hits())[0].hit == 40
        got = [int(await one) for one in gets]
        await hands.wait()
        proof = await hands.heal()
    assert got == [0, 40]
    assert (proof.changes[0].seen, proof.changes[0].hit) == (40, 40)
    assert proof.taken_back
    assert "railbreak" not in await made.at("r1", "nft", "list", "tables")


CONTROLLER = """
import asyncio, json, sys
from pathlib import Path
from chaos.change import BgpNeighbour, LinkState, Place
from chaos.drivers.ssh.switch import SwitchHands
from chaos.drivers.ssh.target import Target
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

async def main():
    target = Target.from_json(json.loads(sys.argv[1]))
    changes = [LinkState(Place("r1", "eth2")), BgpNeighbour(Place("r1"), "eth1")]
    hands = await SwitchHands.arm(changes, {"r1": target}, journal=Path(sys.argv[2]),
                                  max_life=Duration.parse("20 s"), lease_s=float(sys.argv[3]))
    await hands.start(now_ns(), [InForce(0, 19_000_000_000)])
    while len(hands.actions) < 2:
        await asyncio.sleep(0.01)
    print("in force", flush=True)
    await hands.wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def controller(made, folder, lease_s=4):
    """Another process that holds a port down and a neighbour shut."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CONTROLLER,
        json.dumps(made.target.to_json()),
        str(folder / "journal.jsonl"),
        str(lease_s),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert (await process.stdout.readline()).strip() == b"in force"
        assert not await made.up("eth2")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def healed(made):
    return await made.up("eth2") and (await made.peers())["eth1"] != "Idle (Admin)"


@scenario
async def test_the_switch_heals_itself_when_its_controller_is_killed(made, folder):
    """SIGKILL: the switch takes everything back within the maximum life, and says so later."""
    async with controller(made, folder) as process:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        took = await made.until(lambda: healed(made))
    assert took < 20  # the maximum life
    entries = book.open_changes(folder / "journal.jsonl")
    assert len(entries) == 2
    for entry in reversed(entries):
        undone = take_back(entry, lambda host: opened(made.target))
        assert undone.outcome == "taken_back", undone
        assert "itself" in undone.reason
    assert await made.at("r1", "ls", "/run/railbreak-switch") == ""


def opened(target):
    console = Console(target, platform(target.platform))
    console.open()
    return console


@scenario
async def test_the_switch_heals_itself_when_the_path_to_it_is_a_black_hole(made, folder):
    """Nothing of SSH arrives any more, nothing is refused either; the controller lives on."""
    hole = "table netdev railbreak_hole"
    chain = f"{{ chain c {{ type filter hook ingress device {made.link} priority 0; drop; }}; }}"
    async with controller(made, folder):
        run("nft", f"{hole} {chain}")
        try:
            took = await made.until(lambda: healed(made))
        finally:
            run("nft", f"delete {hole}")
    assert took < 20


@scenario
async def test_a_crash_is_taken_back_from_the_journal(made, folder):
    """Before the dead-man would act: port and neighbour come back, and the dead-man is gone."""
    async with controller(made, folder, lease_s=18) as process:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        for entry in reversed(book.open_changes(folder / "journal.jsonl")):
            undone = take_back(entry, lambda host: opened(made.target))
            assert (undone.outcome, undone.reason) == ("taken_back", "taken back")
        assert await healed(made)
    assert await made.at("r1", "ls", "/run/railbreak-switch") == ""


@scenario
async def test_misuse_is_blocked_with_one_sentence_and_leaves_nothing(made, folder):
    """Wrong host key, unknown user, nobody there, no such port or neighbour, down already."""
    good, port = made.target, LinkState(Place("r1", "eth2"))
    wrong = folder / "wrong"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "other")
    other = (folder / "other.pub").read_text().split()
    wrong.write_text(f"[{good.address}]:2022 {other[0]} {other[1]}\n")
    (folder / "empty").write_text("")
    cases = [
        (replace(good, known_hosts=str(wrong)), port, FabricError, "is not the one that is known"),
        (replace(good, known_hosts=str(folder / "empty")), port, FabricError, "is not known"),
        (replace(good, key_file=str(folder / "other")), port, FabricError, "refused the login"),
        (replace(good, port=2023), port, FabricError, "cannot be reached on port 2023"),
        (good, LinkState(Place("r1", "eth9")), FabricError, "eth9"),
        (good, BgpNeighbour(Place("r1"), "10.0.0.9"), FabricError, "it has 10.7.12.2, eth1"),
    ]
    for target, change, kind, words in cases:
        made.target = target
        with pytest.raises(kind, match=words) as caught:
            await armed(made, folder, change, connect_s=5)
        assert "\n" not in str(caught.value)
    made.target = good
    await made.at("r1", "ip", "link", "set", "eth2", "down")
    with pytest.raises(BlockedError, match="is so already"):
        await armed(made, folder, port)
    await made.at("r1", "ip", "link", "set", "eth2", "up")
    assert await made.at("r1", "ls", "-A", "/run/railbreak-switch") in ("",)
    assert not (folder / "journal.jsonl").exists() or book.read(folder / "journal.jsonl") == ()


@scenario
async def test_somebody_elses_undo_is_told(made, folder):
    """A port set up by hand while it should be down is trouble in the proof."""
    hands = await armed(made, folder, LinkState(Place("r1", "eth2")))
    async with hands:
        await hands.start(now_ns(), [InForce(0, 4 * SECOND)])
        await made.until(lambda: _not(made.up("eth2")))
        await asyncio.sleep(0.5)
        await made.at("r1", "ip", "link", "set", "eth2", "up")
        await hands.wait()
        proof = await hands.heal()
    assert any("somebody else undid it" in one for one in proof.trouble), proof
    assert proof.taken_back
