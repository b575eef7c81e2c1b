"""What every probe promises; a new probe is covered by adding one line to the table."""

import dataclasses
import importlib.util
import inspect
import json
import re

import pytest

from chaos.calm import clip
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port, Stream
from chaos.registry import PROBES, Probe, Traffic, load
from chaos.timeline import Measure, Moment, Readings, Windows
from probes.collective import Collective
from probes.flow import Flow
from probes.kernel_events import KernelEvents
from probes.nic_counters import NicCounters
from probes.path import Path
from probes.roce_flow import RoceFlow
from probes.routing import Routing

ONE_OF_EACH = {
    "collective": Collective(),
    "flow": Flow("h1", "h2"),
    "kernel_events": KernelEvents(),
    "nic_counters": NicCounters(),
    "path": Path("h1", "h2"),
    "roce_flow": RoceFlow("h1", "h2"),
    "routing": Routing(),
}
every_probe = pytest.mark.parametrize("probe", ONE_OF_EACH.values(), ids=ONE_OF_EACH.keys())

FABRIC = Fabric(
    "line",
    {
        "h1": Node("h1", role="host"),
        "r1": Node("r1", role="router", runs="frr"),
        "h2": Node("h2", role="host"),
    },
    (
        Link(Port("h1", "eth1"), Port("r1", "eth1")),
        Link(Port("h2", "eth1"), Port("r1", "eth2")),
    ),
)
ADDRESSES = {"h1": "10.0.0.1", "h2": "10.0.1.1"}
WINDOWS = Windows((0, 10**9), Moment(10**9, 10**9 + 5), Moment(2 * 10**9, 2 * 10**9 + 5), 3 * 10**9)
#: A measure's name ends in what it counts or in its unit.
UNITS = re.compile(r"_(ms|s|us|ns|pps|percent|count|packets|values|ratio|seconds_lost|bytes)$")


def test_the_table_misses_no_probe():
    load()
    ours = {name for name, cls in PROBES.items() if cls.__module__.startswith("probes.")}
    assert ONE_OF_EACH.keys() == ours
    assert all(type(probe).name == name for name, probe in ONE_OF_EACH.items())


@every_probe
def test_it_is_a_frozen_value_that_says_what_it_needs(probe):
    assert isinstance(probe, Probe)
    assert probe == dataclasses.replace(probe)
    assert hash(probe) == hash(dataclasses.replace(probe))
    for field in dataclasses.fields(probe):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(probe, field.name, None)
        assert field.name in inspect.getdoc(probe), f"Args lacks {field.name}"


@every_probe
def test_its_programs_are_pure_and_can_be_started(probe):
    programs = probe.programs(FABRIC, ADDRESSES)
    assert programs
    assert programs == probe.programs(FABRIC, ADDRESSES)
    names = [program.name for program in programs]
    assert len(set(names)) == len(names)
    for program in programs:
        assert importlib.util.find_spec(program.module), program.module
        assert json.loads(json.dumps(program.config)) == program.config  # it travels as JSON
        assert program.node in ("", *FABRIC.nodes)


@every_probe
def test_its_streams_are_5_tuples_and_known_without_records_or_not_at_all(probe):
    if not isinstance(probe, Traffic):
        pytest.skip("it sends no traffic")
    streams = probe.streams(ADDRESSES, {})
    assert streams == probe.streams(ADDRESSES, {})
    for stream in streams:
        assert isinstance(stream, Stream)
        assert (stream.source_ip, stream.target_ip) == (
            ADDRESSES[stream.source],
            ADDRESSES[stream.target],
        )


