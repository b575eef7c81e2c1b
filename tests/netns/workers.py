"""What is left of packet workers, and deaths of them and of those who started them."""

import asyncio
import os
import random
import signal
import subprocess

from chaos import nfqueue, recover, snapshot
from chaos.change import PacketRule
from chaos.netns import inside
from chaos.packet_worker import workers_of
from chaos.registry import InForce
from chaos.timeline import now_ns
from tests.netns.bench import TABLE
from tests.netns.frames import rule
from tests.waiting import wait_until


def left(two_hosts, node="wire"):
    """Tables, taps, bound queues and processes of workers in a node, as it has them now."""
    path = two_hosts.path(node)
    tables = two_hosts.run(node, "nft", "list", "tables").splitlines()
    links = two_hosts.run(node, "ip", "-o", "link").splitlines()
    return [
        *(line for line in tables if "railbreak" in line),
        *(line for line in links if " rbt" in line),
        *(f"queue {number}" for number in inside(path, nfqueue.taken)),
        *(f"process {pid}" for pid in workers_of(TABLE, path)),
    ]


def await_gone(two_hosts, node="wire"):
    """Until nothing of a worker is left."""
    wait_until(lambda: not left(two_hosts, node), lambda: f"{left(two_hosts, node)} to go", 5)


def home_of(place):
    """The node in which a rule's table and worker are."""
    return "wire" if place.side == "wire" else place.node


def outlived(two_hosts, place, engine, victim, turns):
    """Under traffic, the `injector`, the `worker` or `both` are killed at moments drawn at random.

    Every time all of it must be gone and the undo must find nothing more; in the end packets flow.
    """
    rng, node = random.Random(victim), home_of(place)
    change = PacketRule(place, TABLE, rule(then="delay=3ms jitter=2ms"), engine)
    before = snapshot.take(two_hosts.namespaces)

    async def go(turn):
        journal = f"journal{turn}.jsonl"
        hands = await two_hosts.arm((change,), journal)
        await hands.start(now_ns() + 5_000_000, [InForce(0, 10**10)])
        await asyncio.sleep(rng.uniform(0, 0.05))  # the moment is what is tested
        (worker,) = workers_of(TABLE, two_hosts.path(node))
        victims = {"injector": [hands.pid], "worker": [worker], "both": [hands.pid, worker]}
        for pid in victims[victim]:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(await_gone, two_hosts, node)
        proof = await hands.heal()
        await hands.close()
        return proof, await asyncio.to_thread(recover.undo, [two_hosts.folder / journal])

    ping = ("ping", "-q", "-i", "0.002", "-c", "100000", "10.0.0.2")
    traffic = inside(
        two_hosts.path("h1"), lambda: subprocess.Popen(ping, stdout=subprocess.DEVNULL)
    )
    try:
        for turn in range(turns):
            proof, later = asyncio.run(go(turn))
            assert proof.taken_back
            assert later == []
            await_gone(two_hosts, node)
    finally:
        traffic.kill()
        traffic.wait()
    assert two_hosts.ping() == 3
    assert asyncio.run(snapshot.settle(two_hosts.namespaces, before, 5)) == ()
