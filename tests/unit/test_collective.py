"""The collective probe without any network: fields, values, limits, whom to blame."""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.errors import CapabilityError, SpecError
from chaos.fabric import Fabric, Node
from chaos.registry import PROBES, build
from chaos.units import Duration, Size
from probes import collective
from probes.collective import Collective
from probes.jobs.collective_blame import Matrix
from probes.jobs.collective_calm import Baseline, quantile, threshold
from probes.jobs.collective_channel import Recorder
from probes.jobs.collective_heartbeat import Ear
from probes.jobs.collective_sockets import TcpInfo
from probes.jobs.collective_values import OPS, Layout, busbw_factor, own, total

ROOT = Path(__file__).parents[2]
FABRIC = Fabric("f", {n: Node(n, role="host") for n in ("h1", "h2", "h3")} | {"s1": Node("s1")})


# ---- the value ----------------------------------------------------------------------------------


def test_all_hosts_run_ranks_unless_some_are_named():
    spine = Node("s1", role="spine")
    fabric = Fabric("f", {**{n: Node(n) for n in ("h2", "h1")}, "s1": spine})
    (program,) = Collective().programs(fabric, {})
    assert [r["node"] for r in program.config["ranks"]] == ["h2", "h1"]
    (program,) = Collective(("h1", "h2"), ranks_per_host=2).programs(fabric, {})
    ranks = [(r["rank"], r["node"], r["local_rank"]) for r in program.config["ranks"]]
    assert ranks == [(0, "h1", 0), (1, "h1", 1), (2, "h2", 0), (3, "h2", 1)]
    assert program.node == ""
    json.dumps(program.config)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"hosts": ["h1"]}, "hosts", "two ranks"),
        ({"hosts": ["h1", "h1"]}, "hosts", "ranks_per_host"),
        ({"size": "12 B"}, "size", "1 KiB"),
        ({"size": "2 GiB"}, "size", "1 GiB"),
        ({"timeout": "10 ms"}, "timeout", "1 s"),
        ({"ranks_per_host": 0}, "ranks_per_host", "1 to 16"),
        ({"op": "all_reduced"}, "op", "all_reduce"),
        ({"backend": "mpi"}, "backend", "gloo"),
    ],
)
def test_nonsense_is_refused_with_the_limit(values, field, words):
    with pytest.raises(SpecError, match=words) as error:
        build(PROBES, "probe", "collective", values)
    assert error.value.field == field


def test_fields_read_from_yaml_words():
    made = build(
        PROBES, "probe", "collective", {"hosts": ["h1", "h2"], "size": "4 MiB", "timeout": "30 s"}
    )
    assert made == Collective(("h1", "h2"), size=Size(4 << 20), timeout=Duration(30 * 10**9))


def test_an_unknown_host_is_named():
    with pytest.raises(SpecError, match="did you mean h1"):
        Collective(("h1", "h11")).programs(FABRIC, {})


def test_a_fabric_without_hosts_has_no_job():
    with pytest.raises(SpecError, match="0 nodes of role host"):
        Collective().programs(Fabric("f", {"s1": Node("s1", role="spine")}), {})


# ---- without torch ------------------------------------------------------------------------------


@pytest.fixture
def no_torch(tmp_path):
    """An environment in which `import torch` fails."""
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n")
    return os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


def test_only_the_worker_its_buffers_and_its_store_need_torch(no_torch):
    code = (
        "import probes.collective, pkgutil, importlib, probes.jobs\n"
        "for found in pkgutil.iter_modules(probes.jobs.__path__):\n"
        "    try:\n"
        "        importlib.import_module(f'probes.jobs.{found.name}')\n"
        "    except ImportError:\n"
        "        print(found.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=no_torch, capture_output=True, check=True
    )
    needing = ["collective_buffers", "collective_store", "collective_worker"]
    assert done.stdout.decode().split() == needing


def test_a_job_without_torch_ends_with_one_sentence(no_torch):
    config = Collective(("h1", "h2")).programs(FABRIC, {})[0].config
    order = {"config": config, "namespaces": dict.fromkeys(("h1", "h2"), "/proc/self/ns/net")}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    argv = [sys.executable, "-m", "probes.jobs.collective"]
    with subprocess.Popen(argv, env=no_torch, **pipes) as done:
        done.stdin.write(json.dumps(order).encode() + b"\n")
        done.stdin.flush()  # and stays open: the coordinator ends by itself
        said, words = done.stdout.read(), done.stderr.read()
    records = [json.loads(line) for line in said.splitlines()]
    assert [r["msg"] for r in records if r["ev"] == "failed"] == [collective.MISSING]
    assert done.returncode == 4
    assert words.decode().splitlines() == [collective.MISSING]


