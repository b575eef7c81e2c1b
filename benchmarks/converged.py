"""From nothing to forwarding: clos-2x4x8 with FRR, until every leaf has every prefix by all paths.

Nobody else does the whole of it here, so the peer is Mininet's bare network (no routing) in the
same rounds: a ratio below 1 says how much of our time that alone would take.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from benchmarks.deploy import FABRIC, bare
from benchmarks.ground import await_freed, need
from benchmarks.mininet_peer import ABSENT, MininetPeer, mininet
from benchmarks.reading import Contender, Outcome, Result
from chaos import topology
from chaos.drivers.netns import NetnsDriver
from chaos.fabric import Fabric
from probes.routing_log import parse

_PARTS = ("network and addresses", "FRR started", "BGP sessions", "BFD sessions", "all routes")


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Mininet's bare network and our whole one in turn."""
    need("ip", "nft", "unshare")
    rounds = 2 if quick else 7
    fabric = topology.load(FABRIC)
    whole: list[float] = []
    down: list[float] = []
    theirs: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in _PARTS}
    with mininet(bare(fabric)) as peer:
        for turn in range(rounds):
            tell(f"converged, round {turn + 1} of {rounds}")
            if isinstance(peer, MininetPeer):
                theirs.append(peer.deploy()[0])
            reached, down_s = asyncio.run(_ours(fabric))
            down.append(down_s)
            whole.append(reached[_PARTS[-1]])
            for name, at_s in reached.items():
                parts[name].append(at_s)
    results = [
        Result(
            f"{FABRIC}, nothing → converged",
            (
                Contender("driver netns + FRR", whole, ours=True),
                *(Contender(f"of that, until: {n}", parts[n]) for n in _PARTS[:-1] if parts[n]),
                *([Contender("Mininet, bare network", theirs)] if theirs else ()),
            ),
            "each part is counted from the start; sessions as FRR's log dates the last of them",
        ),
        Result(f"{FABRIC}, converged → freed", (Contender("driver netns + FRR", down, ours=True),)),
    ]
    return Outcome("converged", tuple(results), () if theirs else (ABSENT,))


async def _ours(fabric: Fabric) -> tuple[dict[str, float], float]:
    """Seconds from the start to the end of each part, and those of the way down."""
    steps: list[tuple[str, float]] = []
    begun, wall_ns = time.perf_counter(), time.time_ns()
    driver = await NetnsDriver.up(
        fabric,
        instance=f"bench-{os.getpid()}",
        progress=lambda step: steps.append((step, time.perf_counter() - begun)),
    )
    try:
        started_s = time.perf_counter() - begun
        await driver.wait_ready()
        ready_s = time.perf_counter() - begun
        reached = {
            _PARTS[0]: next(at for step, at in steps if step.startswith("FRR")),
            _PARTS[1]: started_s,
            **_sessions(driver, wall_ns),
            _PARTS[4]: ready_s,
        }
    finally:
        begun = time.perf_counter()
        await driver.down()
    await_freed()
    return reached, time.perf_counter() - begun


def _sessions(driver: NetnsDriver, wall_ns: int) -> dict[str, float]:
    """When the last session of each kind came up."""
    last: dict[str, int] = {}
    for node in driver.fabric.nodes.values():
        for line in driver.logs(node.name).read_text().splitlines() if node.runs == "frr" else ():
            found = parse(line)
            if found and (found.get("up") or found.get("after") == "up"):
                last[found["ev"]] = max(last.get(found["ev"], 0), found["wall_ns"])
    names = {"bgp": _PARTS[2], "bfd": _PARTS[3]}
    return {names[kind]: (at - wall_ns) / 1e9 for kind, at in sorted(last.items(), reverse=True)}
