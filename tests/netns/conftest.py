"""Fixtures of tests that make real network namespaces; what they hand out is in rooms beside."""

import contextlib
import itertools
import os
import subprocess
from pathlib import Path

import pytest

from chaos.drivers.netns import NetnsDriver
from tests.netns import square as square_room
from tests.netns.bench import Bench, Road, needed
from tests.netns.running import Running
from tests.netns.stack import Stack
from tests.netns.two_paths import TwoPaths

_numbers = itertools.count()

# ---- fabrics ------------------------------------------------------------------------------------


@pytest.fixture
def two_paths():
    """h1 -- r1 == two links == r2 -- h2, static multipath routes, hash over ports."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    made = TwoPaths()
    try:
        yield made.up()
    finally:
        made.down()


@pytest.fixture
def square(tmp_path):
    """h1 -- r1 == two links == r2 -- h2: FRR with BGP unnumbered and BFD, each host behind one."""
    return square_room.fabric(tmp_path)


# ---- a rule between two hosts -------------------------------------------------------------------


@pytest.fixture
def bench(two_hosts):
    """Two hosts and a rule between them: what arrives."""
    with contextlib.closing(Bench(two_hosts)) as made:
        yield made


@pytest.fixture
def road(request, two_hosts):
    """Two hosts and a rule between them, by `engine` where given: what arrives, in order and when.

    An engine that is not here skips, with what its probe says.
    """
    engine = needed(getattr(request, "param", "auto"))
    with contextlib.closing(Road(two_hosts, engine)) as made:
        yield made


@pytest.fixture
def stack(two_hosts):
    """Two hosts, and a rule at the port of the one that receives: what its IP is given."""
    with contextlib.closing(Stack(two_hosts)) as made:
        yield made


# ---- programs of probes -------------------------------------------------------------------------


@pytest.fixture
def start():
    """`start(program, namespaces, logs={})` runs one program of a probe until the test ends."""
    running = []

    def begin(program, namespaces, logs=None):
        running.append(Running(program, namespaces, logs or {}))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


# ---- the embedded driver ------------------------------------------------------------------------


@pytest.fixture
def state_root(monkeypatch):
    """A state folder of this test's own; afterwards nothing may be left that came from it."""
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    root = Path("/run", f"railbreak-test-{os.getpid()}-{next(_numbers)}")
    root.mkdir()
    monkeypatch.setenv("RAILBREAK_STATE", str(root))
    yield root
    left = leftovers(root)
    subprocess.run(["rm", "-rf", str(root)], check=True)
    assert left == []


def leftovers(root):
    """Everything on this machine that stems from a state folder: files, mounts, processes."""
    found = [str(path) for path in root.iterdir()] if root.exists() else []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            seen = (process / "mountinfo").read_text() + (process / "cmdline").read_text()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # gone meanwhile, or a zombie
            continue
        if root.name in seen and state not in "ZX":
            found.append(f"process {process.name}")
    if root.name in Path("/proc/self/mountinfo").read_text():
        found.append("a mount in our own namespace")
    return found


@pytest.fixture
def left(state_root):
    """`left()` lists what there is of this test's fabrics right now."""
    return lambda: leftovers(state_root)


@pytest.fixture
def bring_up(state_root):
    """`async with bring_up(fabric) as driver`: up, ready unless told otherwise, down at the end."""

    @contextlib.asynccontextmanager
    async def begin(fabric, *, ready=True, deadline_s=60.0, **words):
        driver = await NetnsDriver.up(fabric, **words)
        try:
            if ready:
                await driver.wait_ready(deadline_s)
            yield driver
        finally:
            await driver.down()

    return begin
