"""Faults of real NICs on paper: frames, quanta, DCB, devlink, what goes with what, who refuses."""

import ctypes
import json
import re
import struct

import pytest
from scapy.contrib.mac_control import MACControlClassBasedFlowControl
from scapy.layers.l2 import Ether

from chaos import netlink as nl
from chaos.change import DeviceGone, Place, from_json, to_json
from chaos.changes.pause import pause_frame, paused_ns
from chaos.collide import collision
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.drivers.netns import NetnsDriver
from chaos.drivers.ssh.places import refusal
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.limits import defaults
from chaos.natives import dcb, pci
from chaos.radius import radius
from chaos.strike import Strike
from chaos.units import Bitrate, Duration, Percent
from faults.link_down import LinkDown
from faults.nic_kill import NicKill
from faults.packet_loss import PacketLoss
from faults.pfc_storm import PfcStorm

SWITCH = {"address": "10.0.0.9", "platform": "sonic"}
HOST = {
    "address": "10.0.0.1",
    "kernel": {"eth1": ["ens3f0np0", 4], "eth2": ["ens3f0np1", 5], "eth3": ["v0", 9]},
    "pci": {"eth1": "0000:3b:00.0", "eth2": "0000:3b:00.0"},
    "driver": {"eth1": "mlx4_en", "eth2": "mlx4_en"},
    "pfc": {"eth1": [3, 4]},
}


def fabric(switch=SWITCH):
    nodes = {
        "gpu1": Node("gpu1", settings={"ssh": HOST}),
        "gpu2": Node("gpu2", settings={"ssh": {"address": "10.0.0.2"}}),
        "leaf1": Node("leaf1", role="leaf", settings={"ssh": switch}),
        "spine1": Node("spine1", role="spine"),
    }
    cables = (
        *(("gpu1:eth1", "leaf1:eth1"), ("gpu1:eth2", "leaf1:eth2"), ("gpu1:eth3", "gpu2:eth3")),
        *(("gpu2:eth1", "leaf1:eth3"), ("leaf1:eth9", "spine1:eth1"), ("gpu1:eth4", "gpu2:eth4")),
    )
    links = (Link(Port(*a.split(":")), Port(*b.split(":"))) for a, b in cables)
    return Fabric("f", nodes, tuple(links))


def pauses(link="gpu1--leaf1#1", end="gpu1", **more):
    (change,) = PfcStorm(link, end, Bitrate.parse("100 Gbit/s"), **more).changes(fabric())
    return change


# ---- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("priorities", [(0,), (3,), (3, 4), (7, 0), tuple(range(8))])
@pytest.mark.parametrize("quanta", [0, 1, 65535])
def test_a_frame_is_what_scapy_makes_of_the_standard(priorities, quanta):
    words = {f"c{one}_enabled": 1 for one in priorities}
    words |= {f"c{one}_pause_time": quanta for one in priorities}
    theirs = Ether(dst="01:80:c2:00:00:01", src="02:00:00:00:00:01", type=0x8808)
    theirs /= MACControlClassBasedFlowControl(**words)

    ours = pause_frame(bytes.fromhex("020000000001"), priorities, quanta)

    assert ours == bytes(theirs).ljust(60, b"\0")


@pytest.mark.parametrize(
    ("speed", "ns"),
    [(10**9, 33_553_920), (10**11, 335_539), (4 * 10**11, 83_884), (8 * 10**11, 41_942)],
)
def test_a_pause_lasts_so_many_times_512_bits(speed, ns):
    assert paused_ns(65535, speed) == ns


def test_a_storm_is_refreshed_before_it_runs_out_and_says_so():
    change = pauses()
    assert change.every_ns * 2 <= change.lasts_ns
    assert change.describe() == (
        "gpu1:eth1: pauses priority 3 of leaf1:eth1, a frame each 167.8 us (65535 quanta last "
        "335.5 us at 100 Gbit/s), 11 s at most"
    )
    assert from_json(json.loads(json.dumps(to_json(change)))) == change


def test_a_storm_is_short_and_goes_one_way():
    with pytest.raises(SpecError, match=r"can stop a pod: at_most must be above 0 and 60 s"):
        pauses(at_most=Duration.parse("2 m"))
    with pytest.raises(SpecError, match=r"each would pause the other; name the one that sends"):
        pauses(end="both")
    with pytest.raises(SpecError, match=r"priorities are of 0 to 7, each once, got \[8\]"):
        pauses(priorities=(8,))
    spans = PfcStorm("x", "y", Bitrate(10**9)).schedule(Duration.parse("30 s"), None)
    assert [(one.start_ns, one.end_ns) for one in spans] == [(0, 10 * 10**9)]


# ---- DCB -----------------------------------------------------------------------------------------


class IeeePfc(ctypes.Structure):
    """`struct ieee_pfc` of linux/dcbnl.h."""

    _fields_ = (
        *(("pfc_cap", ctypes.c_uint8), ("pfc_en", ctypes.c_uint8), ("mbc", ctypes.c_uint8)),
        *(("delay", ctypes.c_uint16), ("requests", ctypes.c_uint64 * 8)),
        ("indications", ctypes.c_uint64 * 8),
    )


