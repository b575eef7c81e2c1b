"""Probes on machines over SSH: one clock, copies merged, ranks on other hosts, nothing left."""

import asyncio
import dataclasses
import importlib.util
import signal
import subprocess
import time
from pathlib import Path

import pytest

from chaos.change import Place, ProcessSignal
from chaos.drivers.ssh import SshDriver
from chaos.errors import BlockedError, CapabilityError, FabricError
from chaos.observe import Observer
from chaos.registry import InForce, Program
from chaos.timeline import Moment, Windows, now_ns
from chaos.units import Duration, Pps, Size
from probes.collective import Collective
from probes.flow import Flow
from probes.kernel_events import KernelEvents
from probes.nic_counters import NicCounters
from probes.routing import Routing
from tests.waiting import wait_until

pytestmark = [pytest.mark.ssh, pytest.mark.slow]
TORCH = importlib.util.find_spec("torch")
SITE = str(Path(TORCH.origin).parents[1]) if TORCH and TORCH.origin else ""
#: No files of the home of whoever runs the tests.
PLAIN = "mount -t tmpfs tmpfs /root"
needs_torch = pytest.mark.skipif(not SITE, reason="collective needs torch: railbreak[job]")


@pytest.fixture
def three(machines):
    """h1 -- r1 -- h2, each with a clock of its own."""
    machines.add("h1", monotonic=4711, setup=PLAIN)
    machines.add("h2", monotonic=99, setup=PLAIN)
    machines.add("r1", setup=PLAIN)
    return machines.star(["h1", "h2"])


def inventory(three, torch=""):
    """The machines' inventory, with the folder that holds torch, and their cables."""
    hosts, table = three.inventory()
    if torch:
        more = f"  vars:\n    railbreak: {{torch: {torch}}}\n"
        hosts.write_text(hosts.read_text().replace("  vars:\n", more, 1))
    return hosts, table


def on(three, work, torch="", **more):
    """Attach, do something with the driver, let go; nothing may be left."""
    hosts, table = inventory(three, torch)

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


async def doubted(observer, label):
    """Return when something is in doubt, at the latest after twenty seconds."""
    give_up = time.monotonic() + 20
    while not observer.trouble(label) and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


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
        for s, at in zip(r["slots"], r["at"], strict=True)
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


