"""The flow probe on real packets."""

import os
import re
import signal
import socket
import time

import pytest

from chaos.timeline import Moment, Windows, now_ns
from probes.flow import Flow
from probes.jobs import flow_receiver

pytestmark = pytest.mark.netns


class Run:
    """A flow h1->h2 running on two_paths; `readings()` stops it and reads."""

    def __init__(self, flow, two_paths, start):
        self.flow, self.fabric = flow, two_paths
        receiver, sender = flow.programs(two_paths.fabric, two_paths.addresses)
        self.receiver = start(receiver, two_paths.namespaces)
        self.receiver.wait_for("ready")
        self.sender = start(sender, two_paths.namespaces)
        self.sender.wait_for("ready")
        self.batches(3)
        self.begin = now_ns()

    def batches(self, count):
        """Wait until the receiver has told `count` batches more."""
        self.receiver.wait_count("got", count)

    def records(self):
        self.batches(2)
        return {"sender": self.sender.stop(), "receiver": self.receiver.stop()}

    def readings(self):
        return self.flow.read(self.records())


def windows(begin, event, heal):
    """Phases of a run; the end is now."""
    return Windows((begin, event.earliest_ns), event, heal, now_ns())


def done(work):
    """Do it; when it was done, as a Moment."""
    before = now_ns()
    work()
    return Moment(before, now_ns())


def values(found):
    return {measure.name: measure for measure in found}


def test_calm_loses_nothing_and_every_packet_is_accounted_for(two_paths, start):
    run = Run(Flow("h1", "h2", ports=4), two_paths, start)
    event = done(lambda: run.batches(5))
    records = run.records()
    readings = run.flow.read(records)
    assert readings.trouble == ()
    assert readings.spans == ()
    assert [event for event in readings.events if event.detector] == []
    sent = records["sender"][-1]["sent"]
    assert sent > 1000
    assert records["receiver"][-1]["received"] == sent
    measured = values(run.flow.measures(readings, windows(run.begin, event, done(lambda: None))))
    assert measured["flow_lost_packets"].value == 0
    assert measured["flow_outage_longest_ms"].value == 0
    assert measured["flow_outage_longest_ms"].high == 2.0  # one interval of a flow cannot be seen
    assert measured["flow_convergence_ms"].value == 0
    assert not measured["flow_convergence_ms"].censored