def answer(*attributes):
    nested = b"".join(attributes)
    head = struct.pack("=BBH", 0, 21, 0) + nl.text(1, "ens3f0np0")
    return head + nl.attr(13 | 0x8000, nested)


@pytest.mark.parametrize(
    ("on", "shown"),
    [
        # as `dcb pfc show` told of ports of ConnectX
        (0b00001000, "0:off 1:off 2:off 3:on 4:off 5:off 6:off 7:off"),
        (0b11000000, "0:off 1:off 2:off 3:off 4:off 5:off 6:on 7:on"),
        (0, "0:off 1:off 2:off 3:off 4:off 5:off 6:off 7:off"),
    ],
)
def test_priorities_are_read_as_dcb_shows_them(on, shown):
    told = bytes(IeeePfc(pfc_cap=8, pfc_en=on))
    ets = nl.attr(1, bytes(35))

    found = dcb.read(answer(ets, nl.attr(2, told), nl.attr(3, b"")))

    words = (f"{at}:{'on' if at in found else 'off'}" for at in range(8))
    assert " ".join(words) == shown


def test_a_driver_with_dcb_and_without_pfc_tells_nothing_of_it():
    assert dcb.read(answer(nl.attr(1, bytes(35)))) is None


def test_the_question_is_that_of_the_tool():
    """What strace showed of `dcb pfc show dev v0`, but for the sequence number."""
    assert nl.message(78, 5, dcb.request("v0")).hex() == (
        "1c0000004e0005000000000000000000001500000700010076300000"
    )


# ---- devlink -------------------------------------------------------------------------------------


def test_a_driver_that_devlink_can_start_anew_is_told_by_its_counts():
    """What `devlink -s -j dev show` told of a ConnectX, and of a driver without reload."""
    recorded = (
        '{"dev":{"pci/0000:01:00.0":{"stats":{"reload":{"driver_reinit":{"unspecified":1},'
        '"fw_activate":{"unspecified":0,"no_reset":0}},"remote_reload":{"driver_reinit":'
        '{"unspecified":0},"fw_activate":{"unspecified":0,"no_reset":0}}}}}}'
    )
    assert pci.reloads(recorded) is True
    assert pci.reloads('{"dev":{"pci/0000:08:00.0":{"stats":{"reload":{}}}}}') is False
    assert pci.reloads('{"dev":{"pci/0000:08:00.0":{}}}') is False
    assert pci.reloads('{"dev":{}}') is None
    assert pci.reloads("") is None


# ---- what goes with what -------------------------------------------------------------------------


def test_ports_of_one_device_go_together_and_are_named():
    (gone,) = NicKill("gpu1", ("eth2",), "remove").changes(fabric())
    assert gone == DeviceGone(Place("gpu1", "eth2"), "remove", ("eth1",))
    assert gone.describe() == "gpu1:eth2: its PCI device leaves the bus, and with it eth1"
    assert set(radius((gone,), fabric()).links_out) == {
        "gpu1:eth1--leaf1:eth1",
        "gpu1:eth2--leaf1:eth2",
    }
    assert from_json(json.loads(json.dumps(to_json(gone)))) == gone


def test_a_nic_without_ports_named_is_every_device_of_the_host():
    made = NicKill("gpu1", mode="unbind").changes(fabric())
    assert [one.describe() for one in made] == [
        "gpu1:eth1: its driver lets go of its PCI device, and with it eth2",
        "gpu1:eth3: its driver lets go of its PCI device",
        "gpu1:eth4: its driver lets go of its PCI device",
    ]


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (PacketLoss("gpu1:eth1", Percent(1), end="leaf1"), "the device behind gpu1:eth1"),
        (PacketLoss("gpu2--leaf1", Percent(1), end="leaf1"), ""),
        (LinkDown("gpu1--leaf1#1", "admin", "gpu1"), "the device behind gpu1:eth1"),
        (LinkDown("gpu1:eth2", "admin", "leaf1"), "the device behind gpu1:eth2"),
        (LinkDown("gpu2--leaf1"), ""),
    ],
)
def test_nothing_else_is_broken_at_a_port_whose_device_goes(other, shared):
    gone = NicKill("gpu1", ("eth1",), "remove")
    place = fabric()
    changes = [one.changes(place) for one in (gone, other)]
    one, two = (Strike(fault, 0, 10**9, ()) for fault in (gone, other))
    assert collision(one, two, place, *changes) == shared
    assert collision(two, one, place, *changes[::-1]) == shared


def test_a_pause_spreads_over_all_cables_of_whom_it_stops():
    """So that the default limits of real machines refuse it until somebody has raised them."""
    told = radius((pauses(),), fabric())
    assert defaults("hardware").links < len(told.links_out)
    assert set(told.links_out) == {
        "gpu1:eth1--leaf1:eth1",
        "gpu1:eth2--leaf1:eth2",
        "gpu2:eth1--leaf1:eth3",
        "leaf1:eth9--spine1:eth1",
    }


