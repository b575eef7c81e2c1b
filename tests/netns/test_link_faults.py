"""Faults of links and NICs on two real hosts: what they see while it lasts, and that it is gone."""

import asyncio
import contextlib
import json
import socket
import subprocess
import time
from dataclasses import replace

import pytest

from chaos import native, snapshot, topology
from chaos.errors import BlockedError
from chaos.hands import Hands
from chaos.netns import inside
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Bitrate, Duration, Size
from faults.dirty_optic import DirtyOptic, lost_share
from faults.link_slow import LinkSlow
from faults.mtu_mismatch import MtuMismatch
from faults.nic_kill import NicKill
from faults.plane_down import PlaneDown
from faults.rail_down import RailDown
from faults.rendezvous_loss import RendezvousLoss
from faults.tiny_buffers import TinyBuffers
from faults.wires_swapped import WiresSwapped
from tests.waiting import until

pytestmark = pytest.mark.netns

CABLE = "h1:eth1--h2:eth1"


class Broken:
    """A fault in force for the body of a `with`, by the native messages."""

    def __init__(self, two_hosts, fault, wheres=None):
        changes = fault.changes(two_hosts.fabric)
        wheres = wheres or two_hosts.wheres(changes)
        self.made = [native.build(change, wheres[change.place]) for change in changes]

    def __enter__(self):
        for one in self.made:
            one.do()
            assert one.in_force()
        return self

    def hits(self):
        return [one.hits().hit for one in self.made]

    def __exit__(self, *exc):
        for one in reversed(self.made):
            assert one.undo() == ()
            assert not one.in_force()
            one.close()


class Door:
    """A UDP socket of a host at the first cable; `arrived` counts what comes to it."""

    def __init__(self, two_hosts, node, port=4791):
        kind = socket.SOCK_DGRAM
        self.sock = inside(two_hosts.path(node), lambda: socket.socket(socket.AF_INET, kind))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        self.sock.bind((f"10.0.0.{node[-1]}", port))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, target, size, count=1, pause_s=0.0):
        for _ in range(count):
            self.sock.sendto(bytes(size), (f"10.0.0.{target[-1]}", 4791))
            if pause_s:
                time.sleep(pause_s)  # the pace is what is asked

    def arrived(self, quiet_s=0.2):
        found = 0
        self.sock.settimeout(quiet_s)
        try:
            while self.sock.recv(1 << 16):
                found += 1
        except TimeoutError:
            return found


def crossed(two_hosts, source, size, count=1, pause_s=0.0):
    """How many datagrams of a size arrived at the other host."""
    target = "h2" if source == "h1" else "h1"
    with Door(two_hosts, source) as sender, Door(two_hosts, target) as receiver:
        sender.send(target, size, count, pause_s)
        return receiver.arrived()


def undiminished(two_hosts, before):
    return asyncio.run(snapshot.settle(two_hosts.namespaces, before, 5.0))


# ---- MTU ----------------------------------------------------------------------------------------


def test_what_is_longer_than_one_ends_mtu_vanishes_on_its_way_there(two_hosts):
    """Nobody is told: the sender's own MTU allows it. The other way it is cut, and arrives."""
    assert two_hosts.ping() == 3
    with Broken(two_hosts, MtuMismatch(CABLE, "h1", Size(1400))) as broken:
        assert two_hosts.ping() == 3
        assert crossed(two_hosts, "h2", 1300, 5) == 5
        before = broken.hits()[0]
        assert crossed(two_hosts, "h2", 1450, 5) == 0
        assert broken.hits()[0] - before == 5
        assert crossed(two_hosts, "h1", 1450, 5) == 5, "cut in two, put together over there"
        assert broken.hits()[0] - before == 10
    assert crossed(two_hosts, "h2", 1450, 5) == 5


def settings(two_hosts, *keys):
    return two_hosts.run("h1", "sysctl", "-n", *keys).split()


