"""A real lldpd in every node of a fabric: `fabric verify` finds two cables that were exchanged."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from chaos import topology
from chaos.change import Place
from chaos.fabric import Port
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

#: A node has a /run of its own, so socket, lock and chroot are its own too. The interval is in the
#: file that the daemon's own client reads before it lets it begin: a frame sent earlier would be
#: good for two minutes.
START = """
mkdir -p /run/lldpd && echo configure lldp tx-interval 1 > /run/lldpd/own.conf &&
lldpd -O /run/lldpd/own.conf
"""


async def shell(driver, node, script):
    done = await driver.exec(node, ("sh", "-c", script))
    assert done.code == 0, f"{node}: {done.stderr.decode()}"


def exchange(driver, one, other):
    """Take the plugs out of two ports and put each into the other's, where the cables lie.

    No node notices; the rules that join the cables' halves get each other's targets.
    """
    fabric = driver.fabric
    ends = [(port, fabric.link_at(port).other(port)) for port in (one, other)]
    wires = [
        [driver.resolve(Place(port.node, port.name, "wire")) for port in both] for both in ends
    ]
    swapped = {}
    for first, second in zip(*wires, strict=True):
        swapped |= {first.ifname: second.ifname, second.ifname: first.ifname}
    nft = ("nsenter", f"--net={wires[0][0].netns}", "nft")
    rules = subprocess.run((*nft, "list", "ruleset"), capture_output=True, text=True, check=True)
    target = re.compile(r'(?<=fwd to ")\w+(?=")')
    exchanged = target.sub(lambda found: swapped.get(found[0], found[0]), rules.stdout)
    assert exchanged != rules.stdout
    told = f"flush ruleset\n{exchanged}"
    subprocess.run((*nft, "-f", "-"), input=told, capture_output=True, text=True, check=True)


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

            exchange(driver, Port("leaf2", "eth1"), Port("leaf2", "eth2"))
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
