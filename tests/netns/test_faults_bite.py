"""Every fault on two real hosts: it bites what it says, and nothing else."""

import asyncio
import json
import socket

import pytest

from chaos import native
from chaos.hands import Hands
from chaos.netns import inside
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration, Percent
from faults.link_down import LinkDown
from faults.node_down import NodeDown
from faults.packet_loss import PacketLoss

pytestmark = pytest.mark.netns

CABLE = "h1:eth1--h2:eth1"
MS = 1_000_000


class Broken:
    """A fault in force for the body of a `with`, by the native messages."""

    def __init__(self, two_hosts, fault):
        wheres = two_hosts.wheres(changes := fault.changes(two_hosts.fabric))
        self.made = [native.build(change, wheres[change.place]) for change in changes]

    def __enter__(self):
        for one in self.made:
            one.do()
        return self

    def hits(self):
        return [one.hits().hit for one in self.made]

    def __exit__(self, *exc):
        for one in reversed(self.made):
            one.undo()
            one.close()


def link(two_hosts, node, port):
    """`up` (carrier), `dark` (admin up without carrier) or `down`, once events have settled."""
    (told,) = json.loads(two_hosts.run(node, "ip", "-j", "link", "show", port))
    if "UP" not in told["flags"]:
        return "down"
    return "dark" if "NO-CARRIER" in told["flags"] else "up"


def links(two_hosts):
    return {
        f"{node}:{port}": link(two_hosts, node, port)
        for node in ("h1", "h2")
        for port in ("eth1", "eth2")
    }


ALL_UP = {"h1:eth1": "up", "h1:eth2": "up", "h2:eth1": "up", "h2:eth2": "up"}


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (LinkDown(CABLE), {"h1:eth1": "dark", "h2:eth1": "dark"}),
        (LinkDown(CABLE, end="h2"), {"h2:eth1": "dark"}),
        (LinkDown(CABLE, mode="admin", end="h1"), {"h1:eth1": "down", "h2:eth1": "dark"}),
        (LinkDown(CABLE, mode="admin"), {"h1:eth1": "down", "h2:eth1": "down"}),
        (LinkDown(CABLE, mode="silent"), {}),
        (NodeDown("h1"), dict.fromkeys(ALL_UP, "dark")),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_the_nodes_see_what_the_fault_says(two_hosts, fault, seen):
    assert links(two_hosts) == ALL_UP
    with Broken(two_hosts, fault):
        assert links(two_hosts) == ALL_UP | seen
        assert two_hosts.ping() == 0
    assert links(two_hosts) == ALL_UP
    assert two_hosts.reaches()


def sent(two_hosts, source, count, port=4791):
    """Ordinals of `count` datagrams that arrived, sent from `source` to the other host."""
    target = "h2" if source == "h1" else "h1"
    receiver = inside(two_hosts.path(target), lambda: socket.socket(type=socket.SOCK_DGRAM))
    receiver.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
    receiver.bind((f"10.0.0.{target[-1]}", port))
    receiver.settimeout(0.3)
    sender = inside(two_hosts.path(source), lambda: socket.socket(type=socket.SOCK_DGRAM))
    arrived = []
    with receiver, sender:
        for first in range(0, count, 500):
            for ordinal in range(first, min(first + 500, count)):
                sender.sendto(ordinal.to_bytes(4, "big"), (f"10.0.0.{target[-1]}", port))
            receiver.setblocking(False)
            try:
                while True:
                    arrived.append(int.from_bytes(receiver.recv(4), "big"))
            except BlockingIOError:
                pass
        receiver.settimeout(0.3)
        try:
            while True:
                arrived.append(int.from_bytes(receiver.recv(4), "big"))
        except TimeoutError:
            pass
    return arrived


@pytest.mark.parametrize("share", [Percent(1), Percent(30)], ids=str)
def test_loss_takes_exactly_the_packets_that_its_seed_picks(two_hosts, share):
    fault = PacketLoss(CABLE, share=share, end="h1", roce=True, seed=11)
    _, lost = fault.changes(two_hosts.fabric)[0].pattern()
    assert two_hosts.ping() == 3
    for _ in range(2):  # a second time the same packets are lost
        with Broken(two_hosts, fault) as broken:
            arrived = sent(two_hosts, "h1", 10_000)
            assert broken.hits() == [len(lost)]
        assert set(range(10_000)) - set(arrived) == set(lost)


def test_a_roce_loss_leaves_the_control_plane_alone(two_hosts):
    assert two_hosts.ping() == 3
    with Broken(two_hosts, PacketLoss(CABLE, share=Percent(100), roce=True)):
        assert two_hosts.ping() == 3
        assert sent(two_hosts, "h1", 50) == []
        assert len(sent(two_hosts, "h1", 50, port=4790)) == 50
        assert links(two_hosts) == ALL_UP


@pytest.mark.parametrize("end", ["h1", "h2"])
@pytest.mark.parametrize(
    "fault",
    [
        LinkDown(CABLE, mode="silent"),
        PacketLoss(CABLE, share=Percent(100), match="udp dport 4791"),
    ],
    ids=["silent", "loss"],
)
def test_one_direction_is_what_the_named_end_sends(two_hosts, fault, end):
    from dataclasses import replace

    assert two_hosts.ping() == 3
    other = "h2" if end == "h1" else "h1"
    with Broken(two_hosts, replace(fault, end=end)) as broken:
        assert sent(two_hosts, end, 20) == []
        assert len(sent(two_hosts, other, 20)) == 20
        assert broken.hits()[0] >= 20


def test_a_rule_that_matches_nothing_is_told_by_its_count(two_hosts):
    async def go():
        changes = PacketLoss(CABLE, share=Percent(100), match="udp dport 9").changes(
            two_hosts.fabric
        )
        hands = await Hands.arm(
            changes,
            two_hosts.wheres(changes),
            journal=two_hosts.folder / "journal.jsonl",
            max_life=Duration.parse("5 s"),
            log_dir=two_hosts.folder,
        )
        await hands.start(now_ns(), [InForce(0, 300 * MS)])
        assert await asyncio.to_thread(two_hosts.ping) == 3
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
        return proof

    proof = asyncio.run(go())
    assert proof.in_force
    assert [(one.seen, one.hit) for one in proof.changes] == [(0, 0), (0, 0)]
