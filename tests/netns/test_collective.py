"""The collective job under real faults: four hosts, one router, one rank each."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from chaos import native
from chaos.change import Place, ProcessRestart, Where
from chaos.errors import BlockedError
from chaos.fabric import Fabric, Node
from chaos.timeline import Moment, Windows, now_ns
from chaos.units import Size
from probes.collective import Collective
from probes.jobs.collective_values import SHARED

pytest.importorskip("torch", reason="collective needs torch: pip install railbreak[job]")
pytestmark = [pytest.mark.netns, pytest.mark.job]

#: What a peer sees of a process that died: which one depends on what lay unread in its sockets.
CLOSED = ("conn_reset", "conn_closed")
HOSTS = ("host1", "host2", "host3", "host4")


class Ground:
    """Four hosts behind one router, and a silent black hole in front of any of them."""

    def __init__(self):
        self.tag = f"rbc{os.getpid()}"
        self.router = f"{self.tag}r"
        self.namespaces = {host: f"/run/netns/{self.tag}{host}" for host in HOSTS}
        self.addresses = {host: f"10.77.{n}.2" for n, host in enumerate(HOSTS, 1)}
        self.fabric = Fabric("star", {host: Node(host) for host in HOSTS})

    def up(self):
        _ip("netns", "add", self.router)
        for n, host in enumerate(HOSTS, 1):
            name = self.tag + host
            _ip("netns", "add", name)
            inside = ("link", "add", "eth1", "netns", name, "type", "veth")
            _ip(*inside, "peer", "name", f"p{n}", "netns", self.router)
            _ip("-n", name, "addr", "add", f"10.77.{n}.2/24", "dev", "eth1")
            _ip("-n", self.router, "addr", "add", f"10.77.{n}.1/24", "dev", f"p{n}")
            for port in ("lo", "eth1"):
                _ip("-n", name, "link", "set", port, "up")
            _ip("-n", self.router, "link", "set", f"p{n}", "up")
            _ip("-n", name, "route", "add", "default", "via", f"10.77.{n}.1")
        _ip("netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def down(self):
        for name in (self.router, *(self.tag + host for host in HOSTS)):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def hole(self, host):
        """Lose silently whatever `host` sends and whatever is sent to it."""
        ports = ", ".join(f'"p{n}"' for n in range(1, len(HOSTS) + 1))
        address = self.addresses[host]
        self._nft(
            "table netdev hole { chain i { type filter hook ingress "
            f"devices = {{ {ports} }} priority 0; "
            f"ip saddr {address} drop; ip daddr {address} drop; }}; }}\n"
        )

    def heal(self):
        self._nft("delete table netdev hole")

    def _nft(self, text):
        argv = ["ip", "netns", "exec", self.router, "nft", "-f", "-"]
        subprocess.run(argv, input=text.encode(), check=True)


def _ip(*words):
    subprocess.run(["ip", *words], check=True)


class Job:
    """A coordinator process as the engine runs it."""

    def __init__(self, ground, probe, **knobs):
        self.ground, self.probe = ground, probe
        program = probe.programs(ground.fabric, ground.addresses)[0]
        order = {"config": {**program.config, **knobs}, "namespaces": ground.namespaces}
        self.process = subprocess.Popen(
            [sys.executable, "-m", program.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.records, self._changed = [], threading.Condition()
        self.words = []
        self._threads = [threading.Thread(target=work) for work in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()
        self._send(order)

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.records.append(json.loads(line))
                self._changed.notify_all()

    def _listen(self):
        for line in self.process.stderr:
            self.words.append(line.decode(errors="replace"))

    def _send(self, value):
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        self.process.stdin.flush()

    def say(self, cmd, **fields):
        self._send({"cmd": cmd, **fields})

    def wait(self, holds, deadline_s=30.0):
        """Until `holds(records)`; fails with what the job said otherwise."""
        with self._changed:
            came = self._changed.wait_for(lambda: holds(self.records), deadline_s)
        seen = [f"{r['ev']} {r.get('msg', '')}" for r in self.records if r["ev"] != "it"][-12:]
        assert came, f"never came; last records: {seen}; {''.join(self.words)[-2000:]}"

    def wait_for(self, ev, number=1, deadline_s=30.0, since=0, **fields):
        """Until `number` records of that kind, with those fields, from `since` on."""

        def holds(records):
            found = [r for r in records if r["ev"] == ev and r["t"] >= since]
            return number <= sum(all(r.get(k) == v for k, v in fields.items()) for r in found)

        self.wait(holds, deadline_s)

    def ready(self):
        self.wait(lambda rs: any(r["ev"] in ("ready", "failed") for r in rs), 90.0)
        failed = [r["msg"] for r in self.records if r["ev"] == "failed"]
        assert not failed, failed
        return self

    def iterate(self, number):
        """Let every rank that runs complete so many more iterations."""
        since = now_ns()

        def enough(records):
            counts = {}
            for r in records:
                if r["ev"] == "it" and r["t"] >= since:
                    counts[r["rank"]] = counts.get(r["rank"], 0) + len(r["t0"])
            return len(counts) >= 2 and min(counts.values()) >= number

        self.wait(enough)

    def trial(self, act, calm=60, after=60, settle=None):
        """Calm, storm by `act`, after: readings, measures by name, and the windows."""
        start = now_ns()
        self.iterate(calm)
        calm_ns = (start, now_ns())
        self.say("phase", name="storm")
        self.wait_for("phase", since=calm_ns[1], rank=-1)
        event, heal = act()
        self.say("phase", name="after")
        if settle is None:
            self.iterate(after)
        else:
            settle()
        end = now_ns()
        windows = Windows(calm_ns, event, heal, end)
        lasting = ("hello", "sock", "baseline", "group", "process", "env", "phase", "ready")
        records = [r for r in self.records if r["ev"] in lasting or start <= r["t"] <= end]
        readings = self.probe.read({"coordinator": records})
        found = {m.name: m for m in self.probe.measures(readings, windows)}
        storm = [e for e in readings.events if e.at_ns >= event.earliest_ns]
        return SimpleNamespace(
            readings=readings, measures=found, windows=windows, storm=storm, records=records
        )

    def pids(self):
        return {r["name"]: r["pid"] for r in self.records if r["ev"] == "process"}

    def stop(self):
        """Its exit status, once it is gone."""
        if self.process.poll() is None:
            self.say("stop")
        return self.process.wait(10)

    def leave(self):
        """Whatever happened: nothing of it stays."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(5)
        self.process.stdout.close()
        self.process.stderr.close()


