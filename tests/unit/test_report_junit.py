"""JUnit XML: what a CI server reads of a run."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from chaos.report import junit

DATA = Path(__file__).parent.parent / "data" / "records"


@pytest.fixture
def doubtful():
    """A run with a leftover, a probe that died, and a censored recovery."""
    return json.loads((DATA / "doubtful.json").read_text())


def suite_of(record):
    """The one suite of a record's JUnit."""
    return ET.fromstring(junit(record)).find("testsuite")  # noqa: S314 - it is our own


def properties(element):
    """Properties of a suite or case."""
    return {p.get("name"): p.get("value") for p in element.findall("properties/property")}


def test_fail_is_a_failure_and_doubt_is_an_error(doubtful):
    suite = suite_of(doubtful)
    findings = suite.findall("testcase")[: len(doubtful["findings"])]

    kinds = [next(c.tag for c in case if c.tag != "properties") for case in findings]
    named = {"pass": "system-out", "fail": "failure", "inconclusive": "error"}
    assert kinds == [named[finding["verdict"]] for finding in doubtful["findings"]]
    assert len(set(kinds)) == 3


def test_the_sentence_is_the_message(doubtful):
    failure = suite_of(doubtful).find("testcase/failure")

    assert failure.get("message") == next(
        f["sentence"] for f in doubtful["findings"] if f["verdict"] == "fail"
    )


def test_the_totals_are_those_of_the_cases(doubtful):
    suite = suite_of(doubtful)

    assert int(suite.get("tests")) == len(doubtful["findings"]) + len(doubtful["trials"])
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) > 0
    assert int(suite.get("errors")) == len(suite.findall("testcase/error")) > 0
    assert float(suite.get("time")) > 4


def test_measures_are_properties_and_absent_ones_are_null(doubtful):
    suite = suite_of(doubtful)
    by_name = {m["name"]: m for m in doubtful["measures"]}
    found = properties(suite)

    assert float(found["job_stall_ms"]) == pytest.approx(by_name["job_stall_ms"]["value"], rel=1e-4)
    assert found["job_regroup_s"] == "null"
    assert found["verdict"] == "fail"


def test_a_trial_carries_its_own_measures(doubtful):
    trials = suite_of(doubtful).findall("testcase")[len(doubtful["findings"]) :]

    assert [case.get("name") for case in trials] == [
        *("trial 1", "trial 2", "placebo trial 3", "trial 4")
    ]
    assert properties(trials[3])["job_recovery_ms"] == "> 4.98 s"
    assert float(trials[0].get("time")) > 4


def test_characters_that_xml_cannot_hold_are_replaced(doubtful):
    doubtful["findings"][0]["sentence"] = 'bell \x07, half a pair \ud800, and <tag> & "quotes"'

    case = suite_of(doubtful).find("testcase/system-out")

    assert case.text == 'bell \ufffd, half a pair \ufffd, and <tag> & "quotes"'