def test_kernel_events_of_all_machines_come_as_one_program(three, home):
    async def work(driver):
        async def during(observer):
            three.ip("h1", "link set eth1 down")
            await asyncio.sleep(0.5)  # a kernel merges changes that follow at once
            three.ip("h1", "link set eth1 up")
            await asyncio.sleep(1.2)

        return (await observed(driver, {"kernel": KernelEvents()}, during))["kernel"]

    records, trouble = on(three, work)

    lines = records["listener"]
    assert trouble == ()
    ready = [line for line in lines if line["ev"] == "ready"]
    assert [one["copies"] for one in ready] == [["h1", "h2", "r1"]]
    numbers = [line["n"] for line in lines if "n" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    readings = KernelEvents().read(records)
    assert readings.trouble == ()
    lost = [e.element for e in readings.events if e.name == "carrier.lost"]
    assert sorted(lost) == ["h1:eth1", "r1:eth1"]
    assert all(e.facts["error_us"] > 0 for e in readings.events)


def test_a_copy_that_prints_garbage_or_dies_is_named(three, home):
    async def work(driver):
        async def during(observer):
            pid = int(three["h2"].run("pgrep", "-f", "probes.jobs.kernel_events").split()[-1])
            three["h2"].run("sh", "-c", f"echo rubbish >/proc/{pid}/fd/1")
            await asyncio.sleep(0.5)
            three["h2"].run("kill", "-9", str(pid))
            three.ip("h1", "link set eth1 down")
            three.ip("h1", "link set eth1 up")
            await asyncio.sleep(1.0)
            assert observer.ended("kernel")

        return (await observed(driver, {"kernel": KernelEvents()}, during))["kernel"]

    records, trouble = on(three, work)

    assert len(trouble) == 2, trouble
    assert trouble[0].startswith("probe kernel: h2: program listener printed b'rubbish")
    assert trouble[1].startswith("probe kernel: h2: program listener")
    assert [r["up"] for r in records["listener"] if r["ev"] == "link_carrier" and r["node"] == "h1"]


def test_a_machine_that_falls_silent_is_named(three, home):
    async def work(driver):
        async def during(observer):
            await asyncio.sleep(0.5)
            undo = three.blackhole("h2")
            try:
                await doubted(observer, "kernel")
            finally:
                undo()
            await asyncio.sleep(1.0)

        return (await observed(driver, {"kernel": KernelEvents()}, during))["kernel"]

    _, trouble = on(three, work)

    assert trouble
    assert all(
        one.startswith("probe kernel: h2: program listener has said nothing") for one in trouble
    )


def test_what_cannot_be_observed_is_said_before(three, home):
    async def work(driver):
        with pytest.raises(FabricError, match="h9"):
            await driver.spawn(Program("x", "probes.jobs.kernel_events", {}, "h9"))
        one = Program("x", "probes.jobs.path", {})
        assert "enters the namespaces" in driver.bars(one)
        with pytest.raises(CapabilityError, match="other machines"):
            await driver.spawn(one)
        assert driver.bars(Program("x", "probes.jobs.kernel_events", {}, span="copies")) == ""

    on(three, work)


def test_a_router_without_a_log_is_named_with_the_cure(three, home):
    async def work(driver):
        routers = dict(driver.fabric.nodes)
        routers["r1"] = dataclasses.replace(routers["r1"], runs="frr")
        driver.programs.fabric = driver.fabric = dataclasses.replace(driver.fabric, nodes=routers)
        observer = Observer(driver, {"routing": Routing()})
        try:
            with pytest.raises(BlockedError, match="r1: vtysh does not answer"):
                await observer.start()
        finally:
            await observer.stop()

    on(three, work)


async def stopped(driver, home, place, box, where):
    """Stop a rank by the driver for three seconds; it is stopped on its host, and goes on after."""

    def state():
        return box.run("ps", "-o", "stat=", "-p", str(where.pid)).strip()

    hands = await driver.arm(
        [ProcessSignal(place)],
        journal=driver.folder / "journal.jsonl",
        max_life=Duration.parse("20s"),
        log_dir=home / "logs",
    )
    try:
        await hands.start(now_ns() + driver.lead_ns, [InForce(0, 3 * 10**9)])
        await asyncio.sleep(1.5)
        assert state().startswith("T")
        await hands.wait()
        await hands.heal()
        assert not state().startswith("T")
    finally:
        await hands.close()


@needs_torch
@pytest.mark.job
def test_a_job_runs_across_machines_and_feels_its_ranks(three, home):
    job = Collective(("h1", "h2"), size=Size(256 << 10))

    async def work(driver):
        async def during(observer):
            await observer.say({"cmd": "phase", "name": "storm"})
            await asyncio.sleep(0.5)
            where = driver.processes["h2/rank1"]
            assert where.host == "h2"
            said = three["h2"].run("ps", "-o", "args=", "-p", str(where.pid))
            assert "collective_launch" in said
            await stopped(driver, home, Place("h2", process="rank1"), three["h2"], where)
            await asyncio.sleep(2.0)

        return (await observed(driver, {"job": job}, during))["job"]

    records, trouble = on(three, work, torch=SITE)

    lines = records["coordinator"]
    assert trouble == ()
    hello = {r["node"]: r["addr"] for r in lines if r["ev"] == "hello"}
    assert hello == {"h1": "198.19.1.2", "h2": "198.19.2.2"}
    socks = [s for r in lines if r["ev"] == "sock" for s in r["socks"]]
    assert socks
    assert all(s["local"][0].startswith("198.19.") for s in socks)
    assert all(s["peer"][0].startswith("198.19.") for s in socks)
    readings = job.read(records)
    assert readings.trouble == ()
    assert readings.extra["wrong_iterations"] == 0
    assert readings.extra["clock_error_ns"] > 0
    stalls = [span for span in readings.spans if span.element == "rank0"]
    assert max(span.length_ns for span in stalls) > 2e9
    silent = [r for r in lines if r["ev"] == "ctl_lost"]
    assert [(r["who"], r["state"]) for r in silent] == [(1, "T")]


@needs_torch
@pytest.mark.job
def test_a_host_without_torch_is_named_before_anything_is_broken(three, home):
    async def work(driver):
        observer = Observer(driver, {"job": Collective(("h1", "h2"))})
        try:
            with pytest.raises(
                BlockedError, match=r"h[12]: collective needs torch.*there has none"
            ):
                await observer.start()
        finally:
            await observer.stop()

    on(three, work)


@needs_torch
@pytest.mark.job
def test_a_host_that_is_lost_in_mid_job_is_named(three, home):
    async def work(driver):
        async def during(observer):
            await asyncio.sleep(0.5)
            pids = three["h2"].run("pgrep", "-f", "sshd: root").split()
            three["h2"].run("kill", "-9", *pids)
            await doubted(observer, "job")
            await asyncio.sleep(1.5)

        return (await observed(driver, {"job": Collective(("h1", "h2"))}, during))["job"]

    records, trouble = on(three, work, torch=SITE)

    assert any(one.startswith("probe job: h2: program coordinator is lost") for one in trouble)
    gone = [r for r in records["coordinator"] if r["ev"] == "exited"]
    assert [(r["node"], r["code"], r["expected"]) for r in gone] == [("h2", None, False)]


CONTROLLER = """
import asyncio, sys
from chaos.drivers.ssh import SshDriver
from chaos.observe import Observer
from probes.collective import Collective
from probes.flow import Flow
from probes.kernel_events import KernelEvents

async def main():
    driver = await SshDriver.adopt(sys.argv[1], links=[sys.argv[2]], instance="killed")
    await driver.wait_ready(20)
    probes = {"flow": Flow("h1", "h2"), "kernel": KernelEvents()}
    if sys.argv[3] == "job":
        probes["job"] = Collective(("h1", "h2"))
    await Observer(driver, probes).start()
    print("running", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "what", ["plain", pytest.param("job", marks=[needs_torch, pytest.mark.job])]
)
def test_a_killed_controller_leaves_nothing_running(three, home, what):
    hosts, table = inventory(three, SITE if what == "job" else "")
    process = three.python("-c", CONTROLLER, str(hosts), str(table), what, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"running\n"
        running = [box.run("ps", "-eo", "args=").count("railbreak") for box in three.boxes.values()]
        assert min(running) > 1
        if what == "job":  # a rank that is stopped goes, too
            three["h2"].run("sh", "-c", "kill -STOP $(pgrep -f [c]ollective_launch | tail -n 1)")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    wait_until(lambda: three.left() == [], "nothing of ours to be left", 30)
    for box in three.boxes.values():
        assert "probes.jobs" not in box.run("ps", "-ww", "-eo", "args=")
        assert "collective" not in box.run("ps", "-ww", "-eo", "args=")


def test_counters_of_machines_ports_are_read_there(three, home):
    probe = NicCounters()

    async def work(driver):
        async def during(observer):
            await asyncio.sleep(1.2)

        return (await observed(driver, {"nics": probe}, during))["nics"]

    records, trouble = on(three, work)

    assert trouble == ()
    readings = probe.read(records)
    assert readings.trouble == ()
    looks = readings.extra["looks"]["nic_kernel_dropped_packets"]
    assert sorted(looks) == ["h1:eth1", "h2:eth1", "r1:eth1", "r1:eth2"]
    assert min(len(found) for found in looks.values()) >= 2
