"""A flow's outage against an independent observer: a capture at the receiver, read by tshark."""

import asyncio
import shutil
import struct
import subprocess
from itertools import pairwise

import pytest

from chaos import topology
from chaos.netns import inside
from chaos.path import Tracer
from chaos.timeline import Moment, Windows, now_ns
from probes.flow import Flow
from probes.kernel_events import KernelEvents
from probes.path import Path
from probes.routing import Routing

pytestmark = pytest.mark.netns
STEP_MS = 0.5  # one probe interval at 2 kpps
STAMPED_LATE_NS = 50_000_000  # bfdd tells bgpd first, then stamps its line; others may run between


class Capture:
    """dumpcap at one interface; `packets()` ends it: (time in ms, packet number) as tshark says."""

    def __init__(self, namespace, interface, port, folder):
        if not shutil.which("dumpcap") or not shutil.which("tshark"):
            pytest.skip("dumpcap and tshark are not installed; on Debian: apt-get install tshark")
        self.file = folder / "seen.pcapng"
        argv = ["dumpcap", "-q", "-i", interface, "-B", "16", "-w", str(self.file)]
        argv += ["-f", f"udp port {port}"]
        self.process = inside(
            namespace,
            lambda: subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL),
        )
        for line in self.process.stderr:  # it says `File: …` once it captures
            if line.startswith(b"File:"):
                break

    def packets(self):
        self.process.terminate()
        self.process.stderr.read()
        assert self.process.wait(20) == 0
        self.process.stderr.close()
        argv = ["tshark", "-r", str(self.file), "-T", "fields"]
        argv += ["-e", "frame.time_epoch", "-e", "udp.payload"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        return [
            (float(at) * 1e3, struct.unpack_from("!Q", bytes.fromhex(payload), 4)[0])
            for at, payload in rows
        ]


def gaps_seen(packets):
    """Length in ms and packets missing of every hole in a capture's numbering."""
    found = []
    for (before, a), (after, b) in pairwise(packets):
        if b > a + 1:
            found.append((after - before, b - a - 1))
    return found


def begin(start, probe, fabric, addresses, namespaces, logs=None):
    """Start every program of a probe in its order; by name."""
    running = {}
    for program in probe.programs(fabric, addresses):
        running[program.name] = start(program, namespaces, logs)
        running[program.name].wait_for("ready")
    return running


def end(probe, running):
    return probe.read({name: one.stop() for name, one in reversed(list(running.items()))})


def values(probe, readings, windows):
    return {m.name: m for m in probe.measures(readings, windows)}


def compare(packets, skipped, found, readings):
    """The probe and the capture tell one story."""
    holes = [(ms, missing) for ms, missing in gaps_seen(packets) if missing > skipped]
    assert len(holes) == 1, holes
    ((length_ms, missing),) = holes
    (outage,) = [span for span in readings.spans if span.name == "outage"]
    assert found["flow_outage_longest_ms"].value == pytest.approx(length_ms, abs=STEP_MS)
    assert outage.length_ns / 1e6 == pytest.approx(length_ms, abs=STEP_MS)
    assert missing - skipped <= outage.facts["lost"] <= missing


def test_outage_equals_the_captures_within_one_interval(two_paths, start, tmp_path):
    flow = Flow("h1", "h2")
    capture = Capture(two_paths.namespaces["h2"], "eth1", flow.dport, tmp_path)
    running = begin(start, flow, two_paths.fabric, two_paths.addresses, two_paths.namespaces)
    running["receiver"].wait_count("got", 4)
    calm = now_ns()
    heal_it = two_paths.drop_at("r1", "eth1")
    cut = Moment(calm, now_ns())
    running["receiver"].wait_count("got", 3)
    before = now_ns()
    heal_it()
    heal = Moment(before, now_ns())
    running["receiver"].wait_count("got", 4)
    sender = running["sender"].stop()
    running["receiver"].wait_count("got", 2)
    readings = flow.read({"sender": sender, "receiver": running["receiver"].stop()})
    assert readings.trouble == ()
    found = values(flow, readings, Windows((0, calm), cut, heal, now_ns()))
    compare(capture.packets(), sender[-1]["skipped"], found, readings)


# ---- on the shipped fabric, with routers that react ---------------------------------------------


class Watched:
    """host1 -> host8 on clos-2x4x8 with every network probe and a capture running."""

    def __init__(self, driver, start, folder):
        self.driver, self.fabric = driver, driver.fabric
        self.flow = Flow("host1", "host8")
        self.probes = (self.flow, KernelEvents(), Routing(), Path("host1", "host8"))
        namespaces = dict(driver.namespaces())
        logs = {n.name: str(driver.logs(n.name)) for n in self.fabric.with_role("leaf")}
        logs |= {n.name: str(driver.logs(n.name)) for n in self.fabric.with_role("spine")}
        self.capture = Capture(namespaces["host8"], "eth1", self.flow.dport, folder)
        addresses = dict(driver.addresses())
        self.running = [
            (probe, begin(start, probe, self.fabric, addresses, namespaces, logs))
            for probe in self.probes
        ]
        self.receiver = self.running[0][1]["receiver"]
        (stream,) = self.flow.streams(addresses, {})
        with Tracer(self.fabric, namespaces) as tracer:
            ends = (stream.source_ip, stream.target_ip, stream.proto, stream.sport, stream.dport)
            self.path = tracer.crossings(stream.source, *ends)
        self.receiver.wait_count("got", 5)
        self.calm = now_ns()

    async def do(self, node, *argv):
        """Run a command in a node; when it was done."""
        before = now_ns()
        done = await self.driver.exec(node, argv)
        assert done.code == 0, done.stderr
        return Moment(before, now_ns())

    def finish(self, cut, heal):
        """Stop all; readings by probe, and measures by name."""
        self.receiver.wait_count("got", 3)
        until = now_ns() - 200_000_000
        windows = Windows((0, self.calm), cut, heal, until)
        self.packets = self.capture.packets()
        self.readings = {p.name: end(p, running) for p, running in reversed(self.running)}
        self.skipped = self.running[0][1]["sender"].records[-2]["skipped"]
        assert {r.trouble for r in self.readings.values()} == {()}
        found = {}
        for probe in self.probes:
            found |= values(probe, self.readings[probe.name], windows)
        return found

    def first(self, detector, since_ns):
        """First symptom of a detector."""
        events = [e for r in self.readings.values() for e in r.events]
        late = sorted((e for e in events if e.at_ns >= since_ns), key=lambda e: e.at_ns)
        return next((e for e in late if e.detector == detector), None)


@pytest.fixture
def on_clos(bring_up, start, tmp_path):
    """`on_clos(scenario)`: await `scenario(watched)` on clos-2x4x8."""

    def run(scenario):
        async def whole():
            async with bring_up(topology.load("clos-2x4x8")) as driver:
                await scenario(Watched(driver, start, tmp_path))

        asyncio.run(whole())

    return run


@pytest.mark.slow
def test_silent_one_way_loss_is_repaired_by_bfd_and_seen_alike_by_everyone(on_clos):
    """Packets from the leaf vanish before the spine: carrier stays, BFD on the spine notices."""

    async def scenario(watched):
        uplink = watched.path[1]
        spine, port = uplink.target, uplink.link.port_of(uplink.target)
        table = "table netdev railbreak_t"
        hook = f"type filter hook ingress device {port.name} priority -500;"
        rules = f"{table} {{ chain c {{ {hook} counter drop; }}; }}"
        cut = await watched.do(spine, "nft", rules)
        follower = watched.running[2][1]["follower"]
        follower.wait_for(lambda r: r["ev"] == "bfd" and r["after"] == "down")
        watched.receiver.wait_count("got", 10)
        heal = await watched.do(spine, "nft", "delete", *table.split())
        found = watched.finish(cut, heal)

        readings = watched.readings["flow"]
        compare(watched.packets, watched.skipped, found, readings)
        outage = found["flow_outage_longest_ms"].value
        assert found["flow_loss_derived_ms"].value == pytest.approx(outage, rel=0.1)
        assert found["flow_rate_derived_ms"].low <= outage <= found["flow_rate_derived_ms"].high
        assert found["flow_convergence_ms"].value == pytest.approx(outage, rel=0.1)
        assert not found["flow_convergence_ms"].censored
        assert found["heal_lost_packets"].value == 0
        bfd = watched.first("bfd", cut.earliest_ns)
        assert bfd.element == f"{spine}:{port.name}"
        assert bfd.facts["reason"] == "control-expired"
        assert watched.first("carrier", cut.earliest_ns) is None
        assert watched.first("hold_timer", cut.earliest_ns) is None
        bgp, fib = (watched.first(name, cut.earliest_ns) for name in ("bgp", "fib"))
        gap = watched.first("flow_gap", cut.earliest_ns)
        assert gap.at_ns < bfd.at_ns < bgp.at_ns + STAMPED_LATE_NS
        assert bfd.at_ns < fib.at_ns + STAMPED_LATE_NS
        assert found["path_changes_count"].value >= 1
        restored = next(e for e in readings.events if e.name == "flow.restored")
        assert restored.at_ns + STAMPED_LATE_NS > bfd.at_ns

    on_clos(scenario)


@pytest.mark.slow
def test_local_link_down_is_told_by_carrier_and_loses_next_to_nothing(on_clos):
    async def scenario(watched):
        uplink = watched.path[1]
        leaf, port = uplink.source, uplink.link.port_of(uplink.source)
        cut = await watched.do(leaf, "ip", "link", "set", port.name, "down")
        watched.receiver.wait_count("got", 8)
        heal = await watched.do(leaf, "ip", "link", "set", port.name, "up")
        found = watched.finish(cut, heal)
        carrier = watched.first("carrier", cut.earliest_ns)
        assert carrier.element == port.id
        assert found["carrier_lost_count"].value == 1  # a wire lies between: the spine keeps its
        assert found["carrier_merged_count"].value == 0
        assert found["flow_lost_packets"].value <= 20
        assert found["path_changes_count"].value >= 1
        (first, *_) = [e for e in watched.readings["path"].events if e.at_ns > cut.earliest_ns]
        assert uplink.link.id in first.facts["before"]
        assert uplink.link.id not in first.facts["after"]

    on_clos(scenario)
