"""Queues of the kernel that packets wait in: whose they are, who ends them, what is left."""

import os
import signal
import time

import pytest

from chaos import nfqueue, snapshot
from chaos.change import PacketRule
from chaos.errors import CapabilityError
from chaos.netns import inside
from chaos.nfqueue import Queue
from chaos.nft import Compiler
from tests.netns.bench import QUIET_S, TABLE, acting, made_ready, numbers
from tests.netns.frames import roce, rule
from tests.netns.stack import PORT
from tests.netns.workers import await_gone, left
from tests.waiting import wait_until

pytestmark = pytest.mark.netns


# ---- whoever dies -------------------------------------------------------------------------------


def test_a_killed_worker_leaves_an_open_road(stack):
    """What is sent after the kill arrives, undelayed; nothing of the table or the queue is left."""
    sent, killed = [], 0
    with acting(stack.two_hosts, rule(then="delay=50ms"), PORT) as made:
        with stack.reading() as came:
            for number in range(3000):
                if number == 1000:
                    killed = time.time_ns()
                    os.kill(made.worker.pid, signal.SIGKILL)
                sent += stack.send_all([roce(number)], 0.0001)
            wait_until(lambda: came and came[-1].number == 2999, "the last packet", 5)
        assert made.undo() == ()

    got = numbers(came)
    lost = sorted(set(range(3000)) - set(got))
    assert len(got) == len(set(got)), "none came twice"
    assert not lost or sent[lost[-1]] - killed < 500_000_000, f"{lost[0]} to {lost[-1]} were lost"
    assert got[-500:] == list(range(2500, 3000))
    late = [one.at_ns - sent[one.number] for one in came if one.number >= 2500]
    assert sorted(late)[250] < 25_000_000, "half of what was asked for"
    await_gone(stack.two_hosts, "h2")


def test_when_a_frozen_workers_queue_is_full_packets_go_straight_on(stack):
    """Fail-open: none is lost; what it had is let go by it later. The sentence says how many."""
    with acting(stack.two_hosts, rule(select={"roce": True}, then="delay=1ms"), PORT) as made:
        os.kill(made.worker.pid, signal.SIGSTOP)
        stack.send_all([roce(n) for n in range(21_000)])
        wait_until(lambda: made.hits().hit == 21_000, "all of them to meet the rule")
        time.sleep(QUIET_S)
        straight = numbers(stack.gather())
        os.kill(made.worker.pid, signal.SIGCONT)
        assert made.undo() == ()
        later = numbers(stack.gather())
        (sentence,) = made.trouble
        told, hits = made.told, made.hits()

    assert 0 < len(straight) == 21_000 - told["taken"]
    assert sorted(straight + later) == list(range(21_000)), "each came, once"
    assert hits.hit == 21_000
    assert "found its queue full" in sentence


def test_a_chain_that_somebody_unhooks_empties_every_queue_and_that_is_told(stack):
    """The kernel drops what is queued when any hook of the namespace goes: a limit, not hidden."""
    with acting(stack.two_hosts, rule(select={"roce": True}, then="delay=300ms"), PORT) as made:
        stack.send_all([roce(n) for n in range(10)])
        wait_until(lambda: made.hits().hit == 10, "all of them to be queued")
        chain = "chain c {\n type filter hook ingress device lo priority 0;\n }"
        stack.two_hosts.run("h2", "nft", f"table netdev other {{\n {chain}\n}}")
        stack.two_hosts.run("h2", "nft", "delete table netdev other")
        time.sleep(0.35)  # longer than they are held
        assert made.undo() == ()
        came, (sentence,) = stack.gather(), made.trouble

    assert came == []
    assert "10 packets could not be put back" in sentence


def test_by_hand_it_is_started_and_stopped_and_leaves_nothing(two_hosts):
    """What a dry run prints, twice; also no table of iptables'."""
    before = snapshot.take(two_hosts.namespaces)
    change = PacketRule(PORT, TABLE, rule(then="delay=1ms"))
    steps = change.steps(two_hosts.resolve(PORT))
    for _ in range(2):
        two_hosts.run("h2", *steps.do[0])
        assert steps.holds(two_hosts.run("h2", *steps.look))
        assert two_hosts.ping() == 3
        for _ in range(2):
            two_hosts.run("h2", *steps.undo[0])
        await_gone(two_hosts, "h2")
        assert not steps.holds(two_hosts.run("h2", *steps.look))
    assert snapshot.difference(before, snapshot.take(two_hosts.namespaces)) == ()
    assert two_hosts.run("h2", "nft", "list", "ruleset").strip() == ""


def test_a_number_that_another_has_is_left_to_him(two_hosts):
    """The next one is taken; his packets stay his."""

    def both():
        first = Queue(TABLE, 100)
        try:
            second = Queue(TABLE, 100)
        except CapabilityError as error:
            pytest.fail(f"no other number was taken: {error}")
        found = nfqueue.taken()
        for one in (first, second):
            one.close()
        return first.number, second.number, found

    first, second, found = inside(two_hosts.path("h2"), both)

    assert second == first + 1
    assert set(found) == {first, second}
    assert len(set(found.values())) == 2


def test_a_kernel_without_either_way_is_told_from_one_that_has_it(two_hosts, monkeypatch):
    """The probe is by doing, and leaves nothing."""

    def probe():
        compiler = Compiler()
        try:
            return nfqueue.native(compiler)
        finally:
            compiler.close()

    assert inside(two_hosts.path("h2"), probe) in (True, False)
    assert "railbreak" not in two_hosts.run("h2", "nft", "list", "tables")

    monkeypatch.setattr(nfqueue, "words", lambda number: f"nosuchword {number}")
    monkeypatch.setattr(nfqueue, "target", lambda number: b"\x0b\0\1\0nosuch\0\0")
    with pytest.raises(CapabilityError, match="CONFIG_NFT_QUEUE"):
        inside(two_hosts.path("h2"), probe)


def test_packets_of_another_interface_are_not_met(two_hosts):
    """The rule is the port's: what comes by the other cable passes by."""

    def median_ms(address):
        told = two_hosts.run("h1", "ping", "-q", "-c", "3", "-i", "0.01", address)
        return float(told.rpartition(" = ")[2].split("/")[1])

    with acting(two_hosts, rule(select={"family": 4}, then="delay=50ms"), PORT) as made:
        assert median_ms("10.1.0.2") < 45
        assert made.hits().seen == 0
        assert median_ms("10.0.0.2") > 45
        assert made.hits().seen == 3
        assert made.undo() == ()


@pytest.mark.parametrize(("kind", "more"), [("bridge", ""), ("vrf", "table 9")])
def test_a_port_whose_packets_another_takes_is_refused(two_hosts, kind, more):
    """A bridge takes them before IP; a VRF does not, and there the rule acts."""
    try:
        two_hosts.run("h2", *f"ip link add up0 type {kind} {more}".split())
    except AssertionError as error:
        pytest.skip(f"no {kind} on this kernel: {error}")
    two_hosts.run("h2", "ip", "link", "set", "up0", "up")
    two_hosts.run("h2", "ip", "link", "set", "eth1", "master", "up0")
    one = rule(select={"family": 4}, then="delay=1ms")
    if kind == "bridge":
        with pytest.raises(CapabilityError, match=r"eth1 is a port of up0 \(bridge\), which takes"):
            made_ready(two_hosts, one, PORT)
        assert left(two_hosts, "h2") == []
        return
    with acting(two_hosts, one, PORT) as made:
        two_hosts.ping()
        assert made.hits().hit == 3
        assert made.undo() == ()
