"""Hundreds of machines at one time: what takes turns, so that nobody is late; with stand-ins.

That it holds with real servers is measured by `python -m benchmarks ssh_skew`.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from chaos.change import LinkState, Place
from chaos.drivers.ssh import arming as room
from chaos.drivers.ssh.clock import Clock
from chaos.drivers.ssh.connect import Connection, Connections
from chaos.drivers.ssh.driver import SshDriver
from chaos.drivers.ssh.machine import Machine
from chaos.drivers.ssh.target import Target
from chaos.drivers.ssh.together import closed
from chaos.drivers.state import Life, State
from chaos.errors import BlockedError, FabricError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.units import Duration

HOSTS = [f"h{number}" for number in range(1, 101)]


class Crowd:
    """Counts who is inside at one time."""

    def __init__(self):
        self.now = self.most = self.came = 0

    @asynccontextmanager
    async def inside(self):
        self.now, self.came = self.now + 1, self.came + 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        yield
        self.now -= 1


class Box:
    """A machine that is ready."""

    def __init__(self, name, clocks):
        self.name, self.clocks, self.clock = name, clocks, Clock(0, 0, 0)

    async def measure_clock(self):
        self.clocks.append(self.name)


class StandIn:
    """A fleet that is ready."""

    def __init__(self):
        self.clocks = []
        self.ready = {name: Box(name, self.clocks) for name in HOSTS}
        self.interfaces = {name: {"eth1": {"index": 7, "pci": ""}} for name in HOSTS}
        self.own = {name: frozenset() for name in HOSTS}

    def __getitem__(self, name):
        return self.ready[name]

    async def open(self, names):
        return {}

    async def look(self, name):
        return self.interfaces[name]

    async def machine(self, name):
        return self.ready[name]


@pytest.fixture
def driver(tmp_path):
    nodes = {name: Node(name, settings={"ssh": {"address": "10.0.0.1"}}) for name in HOSTS}
    pairs = zip(HOSTS[::2], HOSTS[1::2], strict=True)
    links = tuple(Link(Port(one, "eth1"), Port(other, "eth1")) for one, other in pairs)
    known = State("many", Fabric("f", nodes, links), Life(), driver="ssh", ready=True)
    return SshDriver(tmp_path, known, StandIn())


def armed(driver, tmp_path):
    changes = [LinkState(Place(name, "eth1")) for name in HOSTS]
    life = Duration.parse("9 s")
    return asyncio.run(
        driver.arm(changes, journal=tmp_path / "journal", max_life=life, log_dir=tmp_path)
    )


def test_injectors_are_started_some_at_a_time(driver, tmp_path, monkeypatch):
    crowd = Crowd()

    async def arm_on(machine, *args, **more):
        assert len(driver.fleet.clocks) == len(HOSTS)  # none starts while a clock is measured
        async with crowd.inside():
            return machine

    monkeypatch.setattr(room.RemoteHands, "arm_on", arm_on)

    hands = armed(driver, tmp_path)

    assert len(hands.changes) == len(HOSTS)
    assert (crowd.came, crowd.most) == (len(HOSTS), room.ARMED_AT_ONCE)
    assert sorted(driver.fleet.clocks) == sorted(HOSTS)


def test_clocks_are_measured_some_at_a_time():
    """What waits in our own queue would count as the way to the machine."""
    crowd = Crowd()

    class Answering(Machine):
        def __init__(self, connection):
            self.connection, self.name = connection, connection.target.name

        async def _exchange(self, word, more):
            async with crowd.inside():
                return {"t1": 1, "t2": 2}

    async def work():
        pool = Connections([], clocks_at_once=3)
        machines = [Answering(Connection(Target(one, "10.0.0.1"), None, pool)) for one in HOSTS]
        await asyncio.gather(*(one.measure_clock(rounds=4) for one in machines))

    asyncio.run(work())

    assert (crowd.came, crowd.most) == (4 * len(HOSTS), 3)


def test_on_the_way_out_all_are_closed_at_one_time():
    """One after another, hundreds would take minutes; one that fails stops nobody."""

    class Holder:
        def __init__(self, meet, error=None):
            self.meet, self.error = meet, error

        async def close(self):
            await self.meet.wait()
            if self.error is not None:
                raise self.error

    async def work(error):
        meet = asyncio.Barrier(4)
        holders = [Holder(meet, error), *(Holder(meet) for _ in range(3))]
        async with asyncio.timeout(5):
            await closed(holders)
        return meet.n_waiting

    assert asyncio.run(work(FabricError("gone"))) == 0
    with pytest.raises(ValueError, match="ours"):
        asyncio.run(work(ValueError("ours")))


def test_half_of_the_machines_not_reached_when_arming_are_all_named(driver, tmp_path):
    """A line each; nothing was armed anywhere."""
    gone = HOSTS[::2]

    async def opened(names):
        return {name: f"{name}: no answer in time" for name in gone}

    driver.fleet.open = opened

    with pytest.raises(FabricError) as caught:
        armed(driver, tmp_path)

    first, *lines = str(caught.value).splitlines()
    assert first == "50 of 100 machines are not ready:"
    assert lines == [f"  {name}: no answer in time" for name in gone]


def test_machines_that_refuse_to_be_armed_are_told_in_one_sentence(driver, tmp_path, monkeypatch):
    """Some by name, the rest by number; those that were armed are closed."""
    ended = []

    class Holder:
        def __init__(self, name):
            self.name = name

        async def close(self):
            ended.append(self.name)

    async def arm_on(machine, *args, **more):
        if HOSTS.index(machine.name) % 2:
            raise BlockedError(f"{machine.name}: is there already")
        return Holder(machine.name)

    monkeypatch.setattr(room.RemoteHands, "arm_on", arm_on)

    with pytest.raises(BlockedError) as caught:
        armed(driver, tmp_path)

    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("h2: is there already; h4: is there already; ")
    assert said.endswith("; and 42 more")
    assert sorted(ended) == sorted(HOSTS[::2])
