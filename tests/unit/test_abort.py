"""Abort conditions: how they are read, what they see, and that what they end is healed at once."""

import asyncio
import random
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import jsonschema
import pytest

from chaos import describe, quarantine
from chaos.abort import Abort
from chaos.change import LinkState, Place, Where
from chaos.errors import ApplyError, BlockedError, SpecError
from chaos.experiment import loads
from chaos.experiment_schema import json_schema
from chaos.fabric import Fabric, Link, Node, Port
from chaos.journal import Entry
from chaos.judge import judge_run, judge_trial
from chaos.limits import UNLIMITED, Limits
from chaos.observe import Observer, Running
from chaos.proof import Action, ChangeProof
from chaos.proof import Proof as HandsProof
from chaos.record import Proof, Record, Trial, from_json, to_json
from chaos.recover import Status
from chaos.registry import InForce
from chaos.run import finish
from chaos.storm import Falling, weather
from chaos.strike import strike
from chaos.timeline import Measure, Moment, Readings, Windows, now_ns
from chaos.units import Duration
from chaos.watch import Watch
from probes.flow_watch import watch as watch_flow

TEXT = """\
promise: It is given up in time.
fabric: pair
fault: {link_down: {link: in-use host--router, mode: silent}}
probes:
  flow: {source: host1, target: host2}
  kernel_events: {}
abort: ABORT
objectives:
  - {measure: flow_lost_packets, at_most: 5}
"""


def written(abort, more=""):
    return loads(TEXT.replace("ABORT", abort).replace("  kernel_events: {}\n", more), "a.yaml")


# ---- as written ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("{when: loss_percent, of: flow, above: 50}", "loss_percent of flow above 50 %"),
        ("{when: loss_percent, above: 50 %}", "loss_percent above 50 %"),
        ("{when: silent_ms, above: 0.2 s, over: 1 s}", "silent_ms above 200 ms"),
        ("{when: flow_lost_packets, above: 100}", "flow_lost_packets above 100 packets"),
        ("{when: flow_outage_longest_ms, below: 10 ms}", "flow_outage_longest_ms below 10 ms"),
    ],
)
def test_a_condition_is_read(fields, expected):
    (found,) = written(f"[{fields}]").abort

    assert found.sentence() == expected


