"""A worker that stands still does not notice that its injector died: undo finds it and ends it."""

import asyncio
import os
import signal

import pytest

from chaos import snapshot
from chaos.change import PacketRule
from chaos.packet_worker import workers_of
from chaos.registry import InForce
from chaos.timeline import now_ns
from tests.netns.bench import TABLE, WIRE
from tests.netns.frames import rule
from tests.netns.stack import PORT
from tests.netns.workers import await_gone, home_of
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

S = 1_000_000_000


@pytest.mark.parametrize(("place", "engine"), [(WIRE, "worker"), (PORT, "nfqueue")])
def test_a_frozen_worker_that_outlived_its_injector_is_ended_by_the_journal(
    two_hosts, place, engine
):
    change = PacketRule(place, TABLE, rule(then="delay=1ms"), engine)
    path = two_hosts.path(home_of(place))
    before = snapshot.take(two_hosts.namespaces)

    async def go():
        hands = await two_hosts.arm((change,))
        await hands.start(now_ns(), [InForce(0, 20 * S)])
        while not any(one.kind == "do" for one in hands.actions):
            await hands.hits()
        (worker,) = workers_of(TABLE, path)
        os.kill(worker, signal.SIGSTOP)
        os.kill(hands.pid, signal.SIGKILL)
        proof = await hands.heal()
        await hands.close()
        return worker, proof

    worker, proof = asyncio.run(go())
    assert proof.taken_back, proof.leftovers
    assert "the journal was replayed in its place" in proof.trouble[0]
    await_gone(two_hosts, home_of(place))
    wait_until(lambda: worker not in workers_of(TABLE, path), "the worker to be gone")
    assert snapshot.difference(before, snapshot.take(two_hosts.namespaces)) == ()
    assert two_hosts.ping() == 3