def test_below_1280_ipv6_goes_and_comes_back_with_its_settings(two_hosts):
    """Per interface settings are what no snapshot compares."""
    keys = ("net.ipv6.conf.eth1.hop_limit", "net.ipv6.neigh.eth1.base_reachable_time_ms")
    for key, value in zip(keys, ("77", "31000"), strict=True):
        two_hosts.run("h1", "sysctl", "-qw", f"{key}={value}")
    two_hosts.run("h1", "ip", "-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:0::2")
    two_hosts.run("h1", "ip", "-6", "addr", "add", "2001:db8:0::7/64", "dev", "eth1")
    before = snapshot.take(two_hosts.namespaces)

    with Broken(two_hosts, MtuMismatch(CABLE, "h1", Size(1279))):
        assert two_hosts.run("h1", "ip", "-6", "addr", "show", "dev", "eth1") == ""
        assert two_hosts.ping() == 3, "IPv4 is untouched"

    assert undiminished(two_hosts, before) == ()
    assert settings(two_hosts, *keys) == ["77", "31000"]


def test_an_mtu_that_somebody_else_set_meanwhile_is_theirs(two_hosts):
    (change,) = MtuMismatch(CABLE, "h1", Size(1400)).changes(two_hosts.fabric)
    made = native.build(change, two_hosts.resolve(change.place))
    made.do()
    two_hosts.run("h1", "ip", "link", "set", "eth1", "mtu", "1350")

    assert made.undo() == ()
    made.close()

    assert "mtu 1350 " in two_hosts.run("h1", "ip", "link", "show", "eth1")


def test_a_route_whose_mtu_would_be_lost_is_refused(two_hosts):
    add = "-6 route add 2001:db8:9::/48 via 2001:db8:0::2"
    two_hosts.run("h1", "ip", *add.split(), "mtu", "1450")
    (change,) = MtuMismatch(CABLE, "h1", Size(1400)).changes(two_hosts.fabric)
    with pytest.raises(BlockedError, match=r"route 2001:db8:9::/48 has an MTU of its own"):
        native.build(change, two_hosts.resolve(change.place))

    two_hosts.run("h1", "ip", *add.replace("add", "replace").split(), "mtu", "lock", "1450")
    with Broken(two_hosts, MtuMismatch(CABLE, "h1", Size(1400))):
        pass
    assert "mtu lock 1450" in two_hosts.run("h1", "ip", "-6", "route", "show", "2001:db8:9::/48")


# ---- rates and queues ---------------------------------------------------------------------------


def carried_s(two_hosts, source, size=1 << 20):
    """Seconds that a TCP transfer of so many bytes takes."""
    target = "h2" if source == "h1" else "h1"
    server = inside(two_hosts.path(target), lambda: socket.create_server(("", 5000)))
    with server, inside(two_hosts.path(source), socket.socket) as client:
        client.connect((f"10.0.0.{target[-1]}", 5000))
        taken, _ = server.accept()
        with taken:
            begun = time.monotonic()
            client.setblocking(False)
            taken.setblocking(False)
            sent = got = 0
            while got < size:
                with contextlib.suppress(BlockingIOError):
                    sent += client.send(bytes(min(1 << 16, size - sent))) if sent < size else 0
                try:
                    got += len(taken.recv(1 << 20))
                except BlockingIOError:
                    time.sleep(0.0005)  # nothing there yet
            return time.monotonic() - begun


def test_a_slow_link_takes_its_time_in_one_direction_and_says_nothing(two_hosts):
    assert two_hosts.ping() == 3
    slow = LinkSlow(CABLE, Bitrate(10**7), "h1", Size(16_000))
    assert carried_s(two_hosts, "h1") < 0.5
    with Broken(two_hosts, slow) as broken:
        took_s = carried_s(two_hosts, "h1")
        assert took_s > 0.75, "1 MiB at 10 Mbit/s, less what goes at once, is 0.8 s"
        assert carried_s(two_hosts, "h2") < 0.5
        assert two_hosts.ping() == 3
        assert broken.hits()[0] > 100
        links = two_hosts.run("h1", "ip", "link") + two_hosts.run("h2", "ip", "link")
        assert "tbf" not in links, "no node has a queue of ours"
    assert carried_s(two_hosts, "h1") < 0.5


def test_a_tiny_buffer_cuts_bursts_and_lets_a_paced_flow_pass(two_hosts):
    """The link's largest packet is 9500 bytes, so two of them are 13 datagrams."""
    assert two_hosts.ping() == 3
    tiny = TinyBuffers(CABLE, Bitrate(10**7), "h1")
    assert crossed(two_hosts, "h1", 1400, 100) == 100
    with Broken(two_hosts, tiny) as broken:
        assert 10 <= crossed(two_hosts, "h1", 1400, 100) <= 40
        assert broken.hits()[0] >= 60
        assert crossed(two_hosts, "h1", 1400, 50, pause_s=0.003) == 50
        assert crossed(two_hosts, "h2", 1400, 100) == 100
    assert crossed(two_hosts, "h1", 1400, 100) == 100


