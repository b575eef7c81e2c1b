"""The arithmetic of the benchmarks: summaries, ratios, pairing, the table. Nothing is timed."""

import doctest
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="no checkout")


@pytest.fixture
def reading(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import reading

    return reading


@pytest.fixture
def result(reading):
    """200 samples of ours around 1 ms, with a tail; a peer at 3 ms; a peer with few samples."""
    ours = [0.001] * 197 + [0.005, 0.006, 0.009]
    return reading.Result(
        "link down",
        (
            reading.Contender("ours", ours, ours=True),
            reading.Contender("peer", [0.003] * 198 + [0.012] * 2),
            reading.Contender("rare", [0.002, 0.004]),
        ),
        "a note",
    )


def test_p99_is_the_nearest_rank_and_only_given_for_many_samples(result):
    ours, peer, rare = result.contenders
    assert ours.p99 == 0.005  # the 198th of 200
    assert peer.p99 == 0.003
    assert rare.p99 is None


def test_ratios_are_peer_over_ours(result):
    ours, peer, rare = result.contenders
    assert [result.ratio(one) for one in (ours, peer, rare)] == pytest.approx([1, 3, 3])
    assert result.tail_ratio(peer) == pytest.approx(0.6)
    assert result.tail_ratio(rare) is None


def test_a_faster_peer_shows_below_one(reading):
    ours = reading.Contender("ours", [2.0], ours=True)
    found = reading.Result("x", (ours, reading.Contender("peer", [1.0])))
    assert found.ratio(found.contenders[1]) == 0.5
    assert "| 0.50 × |" in reading.table([reading.Outcome("x", (found,))])


def test_dividing_by_nothing_is_infinite_not_an_error(reading):
    assert reading.divide(1.0, 0.0) == math.inf
    assert reading.divide(0.0, 0.0) == 1.0


@pytest.mark.parametrize("ours", [0, 2])
def test_exactly_one_contender_is_ours(reading, ours):
    contenders = [reading.Contender(f"c{at}", [1.0], ours=at < ours) for at in range(3)]
    with pytest.raises(ValueError, match="exactly one contender must be ours"):
        reading.Result("x", tuple(contenders))


def test_a_contender_without_samples_is_refused(reading):
    ours = reading.Contender("ours", [1.0], ours=True)
    with pytest.raises(ValueError, match="no samples of peer"):
        reading.Result("x", (ours, reading.Contender("peer", [])))


def test_the_table_has_a_row_per_contender_and_says_what_was_left_out(reading, result):
    outcome = reading.Outcome("link_down", (result,), ("Mininet is absent",))
    lines = reading.table([outcome]).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
    assert rows[0][:3] == ["link down", "**ours**", "200"]
    assert rows[0][3:] == ["1.00 ms", "1.00 ms", "5.00 ms", "9.00 ms", "1", "1"]
    assert rows[1] == ["", "peer", "200", *["3.00 ms"] * 3, "12.0 ms", "3.0 ×", "0.60 ×"]
    assert rows[2][5] == rows[2][8] == "–"
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[-2:] == ["- link down: a note", "- link_down: left out: Mininet is absent"]


def test_json_keeps_every_sample_and_the_ratios(reading, result):
    told = reading.to_json([reading.Outcome("link_down", (result,))], {"cores": 2})
    (found,) = json.loads(json.dumps(told))["benchmarks"][0]["results"]
    assert [one["n"] for one in found["contenders"]] == [200, 200, 2]
    assert found["contenders"][2]["seconds"] == [0.002, 0.004]
    assert found["contenders"][1]["median_ratio"] == pytest.approx(3)


def test_events_are_paired_with_the_step_that_caused_them(reading):
    from benchmarks.events import match

    steps = [(100, False), (200, True), (300, False)]
    heard = [
        (90, False),  # before anything was asked
        (110, False),
        (115, False),  # told twice: the first counts
        (205, False),  # the wrong state
        (310, True),  # late news of the step before is not this step's
        (330, False),
    ]
    assert match(steps, heard) == pytest.approx([10e-9, 30e-9])


def test_mininet_is_asked_for_the_same_network(reading):
    from benchmarks.deploy import FABRIC, bare
    from benchmarks.mininet_peer import order_of
    from chaos import topology

    fabric = bare(topology.load(FABRIC))
    order = order_of(fabric)
    assert all(node.runs == "shell" for node in fabric.nodes.values())
    assert (len(order["nodes"]), len(order["links"])) == (14, 16)
    assert {*order["addresses"]} == {*order["gateways"]} == {f"host{n}" for n in range(1, 9)}
    assert (order["addresses"]["host3"], order["gateways"]["host3"]) == ("10.0.3.1/31", "10.0.3.0")


@pytest.fixture
def told():
    """What a contest of two hosts and two rounds tells."""
    s = 10**9
    mine = {"attach_s": 3, "arm_s": 2, "used_kb": 60_000, "lead_s": 0.2, "told_s": 0.1}
    mine |= {"after_s": [0.0001, 0.0002], "clock_error_s": 0.0003, "heal_s": 1, "down_s": 1}
    rounds = [[5 * s, 5 * s + 1_000_000], [9 * s, 9 * s + 3_000_000]]
    slow = [[20 * s, 21 * s], [30 * s, 32 * s]]
    return [
        {"ev": "facts", "real_time": True, "openssh": "OpenSSH_9", "ansible": "2.19"},
        {"ev": "found", "who": "local", "rounds": [[s, s + 2000]]},
        {
            "ev": "found",
            "who": "ansible",
            "forks": 50,
            "rounds": slow,
            "took_s": [2, 3],
            "warm_s": 9,
        },
        {"ev": "found", "who": "ours", "rounds": rounds, **mine},
        {"ev": "done"},
    ]


def test_skew_is_counted_from_the_first_host_of_each_round(reading, told):
    from benchmarks.ssh_skew import outcome

    found = outcome(2, told)

    ours, peer, local = found.results[0].contenders
    assert ours.ours
    assert ours.seconds == pytest.approx([0, 0.001, 0, 0.003])
    assert peer.seconds == pytest.approx([0, 1, 0, 2])
    assert local.seconds == pytest.approx([0, 2e-6])
    assert found.results[0].ratio(peer) == pytest.approx(0.5 / 0.0005)
    assert "2 hosts" in found.results[0].what
    assert "OpenSSH_9, Ansible 2.19" in found.results[0].note


def test_without_ansible_its_row_is_left_out_with_a_sentence(reading, told):
    from benchmarks.ssh_skew import outcome

    found = outcome(2, [one for one in told if one.get("who") != "ansible"])

    assert len(found.results[0].contenders) == 2
    assert "pip install ansible-core" in found.skipped[0]


def test_a_host_that_stayed_up_is_no_sample_but_an_error(reading):
    from benchmarks.ssh_witness import first_downs
    from chaos.errors import FabricError

    downs = [(5, 1), (11, 2), (12, 1), (13, 1), (21, 3)]
    with pytest.raises(FabricError, match="2 of 3 links went down"):
        first_downs(downs, 3, 10, 20)
    assert first_downs(downs, 3, 10, 22) == [11, 12, 21]


def test_hosts_have_addresses_of_their_own(reading):
    from benchmarks.ssh_hosts import address

    assert len({address(number) for number in range(1, 2001)}) == 2000


@pytest.mark.parametrize(
    "room", ["reading", "events", "lateness", "ssh_hosts", "ssh_skew", "ssh_witness"]
)
def test_examples_in_docstrings_hold(reading, room):
    found = doctest.testmod(importlib.import_module(f"benchmarks.{room}"))
    assert found.attempted > 0
    assert found.failed == 0


def called(*words):
    argv = (sys.executable, "-m", "benchmarks", *words)
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_names_every_benchmark():
    done = called("--help")
    assert done.returncode == 0, done.stderr
    listed = {"link_down", "lateness", "events", "deploy", "converged", "ssh_skew"}
    assert all(name in done.stdout for name in listed)
    assert all((ROOT / "benchmarks" / f"{name}.py").exists() for name in listed)


def test_an_unknown_benchmark_is_refused_with_what_there_is():
    done = called("speed")
    assert done.returncode == 2
    assert "no benchmark speed; there are link_down" in done.stderr


def test_hosts_come_in_pairs():
    done = called("ssh_skew", "--hosts", "3")
    assert done.returncode == 2
    assert "--hosts 3: hosts come in pairs" in done.stderr