def _alive(pid):
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pids, deadline_s=5.0):
    end = time.monotonic() + deadline_s
    while any(_alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(_alive(pid) for pid in pids)


@pytest.fixture(scope="module")
def ground():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Ground()
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def job(ground):
    """One job in mode ride; the tests of this file that share it stand in the order they need."""
    made = Job(ground, Collective())
    try:
        yield made.ready()
    finally:
        made.leave()


def _symptoms(trial):
    return {e.detector for e in trial.storm if e.detector}


# ---- one job, four trials -----------------------------------------------------------------------


def test_every_connection_is_in_the_fabric_and_streams_name_the_ring(job):
    socks = [s for r in job.records if r["ev"] == "sock" for s in r["socks"]]
    addresses = set(job.ground.addresses.values())
    assert len(socks) == 12
    assert {s["local"][0] for s in socks} | {s["peer"][0] for s in socks} == addresses
    job.wait_for("flows", number=8)
    streams = job.probe.streams(job.ground.addresses, {"coordinator": job.records})
    carried = {(s.source, s.target) for s in streams[:4]}
    assert len({source for source, _ in carried}) == 4, carried
    assert all(job.ground.addresses[s.source] == s.source_ip for s in streams)


def test_a_job_without_a_supervisor_has_no_rank_started_again(job):
    with pytest.raises(BlockedError, match=r"nobody would start it again; a collective job does"):
        restarting(job, 0)
    assert _alive(job.pids()["rank0"])


def test_a_sham_raises_no_alarm(job):
    def act():
        at = now_ns()
        job.iterate(60)
        end = now_ns()
        return Moment(at, at), Moment(end, end)

    trial = job.trial(act, calm=150)
    assert _symptoms(trial) == set()
    assert trial.readings.extra["fate"] == "survived"
    assert trial.readings.trouble == ()
    assert trial.measures["job_wrong_values"].value == 0
    assert trial.measures["job_wrong_values"].n > 300
    assert trial.measures["job_recovery_ms"].value == 0
    assert trial.measures["job_heal_stall_ms"].value == 0
    assert "no stall" in trial.measures["job_stall_ms"].note
    assert 0.2 < trial.measures["job_busbw_ratio"].value < 5


def test_a_black_hole_is_seen_by_all_and_named_by_the_heartbeats(job):
    def act():
        start = now_ns()
        job.ground.hole("host2")
        event = Moment(start, now_ns())
        time.sleep(1.0)
        start = now_ns()
        job.ground.heal()
        return event, Moment(start, now_ns())

    trial = job.trial(act)
    hole_ms = (trial.windows.heal.earliest_ns - trial.windows.event.latest_ns) / 1e6
    assert {"heartbeat", "job_stall", "op_age", "tcp_retransmit"} <= _symptoms(trial)
    timed_out = next(e for e in trial.storm if e.name == "tcp.timed_out")
    assert timed_out.at_ns < trial.windows.heal.earliest_ns
    assert timed_out.facts["retransmits"] >= 1
    named = next(e for e in trial.storm if e.blames)
    assert (named.blames, named.facts["cause"]) == ("host2:eth1", "network")
    assert named.at_ns < next(e.at_ns for e in trial.storm if e.detector == "job_stall")
    stall = trial.measures["job_stall_ms"]
    assert hole_ms - 100 < stall.value < 3 * hole_ms + 1000
    assert not stall.censored
    assert trial.measures["job_recovery_ms"].value > hole_ms - 100
    assert trial.measures["job_degradation_percent"].value > 10
    assert trial.measures["job_jct_ratio"].value > 1.1
    assert trial.measures["job_wrong_values"].value == 0
    assert trial.readings.extra["fate"] in ("survived", "degraded")  # a busy machine degrades
    assert len(trial.readings.extra["rto_ladder_ms"]) >= 5
    assert {span.element for span in trial.readings.spans} == {f"rank{n}" for n in range(4)}


def test_a_stopped_process_is_frozen_and_no_fault_of_the_network(job):
    pid = job.pids()["rank2"]

    def act():
        start = now_ns()
        os.kill(pid, signal.SIGSTOP)
        event = Moment(start, now_ns())
        time.sleep(1.2)
        start = now_ns()
        os.kill(pid, signal.SIGCONT)
        return event, Moment(start, now_ns())

    trial = job.trial(act)
    named = next(e for e in trial.storm if e.blames)
    assert (named.blames, named.facts["cause"]) == ("rank2", "frozen")
    job.wait_for("ctl_lost", who=2, state="T")
    frozen = [e for e in trial.storm if e.at_ns < trial.windows.heal.earliest_ns]
    assert not [e for e in frozen if e.name == "tcp.timed_out"]
    assert trial.measures["job_stall_ms"].value > 1000
    assert trial.measures["job_wrong_values"].value == 0


def test_a_killed_rank_is_named_and_ends_the_job_on_every_rank(job):
    pid = job.pids()["rank2"]

    def act():
        start = now_ns()
        os.kill(pid, signal.SIGKILL)
        event = Moment(start, now_ns())
        job.wait(lambda rs: any(r.get("cls") in CLOSED and r["t"] >= start for r in rs), 5)
        return event, event

    trial = job.trial(act, settle=lambda: job.wait_for("fate", deadline_s=6))
    event = trial.windows.event.earliest_ns
    exited = next(e for e in trial.storm if e.name == "process.exited")
    assert (exited.blames, exited.facts["cause"]) == ("rank2", "killed")
    assert exited.at_ns - event < 1e9
    reset = [e for e in trial.storm if e.facts.get("cls") in CLOSED]
    assert reset
    assert reset[0].at_ns - event < 1e9
    ended = {e.element: e.at_ns for e in trial.storm if e.name == "job.aborted"}
    assert set(ended) == {"rank0", "rank1", "rank3"}
    assert max(ended.values()) - event < 3e9
    told = {e.element for e in trial.storm if e.name == "job.failed"}
    assert told != set(ended), "every survivor saw an error by itself; the abort proved nothing"
    assert trial.readings.extra["fate"] == "aborted"
    assert "by peer" in trial.readings.extra["error"]
    assert trial.measures["job_stall_ms"].censored
    assert trial.measures["job_recovery_ms"].censored


def test_after_stop_nothing_is_left(job):
    pids = job.pids().values()
    assert job.stop() == 0
    job.wait_for("end", rank=-1)
    assert not [pid for pid in pids if _alive(pid)]


# ---- values, abort, death of the coordinator ----------------------------------------------------


@pytest.fixture(scope="module")
def spoilt(ground):
    """A job in which rank 1 finds one value changed in iteration 150."""
    probe = Collective(HOSTS[:3], size=Size(256 << 10))
    made = Job(ground, probe, corrupt_rank=1, corrupt_at=150, corrupt_index=4242)
    try:
        yield made.ready()
    finally:
        made.leave()


def test_one_wrong_value_is_found(spoilt):
    def act():
        at = now_ns()
        return Moment(at, at), Moment(at, at)

    trial = spoilt.trial(act, calm=200)
    assert trial.measures["job_wrong_values"].value == 1
    found = [e for e in trial.readings.events if e.name == "values.broken"]
    assert [(e.element, e.facts["i"], e.facts["index"]) for e in found] == [("rank1", 150, 4242)]
    assert found[0].facts["got"] == found[0].facts["expected"] + 1


def test_an_abort_returns_operations_that_hang_in_a_black_hole(spoilt):
    spoilt.ground.hole("host2")
    try:
        since = now_ns()
        spoilt.wait_for("stall", number=3, since=since)
        started = now_ns()
        spoilt.say("abort")
        spoilt.wait_for("aborted", number=3, since=started, deadline_s=3)
    finally:
        spoilt.ground.heal()
    ends = [r for r in spoilt.records if r["ev"] == "aborted"]
    assert {r["rank"] for r in ends} == {0, 1, 2}
    assert all(r["effective"] and r["cut"] for r in ends)
    assert not [r for r in spoilt.records if r["ev"] == "stuck"]


def test_no_rank_outlives_a_killed_coordinator(spoilt):
    pids = list(spoilt.pids().values())
    assert all(_alive(pid) for pid in pids)
    with open(f"/proc/{pids[0]}/stat") as stat:
        server = int(stat.read().rpartition(")")[2].split()[1])
    for pid in (server, pids[0]):
        os.kill(pid, signal.SIGSTOP)  # nor does one that cannot answer
    spoilt.process.kill()
    try:
        assert _gone([server, *pids])
    finally:
        for pid in filter(_alive, [server, *pids]):
            os.kill(pid, signal.SIGKILL)


# ---- regroup ------------------------------------------------------------------------------------


def test_regroup_goes_on_with_three_and_takes_the_fourth_back(ground):
    job = Job(ground, Collective(mode="regroup"))
    try:
        job.ready()

        def act():
            start = now_ns()
            job.ground.hole("host2")
            event = Moment(start, now_ns())
            try:
                job.wait_for("steady", number=3, inc=1, deadline_s=15)
                job.iterate(20)
            finally:
                start = now_ns()
                job.ground.heal()
            heal = Moment(start, now_ns())
            job.wait_for("steady", number=4, inc=2, deadline_s=15)
            return event, heal

        trial = job.trial(act, after=40)
        groups = [r for r in job.records if r["ev"] == "group"]
        assert [r["members"] for r in groups if r["inc"] == 1] == [[0, 2, 3]] * 3
        assert [r["members"] for r in groups if r["inc"] == 2] == [[0, 1, 2, 3]] * 4
        assert not [r for r in job.records if r["ev"] == "stuck"]
        assert trial.readings.extra["fate"] == "restarted"
        assert trial.measures["job_regroup_s"].value < 5
        assert trial.measures["job_wrong_values"].value == 0
        named = next(e for e in trial.storm if e.blames)
        assert named.blames == "host2:eth1"
        assert not [e for e in trial.storm if e.detector == "job_error"]
        assert job.stop() == 0
    finally:
        job.leave()


# ---- ranks that are started again ----------------------------------------------------------------


def restarting(job, rank):
    """The change that ends a rank of a job and has it started again, made ready."""
    pid = job.pids()[f"rank{rank}"]
    where = Where(pid=pid, started=native.process_state(pid)[1])
    return native.build(ProcessRestart(Place("", process=f"rank{rank}")), where)


def test_all_leave_and_meet_anew_when_a_rank_is_started_again(ground):
    """Twice: the second time the rank that was started again is ended again."""
    job = Job(ground, Collective(mode="restart"))
    try:
        job.ready()
        for turn in (1, 2):
            change = restarting(job, 2)
            old = job.pids()["rank2"]

            def act(change=change, turn=turn):
                start = now_ns()
                change.do()
                event = Moment(start, now_ns())
                job.wait_for("aborted", number=3, since=start)
                assert change.in_force()
                stopped = max(r["t"] for r in job.records if r["ev"] == "aborted")
                time.sleep(0.5)
                assert not [r for r in job.records if r["ev"] == "it" and r["t0"][-1] > stopped]
                start = now_ns()
                assert change.undo() == ()
                heal = Moment(start, now_ns())
                job.wait_for("steady", number=4, inc=turn, deadline_s=20)
                return event, heal

            trial = job.trial(act)
            assert (change.in_force(), change.hits().seen, change.hits().hit) == (False, 1, 1)
            change.close()
            assert job.pids()["rank2"] != old
            groups = [r for r in job.records if r["ev"] == "group" and r["inc"] == turn]
            assert [r["members"] for r in groups] == [[0, 1, 2, 3]] * 4
            assert trial.readings.extra["fate"] == "restarted"
            assert trial.readings.trouble == ()
            assert {"process.exited", "process.started", "job.regrouped"} <= {
                e.name for e in trial.storm
            }
            named = next(e for e in trial.storm if e.blames)
            assert (named.blames, named.facts["cause"]) == ("rank2", "killed")
            down, heal = trial.measures["job_down_ms"], trial.windows.heal
            outage_ms = (heal.earliest_ns - trial.windows.event.latest_ns) / 1e6
            assert outage_ms < down.value < outage_ms + 10_000
            assert trial.measures["job_lost_iterations_count"].value > 10
            assert trial.measures["job_recovery_after_heal_ms"].value > 0
            assert trial.measures["job_wrong_values"].value == 0
            after = [r for r in trial.records if r["ev"] == "it" and r["inc"] == turn]
            assert sum(r["full"] for r in after) >= 4 * 10, "all values of the first iterations"
        assert not [r for r in job.records if r["ev"] == "stuck"]
        assert job.stop() == 0
    finally:
        job.leave()


def test_a_job_that_regroups_goes_on_without_the_rank_and_takes_the_new_one_in(ground):
    job = Job(ground, Collective(mode="regroup"))
    try:
        job.ready()
        with contextlib.closing(restarting(job, 1)) as change:
            change.do()
            job.wait_for("steady", number=3, inc=1, deadline_s=15)
            assert change.undo() == ()
        job.wait_for("steady", number=4, inc=2, deadline_s=15)
        job.iterate(30)
        groups = [r for r in job.records if r["ev"] == "group"]
        assert [r["members"] for r in groups if r["inc"] == 1] == [[0, 2, 3]] * 3
        assert [r["members"] for r in groups if r["inc"] == 2] == [[0, 1, 2, 3]] * 4
        assert not [r for r in job.records if r["ev"] == "it" and r["bad"]]
        assert job.stop() == 0
    finally:
        job.leave()


def test_a_frozen_rank_is_ended_and_started_again_by_a_job_that_restarts(ground):
    job = Job(ground, Collective(mode="restart"))
    try:
        old = job.ready().pids()["rank3"]
        os.kill(old, signal.SIGSTOP)
        job.wait_for("stuck", who=3, deadline_s=15)
        job.wait_for("steady", number=4, inc=1, deadline_s=20)
        assert job.pids()["rank3"] != old
        assert job.stop() == 0
        assert _gone(job.pids().values())
    finally:
        job.leave()


# ---- the other operations -----------------------------------------------------------------------


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_to_all", "broadcast"])
def test_every_value_of_every_operation_is_right(ground, op):
    job = Job(ground, Collective(HOSTS[1:], op=op, size=Size(300_000), check="full"))
    try:
        job.ready().iterate(30)
        assert job.stop() == 0
        its = [r for r in job.records if r["ev"] == "it"]
        assert {r["op"] for r in its} == {op}
        assert all(r["bad"] == [] for r in its)
        assert all(r["full"] == len(r["t0"]) for r in its)
        hashed = {(r["i"], r["rank"]): r["hash"] for r in job.records if r["ev"] == "hash"}
        assert bool(hashed) == (op in SHARED)
        assert all(mine == hashed.get((i, 0), mine) for (i, _), mine in hashed.items())
        last = {r["i"] for r in job.records if r["ev"] == "paused"}
        assert len(last) == 1, f"ranks stopped at different iterations: {last}"
    finally:
        job.leave()
