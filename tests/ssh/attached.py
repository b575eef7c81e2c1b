"""The driver `ssh` attached to machines, and changes put into force there."""

import asyncio

from chaos import recover, snapshot
from chaos.drivers.ssh import SshDriver
from chaos.registry import FAULTS, InForce, build, load
from chaos.timeline import now_ns
from chaos.units import Duration
from chaos.worded import fields_from
from tests.waiting import wait_until

LIFE = Duration.parse("20s")


def fault(name, *words):
    """A fault by the words of a command line."""
    load()
    return build(FAULTS, "fault", name, fields_from(FAULTS[name], words))


def on(three, home, work, **more):
    """Attach, do something with the driver, let go; nothing may be left."""
    hosts, table = three.inventory()

    async def body():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="three", **more)
        try:
            return await work(driver)
        finally:
            await driver.down()

    try:
        return three.control(body)
    finally:
        assert three.left() == []
        assert not (home / "state" / "three").exists()


async def armed(driver, home, changes, life=LIFE):
    """Hands that hold the changes ready; their journal is `journal.jsonl`."""
    journal = driver.folder / "journal.jsonl"
    return await driver.arm(changes, journal=journal, max_life=life, log_dir=home / "logs")


async def held(driver, home, changes, life):
    """The changes in force, every one of them, for as long as they may."""
    hands = await armed(driver, home, changes, life)
    await hands.start(now_ns() + driver.lead_ns, [InForce(0, life.ns)])
    there = lambda: len(hands.actions) == len(changes)  # noqa: E731
    await asyncio.to_thread(wait_until, there, "the changes to be in force", 10)
    return hands


async def put(driver, home, changes, spans, between=None, life=LIFE):
    """Arm, start, do something in between, wait, heal; the proof."""
    before = await driver.snapshot()
    hands = await armed(driver, home, changes, life)
    try:
        await hands.start(now_ns() + driver.lead_ns, spans)
        if between is not None:
            await between(hands)
        await hands.wait()
        proof = await hands.heal()
    finally:
        await hands.close()
    assert await snapshot.settled(driver.snapshot, before) == ()
    assert recover.in_force([driver.folder / "journal.jsonl"]) == []
    return proof
