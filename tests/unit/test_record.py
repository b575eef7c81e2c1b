"""A record survives its file, compressed or not; what is no record is refused in words."""

import json

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
    findings=(Finding("well", "proof", "pass", trial=2),),
)
RECORD = Record({"name": "x"}, {"name": "f"}, 7, "pass", (), (), (TRIAL,), ("plan",), {"k": 1})


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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{}", "a record of schema railbreak.record/1 expected, got None"),
        ('{"schema": "railbreak.record/9"}', "got 'railbreak.record/9'"),
        ("not json", "not a record"),
        ('{"schema": "railbreak.record/1"}', "not a record"),
    ],
    ids=["no schema", "later schema", "no json", "fields missing"],
)
def test_what_is_no_record_is_refused(tmp_path, text, sentence):
    path = tmp_path / "record.json"
    path.write_text(text)

    with pytest.raises(SpecError, match=sentence):
        records.read(path)


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
