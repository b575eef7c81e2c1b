"""Switches through the driver `ssh`: their own names of ports, their passwords. Played, not real.

The switch is the SONiC of `test_nos_sessions`: a server on the loopback interface that speaks real
SSH and has a real shell, with stand-ins for the vendor's commands.
"""

import asyncio
import contextlib

import pytest

from chaos import journal as book
from chaos.change import LinkState, PacketDrop, Place
from chaos.drivers.ssh import SshDriver
from chaos.drivers.ssh.console import password_of, variable_of
from chaos.drivers.ssh.written import written
from chaos.drivers.state import Life, State
from chaos.errors import FabricError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.nos import deadman
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.unit.test_nos_sessions import PASSWORD, SONIC, TABLE, Played, Shell, until

SECOND = 1_000_000_000


@pytest.fixture
def sonic(tmp_path, monkeypatch):
    """A played SONiC that logs every `config`; nobody here has its password yet."""
    monkeypatch.setattr(deadman, "FOLDER", str(tmp_path / "leases"))
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "known"))
    logged = {**SONIC, "config": 'echo "$*" >> $S/../said' + SONIC["config"]}
    made = Played(Shell("sonic", "Ethernet0", logged, tmp_path), tmp_path)
    yield made
    made.close()


def driver_of(played):
    """The driver of a fabric in which the twin calls the switch's Ethernet0 `eth1`."""
    ssh = {"address": "127.0.0.1", "platform": "sonic", "ports": {"eth1": "Ethernet0"}}
    nodes = {"leaf1": Node("leaf1", role="leaf", settings={"ssh": ssh}), "gpu1": Node("gpu1")}
    fabric = Fabric("f", nodes, (Link(Port("gpu1", "eth1"), Port("leaf1", "eth1")),))
    details = {"targets": {"leaf1": played.target.to_json()}}
    known = State("f", fabric, Life(1, 1), driver="ssh", ready=True, details=details)
    folder = played.folder / "known" / "f"
    folder.mkdir(parents=True)
    known.save(folder)
    return SshDriver(folder, known)


@contextlib.asynccontextmanager
async def armed(driver, *changes):
    hands = await driver.arm(
        changes,
        journal=driver.folder / "journal.jsonl",
        max_life=Duration.parse("30s"),
        log_dir=driver.folder,
    )
    try:
        yield hands
    finally:
        await hands.close()


CHANGES = (
    LinkState(Place("leaf1", "eth1")),
    PacketDrop(Place("gpu1", "eth1", "wire"), TABLE, "ip saddr 10.0.0.9 udp dport 4791"),
)


def test_a_mapped_port_is_broken_by_its_own_name(sonic, monkeypatch):
    """Down and back, and an access list, at Ethernet0; plan and journal go on saying eth1."""
    monkeypatch.setenv("RAILBREAK_SWITCH_PASSWORD", PASSWORD)
    driver = driver_of(sonic)

    async def scenario():
        async with armed(driver, *CHANGES) as hands:
            await hands.start(now_ns() + SECOND, [InForce(0, 2 * SECOND)])
            await until(sonic.switch.faulty)
            await hands.wait()
            return await hands.heal()

    proof = asyncio.run(scenario())

    assert (proof.in_force, proof.taken_back, proof.trouble) == (True, True, ())
    assert not sonic.switch.faulty()
    said = (sonic.folder / "said").read_text()
    assert "interface shutdown Ethernet0\n" in said
    assert "interface startup Ethernet0\n" in said
    assert "-p Ethernet0 -s ingress" in said
    assert "eth1" not in said
    printed = "\n".join(written(CHANGES, driver.fabric))  # what was planned is what was done
    assert [line for line in said.splitlines() if f"sudo config {line}" not in printed] == []
    entries = book.read(driver.folder / "journal.jsonl")
    assert [str(one.change.place) for one in entries] == ["leaf1:eth1", "leaf1:eth1"]
    assert {one.where.ifname for one in entries} == {"Ethernet0"}


def test_a_mapped_port_is_taken_back_from_the_journal(sonic, monkeypatch):
    """By its own name, too; the password comes from the environment once more."""
    monkeypatch.setenv("RAILBREAK_SWITCH_PASSWORD_LEAF1", PASSWORD)
    driver = driver_of(sonic)

    async def scenario():
        async with armed(driver, *CHANGES) as hands:
            await hands.start(now_ns(), [InForce(0, 20 * SECOND)])
            await until(lambda: len(hands.actions) == 2)
            await until(lambda: len(list(sonic.switch.state.glob("rule.*"))) == 1)
            written = (driver.folder / "journal.jsonl").read_text().splitlines()
            return "\n".join(line for line in written if '"intended"' in line) + "\n"

    before = asyncio.run(scenario())
    assert not sonic.switch.faulty()
    # the machine as it was when its controller died: the changes stand, nobody holds them
    for name in ("down", "table.railbreak_0000abcd_v4", "rule.railbreak_0000abcd_v4"):
        (sonic.switch.state / name).touch()
    journal = driver.folder / "journal.jsonl"
    journal.write_text(before)

    done = SshDriver.afar(driver.folder).undo(book.open_changes(journal)[::-1])

    assert [one.outcome for one in done] == ["taken_back"] * 2, done
    assert not sonic.switch.faulty()


def test_without_a_password_the_refusal_names_the_variable(sonic):
    driver = driver_of(sonic)

    async def scenario():
        async with armed(driver, CHANGES[0]):
            raise AssertionError("armed without a password")

    with pytest.raises(FabricError, match="RAILBREAK_SWITCH_PASSWORD_LEAF1") as caught:
        asyncio.run(scenario())
    assert "\n" not in str(caught.value)


def test_a_password_is_in_no_file(sonic, monkeypatch):
    """Neither state nor journal nor logs; only the switch gets it."""
    monkeypatch.setenv("RAILBREAK_SWITCH_PASSWORD", PASSWORD)
    driver = driver_of(sonic)

    async def scenario():
        async with armed(driver, CHANGES[0]) as hands:
            await hands.start(now_ns(), [InForce(0, SECOND)])
            await hands.wait()

    asyncio.run(scenario())

    files = [one for one in driver.folder.rglob("*") if one.is_file()]
    assert len(files) >= 2
    assert [one for one in files if PASSWORD in one.read_text(errors="replace")] == []


def test_one_switch_may_have_a_password_of_its_own():
    environ = {"RAILBREAK_SWITCH_PASSWORD": "all", variable_of("dc1-leaf1"): "one"}

    assert password_of("dc1-leaf1", environ) == "one"
    assert password_of("leaf2", environ) == "all"
    assert password_of("leaf2", {}) == ""
