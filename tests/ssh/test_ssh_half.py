"""Half of the machines fail in mid-fault: one sentence names them, the others heal at once."""

import asyncio
import contextlib
import time

import pytest

from chaos.change import LinkState, PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.errors import FabricError
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.waiting import wait_until

pytestmark = [pytest.mark.ssh, pytest.mark.slow]
HOSTS = [f"h{number}" for number in range(1, 7)]
HALF, REST = HOSTS[1::2], HOSTS[::2]
S = 10**9


@pytest.fixture(scope="module")
def six(shared_machines):
    """h1 … h6 around r1."""
    shared_machines.add(*HOSTS, "r1")
    return shared_machines.star(HOSTS)


def state_of(box):
    flags = box.run("ip", "-o", "link", "show", "eth1").split("<")[1].split(">")[0].split(",")
    return "UP" in flags, "railbreak" in box.run("nft", "list", "tables")


WELL = (True, False)


def end_sessions(six):
    """Every SSH session of half of the machines is killed; their servers go on."""
    for name in HALF:
        told = six[name].run("ps", "-eo", "pid=,args=").splitlines()
        for line in told:
            if "sshd: root" in line or "sshd-session: root" in line:
                six[name].run("kill", "-KILL", line.split()[0], check=False)
    return lambda: None


def cut_off(six):
    """Half of the machines are behind a black hole."""
    return six.blackhole(*HALF)


@pytest.mark.parametrize("fail", [end_sessions, cut_off])
def test_half_of_the_machines_fail_in_mid_fault(six, tmp_path, monkeypatch, fail):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    hosts, table = six.inventory()
    undo = []

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="half")
        places = [Place(name, "eth1") for name in HOSTS]
        changes = [
            PacketDrop(place, table_name("half", place)) if at % 3 else LinkState(place)
            for at, place in enumerate(places)
        ]
        journal = driver.folder / "journal.jsonl"
        hands = await driver.arm(
            changes, journal=journal, max_life=Duration.parse("100s"), log_dir=tmp_path / "logs"
        )
        try:
            await hands.start(now_ns() + driver.lead_ns, [InForce(0, 90 * S)])
            async with asyncio.timeout(20):
                while len(hands.actions) < len(HOSTS):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert all(state_of(six[name]) != WELL for name in HOSTS)
            undo.append(fail(six))
            began = time.monotonic()
            with pytest.raises(FabricError) as caught:
                await hands.wait()
            took = time.monotonic() - began
            rest = [state_of(six[name]) for name in REST]
            proof = await hands.heal()
        finally:
            await hands.close()
            for one in undo:
                one()
            with contextlib.suppress(FabricError):  # those that are gone cannot be let go of
                await driver.down()
        healed = [one.change.place.node for one in proof.changes if one.taken_back]
        return str(caught.value), took, rest, healed, proof.trouble

    said, took, rest, healed, trouble = six.control(work)

    assert "\n" not in said
    assert said.startswith(
        f"3 of 6 machines were lost while a fault was in force: {', '.join(HALF)};"
    )
    assert rest == [WELL] * 3, "the others were not healed at once"
    assert {*REST} <= {*healed}
    assert all(any(one.startswith(f"{name}: ") for one in trouble) for name in HALF)
    assert took < 60
    wait_until(lambda: [state_of(six[name]) for name in HALF] == [WELL] * 3, "half to heal", 30)
    wait_until(lambda: six.left() == [], f"nothing to be left: {six.left()[:5]}", 90)