def test_a_queue_that_is_somebodys_is_refused_and_stands(two_hosts):
    add = ("tc", "qdisc", "add", "dev", "w0b", "root", "handle", "1:")
    two_hosts.run("wire", *add, "pfifo", "limit", "77")
    (change,) = LinkSlow(CABLE, Bitrate(10**7), "h1").changes(two_hosts.fabric)
    where = two_hosts.resolve(change.place)
    with pytest.raises(BlockedError, match=r"the root of w0b is a pfifo \(1:\) that is not ours"):
        native.build(change, where)

    later = native.build(change, where, {})  # as recovery does
    assert later.undo() == ()
    later.close()
    undo = change.steps(where).undo[0]
    subprocess.run(("nsenter", f"--net={where.netns}", *undo), check=True)
    assert "pfifo 1: root" in two_hosts.run("wire", "tc", "qdisc", "show", "dev", "w0b")


def test_a_slow_link_that_is_slow_already_is_refused(two_hosts):
    (change,) = LinkSlow(CABLE, Bitrate(10**7), "h1").changes(two_hosts.fabric)
    slow, twice = LinkSlow(CABLE, Bitrate(10**7), "h1"), "shaped by us already"
    with Broken(two_hosts, slow), pytest.raises(BlockedError, match=twice):
        native.build(change, two_hosts.resolve(change.place))


# ---- optics -------------------------------------------------------------------------------------


def test_a_dirty_optic_loses_long_packets_by_the_formula_and_spares_short_ones(two_hosts):
    """Ten thousand are a whole period of the pattern, so the count is exact, not likely."""
    assert two_hosts.ping() == 3
    fault = DirtyOptic(CABLE, 1e-5, "h1")
    for size, typical, spare in ((1400, 1500, 0), (60, 128, 2)):  # ARP may be among the short
        expected = round(lost_share(1e-5, typical) * 1e4)
        with Broken(two_hosts, fault):
            arrived = counted(two_hosts, size, 10_000)
        assert abs(10_000 - arrived - expected) <= spare, (size, expected)


def counted(two_hosts, size, count):
    """As `crossed`, in portions that no buffer has to hold."""
    with Door(two_hosts, "h1") as sender, Door(two_hosts, "h2") as receiver:
        found = 0
        for _ in range(0, count, 500):
            sender.send("h2", size, 500)
            found += receiver.arrived(0.05)
        return found


# ---- NICs, rails, planes, cables ----------------------------------------------------------------

EVERY = {f"{node}:{port}" for node in ("h1", "h2") for port in ("eth1", "eth2")}


def dark(two_hosts):
    """Ports without a carrier, once they stand still."""
    found = set()
    for node in ("h1", "h2"):
        for told in json.loads(two_hosts.run(node, "ip", "-j", "link")):
            if told["ifname"] != "lo" and not {"UP", "LOWER_UP"} <= {*told["flags"]}:
                found.add(f"{node}:{told['ifname']}")
    return found


