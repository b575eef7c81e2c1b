"""Queues of the kernel that rules use: whose they are, what waits in them, what they leave."""

import asyncio
import contextlib
import os
import signal

import pytest

from chaos import native, recover, snapshot
from chaos.change import PacketRule, Place, PortShape
from chaos.changes.queue import HANDLE
from chaos.errors import BlockedError, FabricError
from chaos.registry import InForce
from chaos.timeline import now_ns
from tests.netns.bench import TABLE, WIRE, Road, acting, made_ready, needed, numbers
from tests.netns.frames import roce, rule
from tests.netns.transfer import frames_of, transferred
from tests.waiting import until, wait_until

pytestmark = pytest.mark.netns

#: Per engine, what takes some time.
THENS = {"htb": "rate=100kbit/s queue=1s", "netem": "delay=150ms"}


@pytest.fixture(params=["htb", pytest.param("netem", marks=pytest.mark.vm)])
def engine(request):
    """Each engine that is here."""
    return needed(request.param)


@pytest.fixture
def road(two_hosts, engine):
    """Two hosts, and a rule between them by the engine."""
    with contextlib.closing(Road(two_hosts, engine)) as made:
        yield made


def slow(engine):
    return rule(then=THENS[engine])


def opened(two_hosts, engine, saved=None, table=TABLE):
    return made_ready(two_hosts, slow(engine), engine=engine, saved=saved, table=table)


def undone_by_another(two_hosts, engine):
    """Another process, which finds it: takes it back without a word, and nothing is left."""
    with contextlib.closing(opened(two_hosts, engine, {})) as later:
        assert later.undo() == ()
        assert not later.in_force()


def roots(two_hosts):
    """What is at the roots of the hidden ends."""
    return [
        one for one in two_hosts.run("wire", "tc", "qdisc").splitlines() if "noqueue" not in one
    ]


def far_of(two_hosts):
    return two_hosts.resolve(WIRE).across


def test_what_waits_when_it_is_taken_back_leaves_in_its_order(road):
    with road.in_force(slow(road.engine)):
        for number in range(40):
            road.send(number, roce(number))
        came = road.gather()
        assert len(came) < 30
    came += road.arrivals(40 - len(came))

    assert numbers(came) == list(range(40))
    assert road.met.sent == 40
    assert roots(road.two_hosts) == []


def test_what_the_rule_does_not_mean_passes_by_at_once(road):
    """The class owes, or holds; other packets do not wait for it."""
    one = rule(select={"opcode": "middle"}, then=THENS[road.engine])
    frames = [f for n in range(20) for f in (roce(n), roce(n, "rc_acknowledge"))]

    came = road.go(one, frames)

    assert sorted(numbers(came)) == list(range(40))
    others = sorted(got.took_ns for got in came if got.number % 2)
    assert others[10] < 5_000_000
    slow = sorted(got.took_ns for got in came if got.number % 2 == 0)
    assert slow[10] > 5_000_000
    assert road.counted == {"seen": 20, "hit": 20, "passed": 0}


def test_a_stream_of_large_segments_comes_through_whole(two_hosts, engine):
    """A super-packet is marked as one, and leaves the class as its segments: more, never fewer."""
    size = 4_000_000
    then = {"htb": "rate=200Mbit/s queue=1s", "netem": "delay=1ms"}[engine]
    one = rule(select={"protocol": "tcp"}, then=then)

    with acting(two_hosts, one, engine=engine) as made:
        took_s = transferred(two_hosts, size)
        assert made.undo() == ()

    assert made.trouble == ()
    assert made.counted["hit"] < frames_of(size) / 4, "segments of many frames each"
    assert made.met.sent > size / 1500 > made.counted["hit"]
    if engine == "htb":
        assert took_s > 0.9 * size * 8 / 200e6


def test_a_low_rate_loses_what_waits_longer_than_it_is_waited_for(
    two_hosts, bench, monkeypatch, engine
):
    """And says so, with the number."""
    monkeypatch.setattr("chaos.natives.queued.DRAIN_S", 0.02)
    one = rule(then=THENS[engine].replace("100kbit", "16kbit"))

    with acting(two_hosts, one, engine=engine) as made:
        for number in range(5):
            bench.send(number, roce(number))
        assert made.undo() == ()
        (sentence,) = made.trouble

    lost = {"htb": 4, "netem": 5}[engine]  # htb lets the first one go
    assert f"{lost} packets waited still" in sentence
    assert made.met.waiting == lost
    assert roots(two_hosts) == []