@pytest.mark.parametrize(
    ("abort", "sentence"),
    [
        ("job_dead", "a.yaml:7: abort: a list of conditions expected, such as - when: job_dead;"),
        ("[job_dead]", "a.yaml:7: abort[0]: a condition such as when: job_dead expected, got 'j"),
        ("[{above: 5}]", "abort[0]: a condition needs when, such as job_dead"),
        ("[{when: loss_percent, abov: 5}]", "abort[0].abov: no field 'abov' in a condition; did"),
        ("[{when: loss_percent}]", "abort[0]: loss_percent needs above or below, and one of them"),
        ("[{when: loss_percent, above: 5, below: 9}]", "needs above or below, and one of them"),
        ("[{when: loss_percent, above: 250 %}]", "abort[0].above: a share must be 0 to 100 %"),
        ("[{when: silent_ms, above: 5 %}]", "abort[0].above: a time expected, such as 250 ms"),
        ("[{when: loss_percent, above: 5, over: 1 ms}]", "over must be at least 50 ms, got 1 ms"),
        ("[{when: los_percent, above: 5}]", "abort[0].when: no probe of this experiment tells "
         "los_percent; did you mean loss_percent"),
        ("[{when: loss_percent, of: flw, above: 5}]", "abort[0].of: no probe 'flw'; did you mean"),
        ("[{when: loss_percent, of: kernel_events, above: 5}]",
         "abort[0].of: probe kernel_events does not tell loss_percent"),
        ("[{when: job_dead}]", "abort[0].when: no probe of this experiment tells job_dead"),
        ("[{when: job_dead, above: 5}]", "abort[0].above: a job is dead or not; leave the number"),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_refused(abort, sentence):
    with pytest.raises(SpecError) as refusal:
        loads(TEXT.replace("ABORT", abort), "a.yaml")

    assert sentence in str(refusal.value)


def test_which_probe_is_asked_must_be_said():
    """Of two flows one is named; a dead job is any job's."""
    two = "  flow/b: {source: host2, target: host1}\n"
    text = TEXT.replace("  kernel_events: {}\n", two + "exposed: flow\n")
    with pytest.raises(SpecError, match="is told by flow and flow/b; name one as of"):
        loads(text.replace("ABORT", "[{when: loss_percent, above: 5}]"))
    named = loads(text.replace("ABORT", "[{when: loss_percent, of: flow/b, above: 5}]"))
    assert named.abort[0].asked(named.probes) == ("flow/b",)
    jobs = written("[{when: job_dead}]", "  collective: {}\n  collective/b: {}\nexposed: flow\n")
    assert jobs.abort[0].asked(jobs.probes) == ("collective", "collective/b")


def test_the_schema_takes_what_is_read_and_marks_what_is_not():
    validator = jsonschema.Draft202012Validator(json_schema()["properties"]["abort"])

    for right in ([], [{"when": "job_dead"}], [{"when": "x_ms", "above": "2 s", "over": "1 s"}]):
        [Abort.parse(one) for one in right]
        validator.validate(right)
    for wrong in ({}, [{}], [{"when": 1}], [{"when": "x", "above": 1, "below": 2}], ["job_dead"]):
        assert not validator.is_valid(wrong)


# ---- what a flow tells live ---------------------------------------------------------------------

MS = 1_000_000


def told(sent, arrived, until_ms=1000):
    """Records of a flow: a packet per ms from 0, those that arrived, in batches of 100 ms."""
    sender, receiver = [], []
    for begin in range(0, until_ms, 100):
        slots = range(begin, begin + 100)
        at = [(slot - begin) * MS if slot in sent else -1 for slot in slots]
        sender.append({"ev": "sent", "t": begin * MS, "first": begin, "at": at, "refused": []})
        got = [slot for slot in slots if slot in arrived]
        receiver.append(
            {"ev": "got", "t": begin * MS, "until": (begin + 100) * MS, "slots": got, "at": []}
        )
    return {"sender": sender, "receiver": receiver}


def test_the_loss_is_of_the_last_stretch_only():
    """Everything lost from 700 ms on: 250 of the last 500 that had time to arrive, and 251 ms."""
    records = told(range(1000), range(700))

    found = watch_flow(records, 0, 500 * MS)

    assert found["loss_percent"] == pytest.approx(50, abs=0.5)
    assert found["silent_ms"] == pytest.approx(251, abs=1)
    assert watch_flow(records, 800 * MS, 500 * MS)["loss_percent"] == 100
    assert watch_flow(records, 0, 5000 * MS)["loss_percent"] < 30


def test_what_is_still_under_way_is_not_lost():
    """A receiver that has told less than the sender, and packets that were never sent."""
    records = told(range(0, 1000, 2), range(1000))
    records["receiver"] = records["receiver"][:-3]

    assert watch_flow(records, 0, 500 * MS)["loss_percent"] == 0
    assert watch_flow(records, 0, 500 * MS)["silent_ms"] == 0


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"sender": [], "receiver": []},
        {"sender": told(range(99), ())["sender"], "receiver": [{"ev": "ready", "t": 0}]},
    ],
)
def test_where_nothing_is_known_nothing_is_told(records):
    assert watch_flow(records, 0, 500 * MS) == {}


def test_too_few_packets_have_no_share():
    assert "loss_percent" not in watch_flow(told(range(0, 1000, 50), ()), 0, 500 * MS)


# ---- the watch ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meter:
    """A probe that tells the last `level` it heard, live and as a measure."""

    name = "meter"
    schema: ClassVar[dict[str, str]] = {"meter_level": "the greatest"}
    watched: ClassVar[dict[str, str]] = {"level": "the last"}

    def watch(self, records, since_ns, over_ns):
        levels = [one["level"] for one in records["program"] if one["t"] >= since_ns]
        return {"level": levels[-1]} if levels else {}

    def read(self, records):
        return Readings("meter", extra={"levels": [r["level"] for r in records["program"]]})

    def measures(self, readings, windows):
        return (Measure("meter_level", max(readings.extra["levels"], default=None)),)


@dataclass(frozen=True)
class Job(Meter):
    """The same, with ranks."""

    def nodes(self, fabric):
        return ("host1",)


class Heard(Observer):
    """An observer whose programs say what the test lets them say."""

    def __init__(self, **probes):
        super().__init__(SimpleNamespace(), probes)
        for label in probes:
            self._running[label] = {"program": Running(None, None)}

    def hear(self, label="meter", **record):
        record.setdefault("t", now_ns())
        self._running[label]["program"].records.append({"ev": "level", **record})

    async def say(self, command, label=None):
        """Programs that say nothing hear nothing either."""

    def end(self, label):
        self._running[label]["program"].ended = True


HIGH = Abort("level", above=10.0)