@every_probe
@pytest.mark.parametrize("silent", ["no program at all", "programs that said nothing"])
def test_no_records_make_no_measure_and_never_a_zero(probe, silent):
    """Nothing heard must not read as nothing lost."""
    programs = probe.programs(FABRIC, ADDRESSES)
    records = {} if silent == "no program at all" else {program.name: [] for program in programs}
    readings = probe.read(records)
    assert readings == probe.read(records)
    assert readings.probe == type(probe).name
    assert [event for event in readings.events if event.detector] == []
    measures = probe.measures(clip(readings, WINDOWS.calm_ns[0], WINDOWS.end_ns), WINDOWS)
    assert measures == probe.measures(clip(readings, WINDOWS.calm_ns[0], WINDOWS.end_ns), WINDOWS)
    assert {m.name for m in measures} == set(probe.schema)
    for measure in measures:
        assert (measure.value, measure.low, measure.high) == (None, None, None), measure
        assert measure.n == 0
        assert measure.note


@every_probe
def test_reading_does_not_alter_records(probe):
    programs = probe.programs(FABRIC, ADDRESSES)
    ready = {program.name: [{"ev": "ready", "t": 5}] for program in programs}
    before = json.dumps(ready)
    probe.read(ready)
    assert json.dumps(ready) == before


@every_probe
def test_programs_that_have_only_just_become_ready_can_be_read(probe):
    """A trial may be read before anything happened."""
    programs = probe.programs(FABRIC, ADDRESSES)
    readings = probe.read({p.name: [{"ev": "ready", "t": 5}] for p in programs})
    assert isinstance(readings, Readings)
    assert not [event for event in readings.events if event.detector]
    for measure in probe.measures(readings, WINDOWS):
        assert isinstance(measure, Measure)
        assert measure.name in probe.schema


@every_probe
def test_what_a_driver_adds_about_other_machines_is_borne(probe):
    """How well a clock is known, and trouble, come among the records, without a number."""
    programs = probe.programs(FABRIC, ADDRESSES)
    ready = {p.name: [{"ev": "ready", "t": 5}] for p in programs}
    clock = {"ev": "clock", "t": 6, "node": "h1", "error_ns": 70_000}
    trouble = {"ev": "trouble", "t": 7, "node": "h1", "msg": "h1: gone", "lost": True}
    if type(probe).name == "collective":  # its coordinator passes them on as its own
        clock, trouble = clock | {"rank": -1}, trouble | {"rank": -1}
    more = {name: [*records, clock, trouble] for name, records in ready.items()}
    plain, told = probe.read(ready), probe.read(more)
    assert told.trouble == plain.trouble
    assert [e for e in told.events if e.detector] == []


@every_probe
def test_its_schema_ends_in_units_and_says_what_each_measure_is(probe):
    assert probe.schema
    for name, words in probe.schema.items():
        assert UNITS.search(name), f"{name} does not end in its unit"
        assert len(words) > 10, name


def test_no_two_probes_make_a_measure_of_the_same_name():
    names = [name for probe in ONE_OF_EACH.values() for name in probe.schema]
    assert len(set(names)) == len(names)


@every_probe
def test_its_detectors_are_named(probe):
    detectors = getattr(probe, "detectors", ())
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in detectors)
    assert list(detectors) == list(dict.fromkeys(detectors))


@every_probe
def test_its_meters_and_notices_bear_records_that_are_not_theirs(probe):
    """`live` and `notice` see every record of every program: most say nothing to them."""
    for record in ({"ev": "ready", "t": 5}, {"ev": "beat", "t": 6, "n": 2}):
        for ability in ("live", "notice"):
            told = getattr(type(probe), ability, lambda record: None)
            assert told(record) is None


@every_probe
def test_a_node_that_is_not_there_is_refused_by_name(probe):
    fields = {field.name for field in dataclasses.fields(probe)}
    changed = {
        name: value
        for name, value in (
            ("source", "h9"),
            ("nodes", ("h9",)),
            ("hosts", ("h1", "h9")),
        )
        if name in fields
    }
    assert changed, "this probe names its nodes by a field that is not known here"
    with pytest.raises(SpecError, match="h9"):
        dataclasses.replace(probe, **changed).programs(FABRIC, ADDRESSES)
