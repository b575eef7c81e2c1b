"""Devices and pause frames over real SSH, on machines whose ports are veths: refused by what the
machine told when it was attached, and by the machine itself; what an inventory vouches for is sent.
"""

import asyncio
import re
from pathlib import Path

import pytest

from chaos.change import DeviceGone, Place
from chaos.drivers.ssh import SshDriver
from chaos.drivers.ssh.arming import spare_our_own
from chaos.errors import BlockedError, CapabilityError
from chaos.registry import InForce
from chaos.units import Bitrate, Duration
from faults.nic_kill import NicKill
from faults.pfc_storm import PfcStorm
from tests.ssh.attached import on, put

pytestmark = pytest.mark.ssh

STORM = PfcStorm("h1--r1", "h1", Bitrate.parse("10 Gbit/s"), (3, 4))


def refused(three, home, fault, kind=CapabilityError):
    async def work(driver):
        with pytest.raises(kind) as caught:
            await put(driver, home, fault.changes(driver.fabric), (InForce(0, 10**9),))
        return str(caught.value)

    return on(three, home, work)


@pytest.mark.parametrize("mode", ["unbind", "remove", "reload"])
def test_a_veth_is_no_device_that_could_go(three, home, mode):
    said = refused(three, home, NicKill("h1", mode=mode))
    assert said == (
        "h1:eth1 (eth1) is an interface that software made and no PCI device: it has no driver "
        "that could let go of it and no slot; use mode: carrier or admin"
    )


def test_a_veth_honours_no_pfc(three, home):
    said = refused(three, home, STORM)
    assert re.fullmatch(r"r1:eth1 \(eth1, driver none on a bus\) honours no PFC: .*", said), said


def test_the_machine_itself_refuses_what_the_driver_let_pass(three, home, monkeypatch):
    monkeypatch.setattr(SshDriver, "refusal", classmethod(lambda cls, change, fabric: ""))
    said = refused(three, home, NicKill("h1", mode="remove"), BlockedError)
    assert "h1:eth1: eth1 is no PCI device (it is of kind veth)" in said


def test_a_device_that_carries_our_own_connection_is_spared(three, home):
    async def work(driver):
        await driver.machine("h1")
        known = driver.fleet.interfaces["h1"]
        (own,) = driver.fleet.own["h1"]
        for name in ("eth1", own):  # as two ports of one function are
            known[name]["pci"] = "0000:3b:00.0"
        with pytest.raises(CapabilityError) as caught:
            spare_our_own(driver.fleet, DeviceGone(Place("h1", "eth1")), "eth1")
        return own, str(caught.value)

    own, said = on(three, home, work)
    assert f"lies on PCI device 0000:3b:00.0, as does {own}, which carries our own" in said


def frames(box, seconds):
    """Pause frames that a machine's eth1 gets."""
    sniffer = (
        "import socket, time, sys\n"
        "door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8808))\n"
        "door.bind(('eth1', 0x8808)); door.settimeout(0.2)\n"
        f"until = time.monotonic() + {seconds}\n"
        "while time.monotonic() < until:\n"
        "    try: print(door.recv(2000).hex())\n"
        "    except TimeoutError: pass\n"
    )
    return box.run("python3", "-c", sniffer).split()


def test_frames_leave_a_machine_where_the_inventory_vouches_for_the_other_end(three, home):
    """Of a host's own driver nothing is known here: the inventory says that r1 honours it."""
    real = three.inventory
    words = "ansible_host: {}".format(three["r1"].address)

    def vouching():
        hosts, table = real()
        text = Path(hosts).read_text()
        assert words in text
        Path(hosts).write_text(text.replace(words, f"{words}, railbreak: {{pfc: {{eth1: '3 4'}}}}"))
        return hosts, table

    three.inventory = vouching
    try:

        async def work(driver):
            found = []

            async def between(hands):
                found.extend(await asyncio.to_thread(frames, three["r1"], 2.5))

            changes = STORM.changes(driver.fabric)
            spans = STORM.schedule(Duration.parse("1500 ms"), None)
            return await put(driver, home, changes, spans, between), found

        proof, found = on(three, home, work)
    finally:
        del three.inventory

    assert proof.in_force
    assert proof.taken_back
    (one,) = proof.changes
    assert one.hit == one.seen > 100
    on_wire = [frame for frame in found if frame.startswith("0180c2000001")]
    assert len(on_wire) > 100
    assert on_wire[0][24:].startswith("880801010018" + "0000" * 3 + "ffffffff" + "0000" * 3)
    assert on_wire[-1][24:].startswith("880801010018" + "0000" * 8), "no frame let them go on"