def test_a_condition_holds_on_what_was_said_since():
    heard = Heard(meter=Meter())
    watch = Watch((HIGH,), heard, (0, 1))
    heard.hear(level=99.0)
    since = now_ns()

    assert watch.look(since) is None
    heard.hear(level=10.0)
    assert watch.look(since) is None
    heard.hear(level=11.0)
    found = watch.look(since)
    assert (found.of, found.value) == ("meter", 11.0)
    assert found.told == "level of meter was 11, above 10"


@pytest.mark.parametrize(
    ("bound", "holds"), [({"above": 5.0}, [6.0]), ({"below": 5.0}, [4.0]), ({"above": 4.0}, [5, 6])]
)
def test_the_bound_itself_is_within_it(bound, holds):
    condition = Abort("level", **bound)
    assert [value for value in (4.0, 5.0, 6.0) if condition.holds(value)] == holds


def test_a_condition_looks_back_as_far_as_it_says():
    """The probe is asked for that stretch, and given the records of it; 50 ms are enough."""
    asked = []

    class Recalling(Meter):
        def watch(self, records, since_ns, over_ns):
            asked.append((over_ns, len(records["program"])))
            return {}

    heard, since = Heard(meter=Recalling()), now_ns()
    heard.hear(t=since - 100 * MS, level=1.0)
    heard.hear(t=since, level=1.0)
    for over, records in (("50 ms", 1), ("200 ms", 2)):
        condition = Abort("level", above=10.0, over=Duration.parse(over))
        Watch((condition,), heard, (0, 1)).look(since)
        assert asked[-1] == (Duration.parse(over).ns, records)


def test_a_measure_is_a_condition_too():
    """It is read from all records since calm, so it costs more, and only some looks ask for it."""
    heard = Heard(meter=Meter())
    watch = Watch((Abort("meter_level", below=5.0),), heard, (now_ns(), now_ns() + 1))
    heard.hear(level=4.0)
    since = now_ns() - 1000

    assert watch.look(since, measures=False) is None
    assert watch.look(since).told == "meter_level of meter was 4, below 5"
    assert watch.look(now_ns() + 10**9) is None, "a storm that has not begun has no measure"


@pytest.mark.parametrize("how", ["fate", "ended", "survived", "before"])
def test_a_dead_job_is_seen(how):
    heard = Heard(job=Job())
    if how == "before":
        heard.hear("job", ev="fate", fate="aborted")
    watch, since = Watch((Abort("job_dead"),), heard, (0, 1)), now_ns()
    if how in ("fate", "survived"):
        heard.hear("job", ev="fate", fate={"fate": "aborted"}.get(how, how), msg="rank1 is gone")
        heard.hear("job", ev="it", t=since - 10**6)  # older than the end, and told after it
    if how == "ended":
        heard.end("job")
    found = watch.look(since)

    sentences = {
        "fate": "job_dead: job was aborted (rank1 is gone)",
        "ended": "job_dead: a program of job ended",
    }
    assert (found.told if found else None) == sentences.get(how)


def test_what_cannot_be_watched_counts_as_held():
    """A fault is not left in force unwatched."""
    heard = Heard(meter=Meter())
    heard.hear(t=now_ns(), height=3)

    found = Watch((HIGH,), heard, (0, 1)).look(0)

    assert found.value is None
    assert found.told.startswith(
        "level above 10: cannot be watched, meter cannot be read: KeyError"
    )


def test_records_that_come_late_are_not_passed_over():
    heard = Heard(meter=Meter())
    now = now_ns()
    for t in (now - 10**10, now, now + 5, now - 10**6):
        heard.hear(t=t, level=1.0)

    assert [r["t"] for r in heard.tail("meter", now)["program"]] == [now, now + 5]


# ---- a storm that is given up -------------------------------------------------------------------

FABRIC = Fabric(
    "two", {"host1": Node("host1"), "host2": Node("host2")},
    (Link(Port("host1", "eth1"), Port("host2", "eth1")),),
)  # fmt: skip


