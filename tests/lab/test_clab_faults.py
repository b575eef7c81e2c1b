"""Every fault of the catalogue on the routers and hosts of a real lab: in force, acted, no trace.

The list is the catalogue's own: each line under *Try* of each fault, on the lab it is written for.
One example per kind of change is tried by default; RAILBREAK_FAULTS=all tries every one, and
RAILBREAK_FAULTS=link_down,bgp_reset those of these faults.
"""

import asyncio
import contextlib
import itertools
import os
import random
import re
import shutil
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from chaos import catalogue, drivers, registry, snapshot
from chaos.changes.queue import QUEUES
from chaos.drivers.containerlab import ContainerlabDriver, guard
from chaos.errors import CapabilityError, FabricError, SpecError
from chaos.natives.able import Here
from chaos.netns import inside
from chaos.observe import Observer
from chaos.shipped import fabric_path
from chaos.storm import place_processes
from chaos.timeline import now_ns
from chaos.units import Duration

from .test_clab_driver import broken, faults, unreached

pytestmark = [pytest.mark.lab, pytest.mark.slow]

WANTED = os.environ.get("RAILBREAK_FAULTS", "")
EXAMPLES = [
    one
    for classes in catalogue.by_area().values()
    for cls in classes
    for one in catalogue.examples(cls)
]
#: Lengths of a storm, of which the first that a fault's own schedule fits into is taken.
STORMS = [Duration(seconds * 10**9) for seconds in (3, 6, 12, 24)]
LIFE = Duration(90 * 10**9)
#: A session whose peer was killed twice may wait for a minute until BGP tries it anew.
SETTLED_S = 150.0
ROCE, RENDEZVOUS = 4791, (29400, 29500)
SIZES, LUMP = (64, 400, 1400, 8000), bytes(60_000)
#: Lines that a lab of containers refuses, by the fault that they belong to.
REFUSED = {"wires_swapped", "nic_kill", "pfc_storm"}
HOSTS = ("host1", "host3", "host5", "host8")
#: DSCP 8 and another: what a queue is asked to hold, and what passes it by.
CHOSEN, OTHER = "0x20", "0x40"


def kinds(example):
    """What tells changes apart: their kind, where at a cable they are, and by what queue."""
    fabric = drivers.fabric(catalogue.SAMPLE, "containerlab")
    return {
        (
            type(change).__name__,
            change.place.side,
            bool(change.place.process),
            getattr(change, "engine", "") in QUEUES,
        )
        for change in example.fault.changes(fabric)
    }


def chosen():
    """Examples to try: all, those of named faults, or one per kind of change."""
    if WANTED == "all":
        return EXAMPLES
    if WANTED:
        return [one for one in EXAMPLES if one.fault.name in WANTED.split(",")]
    seen, few = set(), []
    for one in EXAMPLES:
        if not refused(one) and (new := kinds(one) - seen):
            seen |= new
            few.append(one)
    return few


def refused(example):
    """Why a lab of containers cannot make it; empty where it can."""
    return catalogue.reach(example)["containerlab"]


def roce(opcode, number, syndrome=None):
    """The payload of a RoCEv2 packet: its header, an AETH where there is a syndrome, and data."""
    head = struct.pack("!BBHII", opcode, 0, 0xFFFF, 17, 1 << 31 | number & 0xFFFFFF)
    return head + (struct.pack("!I", syndrome << 24 | 1) if syndrome is not None else b"")


class Traffic:
    """Packets between hosts at both ends of the fabric, over every spine, while it runs.

    UDP from 16 source ports, as RoCE sends, answers and negative acknowledgements, marked as able
    to carry congestion, of four lengths; lumps of fragments that follow each other faster than any
    rate of the catalogue; and TCP connections to the ports of a rendezvous.
    """

    def __init__(self, driver):
        held, spaces = driver.addresses(), driver.namespaces()
        self.pairs = []
        self.over = threading.Event()
        self.sent = 0
        self.thread = threading.Thread(target=self._run, name="traffic")
        self.stack = contextlib.ExitStack()
        for source, target in itertools.permutations(("host1", "host2", "host8"), 2):
            for port in range(49152, 49152 + 16):
                sock = inside(spaces[source], lambda: socket.socket(type=socket.SOCK_DGRAM))
                self.stack.enter_context(sock)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.setblocking(False)
                sock.bind((held[source], port))
                self.pairs.append((sock, (held[target], ROCE)))
        self.space, self.rendezvous = spaces["host8"], held["host1"]

    def _run(self):
        packets = [
            roce(opcode, number, syndrome).ljust(size, b"\0")
            for number, (size, (opcode, syndrome)) in enumerate(
                itertools.product(SIZES, ((0x04, None), (0x00, None), (0x11, 0x60), (0x11, 0))),
                start=1000,
            )
        ]
        while not self.over.is_set():
            knocks = []
            for port in RENDEZVOUS:
                knocks.append(inside(self.space, lambda: socket.socket(type=socket.SOCK_STREAM)))
                knocks[-1].setblocking(False)
                knocks[-1].connect_ex((self.rendezvous, port))
            for packet in packets:
                for sock, target in self.pairs:
                    with contextlib.suppress(OSError):  # no route, or an ICMP error of before
                        sock.sendto(packet, target)
                        self.sent += 1
            for sock, target in self.pairs[::4]:
                for _ in range(6):
                    with contextlib.suppress(OSError):
                        sock.sendto(LUMP, target)
            for knock in knocks:
                knock.close()
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()
        self.stack.close()