def test_kernel_stamps_lie_just_behind_the_sends(two_paths, start):
    """Arrival minus send is the one-way delay: never negative beyond the clock's stated error."""
    run = Run(Flow("h1", "h2"), two_paths, start)
    records = run.records()
    sent = {
        slot: batch["t"] + at
        for batch in records["sender"]
        if batch["ev"] == "sent"
        for slot, at in enumerate(batch["at"], batch["first"])
        if at >= 0
    }
    errors = [r["clock_error"] for r in records["receiver"] if r["ev"] == "got"]
    delays = sorted(
        batch["t"] + at - sent[slot]
        for batch in records["receiver"]
        if batch["ev"] == "got"
        for slot, at in zip(batch["slots"], batch["at"], strict=True)
    )
    assert len(delays) > 200
    assert delays[0] > -2 * max(errors)
    assert delays[len(delays) // 2] < 5_000_000


def test_a_cut_is_measured_from_both_sides(two_paths, start):
    run = Run(Flow("h1", "h2"), two_paths, start)
    cut = done(lambda: two_paths.ip("r2", "route add blackhole 10.9.8.2/32"))
    run.batches(3)
    heal = done(lambda: two_paths.ip("r2", "route del blackhole 10.9.8.2/32"))
    run.batches(7)
    readings = run.readings()
    (outage,) = [span for span in readings.spans if span.name == "outage"]
    assert cut.earliest_ns <= outage.end_ns <= heal.latest_ns + 5_000_000
    assert cut.earliest_ns - 5_000_000 <= outage.start_ns <= cut.latest_ns
    found = values(run.flow.measures(readings, windows(run.begin, cut, heal)))
    lost, longest = found["flow_lost_packets"].value, found["flow_outage_longest_ms"]
    assert lost == outage.facts["lost"] > 150
    assert longest.low <= found["flow_loss_derived_ms"].value + 1
    assert found["flow_loss_derived_ms"].value == pytest.approx(longest.value, abs=20)
    rate = found["flow_rate_derived_ms"]
    assert rate.low <= longest.value <= rate.high
    assert 80 < found["flow_loss_percent"].value <= 100
    assert found["flow_convergence_ms"].censored  # it came back by the heal alone
    assert found["heal_lost_packets"].value == 0
    names = [event.name for event in readings.events]
    assert names == ["flow.gap_started", "flow.restored"]
    assert readings.events[0].detector == "flow_gap"
    assert readings.trouble == ()


def test_losing_one_of_two_paths_hits_only_its_flows(two_paths, start):
    """r1 keeps hashing onto a leg that r2 silently drops: some source ports suffer, others not."""
    flow = Flow("h1", "h2", ports=8)
    run = Run(flow, two_paths, start)
    before = now_ns()
    end_drop = two_paths.drop_at("r2", "eth2")
    cut = Moment(before, now_ns())
    run.batches(5)
    heal = done(end_drop)
    run.batches(2)
    readings = run.readings()
    hit = {span.element for span in readings.spans if span.name == "outage"}
    assert set() < hit < set(flow.elements)
    found = values(flow.measures(readings, windows(run.begin, cut, heal)))
    assert found["flow_outage_count"].value == len(hit)
    share = 100 * len(hit) / len(flow.elements)
    assert found["flow_loss_percent"].value == pytest.approx(share, rel=0.15)


def test_a_sender_that_was_held_up_loses_nothing(two_paths, start):
    run = Run(Flow("h1", "h2"), two_paths, start)
    event = done(lambda: os.kill(run.sender.process.pid, signal.SIGSTOP))
    time.sleep(0.3)  # the condition *is* the time that passes
    heal = done(lambda: os.kill(run.sender.process.pid, signal.SIGCONT))
    run.batches(3)
    records = run.records()
    assert records["sender"][-1]["skipped"] >= 500
    readings = run.flow.read(records)
    assert readings.spans == ()
    assert readings.trouble == ()
    found = values(run.flow.measures(readings, windows(run.begin, event, heal)))
    assert found["flow_lost_packets"].value == 0
    assert found["flow_sender_stall_longest_ms"].value >= 250


def test_a_receiver_that_was_held_up_loses_nothing_either(two_paths, start):
    """Kernel stamps and a large buffer: what waits is neither lost nor late."""
    run = Run(Flow("h1", "h2"), two_paths, start)
    os.kill(run.receiver.process.pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(run.receiver.process.pid, signal.SIGCONT)
    run.batches(2)
    readings = run.readings()
    assert readings.spans == ()
    assert readings.trouble == ()


def test_own_kernel_refusing_is_outage_but_not_loss(two_paths, start):
    run = Run(Flow("h1", "h2"), two_paths, start)
    cut = done(lambda: two_paths.ip("h1", "route del default"))
    run.batches(3)
    heal = done(lambda: two_paths.ip("h1", "route add default via 10.9.1.1"))
    run.batches(2)
    records = run.records()
    reasons = {reason for r in records["sender"] if r["ev"] == "sent" for _, reason in r["refused"]}
    assert reasons == {"ENETUNREACH"}
    readings = run.flow.read(records)
    found = values(run.flow.measures(readings, windows(run.begin, cut, heal)))
    assert found["flow_lost_packets"].value <= 1
    assert found["flow_refused_packets"].value > 150
    assert found["flow_outage_longest_ms"].value > 150


def test_a_receiver_that_dies_while_the_sender_goes_on_is_trouble(two_paths, start):
    run = Run(Flow("h1", "h2"), two_paths, start)
    run.receiver.process.kill()
    run.sender.wait_count("sent", 13)
    records = {"sender": run.sender.stop(), "receiver": run.receiver.end()}
    readings = run.flow.read(records)
    assert len(readings.trouble) == 1
    assert re.fullmatch(
        r"flow: the receiver fell silent 1\.\d s before the other side did", readings.trouble[0]
    )
    assert readings.spans == ()  # what nobody could hear is not lost


def test_an_overflow_of_the_receivers_buffer_is_seen_as_such(two_paths):
    """What the reader calls trouble: drops of the socket, and of buffers in its namespace."""

    def overflow():
        before = flow_receiver.buffer_errors()
        with flow_receiver.open_socket("10.9.8.2", 5201) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(100):
                    sender.sendto(bytes(500), ("10.9.8.2", 5201))
            return flow_receiver.dropped(sock), flow_receiver.buffer_errors() - before

    dropped, errors = two_paths.inside("h2", overflow)
    assert dropped == errors > 50


def test_packets_of_another_run_are_told_apart(two_paths, start):
    """A stray of the same port: counted as foreign, never as an arrival."""
    run = Run(Flow("h1", "h2"), two_paths, start)

    def stray():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(7):
                sock.sendto(bytes(100), ("10.9.8.2", 5201))

    two_paths.inside("h1", stray)
    records = run.records()
    assert [r for r in records["receiver"] if r["ev"] == "got"][-1]["foreign"] == 7
    assert run.flow.read(records).trouble == ()
