"""The pytest plugin on real fabrics: one per worker, none left behind."""

import os

import pytest

pytestmark = pytest.mark.netns

SUITE = """
import pytest

@pytest.mark.fabric("pair")
@pytest.mark.parametrize("n", range(4))
def test_it(fabric, n):
    assert fabric.addresses()["host1"] == "10.0.1.1"
    print("instance", fabric.instance)
"""


@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "two workers"])
def test_each_worker_has_a_fabric_of_its_own(pytester, monkeypatch, workers):
    """With xdist two copies of one lab run side by side; both are gone afterwards."""
    state = f"/run/railbreak-plugin-{os.getpid()}"
    monkeypatch.setenv("RAILBREAK_STATE", state)
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-n", str(workers), "-rP", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=4)
    used = {line.split()[1] for line in result.outlines if line.startswith("instance ")}
    assert used == ({"pair", "pair-2"} if workers else {"pair"})
    assert os.listdir(state) == []
    os.rmdir(state)


SHARED = """
import os
import pytest
from chaos.experiment import Phases, Range
from chaos.units import Duration

SHORT = Duration.parse("300 ms")
PHASES = Phases(calm=SHORT, storm=Range(SHORT, SHORT), after=SHORT)
pytestmark = pytest.mark.fabric("pair")

def senders():
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/stat") as stat:
                mine = b"probes.jobs.flow_sender" in line.read()
                mine = mine and int(stat.read().rpartition(")")[2].split()[1]) == os.getpid()
        except OSError:
            continue
        found += [pid] if mine else []
    return found

def once(trial, flow, rate="500 pps", at_most=0):
    bound = {"measure": "flow_lost_packets", "at_most": at_most}
    trial(None, [flow("host1", "host2", rate=rate)], [bound], phases=PHASES, trials=1, placebos=0)

@pytest.mark.same_probes
@pytest.mark.parametrize("n", range(2))
def test_a_same(trial, flow, n):
    once(trial, flow)
    print("senders", f"a{n}", *senders())

@pytest.mark.same_probes
def test_b_other(trial, flow):
    once(trial, flow, rate="400 pps")
    print("senders", "b", *senders())

@pytest.mark.same_probes
def test_c_fails(trial, flow):
    try:
        once(trial, flow, rate="400 pps", at_most=-1)
    finally:
        print("senders", "c", *senders())

def test_d_without(fabric):
    print("senders", "d", *senders())
"""


def test_probes_that_are_the_same_go_on_until_others_come_or_a_trial_fails(pytester, monkeypatch):
    state = f"/run/railbreak-plugin-{os.getpid()}"
    monkeypatch.setenv("RAILBREAK_STATE", state)
    pytester.makepyfile(SHARED)
    result = pytester.runpytest_subprocess("-rA", "--calm-load", "100%", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=4, failed=1)
    lines = [line.split()[1:] for line in result.outlines if line.startswith("senders")]
    seen = {name: pids for name, *pids in lines}
    assert len(seen["a0"]) == len(seen["b"]) == 1
    assert seen["a1"] == seen["a0"] != seen["b"]
    assert seen["c"] == [], "whatever was wrong, nobody inherits it"
    assert seen["d"] == []
    assert os.listdir(state) == []
    os.rmdir(state)
