"""Probes on machines over SSH: one clock, copies merged, ranks on other hosts, nothing left."""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from chaos.drivers.ssh import SshDriver
from chaos.errors import BlockedError, CapabilityError, FabricError
from chaos.observe import Observer
from chaos.registry import Program
from chaos.timeline import Moment, Windows, now_ns
from chaos.units import Pps
from probes.collective import Collective
from probes.flow import Flow
from probes.kernel_events import KernelEvents
from probes.path import Path as PathProbe
from probes.routing import Routing
from tests.ssh.conftest import wait_until

pytestmark = [pytest.mark.ssh, pytest.mark.slow]
TORCH = importlib.util.find_spec("torch")
SITE = str(Path(TORCH.origin).parents[1]) if TORCH and TORCH.origin else ""
#: No files of the home of whoever runs the tests.
PLAIN = "mount -t tmpfs tmpfs /root"
needs_torch = pytest.mark.skipif(not SITE, reason="collective needs torch: railbreak[job]")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def three(machines):
    """h1 -- r1 -- h2, each with a clock of its own."""
    machines.add("h1", monotonic=4711, setup=PLAIN)
    machines.add("h2", monotonic=99, setup=PLAIN)
    machines.add("r1", setup=PLAIN)
    return machines.star(["h1", "h2"])


def on(three, work, torch="", **more):
    """Attach, do something with the driver, let go; nothing may be left."""
    extra = f"  vars: {{railbreak: {{torch: {torch}}}}}\n" if torch else ""
    hosts, table = three.inventory()
    if extra:
        text = hosts.read_text().replace(
            "  vars:\n", f"  vars:\n    railbreak: {{torch: {torch}}}\n", 1
        )
        hosts.write_text(text)

    async def body():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="three", **more)
        try:
            await driver.wait_ready(20)
            return await work(driver)
        finally:
            await driver.down()

    try:
        return three.control(body)
    finally:
        assert three.left() == []


async def observed(driver, probes, during):
    """Run probes while `during` happens; what was said and doubted, by label."""
    observer = Observer(driver, probes)
    try:
        await observer.start()
        await during(observer)
        return {label: (observer.records(label), observer.trouble(label)) for label in probes}
    finally:
        await observer.stop()


def test_a_flow_between_two_machines_is_on_one_clock(three, home):
    async def work(driver):
        async def during(observer):
            await asyncio.sleep(1.0)
            rules = "table ip lost { chain c { type filter hook forward priority 0; drop; }; }"
            before = now_ns()
            three["r1"].run("nft", rules)
            inside.append(now_ns())
            await asyncio.sleep(0.5)
            inside.append(now_ns())
            three["r1"].run("nft", "delete table ip lost")
            around.extend((before, now_ns()))
            await asyncio.sleep(1.0)

        flow = Flow("h1", "h2", rate=Pps(1000))
        inside, around = [], []
        start = now_ns()
        found = await observed(driver, {"flow": flow}, during)
        return flow, *found["flow"], start, now_ns(), inside, around

    flow, records, trouble, start, end, inside, around = on(three, work)

    assert trouble == ()
    readings = flow.read(records)
    assert readings.trouble == ()
    clocks = [r for some in records.values() for r in some if r["ev"] == "clock"]
    assert {r["node"] for r in clocks} == {"h1", "h2"}
    error = readings.extra["clock_error_ns"]
    assert 0 < error < 20_000_000
    for some in records.values():
        assert all(start <= r["t"] <= end for r in some)
    gap = max(readings.spans, key=lambda span: span.length_ns)
    slack = error + 50_000_000  # packets on their way, and the receiver's turn
    assert around[0] - slack < gap.start_ns < inside[0] + slack
    assert inside[1] - slack < gap.end_ns < around[1] + slack
    # a packet cannot arrive before it was sent, up to what the clocks may be off
    sent = {
        s: r["t"] + at
        for r in records["sender"]
        if r["ev"] == "sent"
        for s, at in enumerate(r["at"], r["first"])
    }
    got = {
        s: r["t"] + at
        for r in records["receiver"]
        if r["ev"] == "got"
        for s, at in zip(r["slots"], r["at"])
    }
    late = [got[s] - sent[s] for s in got if s in sent]
    assert min(late) > -error
    assert min(late) < error + 5_000_000
    windows = Windows(
        (start, gap.start_ns),
        Moment(gap.start_ns, gap.start_ns),
        Moment(gap.end_ns, gap.end_ns),
        end,
    )
    longest = next(
        m for m in flow.measures(readings, windows) if m.name == "flow_outage_longest_ms"
    )
    assert longest.high - longest.value == pytest.approx(error / 1e6)
    assert "clocks" in longest.note
