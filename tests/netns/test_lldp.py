"""A real lldpd in every node of a fabric: `fabric verify` finds two cables that were exchanged."""

import asyncio
import json
import shutil
import sys
import time

import pytest

from chaos import topology
from chaos.inventory import compare, of_fabric, read_neighbours
from chaos.inventory.lldp import ARGV

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("lldpd") and shutil.which("lldpcli")),
        reason="lldpd is not installed (apt-get install lldpd)",
    ),
]

#: A node has a /run of its own, so socket, lock and chroot are its own too. The daemon begins
#: paused; the client that it starts for `resume` loses its turn when ours comes first.
START = """
mkdir -p /run/lldpd && lldpd || exit 1
for turn in 1 2 3 4 5 6 7 8 9 10; do
  lldpcli configure lldp tx-interval 1 >/dev/null 2>&1 && lldpcli resume >/dev/null && exit 0
  sleep 0.1
done
exit 1
"""
#: For LLDP, two interfaces that change names are two plugs that change places.
EXCHANGE = """
ip link set eth1 down && ip link set eth2 down &&
ip link set eth1 name spare && ip link set eth2 name eth1 && ip link set spare name eth2 &&
ip link set eth1 up && ip link set eth2 up
"""


async def shell(driver, node, script):
    done = await driver.exec(node, ("sh", "-c", script))
    assert done.code == 0, f"{node}: {done.stderr.decode()}"


async def heard(driver):
    """What every node hears, read from the real program."""
    found = {}
    for node in driver.fabric.nodes:
        done = await driver.exec(node, ARGV)
        found[node] = read_neighbours(done.stdout.decode(), node, node)
    return found


async def wait_until_heard(driver, declared, differences, deadline_s=60):
    """Return when every port hears somebody and as many differences are seen."""
    until = time.monotonic() + deadline_s
    while True:
        outcome = compare(declared, await heard(driver))
        counting = [one for one in outcome.differences if one.counts]
        if len(counting) == differences == len(outcome.differences):
            return
        assert time.monotonic() < until, [one.sentence for one in outcome.differences]
        await asyncio.sleep(0.2)


async def verify(*words):
    """The command in a process of its own: exit status, JSON, standard error."""
    main = "from chaos.cli import main; main()"
    argv = (sys.executable, "-c", main, "fabric", "verify", *words, "--json")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    said, wrong = await process.communicate()
    return process.returncode, json.loads(said) if said.strip() else None, wrong.decode()


def test_two_cables_that_are_exchanged_are_found_live(bring_up, tmp_path):
    """Asked live, and again from the saved outputs."""
    fabric = topology.load("rails-2x4")
    declared = of_fabric(fabric)

    async def scenario():
        async with bring_up(fabric) as driver:
            status, said, wrong = await verify("rails-2x4", "--on", driver.instance)
            assert (status, said) == (4, None)
            assert f"no node of {driver.instance} answers lldpcli" in wrong

            for node in fabric.nodes:
                await shell(driver, node, START)
            await wait_until_heard(driver, declared, 0)
            status, said, _ = await verify("rails-2x4", "--lldp", "live", "--on", driver.instance)
            assert (status, said["equal"], said["confirmed"]) == (0, True, 8)

            await shell(driver, "leaf2", EXCHANGE)
            await wait_until_heard(driver, declared, 1)
            status, live, _ = await verify("rails-2x4", "--lldp", "live", "--on", driver.instance)
            for node in fabric.nodes:
                output = (await driver.exec(node, ARGV)).stdout
                (tmp_path / f"{node}.json").write_bytes(output)
            return status, live

    status, live = asyncio.run(scenario())
    saved_status, saved, _ = asyncio.run(verify("rails-2x4", "--lldp", str(tmp_path)))

    assert status == saved_status == 1
    for said in (live, saved):
        (found,) = said["differences"]
        assert found["kind"] == "swapped"
        assert found["declared"] == "host1:eth2--leaf2:eth1, host2:eth2--leaf2:eth2"
        assert found["found"] == "host1:eth2--leaf2:eth2, host2:eth2--leaf2:eth1"
        assert "exchange the plugs at leaf2:eth1 and leaf2:eth2" in found["sentence"]


def test_a_node_that_cannot_be_asked_is_told(bring_up):
    """Two of three nodes run lldpd: the third one's cable is not judged, and not passed either."""
    fabric = topology.load("pair")

    async def scenario():
        async with bring_up(fabric) as driver:
            for node in ("host1", "router1"):
                await shell(driver, node, START)
            until = time.monotonic() + 60
            while True:
                told = await verify("pair", "--on", driver.instance)
                if told[1]["confirmed"] == len(told[1]["warnings"]) == 1:
                    return told
                assert time.monotonic() < until, told

    status, said, _ = asyncio.run(scenario())

    assert said["asked"] == ["host1", "router1"]
    assert said["differences"] == []
    (unsure,) = said["warnings"]
    assert unsure["sentence"].startswith(
        "unverified: host2:eth1--router1:eth2 cannot be judged: host2 was not asked: "
    )
    assert (status, said["equal"], said["unverified"]) == (2, False, 1)