class FakeHands:
    """A holder that keeps time as the injector does, and remembers what it was asked."""

    trouble = ()

    def __init__(self, changes, fails=None):
        self.changes, self.fails, self.asked, self.acts = tuple(changes), fails, [], []
        self.slow_s = 0.0

    async def start(self, t0_ns, spans):
        self.t0_ns, self.end_ns = t0_ns, t0_ns + max(span.end_ns for span in spans)
        self.acts.append(Action(t0_ns, t0_ns, t0_ns, "do", 0))
        self.asked.append("start")

    async def hits(self):
        return {}

    async def wait(self):
        if self.fails:
            raise self.fails
        await asyncio.sleep(max(0, self.end_ns - now_ns()) / 1e9)
        self._undo(self.end_ns)

    def _undo(self, at):
        if self.acts[-1].kind == "do":
            self.acts.append(Action(at, at, max(at, now_ns()), "undo", 0))

    async def heal(self):
        self.asked.append("heal")
        await asyncio.sleep(self.slow_s)
        self._undo(now_ns())
        proofs = tuple(ChangeProof(one, True, 5, 5, True) for one in self.changes)
        do, undo = self.acts[0], self.acts[-1]
        return HandsProof(
            proofs,
            tuple(self.acts),
            Moment(do.before_ns, do.acknowledged_ns),
            Moment(undo.before_ns, undo.acknowledged_ns),
            trouble=self.trouble,
        )

    async def close(self):
        self.asked.append("close")


class FakeDriver(SimpleNamespace):
    """A driver that arms fake hands."""

    fidelity, instance = "namespace", "two"

    async def arm(self, changes, *, journal, max_life, log_dir):
        self.hands.append(FakeHands(changes, self.fails))
        self.hands[-1].slow_s = self.slow_s
        return self.hands[-1]


@dataclass(frozen=True)
class Cut:
    name = "cut"
    end: str = "host1"

    def changes(self, fabric):
        return (LinkState(Place(self.end, "eth1")),)

    def schedule(self, storm, rng):
        return (InForce(0, storm.ns),)


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """No list of quarantine but this test's own."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path))
    return tmp_path


def storm(
    heard, abort, length="1 s", *, faults=("host1",), fails=None, slow_s=0.0, limits=UNLIMITED
):
    """Runs a storm on fakes; what it returned, the hands, and how long it took, ns."""

    async def go():
        driver = FakeDriver(fabric=FABRIC, folder=Path("/nowhere"), fails=fails, slow_s=slow_s)
        driver.hands = heard.hands = []
        experiment = SimpleNamespace(
            limits=limits, max_life=Duration.parse("60 s"), probes={}, phases=None
        )
        ground = SimpleNamespace(
            driver=driver,
            experiment=experiment,
            observer=heard,
            folder=Path("/nowhere/run"),
            tell=lambda kind, facts: None,
        )
        lasts = Duration.parse(length)
        falling = [
            Falling(strike(Cut(end), 0, lasts.ns, random.Random(1)), SimpleNamespace(element="x"))
            for end in faults
        ]
        watch = Watch(abort, heard, (0, 1))
        began = now_ns()
        done = await weather(ground, 1, falling, lasts, watch)
        found = (done.proof, done.event, done.heal, done.tripped)
        return found, driver.hands, now_ns() - began

    return asyncio.run(go())


def test_without_a_condition_the_storm_takes_its_time():
    (proof, event, heal, tripped), (hands,), took = storm(Heard(meter=Meter()), (), "300 ms")

    assert tripped is None
    assert hands.asked == ["start", "heal", "close"]
    assert took >= 300 * MS
    assert heal.latest_ns - event.earliest_ns >= 300 * MS
    assert proof.in_force is proof.taken_back is True


def test_what_the_hands_could_not_account_for_is_in_the_proof(monkeypatch):
    """And there it makes a trial inconclusive, as what came late does."""
    told = "leaf1:eth1~wire: drop: 3 packets seen, but 1 hit + 1 passed"
    assert storm(Heard(meter=Meter()), (), "100 ms")[0][0].late == ()
    monkeypatch.setattr(FakeHands, "trouble", (told,))
    assert storm(Heard(meter=Meter()), (), "100 ms")[0][0].late == (told,)


def test_the_acts_of_every_fault_name_its_own_changes():
    """Each injector counts from 0; the record's changes are those of all faults."""
    (proof, *_), hands, _ = storm(Heard(meter=Meter()), (), "300 ms", faults=("host1", "host2"))

    assert [change["strike"] for change in proof.changes] == [0, 1]
    assert [act["change"] for act in proof.actions] == [0, 0, 1, 1]
    assert len(hands) == 2


@pytest.mark.parametrize("faults", [("host1",), ("host1", "host2")])
def test_a_condition_that_holds_heals_everything_at_once(faults):
    """The storm would have lasted a minute; every holder is healed, long before."""
    heard = Heard(meter=Meter())
    heard.hear(t=now_ns() + 10**12, level=11.0)

    (proof, _, heal, tripped), hands, took = storm(heard, (HIGH,), "60 s", faults=faults)

    assert took < 60_000 * MS / 20
    assert [one.asked for one in hands] == [["start", "heal", "close"]] * len(faults)
    assert proof.taken_back is True
    told = tripped.as_json(heal.latest_ns)
    assert (told["when"], told["of"], told["value"], told["above"]) == ("level", "meter", 11.0, 10)
    assert told["sentence"].startswith("level of meter was 11, above 10; healed ")
    assert told["to_healed_ms"] == (heal.latest_ns - tripped.at_ns) / 1e6 >= 0


