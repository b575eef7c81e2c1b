"""NICs that are PCI devices, as a machine of QEMU's has them: two at each hub."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from chaos import snapshot
from chaos.change import DeviceGone, Place, Where
from chaos.natives import pci

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
            "route add 10.82.0.0/16 dev lo src 10.77.0.1",
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
def lane():
    """A machine of its own, which may be broken."""
    if not Path("/run/vm").is_dir():
        pytest.skip("takes NICs from their drivers: only in a machine of its own (.ci/vm)")


@pytest.fixture
def pair(lane, request):
    which, found = getattr(request, "param", 0), pairs()
    if len(found) <= which:
        pytest.skip(f"{len(found)} pairs of NICs on PCI here, {which + 1} wanted")
    made = Pair(*found[which])
    try:
        yield made
    finally:
        made.close()