@pytest.mark.parametrize(
    ("fault", "gone"),
    [
        (NicKill("h1"), EVERY),
        (NicKill("h1", ("eth2",)), {"h1:eth2", "h2:eth2"}),
        (NicKill("h1", ("eth2",), "admin"), {"h1:eth2", "h2:eth2"}),
        (RailDown(CABLE), {"h1:eth1", "h2:eth1"}),
        (PlaneDown("h1:eth2"), {"h1:eth2", "h2:eth2"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_ports_that_go_dark_are_those_that_are_meant(two_hosts, fault, gone):
    before = snapshot.take(two_hosts.namespaces)
    with Broken(two_hosts, fault):
        assert dark(two_hosts) == gone
    assert undiminished(two_hosts, before) == ()


def test_a_silent_rail_shows_nothing_and_carries_nothing(two_hosts):
    assert two_hosts.ping() == 3
    with Broken(two_hosts, RailDown(CABLE, "silent")):
        assert dark(two_hosts) == set()
        assert two_hosts.ping() == 0
    assert two_hosts.ping() == 3


def connects(two_hosts, port):
    server = inside(two_hosts.path("h2"), lambda: socket.create_server(("", port)))
    with server, inside(two_hosts.path("h1"), socket.socket) as client:
        client.settimeout(0.4)
        try:
            client.connect(("10.0.0.2", port))
        except TimeoutError:
            return False
        return True


def test_a_store_that_is_cut_off_answers_nobody_and_the_rest_of_its_host_does(two_hosts):
    """Neither way: what is sent to it, and what it still has to say on a connection that stands."""
    assert two_hosts.ping() == 3
    server = inside(two_hosts.path("h2"), lambda: socket.create_server(("", 29500)))
    with server, inside(two_hosts.path("h1"), socket.socket) as client:
        client.connect(("10.0.0.2", 29500))
        taken, _ = server.accept()
        with taken, Broken(two_hosts, RendezvousLoss("h2")) as broken:
            answers, asked = broken.hits()[:2]
            taken.send(b"a key")
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(16)
            assert broken.hits()[0] > answers
            client.send(b"a key?")
            assert broken.hits()[1] > asked
            assert connects(two_hosts, 29501)
        client.settimeout(5)
        assert client.recv(16) == b"a key", "its retransmission comes when all is healed"
    assert connects(two_hosts, 29500)


def received(two_hosts, *ports):
    """Packets that arrived at ports of h2."""
    told = json.loads(two_hosts.run("h2", "ip", "-s", "-j", "link"))
    count = {one["ifname"]: one["stats64"]["rx"]["packets"] for one in told}
    return [count[port] for port in ports]


def test_exchanged_cables_end_at_each_others_ports(two_hosts):
    """h1's first port talks to h2's second; no interface shows it."""
    fault = WiresSwapped(CABLE, "h1:eth2--h2:eth2")
    changes = fault.changes(two_hosts.fabric)
    wheres = {}
    for change in changes:
        node, _, port = change.to.partition(":")
        facing = two_hosts.resolve(replace(change.place, node=node, port=port))
        wheres[change.place] = replace(two_hosts.resolve(change.place), across=facing.ifname)
    assert two_hosts.ping() == 3
    many, before = ("-c", "20", "-i", "0.01", "-W", "0.3"), snapshot.take(two_hosts.namespaces)
    with Broken(two_hosts, fault, wheres) as broken:
        first = received(two_hosts, "eth1", "eth2")
        two_hosts.ping(*many)
        now = received(two_hosts, "eth1", "eth2")
        assert dark(two_hosts) == set()
        assert now[0] - first[0] < 10, "what the other cable brings by itself is a few at most"
        assert now[1] - first[1] >= 20
        assert sum(broken.hits()) >= 20
    assert undiminished(two_hosts, before) == ()
    first = received(two_hosts, "eth1")
    assert two_hosts.ping(*many) == 20
    assert received(two_hosts, "eth1")[0] - first[0] >= 20


def test_a_host_plugged_into_another_ones_port_reaches_nobody(bring_up):
    """On a fabric that the driver built, from arming to healing."""
    fabric = topology.load("pair")

    async def reaches(driver):
        done = await driver.exec("host1", ("ping", "-c", "2", "-i", "0.1", "-W", "0.5", "host2"))
        return done.code == 0

    async def scenario():
        async with bring_up(fabric) as driver:
            assert await reaches(driver)
            hands = await driver.arm(
                WiresSwapped("host1--router1", "host2--router1").changes(fabric),
                journal=driver.folder / "journal.jsonl",
                max_life=Duration.parse("20 s"),
                log_dir=driver.folder,
            )
            assert isinstance(hands, Hands)
            await hands.start(now_ns(), [InForce(0, 10_000_000_000)])
            await until(lambda: len(hands.actions) == len(hands.changes), "it to be in force", 5)
            assert not await reaches(driver)
            audit = await driver.audit()
            assert (
                "host1:eth1: what it sends arrives at router1:eth2, the file says at router1:eth1"
                in audit.findings
            )
            proof = await hands.heal()
            await hands.close()
            assert proof.in_force
            assert all(one.hit > 0 and one.taken_back for one in proof.changes[:1])
            assert (await driver.audit()).findings == ()
            async with asyncio.timeout(5):
                while not await reaches(driver):
                    pass

    asyncio.run(scenario())