def test_a_placebo_is_given_up_too():
    heard = Heard(meter=Meter())
    heard.hear(t=now_ns() + 10**12, level=11.0)

    (proof, _, _, tripped), hands, took = storm(heard, (HIGH,), "60 s", faults=())

    assert (hands, proof) == ([], Proof())
    assert tripped.value == 11.0
    assert took < 60_000 * MS / 20


def test_a_fault_that_fails_is_no_abort():
    """What went wrong is raised, not told as a condition; everything is closed."""
    with pytest.raises(ApplyError, match="no such"):
        storm(Heard(meter=Meter()), (HIGH,), "60 s", fails=ApplyError("no such port"))


def test_a_condition_seen_when_the_storm_was_over_ended_nothing():
    """The look that finds it comes after the last span; no trial is aborted by it."""

    class Late(Heard):
        def tail(self, label, start_ns):
            healing = any("heal" in one.asked for one in self.hands)
            return {"program": [{"t": start_ns + 10**12, "level": 11.0}] if healing else []}

    heard = Late(meter=Meter())
    (_, _, _, tripped), (hands,), _ = storm(heard, (HIGH,), "100 ms", slow_s=0.3)

    assert tripped is None
    assert hands.asked == ["start", "heal", "close"]


@pytest.mark.parametrize("guard", ["limit", "quarantine"])
def test_what_was_aimed_at_is_asked_once_more_before_it_is_armed(guard, state):
    """In the trial itself the words are settled; beyond a limit or in quarantine: nothing armed."""
    if guard == "quarantine":
        where = Where(host="far", ifname="eth1")
        link, journal = LinkState(Place("host1", "eth1")), state / "two" / "journal.jsonl"
        entry = Entry("1", link, where, {}, "cure", "in_force", (1, 1), "", journal)
        quarantine.note([Status(entry, None, False)])
    limits = Limits(links=0) if guard == "limit" else UNLIMITED
    heard = Heard(meter=Meter())

    with pytest.raises(BlockedError, match=r"at most 0 allowed|in quarantine since"):
        storm(heard, (), "100 ms", limits=limits)
    assert heard.hands == []


# ---- the verdict --------------------------------------------------------------------------------


def aborted_trial(**values):
    proof = Proof(True, 5, 5, True, residue=(), changes=({"fault": "cut", "hit": 5, "seen": 5},))
    return Trial(
        1, False, 1, windows=Windows((0, 1), Moment(1, 1), Moment(2, 2), 3), proof=proof,
        measures=(Measure("flow_lost_packets", 9999.0),),
        aborted={"sentence": "loss_percent of flow was 99 %, above 50 %; healed 30 ms after that "
                 "was seen", "to_healed_ms": 30.0}, **values,
    )  # fmt: skip


def test_an_aborted_trial_is_inconclusive_and_counts_for_nothing():
    """Not even against an objective: what it measured ended before its time."""
    experiment = written("[{when: loss_percent, above: 50}]")
    trial = judge_trial(aborted_trial())

    assert trial.verdict == "inconclusive"
    assert trial.findings[0].sentence.startswith("aborted: loss_percent of flow was 99 %, above 50")
    findings, _, verdict = judge_run(experiment.objectives, [trial])
    assert verdict == "inconclusive"
    assert findings[0].sentence.endswith("got no trial that counts")


def test_an_aborted_trial_that_left_something_fails():
    trial = aborted_trial()
    left = judge_trial(replace(trial, proof=replace(trial.proof, residue=("leaf1: a route",))))

    assert left.verdict == "fail"


def test_the_record_says_why_and_how_long_and_reads_back():
    experiment = written("[{when: loss_percent, above: 50}]")
    trial = judge_trial(aborted_trial())
    made = Record(describe.experiment(experiment), {}, 1)
    whole = finish(made, experiment, [trial])
    back = from_json(to_json(whole))

    assert whole.experiment["abort"] == ["loss_percent above 50 %"]
    assert whole.findings[0].sentence == "broken off after 1 of 4 trials"
    assert back.trials[0].aborted["to_healed_ms"] == 30.0
    older = to_json(whole)
    del older["trials"][0]["aborted"]
    assert from_json(older).trials[0].aborted is None
