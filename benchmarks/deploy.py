"""clos-2x4x8 without routing, up and down: 14 namespaces, 16 links, the hosts' addresses.

Ours also joins every link through the hidden namespace that faults bite in. Both are timed until
every port has carrier, and on the way down until the kernel has freed every namespace, which it
does after the processes are gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable

from benchmarks.ground import await_freed, need
from benchmarks.mininet_peer import ABSENT, MininetPeer, mininet
from benchmarks.reading import Contender, Outcome, Result
from chaos import topology
from chaos.drivers.netns import NetnsDriver
from chaos.fabric import Fabric

FABRIC = "clos-2x4x8"


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Mininet and ours in turn."""
    need("ip", "nft", "unshare")
    rounds = 3 if quick else 8
    fabric = bare(topology.load(FABRIC))
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with mininet(fabric) as peer:
        for turn in range(rounds):
            tell(f"deploy, round {turn + 1} of {rounds}")
            if isinstance(peer, MininetPeer):
                theirs.append(peer.deploy())
            ours.append(asyncio.run(_ours(fabric)))
    results = tuple(
        Result(
            f"{FABRIC} {what}, no routing",
            (
                Contender("driver netns", [pair[at] for pair in ours], ours=True),
                *([Contender("Mininet", [pair[at] for pair in theirs])] if theirs else ()),
            ),
        )
        for at, what in enumerate(("up", "down until freed"))
    )
    return Outcome("deploy", results, () if theirs else (ABSENT,))


def bare(fabric: Fabric) -> Fabric:
    """The same fabric with routers that run nothing."""
    nodes = {name: dataclasses.replace(node, runs="shell") for name, node in fabric.nodes.items()}
    return dataclasses.replace(fabric, nodes=nodes)


async def _ours(fabric: Fabric) -> tuple[float, float]:
    begun = time.perf_counter()
    driver = await NetnsDriver.up(fabric, instance=f"bench-{os.getpid()}")
    try:
        await driver.wait_ready()
        up_s = time.perf_counter() - begun
    finally:
        begun = time.perf_counter()
        await driver.down()
    await_freed()
    return up_s, time.perf_counter() - begun
