"""Interrupts and deaths at random moments of `up`, `run` and `down` on the real Containerlab.

RAILBREAK_KILLS sets how many moments are tried (6 by default; 50 for the evidence).
"""

import contextlib
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

KILLS = int(os.environ.get("RAILBREAK_KILLS", "6"))
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
WORK = ("up", "run", "down")
EXPERIMENT = """
promise: Killed in the middle.
fabric: pair
fault: {link_down: {link: in-use host--router, mode: carrier, end: both}}
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
    (tmp_path / "storm.yaml").write_text(EXPERIMENT)
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


def end(process, number, after_s):
    """Let it work for a while, signal it, and wait for its end."""
    time.sleep(after_s)  # the moment is what is tested
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    process.communicate(timeout=90)


@pytest.mark.parametrize("moment", range(KILLS))
def test_status_tells_the_truth_and_down_cleans_up(home, lab_name, deployed, moment):
    """Whatever was interrupted, and however: what is left is told, undone, and taken down.

    Beside it runs a lab that is not ours, which must stay as it is.
    """
    rng = random.Random(moment)
    work, number = WORK[moment % 3], SIGNALS[moment // 3 % 3]
    name = lab_name("kill")
    other = deployed(fabric_path("pair")) if moment % 3 == 2 else None
    ids = sh("docker", "ps", "-q", "--no-trunc") if other else ""
    if work != "up":
        must("up", "pair", "--driver", "containerlab", "--name", name)
    match work:
        case "up":
            process = begin("up", "pair", "--driver", "containerlab", "--name", name)
            longest = 4.0
        case "run":
            process = begin("run", "storm.yaml", "--on", name, "--calm-load", "100%")
            longest = 6.0
        case _:
            process = begin("down", name)
            longest = 2.0
    end(process, number, rng.uniform(0.3, longest))

    deadline = time.monotonic() + 5
    while json.loads(railbreak("status", "--json").stdout)["in_force"]:
        assert time.monotonic() < deadline, "a fault is in force, and nobody holds it"
        time.sleep(0.1)
    told = {
        one["instance"]: one for one in json.loads(railbreak("status", "--json").stdout)["fabrics"]
    }
    running = [
        line for line in sh("docker", "ps", "--format", "{{.Names}}").split() if name in line
    ]
    if name not in told:
        assert running == []
        assert traces(name) == []
    elif len(running) < 3:
        assert told[name]["stale"] or not told[name]["alive"]

    must("undo", "--all")
    if name in told:
        must("down", name)
    assert traces(name) == []
    assert list(home.iterdir()) == []
    assert guard.dropped(name) is None
    if other is not None:
        assert len(other.nodes()) == 3
        assert set(ids.split()) & set(sh("docker", "ps", "-q", "--no-trunc").split())
        assert other.run("host1", "ping", "-c1", "-W1", "10.0.2.1")
