"""Looks at the path of one flow, as a real looker told them, read into changes and times."""

import json
from dataclasses import replace
from pathlib import Path as File

import pytest

from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.timeline import Moment, Windows
from chaos.units import Duration
from probes.jobs.path import fabric_of
from probes.path import Path

DATA = File(__file__).parents[1] / "data" / "probes"
MS = 1_000_000
PATH = Path("h1", "h2", every=Duration(20 * MS))


@pytest.fixture(scope="module")
def records():
    """r1 has two cables to r2; the one taken goes down for 320 ms; looked at every 20 ms."""
    lines = (DATA / "path-looker.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def phases():
    found = json.loads((DATA / "two-paths-phases.json").read_text())
    event, heal = Moment(*found["down"]), Moment(*found["heal"])
    return Windows((found["calm"], event.earliest_ns), event, heal, found["end"])


def measured(records, windows):
    found = PATH.measures(PATH.read({"looker": records}), windows)
    assert [m.name for m in found] == list(Path.schema)
    return {m.name.removeprefix("path_"): m for m in found}


def test_both_changes_are_told_with_old_and_new_path(records, phases):
    readings = PATH.read({"looker": records})
    assert readings.trouble == ()
    out, back = readings.events
    assert (out.name, out.element) == ("path.changed", "h1->h2 udp 49152->5201")
    assert out.facts["before"] == back.facts["after"]
    assert out.facts["after"] == back.facts["before"]
    assert "r1 (r1:eth3--r2:eth3) -> r2" in out.facts["before"]
    assert out.facts["after"] == (
        "h1 (h1:eth1--r1:eth1) -> r1 (r1:eth2--r2:eth2) -> r2 (h2:eth1--r2:eth1) -> h2"
    )
    assert 0 < out.at_ns - phases.event.latest_ns < 21 * MS
    assert 0 < out.facts["seen_within_ms"] < 30


def test_a_path_that_moves_is_no_symptom(records):
    """Moving is what a fabric is for: it names nobody, and is no alarm in a placebo."""
    events = PATH.read({"looker": records}).events
    assert {(event.detector, event.blames) for event in events} == {("", "")}


def test_packets_are_counted_on_ports_only_while_they_are_on_the_path(records):
    series = {found.element: found for found in PATH.read({"looker": records}).series}
    assert set(series) == {"h1:eth1", "r1:eth3", "r2:eth1"}
    assert {found.name for found in series.values()} == {"port_transmit_pps"}
    for found in series.values():
        assert list(found.at_ns) == sorted(found.at_ns)
    assert all(rate == pytest.approx(400, rel=0.05) for rate in series["h1:eth1"].values)
    assert len(series["r1:eth3"].values) == 2  # not while eth2 was taken


def test_measures_of_a_move_and_its_return(records, phases):
    found = measured(records, phases)
    assert found["changes_count"].value == 2
    assert found["absent_ms"].value == 0
    reverted = found["reverted_ms"]
    assert reverted.low <= reverted.value == reverted.high < 25
    assert not reverted.censored


def look(n, at_ms, via, error="", ev="path", before_ms=None):
    hops = [["x", "h1", via], ["y", via, "h2"]] if via else []
    before = at_ms - 20 if before_ms is None else before_ms
    return {
        "ev": ev,
        "t": at_ms * MS,
        "n": n,
        "hops": hops,
        "error": error,
        "packets": {},
        "before_ns": before * MS,
    }


READY = {"ev": "ready", "t": 0, "n": 1}
PHASES = Windows((0, 100 * MS), Moment(100 * MS, 100 * MS), Moment(500 * MS, 500 * MS), 900 * MS)
GONE = [
    READY,
    look(2, 50, "r1", ev="changed"),
    look(3, 200, "", "r1 has no way", ev="changed"),
    look(4, 400, "r2", ev="changed"),
    look(5, 600, "r1", ev="changed"),
]


def test_no_path_at_all_is_lost_and_its_time_has_an_error():
    events = PATH.read({"looker": GONE}).events
    assert [event.name for event in events] == ["path.lost", "path.changed", "path.changed"]
    assert events[0].facts["after"] == "r1 has no way"
    found = measured(GONE, PHASES)
    absent = found["absent_ms"]
    assert (absent.low, absent.value, absent.high) == (160, 200, 240)
    assert found["changes_count"].value == 3
    reverted = found["reverted_ms"]
    assert (reverted.low, reverted.value, reverted.high) == (80, 100, 100)


def test_a_path_that_did_not_return_is_censored():
    found = measured(GONE[:-1], PHASES)["reverted_ms"]
    assert (found.value, found.censored, found.note) == (400, True, "now h1 (x) -> r2 (y) -> h2")


def test_no_way_to_the_end_is_censored_and_absent_to_the_end():
    found = measured(GONE[:3], PHASES)
    assert found["absent_ms"].value == 700
    assert (found["reverted_ms"].censored, found["reverted_ms"].note) == (True, "now no path")


def test_a_path_that_never_left_has_no_time_of_return():
    found = measured([READY, look(2, 50, "r1"), look(3, 300, "r1")], PHASES)
    assert found["reverted_ms"].value is None
    assert found["reverted_ms"].note == "the path never left that of calm"
    assert found["changes_count"].value == 0


def test_what_happened_outside_of_the_trial_is_not_counted():
    earlier, later = look(2, 20, "r9", ev="changed"), look(7, 950, "", "no way", ev="changed")
    whole = [READY, earlier, *(line | {"n": line["n"] + 1} for line in GONE[1:]), later]
    found = measured(whole, PHASES)
    assert found["changes_count"].value == 3
    assert found["absent_ms"].value == 200
    assert found["reverted_ms"].value == 100


def test_without_a_look_in_calm_nothing_is_measured():
    found = measured([READY, look(2, 300, "r1", ev="changed")], PHASES)
    assert {measure.value for measure in found.values()} == {None}


TROUBLE = {
    "never ready": ([], "path: the looker never became ready"),
    "records gone": (
        [READY, look(2, 50, "r1"), look(4, 300, "r1")],
        "path: records of the looker are missing",
    ),
    "silence": (
        [READY, look(2, 50, "r1"), look(3, 2100, "r1")],
        "path: the looker fell silent for seconds",
    ),
}


@pytest.mark.parametrize(("lines", "sentence"), TROUBLE.values(), ids=TROUBLE.keys())
def test_doubtful_records_are_trouble(lines, sentence):
    assert PATH.read({"looker": lines}).trouble == (sentence,)


def test_notices_tell_only_changes():
    said = [Path.notice(record) for record in (*GONE, look(6, 700, "r1"))]
    assert said == [
        None,
        "path now h1 (x) -> r1 (y) -> h2",
        "no path: r1 has no way",
        "path now h1 (x) -> r2 (y) -> h2",
        "path now h1 (x) -> r1 (y) -> h2",
        None,
    ]


def test_the_fabric_that_the_looker_builds_has_the_same_cables():
    cables = (Link(Port("h1", "eth1"), Port("h2", "eth1")),)
    dummy = Link(Port("h1", "dummy0"), Port("", ""), kind="dummy")
    fabric = Fabric("f", {"h1": Node("h1"), "h2": Node("h2")}, (*cables, dummy))
    (program,) = PATH.programs(fabric, {"h1": "10.0.0.1", "h2": "10.0.0.2"})
    built = fabric_of(json.loads(json.dumps(program.config)))
    assert built.links == cables
    assert program.config["flow"]["proto"] == 17


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"target": "h1"}, "target"),
        ({"sport": 0}, "sport"),
        ({"dport": 65536}, "dport"),
        ({"every": Duration(MS)}, "every"),
    ],
)
def test_nonsense_is_refused(change, field):
    with pytest.raises(SpecError) as caught:
        replace(PATH, **change)
    assert caught.value.field == field


def test_a_node_without_an_address_is_refused_with_those_that_have_one():
    fabric = Fabric("f", {"h1": Node("h1"), "h2": Node("h2")})
    with pytest.raises(SpecError, match="h2 has no address that carries traffic; those with one: "):
        PATH.programs(fabric, {"h1": "10.0.0.1"})
