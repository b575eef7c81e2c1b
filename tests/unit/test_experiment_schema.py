"""The JSON schema agrees with the reader: it takes what is read, and sees the plain mistakes."""

import random
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from chaos import registry
from chaos.document import read
from chaos.errors import SpecError
from chaos.experiment import load, loads
from chaos.experiment_schema import described, descriptions, json_schema
from chaos.fields import convert, schema
from chaos.shipped import experiment_names, experiment_path
from chaos.units import Duration, Hertz, Percent, Pps, Size

DATA = Path(__file__).parent.parent / "data" / "experiments"
#: Mistakes that a schema can see: spelling, types, units, counts.
SEEN_BY_EDITORS = (
    *("unknown_field", "missing_fabric", "missing_promise_text", "unknown_fault"),
    *("unknown_fault_field", "fault_field_missing", "two_faults_in_one", "fault_is_a_list"),
    *("fault_and_faults", "unknown_probe", "probe_is_text", "rate_unit", "hosts_not_a_list"),
    *("host_is_a_number", "calm_without_unit", "storm_half_a_range", "unknown_phase"),
    *("trials_zero", "trials_text", "no_objectives", "objective_unknown", "objective_two_kinds"),
    *("objective_without_limit", "detector_unknown", "named_wrong"),
)


@pytest.fixture(scope="module")
def validator():
    """The schema of this installation, itself checked."""
    made = json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("name", experiment_names())
def test_a_shipped_experiment_is_valid(name, validator):
    path = experiment_path(name)

    validator.validate(read(path.read_text(), str(path)).value)
    assert load(path).name == name


@pytest.mark.parametrize("name", SEEN_BY_EDITORS)
def test_a_mistake_that_editors_can_see_is_marked(name, validator):
    text = (DATA / f"{name}.yaml").read_text()

    assert not validator.is_valid(read(text, name).value)


def test_what_the_reader_takes_the_schema_takes(validator):
    """Random values in a right file: never read and yet marked as wrong in the editor."""
    rng, read_and_valid = random.Random(8), 0
    for _ in range(120):
        tree = yaml.safe_load((DATA / "right.yaml").read_text())
        place = rng.choice((tree, tree["probes"]["flow"], tree["phases"], tree["objectives"][0]))
        key = rng.choice(list(place))
        place[key] = rng.choice(
            (None, 0, 1, 7, 2.5, "1 s", "5 ms", "3 kpps", "x", {"from": "1 s", "to": "2 s"}, [])
        )
        text = yaml.safe_dump(tree)
        try:
            loads(text)
        except SpecError:
            continue
        validator.validate(read(text, "e.yaml").value)
        read_and_valid += 1
    assert read_and_valid > 15


@pytest.mark.parametrize("unit", [Duration, Percent, Size, Pps, Hertz])
def test_a_unit_s_pattern_takes_what_the_unit_reads(unit):
    """Both take the same of a table of texts, so that neither drifts."""
    pattern = re.compile(schema(unit)["anyOf"][0]["pattern"])
    words = ("", "ns", "us", "µs", "ms", "s", "m", "h", "%", "B", "kB", "KB", "MB", "GB")
    words += ("KiB", "MiB", "GiB", "pps", "kpps", "Mpps", "Hz", "kHz", "x", "mS", "S")
    for number in ("1", "1.5", "+3", ".5e1", "2e1", "", "1.5.2", "-"):
        for word in words:
            text = f"{number} {word}".strip()
            try:
                convert(unit, text)
                read_it = True
            except SpecError:
                read_it = False
            assert bool(pattern.match(text)) == read_it, text


def test_every_field_of_ours_is_described():
    """Editors show what a field means; a field without a word in the docstring shows nothing."""
    registry.load()
    for table in (registry.FAULTS, registry.PROBES):
        for name, cls in table.items():
            if cls.__module__.partition(".")[0] not in ("faults", "probes"):
                continue
            missing = described(cls)["properties"].keys() - descriptions(cls).keys()
            assert not missing, f"{name}: {missing}"


CUT = {"link_down": {"link": "in-use"}}
DRAWN = {"of": {"link_down": {"mode": "admin"}}, "over": "links", "rate": "hpn-tor"}
DRAWN |= {"compress": 2.5, "for": "1 s"}


@pytest.mark.parametrize(
    ("words", "valid"),
    [
        ({"fault": CUT}, True),
        ({"fault": {**CUT, "at": "1 s"}}, True),
        ({"faults": [{**CUT, "for": "1 s", "at": "5 ms"}, {**CUT, "after": "link_down"}]}, True),
        ({"fault": {"link_down/far_1": {"link": "in-use"}, "for": "1 s"}}, True),
        ({"fault": {**CUT, "node_down": {"node": "in-use"}}}, False),
        ({"fault": {**CUT, "link_down/b": {"link": "in-use"}, "at": "1 s"}}, False),
        ({"fault": {"at": "1 s", "for": "1 s"}}, False),
        ({"fault": {**CUT, "at": "soon"}}, False),
        ({"fault": {"link_down/Far": {"link": "in-use"}}}, False),
        ({"arrivals": DRAWN}, True),
        ({"arrivals": [DRAWN, {**DRAWN, "for": {"from": "1 s", "to": "2 s"}}]}, True),
        ({"arrivals": {**DRAWN, "of": "node_down"}}, True),
        ({"arrivals": {**DRAWN, "of": CUT}}, False),
        ({"arrivals": {**DRAWN, "compress": 0}}, False),
        ({"arrivals": {**DRAWN, "population": 0}}, False),
        ({"arrivals": {k: v for k, v in DRAWN.items() if k != "rate"}}, False),
        ({"trace": {"file": "t.csv", "compress": 3600}}, True),
        ({"trace": {"file": "t.csv"}}, False),
        ({"trace": None}, True),
    ],
)  # fmt: skip
def test_times_arrivals_and_traces_are_known_to_editors(validator, words, valid):
    tree = yaml.safe_load((DATA / "right.yaml").read_text())
    del tree["fault"]

    assert validator.is_valid({**tree, **words}) is valid