# ---- who refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", [NetnsDriver, ContainerlabDriver])
def test_fabrics_of_veths_refuse_both_with_the_reason(driver):
    gone = DeviceGone(Place("gpu1", "eth1"), "remove")
    assert driver.refusal(gone, fabric()) == (
        "gpu1:eth1 is an end of a veth pair and no PCI device: it has no driver that could let go "
        "of it and no slot; use mode: carrier or admin, or machines over ssh"
    )
    assert driver.refusal(pauses(), fabric()).startswith(
        "leaf1:eth1 is an end of a veth pair, which honours no PFC: frames would be sent and "
        "nothing would stop"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (DeviceGone(Place("gpu1", "eth1")), ""),
        (DeviceGone(Place("gpu2", "eth1")), ""),  # nobody has asked that machine yet
        (DeviceGone(Place("gpu1", "eth3")), r"gpu1:eth3 \(v0\) is an interface that software made"),
        (DeviceGone(Place("leaf1", "eth1")), "cannot be done by command line; name a NIC of a"),
        (pauses(), r"whether leaf1:eth1 honours PFC is not known.*railbreak: \{pfc: \{eth1: 3\}\}"),
        (pauses("leaf1--spine1", "spine1"), "spine1 cannot be logged in to"),
        (pauses(end="leaf1"), "no switch sends pause frames when told to"),
        (pauses("gpu1:eth4", "gpu1"), ""),  # nobody has asked gpu2 yet
        (pauses("gpu1:eth3", "gpu2"), r"gpu1:eth3 \(v0, driver none on a bus\) honours no PFC"),
    ],
)
def test_machines_refuse_what_they_are_known_not_to_have(change, words):
    told = refusal(change, fabric())
    assert bool(told) is bool(words), told
    assert re.search(words, told), told


def test_a_switch_is_taken_at_the_inventory_s_word():
    told = fabric({**SWITCH, "pfc": {"eth1": [3]}})
    assert refusal(pauses(), told) == ""
    assert refusal(pauses(priorities=(3, 4)), told).startswith(
        "leaf1:eth1 honours PFC of priorities 3 and not 4: frames would be sent and nothing would"
    )


# ---- devices as sysfs tells of them --------------------------------------------------------------


class Sys:
    """A /sys with NICs on PCI, on virtio, on USB, and one that software made."""

    def __init__(self, root):
        self.root = root
        self.net = root / "class" / "net"
        self.net.mkdir(parents=True)

    def device(self, path, bus):
        folder = self.root / "devices" / path
        folder.mkdir(parents=True, exist_ok=True)
        (self.root / "bus" / bus).mkdir(parents=True, exist_ok=True)
        if not (folder / "subsystem").is_symlink():
            (folder / "subsystem").symlink_to(self.root / "bus" / bus)
        return folder

    def nic(self, name, folder, port="0"):
        net = folder / "net" / name
        net.mkdir(parents=True)
        (net / "dev_id").write_text("0x0\n")
        (net / "dev_port").write_text(f"{port}\n")
        (net / "device").symlink_to(folder)
        (self.net / name).symlink_to(net)


@pytest.fixture
def sys_of(tmp_path, monkeypatch):
    made = Sys(tmp_path / "sys")
    monkeypatch.setattr(pci, "_NET", made.net)
    return made


def test_the_device_behind_an_interface(sys_of):
    """Never a device further up: a NIC on USB lies below the PCI device of the whole USB bus."""
    at = "pci0000:00/0000:3b:00.0"
    both = sys_of.device(at, "pci")
    sys_of.nic("ens3f0np0", both)
    sys_of.nic("ens3f0np1", both, "1")
    (both / "driver").symlink_to("/sys/bus/pci/drivers/mlx4_en")
    (both / "driver_override").write_text("(null)\n")
    function = sys_of.device("pci0000:00/0000:3b:00.4", "pci")
    sys_of.nic("ens3f0v2", function)
    (both / "virtfn0").symlink_to(function)
    sys_of.device("pci0000:00/0000:00:02.0", "pci")
    sys_of.nic("eth0", sys_of.device("pci0000:00/0000:00:02.0/virtio1", "virtio"))
    sys_of.device("pci0000:00/0000:00:14.0", "pci")
    sys_of.nic("enx0", sys_of.device("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0", "usb"))
    (sys_of.net / "veth0").mkdir()

    found = pci.device_of("ens3f0np0")
    assert found.address == "0000:3b:00.0"
    assert found.bus == "0000:3b"
    assert (found.driver, found.forced) == ("mlx4_en", "")
    assert found.interfaces == (("ens3f0np0", "0x0 0"), ("ens3f0np1", "0x0 1"))
    assert pci.device_of("ens3f0v2").address == "0000:3b:00.4"
    assert pci.device_of("eth0").address == "0000:00:02.0"
    assert pci.device_of("eth0").interfaces == (("eth0", "0x0 0"),)
    assert pci.device_of("enx0") is None
    assert pci.device_of("veth0") is None
    assert pci.device_of("gone") is None
