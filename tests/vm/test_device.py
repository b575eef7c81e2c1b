"""NICs that are PCI devices for their kernel: let go of by their driver, taken off their bus, and
all that was set on them put back; in a machine of QEMU's (`.ci/vm`), two NICs joined by a hub.
"""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from chaos import deadman, native, recover, snapshot
from chaos.change import DeviceGone, Place, Where
from chaos.errors import BlockedError
from chaos.hands import Hands
from chaos.injector import undoing
from chaos.natives import pci
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

pytestmark = pytest.mark.vm

OWN = "/proc/self/ns/net"
NAME = "ens9f0np0"  # what udev would have called it; the kernel says eth0


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def ip(words):
    return run("ip", *words.split())


def nics():
    """Interfaces on PCI that nothing uses, by PCI address."""
    found = []
    for path in Path("/sys/class/net").iterdir():
        device = pci.device_of(path.name) if (path / "device").exists() else None
        if device is not None:
            found.append((device.address, device.driver, path.name))
    return sorted(found)


def pairs():
    """Two NICs each at one hub: neighbours by PCI address."""
    found = nics()
    return list(zip(found[::2], found[1::2], strict=False))


def has_carrier(name):
    until = time.monotonic() + 20
    while Path("/sys/class/net", name, "carrier").read_text() != "1\n":
        assert time.monotonic() < until, f"{name} never had a carrier"
        time.sleep(0.1)


def answers():
    return (
        subprocess.run(
            ("ping", "-c", "1", "-W", "1", "10.77.0.2"), capture_output=True, check=False
        ).returncode
        == 0
    )


def answers_within(seconds):
    until = time.monotonic() + seconds
    while not answers():
        assert time.monotonic() < until, "no answer from the other NIC"
    return True


def state():
    """Once it has stood still: carriers and IPv6 addresses come late."""
    seen = [snapshot.take({"": OWN})]
    until = time.monotonic() + 20
    while len(seen) < 4 or any(one != seen[-1] for one in seen[-4:]):
        assert time.monotonic() < until, "the state never stood still"
        time.sleep(0.3)
        seen.append(snapshot.take({"": OWN}))
    return seen[-1]


class Pair:
    """A NIC here, set up with all that could get lost, and one in a namespace that answers."""

    def __init__(self, near, far):
        self.address, self.driver, first = near
        self.far = far[2]
        ip("netns add far")
        ip(f"link set {self.far} netns far")
        ip("-n far addr add 10.77.0.2/24 dev " + self.far)
        ip(f"-n far link set {self.far} up")
        ip(f"link set {first} down")
        ip(f"link set {first} name {NAME}")
        ip(f"link set {NAME} mtu 1400")
        ip(f"link set {NAME} address 02:00:00:00:77:01")
        ip(f"link set {NAME} alias rail-0")
        ip(f"link set {NAME} txqueuelen 500")
        ip(f"link set {NAME} up")
        has_carrier(NAME)
        for words in (
            f"addr add 10.77.0.1/24 brd + dev {NAME}",
            f"addr add 10.77.0.9/24 dev {NAME}",
            f"addr add 10.78.0.1/24 dev {NAME} noprefixroute",
            f"addr add 10.79.0.1 peer 10.79.0.2/32 dev {NAME}",
            f"addr add 2001:db8:77::1/64 dev {NAME} nodad",
            f"neigh add 10.77.0.50 lladdr 02:00:00:00:00:50 dev {NAME} nud permanent",
            f"route add 10.80.0.0/16 via 10.77.0.2 dev {NAME} proto static",
            f"route add 10.81.0.0/16 via 10.77.0.2 dev {NAME} metric 7 mtu 1300 src 10.77.0.9",
            "route add 10.82.0.0/16 dev lo src 10.77.0.9",
            f"-6 route add 2001:db8:80::/48 via 2001:db8:77::2 dev {NAME} metric 5",
            f"nexthop add id 5 via 10.77.0.2 dev {NAME} proto static",
            "route add 10.83.0.0/16 nhid 5",
        ):
            ip(words)
        Path(f"/proc/sys/net/ipv4/conf/{NAME}/rp_filter").write_text("2")
        Path(f"/proc/sys/net/ipv6/conf/{NAME}/accept_ra").write_text("0")
        answers_within(20)
        self.before = state()

    @property
    def where(self):
        return Where(ifname=NAME, ifindex=pci.index_of(NAME))

    def change(self, how):
        return DeviceGone(Place("gpu1", "eth1"), how)

    def is_back(self):
        assert snapshot.difference(self.before, state()) == ()
        assert ip(f"link show {NAME}").count("alias rail-0") == 1
        assert Path(f"/proc/sys/net/ipv4/conf/{NAME}/rp_filter").read_text() == "2\n"
        assert Path(f"/proc/sys/net/ipv6/conf/{NAME}/accept_ra").read_text() == "0\n"
        assert answers_within(20)

    def close(self):
        subprocess.run(("ip", "netns", "del", "far"), check=False)
        gone = time.monotonic() + 10  # the kernel gives the NIC back in its own time
        while self.far not in os.listdir("/sys/class/net") and time.monotonic() < gone:
            time.sleep(0.1)
        if not Path("/sys/class/net", NAME).exists():
            return
        device = pci.device_of(NAME)  # without what was set on it
        Path(f"/sys/bus/pci/drivers/{device.driver}/unbind").write_text(device.address)
        Path(f"/sys/bus/pci/drivers/{device.driver}/bind").write_text(device.address)
        subprocess.run(("ip", "route", "flush", "root", "10.82.0.0/16"), check=False)


