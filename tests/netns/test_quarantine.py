"""A leftover on a real fabric: nothing more is broken on its node until it is taken back."""

import asyncio
import os
import signal

import pytest

from chaos import quarantine, recover, topology
from chaos.errors import BlockedError
from chaos.experiment import loads
from chaos.registry import InForce
from chaos.run import make_folder, run
from chaos.timeline import now_ns
from chaos.units import Duration
from faults.link_down import LinkDown

pytestmark = pytest.mark.netns

TEXT = """
promise: It is left alone.
fabric: pair
fault: {link_down: {link: LINK, mode: carrier, end: both}}
probes:
  flow: {source: host1, target: host2, rate: 500 pps}
phases: {calm: 500 ms, storm: 500 ms, after: 500 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_lost_packets, at_most: 100000, because: always true}
"""


async def leave_behind(driver, link):
    """A silent fault whose injector is killed, with nobody there to replay its journal."""
    changes = LinkDown(link, "silent", "host2").changes(driver.fabric)
    hands = await driver.arm(
        changes,
        journal=driver.folder / "journal-left.jsonl",
        max_life=Duration.parse("5 m"),
        log_dir=driver.folder,
    )
    await hands.start(now_ns() + 10_000_000, (InForce(0, 200 * 10**9),))
    async with asyncio.timeout(10):
        while not hands.actions:  # noqa: ASYNC110 - the injector tells, and nothing waits for it
            await asyncio.sleep(0.01)
    os.kill(hands.pid, signal.SIGKILL)
    await hands.close()
    return driver.folder / "journal-left.jsonl"


def test_a_node_with_a_leftover_is_left_alone_until_undo(bring_up, tmp_path):
    """host2's direction is left dark: faults there are refused, elsewhere not; undo lifts it."""

    async def go():
        async with bring_up(topology.load("pair")) as driver:
            journal = await leave_behind(driver, "host2--router1")

            async def tried(link):
                folder = make_folder(tmp_path, "tried")
                made = loads(TEXT.replace("LINK", link), "tried.yaml")
                return await run(made, driver, folder, calm_foreign_percent=100)

            with pytest.raises(BlockedError) as refusal:
                await tried("host2:eth1--router1:eth2")
            assert str(refusal.value).startswith("host2 of pair is in quarantine since")
            assert f"railbreak undo {journal}" in str(refusal.value)
            (held,) = quarantine.nodes()
            assert (held.node, held.journal) == ("host2", str(journal))
            quarantine.be_free(["host1", "router1"], driver)
            (undone,) = await asyncio.to_thread(recover.undo, [journal])
            assert undone.outcome == "taken_back"
            assert quarantine.nodes() == ()
            record = await tried("host1--router1")
            assert record.trials[0].proof.taken_back is True

    asyncio.run(go())


def test_a_leftover_goes_with_its_fabric(bring_up, state_root):
    """The namespaces of an embedded fabric are no more, so neither is what was left in them."""

    async def go():
        async with bring_up(topology.load("pair")) as driver:
            await leave_behind(driver, "host2--router1")
            assert [held.node for held in quarantine.look()] == ["host2"]
            assert (state_root / quarantine.NAME).exists()
        assert quarantine.nodes() == ()
        assert not (state_root / quarantine.NAME).exists()

    asyncio.run(go())