def test_available_raises_the_sentence(monkeypatch):
    monkeypatch.setattr(collective, "find_spec", lambda name: None)
    with pytest.raises(CapabilityError, match=r"pip install railbreak\[job\]"):
        collective.available()


# ---- values -------------------------------------------------------------------------------------


def _outcome(layout, i, rank):
    """What the operation leaves on `rank`, worked out from what every rank put in."""
    width = layout.chunk + 1

    def put(who, position):
        return own(i, who, layout.world) + position % 251

    if layout.op == "all_reduce":
        return [sum(put(r, j) for r in range(layout.world)) for j in range(width)]
    if layout.op == "broadcast":
        return [put(i % layout.world, j) for j in range(width)]
    if layout.op == "all_gather":
        return [put(r, j) for r in range(layout.world) for j in range(width)]
    if layout.op == "reduce_scatter":
        start = rank * width
        return [sum(put(r, start + j) for r in range(layout.world)) for j in range(width)]
    return [put(r, rank * width + j) for r in range(layout.world) for j in range(width)]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("world", [2, 3, 8])
def test_expected_values_are_those_of_the_operation(op, world):
    layout = Layout(op, world, 1200)
    for i in (0, 1, 96, 97, 1234):
        for rank in {0, world - 1}:
            expected = _outcome(layout, i, rank)
            assert [layout.expected(i, rank, j) for j in range(len(expected))] == expected


@pytest.mark.parametrize("op", OPS)
def test_values_are_exact_in_float32_up_to_64_ranks(op):
    layout = Layout(op, 64, 1 << 18)
    assert max(layout.added(96)) + layout.times() * 250 < 2**24


def test_total_is_the_sum_of_own():
    assert all(total(i, 5) == sum(own(i, r, 5) for r in range(5)) for i in range(200))


@pytest.mark.parametrize("op", OPS)
def test_a_stale_value_names_its_iteration(op):
    layout = Layout(op, 4, 1000)
    old = layout.expected(40, 1, 7)
    # the owner of a broadcast changes, so two iterations may carry the same value
    assert layout.stale_of(45, 1, 7, old) == 40
    assert layout.stale_of(45, 1, 7, 0.5) is None


def test_a_missing_contribution_names_its_rank():
    layout = Layout("all_reduce", 4, 1000)
    for missing in range(4):
        put = own(9, missing, 4) + 33
        assert layout.missing_rank(9, 0, 33, layout.expected(9, 0, 33) - put) == missing
    assert layout.missing_rank(9, 0, 33, layout.expected(9, 0, 33) + 1) is None
    assert Layout("all_gather", 4, 1000).missing_rank(9, 0, 33, 1) is None


@pytest.mark.parametrize(
    ("op", "world", "factor"),
    [("all_reduce", 8, 1.75), ("reduce_scatter", 8, 0.875), ("all_to_all", 2, 0.5)],
)
def test_bus_bandwidth_factors_are_those_of_nccl_tests(op, world, factor):
    assert busbw_factor(op, world) == factor


# ---- limits -------------------------------------------------------------------------------------


def test_threshold_is_the_largest_of_floor_tail_and_maximum():
    assert threshold([10.0] * 100, 200.0) == 200
    assert threshold([10.0] * 100 + [150.0], 200.0) == 450
    assert threshold([10.0] * 5000 + [150.0], 200.0) == 225
    with pytest.raises(ValueError, match="at least one"):
        quantile([], 0.5)


def test_limits_freeze_and_are_wider_while_learning():
    baseline = Baseline()
    assert baseline.alarms() == {}
    for _ in range(40):
        baseline.learn(10.0, 8.0)
    assert baseline.settle()
    assert baseline.alarms()["stall_ms"] == 600
    baseline.learn(700.0, 700.0)  # a fault already, not calm
    baseline.learn(100.0, 90.0)
    baseline.freeze()
    assert baseline.alarms() == baseline.limits
    assert baseline.limits["stall_ms"] == 300
    baseline.learn(5000.0, 5000.0)
    baseline.freeze()
    assert baseline.limits["stall_ms"] == 300


