"""Interrupts and deaths at random moments of `up`, `run` and `down` on the real Containerlab.

RAILBREAK_KILLS sets how many moments are tried: by default every signal meets every piece of work
once; 50 for the evidence.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.drivers.containerlab import guard
from chaos.shipped import fabric_path

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
#: What is under way: our lab deployed, an experiment on it, it destroyed, and an experiment on a
#: lab of somebody else.
WORK = ("up", "run", "down", "attached")
MET = list(itertools.product(SIGNALS, WORK))
KILLS = int(os.environ.get("RAILBREAK_KILLS", len(MET)))
EXPERIMENT = """
promise: Killed in the middle.
fabric: pair
fault: {link_down: {link: in-use host--router, mode: MODE, end: both}}
probes:
  flow: {source: host1, target: host2, rate: 200 pps}
phases: {calm: 500 ms, storm: 2 s, after: 500 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_lost_packets, at_most: 100000, because: always true}
"""
ARGV = (sys.executable, "-c", "from chaos.cli import main; main()")


def railbreak(*words):
    return subprocess.run([*ARGV, *words], capture_output=True, text=True, check=False)


def must(*words):
    done = railbreak(*words)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def sh(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def home(lab_runtime, monkeypatch, tmp_path):
    root = Path("/run", f"railbreak-clabkill-{os.getpid()}-{time.monotonic_ns()}")
    root.mkdir()
    monkeypatch.setenv("RAILBREAK_STATE", str(root))
    for name, value in lab_runtime.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for mode in ("carrier", "admin"):
        (tmp_path / f"{mode}.yaml").write_text(EXPERIMENT.replace("MODE", mode))
    yield root
    railbreak("down", "--all")
    shutil.rmtree(root, ignore_errors=True)


def traces(name):
    """What this machine still has of a lab of ours."""
    listings = (
        sh("docker", "ps", "-a", "--format", "{{.Names}}"),
        "\n".join(os.listdir("/run/netns")),
        Path("/etc/hosts").read_text(),
        "\n".join(os.listdir("/etc/ssh/ssh_config.d")),
        sh("nft", "list", "tables"),
        sh("ip", "link"),
    )
    words = (f"clab-{name}", f"guard_{re.sub('[^A-Za-z0-9]', '_', name)}", f"stitch-{name}-")
    return [
        line for text in listings for line in text.splitlines() if any(w in line for w in words)
    ]


def begin(*words):
    return subprocess.Popen(
        [*ARGV, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def reach_storm(process):
    """Read what a run says until its storm begins."""
    for line in process.stdout:
        if line.rstrip().endswith(b"storm"):
            return
    raise AssertionError("the run ended before its storm")


def end(process, number, after_s):
    """Let it work for a while, signal it, and wait for its end.

    Whether it was still there when it was signalled, and what it had said.
    """
    time.sleep(after_s)  # the moment is what is tested
    at_work = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    return at_work, said.decode(errors="replace")


def told():
    found = json.loads(railbreak("status", "--json").stdout)
    return found["in_force"], {one["instance"]: one for one in found["fabrics"]}


def nothing_in_force(deadline_s=10.0):
    """Nobody has to help: the injector heals by itself."""
    deadline = time.monotonic() + deadline_s
    while told()[0]:
        assert time.monotonic() < deadline, "a fault is in force, and nobody holds it"
        time.sleep(0.1)


def as_it_was(lab, before, deadline_s=15.0):
    """A lab is as before; its kernel may take a moment to resolve what is up again."""
    deadline = time.monotonic() + deadline_s
    while (now := lab.state()) != before and time.monotonic() < deadline:
        time.sleep(0.3)
    assert now == before


def said_so(process, number, said):
    """Who is asked to stop says so by its exit status (-2 and -15 are those of a bare Python).

    One that had just done all its work, and was about to exit, may say that instead.
    """
    wanted = (-9,) if number == signal.SIGKILL else (130, -number)
    if re.search(r"(?m)^(down|up) rbt|^(PASS|FAIL|INCONCLUSIVE)  ", said):
        wanted += (0, 1, 2)
    assert process.returncode in wanted, f"{number.name}: {process.returncode}; it said: {said}"


@pytest.mark.parametrize(
    ("moment", "number", "work"),
    [(at, *MET[at % len(MET)]) for at in range(KILLS)],
    ids=lambda word: getattr(word, "name", str(word)),
)
def test_status_tells_the_truth_and_down_cleans_up(
    home, lab_name, deployed, foreign_lab, moment, number, work
):
    """Whatever was interrupted, and however: what is left is told, undone, and taken down.

    Beside it runs a lab that is not ours, which must stay as it is.
    """
    rng = random.Random(moment)
    before = foreign_lab.state()
    name = lab_name("kill")
    theirs = deployed(fabric_path("pair")) if work == "attached" else None
    as_theirs = theirs.state() if theirs else None
    if theirs:
        name = theirs.name
        must("attach", name)
    elif work != "up":
        must("up", "pair", "--driver", "containerlab", "--name", name)
    match work:
        case "up":
            process = begin("up", "pair", "--driver", "containerlab", "--name", name)
            longest = 4.0
        case "down":
            process, longest = begin("down", name), 2.0
        case _:
            mode = "admin" if theirs else "carrier"
            process = begin("run", f"{mode}.yaml", "--on", name, "--calm-load", "100%")
            longest = 6.0
            if rng.random() < 2 / 3:  # else some time before it, or in the healing
                reach_storm(process)
                longest = 2.5
    at_work, said = end(process, number, rng.uniform(0.3, longest))
    if at_work:
        said_so(process, number, said)

    nothing_in_force()
    _, fabrics = told()
    names = sh("docker", "ps", "--format", "{{.Names}}").split()
    running = [line for line in names if name in line]
    if name not in fabrics:
        assert running == []
        assert traces(name) == []
    elif len(running) < 3:
        assert fabrics[name]["stale"] or not fabrics[name]["alive"]

    must("undo", "--all")
    if theirs:
        as_it_was(theirs, as_theirs)
    if name in fabrics:
        must("down", name)
    if theirs:
        assert name in fabrics
        as_it_was(theirs, as_theirs)
        theirs.destroy()
    assert traces(name) == []
    assert list(home.iterdir()) == []
    assert guard.dropped(name) is None
    as_it_was(foreign_lab, before)
    assert foreign_lab.run("host1", "ping", "-c1", "-W1", "10.0.2.1")