def test_a_root_that_is_not_ours_is_refused_by_name_and_stays(two_hosts, engine):
    far = far_of(two_hosts)
    shape = ("tbf", "rate", "1gbit", "burst", "100k", "limit", "100k")
    two_hosts.run("wire", "tc", "qdisc", "add", "dev", far, "root", "handle", "5:", *shape)
    before = roots(two_hosts)
    with pytest.raises(BlockedError, match=rf"the root of {far} is a tbf \(5:\) that is not ours"):
        opened(two_hosts, engine)

    undone_by_another(two_hosts, engine)
    assert roots(two_hosts) == before


def test_a_shaped_port_is_refused_with_what_to_do(two_hosts, engine):
    place = Place("h2", "eth1", "wire")
    shaped = native.build(PortShape(place, 8_000_000, 2000, 9000), two_hosts.resolve(place))
    shaped.do()
    try:
        with pytest.raises(
            BlockedError, match=r"shaped by us already .*give the rule engine: work"
        ):
            opened(two_hosts, engine)
    finally:
        assert shaped.undo() == ()
        shaped.close()


def test_rules_share_a_port_and_each_takes_back_its_own(two_hosts, engine):
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(contextlib.closing(opened(two_hosts, engine)))
        made.do()
        with pytest.raises(BlockedError, match=rf"{TABLE} is there already"):
            opened(two_hosts, engine)
        other = opened(two_hosts, engine, table=f"{TABLE}_2")
        stack.enter_context(contextlib.closing(other)).do()
        assert two_hosts.ping() == 3

        assert made.undo() == ()
        assert not made.in_force()
        assert other.in_force()
        assert two_hosts.ping() == 3
        assert other.undo() == ()
        assert roots(two_hosts) == []

    assert other.trouble == made.trouble == ()
    for one in (made, other):
        assert one.met.sent == one.counted["hit"] == one.counted["seen"]
    assert made.met.sent + other.met.sent >= 6, "each packet is led to one queue, not to both"


@pytest.mark.parametrize("half", ["table", "queue"])
def test_half_of_it_is_taken_back_too(two_hosts, engine, half):
    with contextlib.closing(opened(two_hosts, engine)) as made:
        made.do()
        if half == "table":
            far, handle = far_of(two_hosts), f"{HANDLE:x}:"
            two_hosts.run("wire", "tc", "qdisc", "del", "dev", far, "root", "handle", handle)
        else:
            two_hosts.run("wire", "nft", "delete", "table", "netdev", TABLE)
        assert made.in_force()

    undone_by_another(two_hosts, engine)
    assert roots(two_hosts) == []
    assert TABLE not in two_hosts.run("wire", "nft", "list", "tables")


def test_where_the_interface_is_gone_nothing_is_left_to_undo(two_hosts, engine):
    with contextlib.closing(opened(two_hosts, engine)) as made:
        made.do()
    two_hosts.run("h2", "ip", "link", "del", "eth1")

    undone_by_another(two_hosts, engine)
    with pytest.raises(FabricError, match=r"interface w0b is gone"):
        opened(two_hosts, engine)
    assert TABLE not in two_hosts.run("wire", "nft", "list", "tables")


def test_by_hand_it_is_made_and_taken_back(two_hosts, engine):
    """What a dry run prints, twice; its undo lets what waits leave."""
    change = PacketRule(WIRE, TABLE, slow(engine), engine)
    steps = change.steps(two_hosts.resolve(WIRE))
    for _ in range(2):
        for argv in steps.do:
            two_hosts.run("wire", *argv)
        assert len(roots(two_hosts)) == 2
        assert two_hosts.ping() == 3
        for _ in range(2):
            for argv in steps.undo:
                two_hosts.run("wire", *argv)
        assert roots(two_hosts) == []


def test_when_the_injector_is_killed_undo_takes_it_back(two_hosts, engine):
    change = PacketRule(WIRE, TABLE, slow(engine), "auto")
    before = snapshot.take(two_hosts.namespaces)

    async def go():
        hands = await two_hosts.arm((change,))
        (settled,) = hands.changes
        await hands.start(now_ns() + 5_000_000, [InForce(0, 10**10)])
        await until(lambda: roots(two_hosts), "a queue of ours", 5)
        os.kill(hands.pid, signal.SIGKILL)
        await asyncio.to_thread(ended, hands.pid)
        found = await asyncio.to_thread(recover.undo, [two_hosts.folder / "journal.jsonl"])
        await hands.close()
        return settled, found

    settled, found = asyncio.run(go())

    assert settled.engine == engine
    assert settled.describe().endswith(f"at ingress, by {engine}")
    assert [one.outcome for one in found] == ["taken_back"]
    assert two_hosts.ping() == 3
    assert asyncio.run(snapshot.settle(two_hosts.namespaces, before, 5)) == ()
    assert roots(two_hosts) == []


def ended(pid):
    """Until a process has ended; its parent may not have been told yet."""
    wait_until(lambda: native.process_state(pid)[0] in ("", "Z"), f"process {pid} to end", 5)