@pytest.fixture(scope="module")
def lab(lab_runtime, tmp_path_factory):
    """`(call, driver)`: the Clos, deployed once, and a way to run asynchronous work on its loop.

    Its BFD waits 900 ms instead of 150: a busy machine ends sessions of 150 ms by itself, which is
    no trace of a fault.
    """
    folder = tmp_path_factory.mktemp("clos") / catalogue.SAMPLE
    shutil.copytree(fabric_path(catalogue.SAMPLE).parent, folder)
    for config in folder.glob("configs/*/frr.conf"):
        slower = config.read_text().replace("-interval 50", "-interval 300")
        assert "-interval 300" in slower
        config.write_text(slower)
    root = Path("/run", f"railbreak-clabfaults-{os.getpid()}")
    root.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("RAILBREAK_STATE", str(root))
    for name, value in lab_runtime.environment.items():
        patch.setenv(name, value)
    registry.load()
    runner = asyncio.Runner()
    fabric = drivers.fabric(str(folder / f"{catalogue.SAMPLE}.clab.yml"), "containerlab")
    name = f"rbt{os.getpid()}-faults"
    driver = runner.run(ContainerlabDriver.up(fabric, instance=name))
    try:
        runner.run(driver.wait_ready(90))
        yield runner.run, driver
    finally:
        runner.run(driver.down())
        runner.close()
        patch.undo()
        left = list(root.iterdir())
        shutil.rmtree(root, ignore_errors=True)
        assert left == []
        assert guard.dropped(name) is None


async def resting():
    """Nothing is done while the fault is in force."""


async def at_rest(driver):
    """The state once it has stood still."""
    await driver.wait_ready(60)
    found, same = await driver.snapshot(), 0
    async with asyncio.timeout(60):
        while same < 2:
            await asyncio.sleep(0.3)
            now = await driver.snapshot()
            same, found = (same + 1 if now == found else 0), now
    return found


@contextlib.asynccontextmanager
async def a_job(driver, mode):
    """A collective over four hosts, whose ranks can be aimed at."""
    values = {"hosts": list(HOSTS), "size": "64 KiB", "mode": mode}
    probe = registry.build(registry.PROBES, "probe", "collective", values)
    observer = Observer(driver, {"collective": probe})
    try:
        await observer.start()
        await asyncio.sleep(1)  # it works
        yield
    finally:
        await observer.stop()
        driver.processes.clear()


def spans_of(fault):
    """When it is in force, in the shortest storm that it fits into."""
    for storm in STORMS[:-1]:
        with contextlib.suppress(SpecError):
            return fault.schedule(storm, random.Random(7))
    return fault.schedule(STORMS[-1], random.Random(7))


async def held(driver, fault):
    """Break it for a storm by the fault's own schedule, look meanwhile, heal: proof, difference."""
    before = await driver.snapshot()
    spans = spans_of(fault)
    homes = {process: node for node, process in (key.split("/") for key in driver.processes)}
    hands = await driver.arm(
        place_processes(fault.changes(driver.fabric), homes),
        journal=driver.folder / f"journal-{fault.name}-{now_ns()}.jsonl",
        max_life=LIFE,
        log_dir=driver.folder,
    )
    differs = False
    try:
        await hands.start(now_ns() + 20_000_000, spans)
        waiting = asyncio.ensure_future(hands.wait())
        while not waiting.done() and not differs:
            await asyncio.wait([waiting], timeout=0.3)
            with contextlib.suppress(FabricError):  # a node that is stopped
                differs = await driver.snapshot() != before
        await waiting
    finally:
        proof = await hands.heal()
        await hands.close()
    return proof, differs


