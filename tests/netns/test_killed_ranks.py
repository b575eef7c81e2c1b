"""The injector dies at random moments while it stops, slows or restarts a rank: the rank runs on.

Whoever is left replays the journal: the controller, or `undo` where it died too. RAILBREAK_KILLS
sets how many deaths each of them has.
"""

import asyncio
import os
import random
import signal
import subprocess

import pytest

from chaos import recover
from chaos.natives.process import process_state
from chaos.timeline import now_ns
from chaos.units import Duration, Percent
from faults.rank_restart import RankRestart
from faults.rank_stop import RankStop
from faults.straggler import Straggler
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

KILLS = int(os.environ.get("RAILBREAK_KILLS", "5"))
STORM = Duration.parse("5 s")
FAULTS = {
    "stopped": RankStop(0),
    "slowed": Straggler(0, Percent(50), Duration.parse("20 ms")),
    "restarted": RankRestart(0),
}


def born(two_hosts, fault):
    """A rank, with a parent that starts it again where the fault asks for one; how it is."""
    if not isinstance(fault, RankRestart):
        made = two_hosts.start("rank0")
        return lambda: process_state(made.pid)[0]
    two_hosts.supervise("rank0")
    parent = list(two_hosts.processes.values())[-1].pid
    look = ("ps", "-o", "stat=", "--ppid", str(parent))
    return lambda: subprocess.run(look, capture_output=True, text=True, check=False).stdout[:1]


@pytest.mark.parametrize("survivor", ["controller", "nobody"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_rank_runs_on_whoever_died(two_hosts, fault, survivor):
    rng, hurt = random.Random(survivor), 0

    async def go(turn, how):
        journal = f"journal{turn}.jsonl"
        hands = await two_hosts.arm(fault.changes(two_hosts.fabric), journal)
        await hands.start(now_ns() + 5_000_000, fault.schedule(STORM, rng))
        await asyncio.sleep(rng.uniform(0, 0.1))  # the moment is what is tested
        os.kill(hands.pid, signal.SIGKILL)
        await hands.close()
        was = how()
        if survivor == "controller":
            assert (await hands.heal()).taken_back
        await asyncio.to_thread(recover.undo, [two_hosts.folder / journal])
        return was in ("T", "", "Z")

    how = born(two_hosts, fault)
    for turn in range(KILLS):
        if turn and isinstance(fault, RankRestart):
            how = born(two_hosts, fault)  # what was born again has another number
        hurt += asyncio.run(go(turn, how))
        wait_until(lambda how=how: how() in ("S", "R"), lambda how=how: f"it to run: {how()!r}", 5)
    assert hurt, "every death came while nothing was in force"
