"""Death at random moments under every kind of fault: controller, injector, or both.

Each line that docs/faults.md says to try is injected into a running fabric, and somebody is killed.
RAILBREAK_KILLS sets how many deaths there are (one for each third line in CI; 300 for the evidence
in docs/evidence). Whatever died: nothing stays in force, and the fabric is as it was before.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest

from chaos import catalogue, drivers, recover, snapshot
from chaos.drivers.netns import NetnsDriver
from chaos.errors import SpecError
from chaos.registry import FAULTS, load
from chaos.units import Duration

pytestmark = [pytest.mark.netns, pytest.mark.slow]

load()
FABRIC = drivers.fabric(catalogue.SAMPLE)
ARGV = (sys.executable, "-c", "from chaos.cli import main; main()")
LASTS_S = 2.5  # or longer, where a fault's own times ask for it
VICTIMS = ("controller", "injector", "both")


def lines():
    """What can be injected into the embedded fabric: no refusal, and no process of a job."""
    for _, cls in sorted(FAULTS.items()):
        if not cls.__module__.startswith("faults."):
            continue
        for example in catalogue.examples(cls):
            changes = example.fault.changes(FABRIC)
            job = any(one.place.process.startswith("rank") for one in changes)
            if not job and not any(NetnsDriver.refusal(one, FABRIC) for one in changes):
                yield lasting(example.fault), example.words


def lasting(fault):
    """Seconds for which a fault is in force here: its windows and turns fit."""
    for seconds in itertools.count(LASTS_S, 0.5):
        with contextlib.suppress(SpecError):
            fault.schedule(Duration.parse(f"{seconds:g} s"), random.Random(1))
            return seconds


LINES = tuple(lines())
KILLS = int(os.environ.get("RAILBREAK_KILLS", str(len(LINES) // 3)))
#: Deaths: a line, who dies, and a seed for when. Neighbouring lines lose another one each.
DEATHS = tuple(
    (words, lasts_s, VICTIMS[(at + at // len(LINES)) % 3], at)
    for at, (lasts_s, words) in zip(
        range(KILLS), itertools.cycle(LINES if len(LINES) <= KILLS else LINES[::3]), strict=False
    )
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A fabric of this test's own, and its state before anything was broken."""
    state = f"/run/railbreak-kinds-{os.getpid()}"
    patch = pytest.MonkeyPatch()
    patch.setenv("RAILBREAK_STATE", state)
    patch.chdir(tmp_path_factory.mktemp("kinds"))
    railbreak("up", catalogue.SAMPLE)
    yield asyncio.run(_state())
    railbreak("down", "--all")
    patch.undo()
    with contextlib.suppress(OSError):
        os.rmdir(state)


def railbreak(*words):
    done = subprocess.run((*ARGV, *words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


async def _state():
    driver = await drivers.attach(catalogue.SAMPLE)
    return await driver.snapshot()


async def _differs(before):
    """What is not as it was, once it has had time to come back."""
    driver = await drivers.attach(catalogue.SAMPLE)
    return await snapshot.settled(driver.snapshot, before, deadline_s=40.0)


def children_of(pid):
    found = subprocess.run(
        ("pgrep", "-P", str(pid), "-f", "chaos.injector"), capture_output=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def nothing_in_force():
    return not [one for one in recover.in_force() if one.in_force is not False]


@pytest.mark.parametrize(
    ("words", "lasts_s", "victim", "seed"), DEATHS, ids=lambda value: str(value).replace(" ", "_")
)
def test_nothing_is_left_whoever_dies(home, words, lasts_s, victim, seed):
    argv = ("inject", catalogue.SAMPLE, *shlex.split(words), "--for", f"{lasts_s:g}s", "--json")
    process = subprocess.Popen(
        (*ARGV, *argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    injectors = []
    while not (injectors := children_of(process.pid)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, lasts_s + 0.5))  # the moment is what is tested
    dying = {"controller": [process.pid], "injector": injectors}
    for pid in dying.get(victim, [process.pid, *injectors]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    told = process.communicate(timeout=60)

    if victim == "controller":
        until = time.monotonic() + 30
        while not nothing_in_force():
            assert time.monotonic() < until, "the injector did not heal"
            time.sleep(0.02)
    elif victim == "both":
        railbreak("undo", "--all")
    assert nothing_in_force(), told
    assert json.loads(railbreak("status", "--json").stdout)["in_force"] == []
    assert asyncio.run(_differs(home)) == ()