def test_too_few_iterations_carry_no_limit():
    baseline = Baseline()
    for _ in range(29):
        baseline.learn(1.0, 1.0)
    assert not baseline.settle()
    assert baseline.alarms() == {}


# ---- heartbeats ---------------------------------------------------------------------------------


def test_a_peer_is_lost_once_and_comes_back_once():
    ear = Ear([0, 0])
    assert ear.judge(80, 80) == []
    assert ear.judge(81, 80) == [("hb_lost", -1)]
    assert ear.judge(500, 80) == []
    ear.hear(1, 7, 510)
    assert ear.judge(511, 80) == [("hb_back", -1)]
    assert ear.judge(520, 80) == []


def test_beats_that_never_came_are_told_from_beats_that_came_late():
    late, lost = Ear([0]), Ear([0])
    for ear, returns_with in ((late, 5), (lost, 14)):
        ear.hear(0, 4, 10)
        assert ear.judge(100, 80) == [("hb_lost", -1)]
        ear.hear(0, returns_with, 110)
        ear.hear(0, returns_with + 1, 120)
        assert ear.judge(120, 80) == [("hb_back", -1)]
    assert (late.missed, lost.missed) == (0, 9)


def test_one_silent_source_port_is_a_path_not_a_peer():
    ear = Ear([0, 0])
    ear.hear(0, 0, 0)
    for beat in range(2, 20, 2):
        ear.hear(0, beat, beat)
        changed = ear.judge(beat, 80)
        if changed:
            break
    assert changed == [("hb_thinned", 1)]
    assert beat == 10  # beats 1, 3, 5, 7 and 9 never came
    ear.hear(1, 11, 11)
    assert ear.judge(11, 80) == [("hb_full", 1)]


def test_a_sender_that_is_held_up_thins_nothing():
    ear = Ear([0, 0])
    for beat in range(40):
        ear.hear(beat % 2, beat, beat * 70)
        assert ear.judge(beat * 70, 80) == []


def test_the_rank_that_all_others_miss_is_named_and_left_out():
    matrix = Matrix(4)
    for listener in (0, 1, 3):
        assert matrix.named() is None
        matrix.lost(listener, 2)
    assert matrix.named() == 2
    assert matrix.reachable(range(4)) == [0, 1, 3]
    matrix.back(1, 2)
    assert matrix.named() is None
    assert matrix.reachable(range(4)) == [0, 1, 3]


def test_a_partition_leaves_a_largest_half():
    matrix = Matrix(5, {(a, b) for a in (0, 1, 2) for b in (3, 4)})
    assert matrix.named() is None
    assert matrix.reachable(range(5)) == [0, 1, 2]


def test_ranks_that_left_are_no_evidence():
    matrix = Matrix(4)
    matrix.forget(3)
    matrix.lost(0, 3)
    assert matrix.deaf == set()
    matrix.lost(0, 2)
    matrix.lost(1, 2)
    assert matrix.named() == 2


# ---- sockets and channel ------------------------------------------------------------------------


def test_tcp_info_fields_lie_where_the_kernel_puts_them():
    raw = bytearray(232)
    raw[2], raw[4] = 3, 4
    for offset, value in ((8, 408000), (24, 17), (52, 999), (100, 12)):
        struct.pack_into("=I", raw, offset, value)
    struct.pack_into("=Q", raw, 200, 1 << 40)
    assert TcpInfo.unpack(bytes(raw)) == TcpInfo(3, 4, 408000, 17, 999, 12, 1 << 40)
    assert TcpInfo.unpack(bytes(raw[:104])).bytes_sent == 0


def test_a_slow_coordinator_costs_records_not_time():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        recorder = Recorder(ours, {"rank": 1, "inc": 0})
        for k in range(80):
            recorder.say("it", text="x" * 100_000, k=k)
            recorder.flush()
        assert recorder.lost > 10
        theirs.setblocking(False)
        got = b""
        while True:
            try:
                got += theirs.recv(1 << 20)
            except BlockingIOError:
                if recorder.flush():
                    break
        recorder.say("alive")
        recorder.flush()
        got += theirs.recv(1 << 20)
    records = [json.loads(line) for line in got.splitlines()]
    assert records[-1]["ev"] == "alive"
    assert records[-1]["n"] == 81
    assert records[-1]["lost"] == 81 - len(records)
    assert [r["n"] for r in records[:-1]] == list(range(1, len(records)))
