"""Counters of real ports: what the kernel counted, and what a veth pair has no counter for."""

import socket
import time

import pytest

from chaos.timeline import Moment, Windows, now_ns
from chaos.units import Duration
from probes.nic_counters import NicCounters

pytestmark = pytest.mark.netns
UNKNOWN = 0x88B5  # an EtherType for experiments: no protocol takes it
FRAMES = 37


def test_packets_that_the_kernel_dropped_are_counted_at_their_port(two_paths, start):
    probe = NicCounters(every=Duration.parse("100 ms"))
    (program,) = probe.programs(two_paths.fabric, two_paths.addresses)
    running = start(program, two_paths.namespaces)
    running.wait_for("beat")
    begun = now_ns()
    time.sleep(0.25)
    before = now_ns()
    two_paths.inside("h1", send)
    after = now_ns()
    ended = 0
    while ended < after:  # a look that began after the last frame
        time.sleep(0.1)
        ended = max(r["t"] for r in running.records if r and r["ev"] == "beat")
    readings = probe.read({"reader": running.stop()})

    windows = Windows((begun, before), Moment(before, before), Moment(after, after), now_ns())
    found = {measure.name: measure for measure in probe.measures(readings, windows)}
    dropped = found["nic_kernel_dropped_packets"]
    assert readings.trouble == ()
    assert (dropped.value, dropped.n) == (FRAMES, 8)
    assert f"r1:eth1 {FRAMES}" in dropped.note
    assert found["nic_kernel_errors_count"].value == 0
    for name, measure in found.items():
        if not name.startswith("nic_kernel"):
            assert (measure.value, measure.n) == (None, 0), name


def send():
    """Frames that nobody at the other end takes."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth1", 0))
        for _ in range(FRAMES):
            sock.send(b"\xff" * 6 + bytes(6) + UNKNOWN.to_bytes(2, "big") + bytes(50))
