"""A BGP session shut down by the router's own command line, on a real fabric."""

import asyncio
import functools
import json

import pytest

from chaos import snapshot
from chaos.errors import ApplyError, BlockedError, CapabilityError, FabricError
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from faults.bgp_down import BgpDown
from faults.node_stop import NodeStop

pytestmark = pytest.mark.netns

LIFE = Duration.parse("20 s")


def on_a_loop(test):
    """An asynchronous test, run to its end."""

    @functools.wraps(test)
    def run(*args, **words):
        return asyncio.run(test(*args, **words))

    return run


async def armed(driver, tmp_path, fault):
    return await driver.arm(
        fault.changes(driver.fabric),
        journal=driver.folder / "journal-bgp.jsonl",
        max_life=LIFE,
        log_dir=tmp_path,
    )


async def seen_hit(hands):
    for _ in range(500):
        if any(hit.hit for hit in (await hands.hits()).values()):
            return True
        await asyncio.sleep(0.02)
    return False


async def established(driver, node):
    (told,) = await driver.vtysh(node, "show bgp summary json")
    peers = told["ipv4Unicast"]["peers"]
    return {name for name, peer in peers.items() if peer["state"] == "Established"}


@on_a_loop
async def test_one_session_falls_the_link_stays_and_all_is_as_before(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        before = await driver.snapshot()
        peers = await established(driver, "r1")
        assert "eth1" in peers
        hands = await armed(driver, tmp_path, BgpDown("r1", "eth1"))
        async with hands:
            await hands.start(now_ns(), [InForce(0, 60 * 10**9 // 4)])
            assert await seen_hit(hands)
            assert await established(driver, "r1") == peers - {"eth1"}
            done = await driver.exec("r1", ("ip", "-j", "link", "show", "eth1"))
            assert "LOWER_UP" in json.loads(done.stdout)[0]["flags"]
            proof = await hands.heal()
        assert (proof.in_force, proof.taken_back) == (True, True)
        assert [one.hit for one in proof.changes] == [1]
        await driver.wait_ready(30)
        assert await established(driver, "r1") == peers
        assert await snapshot.settled(driver.snapshot, before, 20) == ()


@on_a_loop
async def test_a_session_that_is_shut_already_is_refused(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        (change,) = BgpDown("r1", "eth1").changes(square)
        for argv in change.steps(driver.locate(change)).do:
            words = argv[argv.index("--") + 1 :]
            assert (await driver.exec("r1", words)).code == 0
        with pytest.raises(BlockedError, match="already, so doing it again breaks nothing"):
            await armed(driver, tmp_path, BgpDown("r1", "eth1"))


@on_a_loop
async def test_a_session_that_is_not_there_does_not_come_into_force(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        hands = await armed(driver, tmp_path, BgpDown("r1", "10.99.99.99"))
        async with hands:
            await hands.start(now_ns(), [InForce(0, 10**9)])
            with pytest.raises(ApplyError, match=r"r1: BGP neighbor 10\.99\.99\.99"):
                await hands.wait()
            assert (await hands.heal()).taken_back


@on_a_loop
async def test_what_the_embedded_fabric_cannot_do_is_a_sentence(bring_up, square, tmp_path):
    async with bring_up(square) as driver:
        with pytest.raises(CapabilityError, match=r"cannot stop r1 as a whole.*node_down"):
            await armed(driver, tmp_path, NodeStop("r1"))
        with pytest.raises(FabricError):
            await driver.exec("r1", ("no-such-program",))
