"""Death at random moments of `railbreak run`: whoever dies, the fabric heals.

RAILBREAK_KILLS sets how many moments are tried (5 in CI; 50 for the evidence in docs/evidence).
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from chaos import recover
from chaos.netlink import IFF_LOWER_UP, RTM_GETLINK, Netlink, ifinfo
from chaos.netns import inside

pytestmark = [pytest.mark.netns, pytest.mark.slow]

KILLS = int(os.environ.get("RAILBREAK_KILLS", "5"))
FAULTS = (
    "link_flap: {link: in-use host--router, mode: carrier, frequency: 4 Hz, count: 8}",
    "packet_loss: {link: in-use host--router, end: near, share: 100 %}",
    "link_down: {link: in-use host--router, mode: admin, end: near}",
)
EXPERIMENT = """
promise: Killed in the middle.
fabric: pair
fault: {FAULT}
probes:
  flow: {source: host1, target: host2, rate: 500 pps}
phases: {calm: 500 ms, storm: 2500 ms, after: 500 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_lost_packets, at_most: 100000, because: always true}
"""
CALM = EXPERIMENT.replace("fault: {FAULT}", "").replace("placebos: 0", "")


def railbreak(*words, check=True, **more):
    argv = [sys.executable, "-c", "from chaos.cli import main; main()", *words]
    done = subprocess.run(argv, capture_output=True, text=True, **more)
    assert not check or done.returncode == 0, (
        f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A state folder and a fabric of this test's own, up for the whole module."""
    folder = tmp_path_factory.mktemp("killed")
    state = f"/run/railbreak-killed-{os.getpid()}"
    patch = pytest.MonkeyPatch()
    patch.setenv("RAILBREAK_STATE", state)
    patch.chdir(folder)
    for number, fault in enumerate(FAULTS):
        text = EXPERIMENT.replace("{FAULT}", f"{{{fault}}}")
        (folder / f"storm{number}.yaml").write_text(text)
    (folder / "calm.yaml").write_text(CALM)
    railbreak("up", "pair")
    yield folder
    railbreak("down", "--all")
    patch.undo()
    with contextlib.suppress(OSError):
        os.rmdir(state)


def begin(number=0, phase=b"storm"):
    """`railbreak run` of one of the faults, in a session of its own, until a phase begins."""
    argv = [sys.executable, "-c", "from chaos.cli import main; main()"]
    words = ["run", f"storm{number}.yaml", "--on", "pair", "--calm-load", "100%"]
    process = subprocess.Popen(
        [*argv, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    for line in process.stdout:
        if line.rstrip().endswith(phase):
            return process
    raise AssertionError(f"the run ended before its {phase.decode()}")


def injector_of(pid):
    """Process id of the injector that a run has started."""
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", "chaos.injector"], capture_output=True)
    return [int(word) for word in found.stdout.split()]


def end(process):
    process.wait(10)
    process.stdout.close()


def carriers():
    """Whether each port of the running pair has its carrier."""
    from chaos.drivers.state import running

    (one,) = running()

    def flags():
        warm = Netlink.open()
        try:
            found = warm.dump(RTM_GETLINK, ifinfo())
            return [int.from_bytes(m.body[8:12], sys.byteorder) & IFF_LOWER_UP for m in found]
        finally:
            warm.close()

    nodes = ("host1", "host2", "router1")
    return all(all(inside(str(one.folder / "ns" / node), flags)) for node in nodes)


def wait_until(condition, what, deadline_s):
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.01)


def nothing_in_force():
    return not [one for one in recover.in_force() if one.in_force is not False]


@pytest.mark.parametrize("moment", range(KILLS))
def test_the_controller_is_killed(home, moment, record_property):
    """SIGKILL at a random moment of a run: within a second it is healed, and status is clean.

    Every third moment is counted from the calm, so that arming, healing and after are met too.
    """
    number, from_calm = moment % len(FAULTS), moment % 3 == 2
    process = begin(number, b"calm" if from_calm else b"storm")
    longest = 5.0 if from_calm else 2.4
    time.sleep(random.Random(moment).uniform(0, longest))  # the moment is what is tested
    os.kill(process.pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: carriers() and nothing_in_force(), "the injector's heal", 1.0)
    healed_s = time.monotonic() - killed
    end(process)

    status = json.loads(railbreak("status", "--json").stdout)
    assert status["in_force"] == []
    record_property("healed_after_s", healed_s)


@pytest.mark.parametrize("moment", range(max(2, KILLS // 5)))
def test_controller_and_injector_are_killed_together(home, moment):
    """Nobody is left to heal: `undo --all` reads the journal and does."""
    process = begin(moment % len(FAULTS))
    time.sleep(random.Random(1000 + moment).uniform(0, 2.4))  # the moment is what is tested
    injectors = injector_of(process.pid)
    assert injectors, "the storm has an injector"
    for pid in (process.pid, *injectors):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end(process)
    railbreak("undo", "--all")

    assert carriers()
    assert nothing_in_force()
    assert railbreak("undo", "--all").stdout.strip().endswith("nothing was in force")


def test_after_all_that_the_fabric_passes_calm(home):
    """No trial's leftovers: a placebo experiment on the same fabric passes."""
    done = railbreak("run", "calm.yaml", "--on", "pair", "--calm-load", "100%", check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_stop_the_healing(home, number):
    process = begin()
    for _ in range(3):
        os.kill(process.pid, number)
        time.sleep(0.02)  # three signals while it heals, not one merged signal
    process.stdout.read()
    end(process)

    assert process.returncode == 130
    assert carriers()
    assert nothing_in_force()