@pytest.fixture
def pair(request):
    which, found = getattr(request, "param", 0), pairs()
    if len(found) <= which:
        pytest.skip(f"{len(found)} pairs of NICs on PCI here, {which + 1} wanted")
    made = Pair(*found[which])
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("how", ["unbind", "remove"])
@pytest.mark.parametrize("pair", [0, 1], indirect=True)
def test_it_goes_with_everything_and_comes_back_with_everything(pair, how):
    made = native.build(pair.change(how), pair.where)

    made.do()
    meanwhile = state()
    assert made.in_force()
    assert not Path("/sys/class/net", NAME).exists()
    assert Path("/sys/bus/pci/devices", pair.address).exists() is (how == "unbind")
    assert not answers()
    assert len(snapshot.difference(pair.before, meanwhile)) > 10

    assert made.undo() == ()
    assert not made.in_force()
    pair.is_back()
    assert made.undo() == ()
    pair.is_back()
    assert made.hits().hit == 1


def test_undo_before_the_deed_changes_nothing(pair):
    made = native.build(pair.change("remove"), pair.where)
    assert not made.in_force()
    assert made.undo() == ()
    pair.is_back()


@pytest.mark.parametrize("how", ["unbind", "remove"])
def test_another_process_takes_it_back_when_the_injector_died(pair, how, tmp_path):
    async def die():
        change = pair.change(how)
        hands = await Hands.arm(
            [change],
            {change.place: pair.where},
            journal=tmp_path / "journal.jsonl",
            max_life=Duration.parse("300 s"),
            log_dir=tmp_path,
        )
        await hands.start(now_ns() + 10**8, (InForce(0, 200 * 10**9),))
        while not hands.actions:  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(0.05)
        os.kill(hands.pid, signal.SIGKILL)
        await hands.close()

    asyncio.run(die())
    assert not Path("/sys/class/net", NAME).exists()

    (undone,) = recover.undo([tmp_path / "journal.jsonl"])
    assert undone.outcome == "taken_back", undone.reason
    pair.is_back()


def test_the_dead_man_takes_it_back_without_python(pair, tmp_path):
    change, where = pair.change("remove"), pair.where
    made = native.build(change, where)
    undo = undoing(change, where, dict(made.saved))
    folder = tmp_path / "deadman"
    armed = deadman.Deadman.arm(folder, undo, lease_s=1, life_s=300)
    made.do()
    assert made.in_force()

    until = time.monotonic() + 60
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.2)
    log = "" if not folder.exists() else (folder / "log").read_text()
    os.close(armed.lease)
    assert not folder.exists(), log
    pair.is_back()


def test_it_comes_back_when_the_undo_itself_was_cut_off(pair):
    change, where = pair.change("remove"), pair.where
    made = native.build(change, where)
    made.do()
    for argv in change.steps(where, made.saved).undo[:7]:
        run(*argv)
    assert native.build(change, where, made.saved).undo() == ()
    pair.is_back()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (f"link add link {NAME} name {NAME}.5 type vlan id 5", f"below {NAME}.5"),
        (f"link set {NAME} down", "down already"),
    ],
)
def test_what_could_not_be_put_back_is_refused(pair, words, reason):
    ip(words)
    with pytest.raises(BlockedError, match=reason):
        native.build(pair.change("unbind"), pair.where)
    assert pci.device_of(NAME).bound


def test_a_qdisc_that_somebody_set_is_not_lost(pair):
    run("tc", "qdisc", "replace", "dev", NAME, "root", "handle", "77:", "pfifo", "limit", "9")
    with pytest.raises(BlockedError, match=r"qdisc pfifo 77: .*take it off first"):
        native.build(pair.change("remove"), pair.where)


def test_rules_that_hang_on_it_are_not_lost(pair):
    hook = f"type filter hook ingress device {NAME} priority 0;"
    run("nft", f"table netdev mine {{ chain c {{ {hook} counter; }}; }}")
    with pytest.raises(BlockedError, match=f"nftables rules hang on {NAME} .*hook ingress"):
        native.build(pair.change("remove"), pair.where)
    run("nft", "delete table netdev mine")


def test_a_driver_without_devlink_is_no_ones_to_reload(pair):
    with pytest.raises(BlockedError, match=rf"driver {pair.driver} .*has no devlink"):
        native.build(pair.change("reload"), pair.where)


# A driver that devlink can reload is in no machine of QEMU's. What a ConnectX answered was
# recorded; the deed is done by the bus, which like a reload gives back a device with nothing set.
DEVLINK = """#!/bin/sh
[ "$1" = -s ] && {{ echo '{{"dev":{{"pci/{0}":{{"stats":{{"reload":{{"driver_reinit":\
{{"unspecified":1}},"fw_activate":{{"unspecified":0,"no_reset":0}}}}}}}}}}}}'; exit 0; }}
echo {0} >/sys/bus/pci/drivers/{1}/unbind && echo {0} >/sys/bus/pci/drivers/{1}/bind
"""


def test_a_reloaded_device_is_back_at_once_with_nothing_set(pair, tmp_path, monkeypatch):
    tool = tmp_path / "devlink"
    tool.write_text(DEVLINK.format(pair.address, pair.driver))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = native.build(pair.change("reload"), pair.where)

    made.do()
    assert made.in_force()
    assert pci.device_of(nics()[0][2]) is not None
    assert not answers()
    assert made.undo() == ()
    assert not made.in_force()
    pair.is_back()