@pytest.mark.timeout(400)
@pytest.mark.parametrize("example", chosen(), ids=lambda one: one.words.replace(" ", ","))
def test_a_fault_is_in_force_acts_is_healed_and_leaves_no_trace(lab, example):
    call, driver = lab
    why = refused(example)
    if why:
        pytest.skip(why)
    job = any(change.place.process for change in example.fault.changes(driver.fabric))
    if job:
        pytest.importorskip("torch")

    async def scenario():
        before = await at_rest(driver)
        mode = getattr(example.fault, "job_modes", ("ride",))[0]
        async with a_job(driver, mode) if job else contextlib.nullcontext():
            with contextlib.nullcontext() if job else Traffic(driver):
                proof, differs = await held(driver, example.fault)
        return proof, differs, await snapshot.settled(driver.snapshot, before, SETTLED_S)

    proof, differs, left = call(scenario())

    for one in proof.changes:
        assert one.in_force, one.change.describe()
        assert one.taken_back, one.change.describe()
    assert proof.trouble == ()
    hits = {one.change.describe(): one.hit for one in proof.changes if one.hit is not None}
    assert any(hits.values()) if hits else differs, f"nothing was hit: {hits}"
    assert left == ()
    call(driver.wait_ready(60))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("bgp_down", {"node": "leaf1", "neighbor": "eth1"}),
        ("node_stop", {"node": "spine1"}),
        ("route_blackhole", {"node": "spine1", "prefix": "10.0.8.0/31"}),
        ("route_withdraw", {"node": "spine1", "prefix": "10.0.8.0/31"}),
        ("bgp_reset", {"node": "leaf1", "neighbor": "eth1"}),
        ("hash_polarised", {"node": "leaf1"}),
        ("daemon_freeze", {"node": "spine1", "daemon": "bgpd"}),
        ("daemon_kill", {"node": "spine1", "daemon": "bgpd"}),
        ("link_flap", {"link": "leaf1--spine1", "frequency": "4 Hz", "count": 3}),
    ],
    ids=str,
)
def test_faults_of_routers_heal_to_the_state_before(lab, name, fields):
    run, driver = lab

    async def scenario():
        before = await at_rest(driver)
        fault = faults(driver, (name, fields))[0]
        proof, _ = await broken(driver, fault.changes(driver.fabric), resting, 3.0)
        assert proof.in_force
        assert proof.taken_back
        assert await snapshot.settled(driver.snapshot, before, 60.0) == ()
        assert await unreached(driver) == []

    run(scenario())


def held_by(driver, engine, then):
    """Changes that hold what host1 sends with DSCP 8 where host1 sends it."""
    aimed = {"link": "host1--leaf1", "end": "host1", "select": {"dscp": 8}}
    [fault] = faults(driver, ("packet_fault", aimed | {"then": then, "engine": engine}))
    return fault.changes(driver.fabric)


async def echo_ms(driver, tos):
    """The median echo of ten that follow each other closely, 1242 bytes each, from end to end."""
    words = ("-Q", tos, "-s", "1200", "-i", "0.02", "-c", "10", driver.addresses()["host8"])
    told = (await driver.exec("host1", ("ping", *words))).stdout.decode()
    return sorted(float(found) for found in re.findall(r"time=([\d.]+)", told))[5]


@pytest.mark.parametrize(
    ("engine", "then"),
    [("htb", {"rate": "100 kbit/s", "queue": "2 s"}), ("netem", {"delay": "300 ms"})],
    ids=QUEUES[::-1],
)
def test_a_queue_asked_for_by_name_holds_the_chosen_where_the_node_sends(lab, engine, then):
    """What else it sends passes by; where the kernel has no such queue, a sentence says so."""
    run, driver = lab
    changes = held_by(driver, engine, then)

    async def queues():
        told = await driver.exec("host1", ("tc", "qdisc", "show", "dev", "eth1"))
        return "htb 7262: root" in told.stdout.decode()

    async def meanwhile():
        return await queues(), await echo_ms(driver, CHOSEN), await echo_ms(driver, OTHER)

    async def scenario():
        before = await at_rest(driver)
        proof, seen = await broken(driver, changes, meanwhile, 5.0)
        return proof, seen, await queues(), snapshot.difference(before, await at_rest(driver))

    if why := Here()[engine]:
        with pytest.raises(CapabilityError) as refused:
            run(scenario())
        assert f"by engine {engine}: {why}; or leave engine out, then nfqueue does it" in str(
            refused.value
        )
        assert not run(queues())
        return
    proof, (put, chosen_ms, other_ms), left, differs = run(scenario())
    assert put
    assert chosen_ms > 100  # each takes 99 ms; they come every 20 ms, or later on a busy machine
    assert other_ms < chosen_ms / 3
    [one] = proof.changes
    assert (one.in_force, one.taken_back, proof.trouble) == (True, True, ())
    assert one.seen == one.hit == 10
    assert (left, differs) == (False, ())


def test_the_list_is_the_catalogues_and_few_are_refused():
    """Every fault has a line, at least 20 can be made here, and what is refused says what else."""
    tried = {one.fault.name for one in EXAMPLES}
    assert tried == {cls.name for classes in catalogue.by_area().values() for cls in classes}
    no = {one.words: refused(one) for one in EXAMPLES if refused(one)}
    assert {words.split()[0] for words in no} <= REFUSED
    assert len(EXAMPLES) - len(no) >= 20
    for words, why in no.items():
        assert "use" in why, f"{words}: {why}"
