"""The RoCE stream on real packets: nothing odd in calm; each oddity counted packet by packet."""

import os
import signal
import socket
import time

import pytest

from chaos import native
from chaos.change import PacketRule, Place, Where
from chaos.netns import inode
from chaos.packets import Rule
from chaos.timeline import Windows, now_ns
from probes.roce_flow import RoceFlow
from tests.netns.test_flow import Run, done, values

pytestmark = pytest.mark.netns


def measured(run, event, heal):
    records = run.records()
    found = run.flow.read(records)
    assert found.trouble == ()
    windows = Windows((run.begin, event.earliest_ns), event, heal, now_ns())
    return values(run.flow.measures(found, windows)), found, records


def test_calm_loses_nothing_and_every_message_is_acknowledged(two_paths, start):
    run = Run(RoceFlow("h1", "h2", message=4), two_paths, start)
    event = done(lambda: run.batches(5))
    found, readings, records = measured(run, event, done(lambda: None))

    sent = records["sender"][-1]["sent"]
    assert sent > 1000
    assert records["receiver"][-1]["received"] == sent
    acks = sum(
        len(one["met"].get("ack", ())) for one in records["sender"] if one["ev"] == "answers"
    )
    assert acks == sent // 4
    assert [event for event in readings.events if event.detector] == []
    for kind in ("icrc", "data", "ce", "dscp", "fecn", "becn", "nak", "rnr_nak", "cnp"):
        assert found[f"roce_{kind}_packets"].value == 0, kind
    assert found["roce_lost_packets"].value == 0


def broken(run, two_paths, rule, node="r1", port="eth1"):
    """The measures of a stream under a rule on what h1 sends (or another), and its counters."""
    index = two_paths.inside(node, lambda: socket.if_nametoindex(port))
    change = PacketRule(Place(node, port), "railbreak_roce", Rule.parse(rule))
    path = two_paths.namespaces[node]
    where = Where(netns=path, inode=inode(path), ifname=port, ifindex=index)
    made = native.build(change, where)
    event = done(made.do)
    run.batches(6)
    heal = done(made.undo)
    hits = made.hits()
    made.close()
    found, readings, _ = measured(run, event, heal)
    return found, readings, hits


def test_dropped_packets_are_missed_and_each_train_is_nakked(two_paths, start):
    run = Run(RoceFlow("h1", "h2"), two_paths, start)
    rule = {"select": {"opcode": "middle"}, "when": {"every": 50}}
    found, readings, hits = broken(run, two_paths, rule)

    assert hits.hit > 3
    assert found["roce_lost_packets"].value == hits.hit
    assert found["roce_nak_packets"].value == hits.hit
    assert "roce_nak" in {event.detector for event in readings.events}


def test_marked_packets_are_counted_and_answered_by_cnps(two_paths, start):
    run = Run(RoceFlow("h1", "h2"), two_paths, start)
    rule = {"select": {"ecn": "ect"}, "when": {"every": 10}, "then": "ce"}
    found, readings, hits = broken(run, two_paths, rule)

    assert found["roce_ce_packets"].value == hits.hit > 20
    assert found["roce_cnp_packets"].value == hits.hit
    assert found["roce_lost_packets"].value == 0
    assert "roce_cnp" in {event.detector for event in readings.events}


def test_lost_acknowledgements_are_no_lost_data(two_paths, start):
    run = Run(RoceFlow("h1", "h2"), two_paths, start)
    rule = {"select": {"opcode": "ack"}}
    found, _, hits = broken(run, two_paths, rule, "r2", "eth1")

    assert hits.hit > 50
    assert found["roce_lost_packets"].value == 0
    after = found["roce_ack_packets"].value
    assert 0 < after < hits.hit  # those of the time after the heal


def test_a_requester_that_was_held_up_leaves_no_gap_in_its_numbers(two_paths, start):
    """What a busy machine kept it from sending has no PSN: nothing is missed, nothing is NAKked."""
    run = Run(RoceFlow("h1", "h2"), two_paths, start)
    event = done(lambda: os.kill(run.sender.process.pid, signal.SIGSTOP))
    time.sleep(0.3)  # the condition *is* the time that passes
    heal = done(lambda: os.kill(run.sender.process.pid, signal.SIGCONT))
    run.batches(3)
    found, readings, records = measured(run, event, heal)

    assert records["sender"][-1]["skipped"] >= 500
    assert found["roce_nak_packets"].value == found["roce_lost_packets"].value == 0
    assert [event for event in readings.events if event.detector] == []
    acks = sum(
        len(one["met"].get("ack", ())) for one in records["sender"] if one["ev"] == "answers"
    )
    assert acks == records["sender"][-1]["sent"] // 4
