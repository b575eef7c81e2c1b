"""NICs that are PCI devices for their kernel: let go of by their driver, taken off their bus, and
all that was set on them put back; in a machine of QEMU's (`.ci/vm`), two NICs joined by a hub.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from chaos import deadman, native, recover, snapshot
from chaos.change import PauseStorm, Place
from chaos.errors import BlockedError
from chaos.hands import Hands
from chaos.held import undoing
from chaos.natives import pci
from chaos.netns import inside
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.vm.conftest import NAME, answers, ip, nics, run, state

pytestmark = pytest.mark.vm


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


def test_pause_frames_leave_by_a_driver_of_a_nic(pair):
    """No driver here has DCB, so nothing obeys them; they are on the wire all the same."""
    place, speed = Place("gpu1", "eth1"), 10**9
    change = PauseStorm(place, "rb_pause", "leaf1:eth1", (3,), speed, 10**10)
    made = native.build(change, pair.where)

    def listen():
        door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8808))
        door.bind((pair.far, 0x8808))
        door.settimeout(0.2)
        return door

    door = inside("/run/netns/far", listen)
    run("ip", "-n", "far", "link", "set", pair.far, "promisc", "on")  # it is sent to no address
    made.do()
    time.sleep(2)
    hits = made.hits()
    assert made.undo() == ()
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(door.recv(2000))
    door.close()
    made.close()

    assert hits.hit == hits.seen > 10
    assert len(found) >= hits.hit
    assert {one[:6].hex() for one in found} == {"0180c2000001"}
    assert {one[6:12].hex(":") for one in found} == {"02:00:00:00:77:01"}
    assert found[0][12:34].hex() == "880801010008000000000000ffff0000000000000000"
    assert found[-1][12:34].hex() == "8808010100080000" + "0000" * 7
    pair.is_back()
