"""A record survives its file, compressed or not; what is no record is refused in words."""

import json
from dataclasses import replace

import pytest

from chaos import record as records
from chaos.errors import SpecError
from chaos.record import Exposure, Finding, Proof, Record, Trial
from chaos.timeline import Event, Measure, Moment, Series, Span, Windows

TRIAL = Trial(
    number=2,
    placebo=False,
    seed=7,
    verdict="pass",
    fault="link_down(link=a:1--b:1)",
    element="a:1--b:1",
    truth=("a:1--b:1", "a:1"),
    windows=Windows((1, 2), Moment(3, 4), Moment(5, 6), 7),
    measures=(Measure("outage_ms", None, n=0, note="no packet"),),
    proof=Proof(True, 10, 3, True, (), ({"text": "x", "cure": ""},), ({"planned_ns": 1},)),
    exposure=Exposure(True, "10 packets", ("h1 -> h2",), {"a:1": 10}),
    events=(Event(4, "kernel_events", "carrier.lost", element="a:1", detector="carrier"),),
    series=(Series("arrived_pps", "h1->h2", (1, 2), (3.0, 4.0)),),
    spans=(Span(3, 5, "outage"),),
    disturbed=("calm was not calm: 3 packets lost",),
    findings=(Finding("well", "proof", "pass", trial=2),),
)
RECORD = Record(
    {"name": "x", "promise": "p"}, {"name": "f"}, 7, "pass", (), (), (TRIAL,), ("plan",), {"k": 1}
)


@pytest.mark.parametrize("name", ["record.json", "record.json.gz"])
def test_what_is_written_is_read(tmp_path, name):
    records.write(RECORD, tmp_path / name)

    assert records.read(tmp_path / name) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing else is left behind"


def test_the_top_of_the_file_is_as_documented():
    """The order of the schema, and events of all trials with their trial's number."""
    data = records.to_json(RECORD)

    assert list(data)[:7] == [
        "schema", "experiment", "fabric", "seed", "verdict", "findings", "measures",
    ]  # fmt: skip
    assert data["events"][0]["trial"] == 2
    assert data["trials"][0]["measures"][0]["value"] is None, "absent is null, never 0"


def _bent(**values):
    return json.dumps(records.to_json(RECORD) | values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "a record of schema railbreak.record/1 expected, got None"),
        ('{"schema": "railbreak.record/9"}', "got 'railbreak.record/9'"),
        ("not json", "not a record"),
        ('{"schema": "railbreak.record/1"}', "not a record .* 'experiment' is missing"),
        ("[1, 2]", "a record is a JSON object, got a list of 2"),
        ("null", "a record is a JSON object"),
        (_bent(experiment={"name": "x"}), "experiment.promise: its experiment has no promise"),
        (_bent(experiment=[1]), "not a record"),
        (_bent(trials=[{"number": 1}]), "not a record"),
        ("[" * 100_000, "not a record"),
    ],
    ids=[
        *("no schema", "later schema", "no json", "fields missing", "a list", "null"),
        *("no promise", "a list for a mapping", "half a trial", "too deep"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, sentence):
    path = tmp_path / "record.json"
    path.write_text(text)

    with pytest.raises(SpecError, match=sentence):
        records.read(path)


@pytest.mark.parametrize("cut", [20, None], ids=["truncated", "flipped"])
def test_a_damaged_archive_is_refused(tmp_path, cut):
    path = tmp_path / "record.json.gz"
    records.write(RECORD, path)
    data = bytearray(path.read_bytes())
    if cut is None:
        data[40] ^= 0xFF
    path.write_bytes(data[:cut])

    with pytest.raises(SpecError, match=r"record\.json\.gz: "):
        records.read(path)


def test_residue_never_compared_is_told_from_none_found(tmp_path):
    """null, an empty list and a sentence stay three different things."""
    for residue in (None, (), ("leaf1: route 10.0.0.0/24 is missing",)):
        made = replace(
            RECORD, trials=(replace(TRIAL, proof=replace(TRIAL.proof, residue=residue)),)
        )
        records.write(made, tmp_path / "record.json")
        assert records.read(tmp_path / "record.json") == made


def test_a_record_from_before_a_field_was_added_is_read():
    data = records.to_json(RECORD)
    del data["trials"][0]["disturbed"]

    assert records.from_json(data).trials[0].disturbed == ()


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(SpecError, match="record cannot be written"):
        records.write(RECORD, tmp_path / "no" / "such" / "record.json")

    assert list(tmp_path.iterdir()) == []


def test_the_documented_fields_are_the_real_ones():
    """docs/record.md names every field of the top, of a trial and of its proof."""
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "record.md").read_text()
    data = records.to_json(RECORD)
    trial = json.loads(json.dumps(data["trials"][0]))
    for field in (*data, *trial, *trial["proof"], *trial["exposure"], *trial["windows"]):
        assert f"`{field}`" in page or f"`trials[].{field}`" in page, field
