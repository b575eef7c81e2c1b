"""Limits of the blast radius: how they are read, what they refuse, and in which words."""

import json
import sys
from dataclasses import replace

import jsonschema
import pytest

from chaos import budget, topology
from chaos.cli import main
from chaos.errors import BlockedError, SpecError
from chaos.experiment import loads, varied
from chaos.experiment_schema import json_schema
from chaos.limits import HARDWARE, Limits, defaults
from chaos.units import Percent
from faults.node_down import NodeDown

TEXT = """\
promise: A fault has its limits.
fabric: clos-2x4x8
fault:
  {fault}
probes:
  flow: {{source: host1, target: host8}}
{probes}limits: {limits}
objectives:
  - {{measure: flow_lost_packets, at_most: 5}}
"""
JOB = "  collective: {{hosts: [{hosts}]}}\n"


def written(fault, limits="{}", hosts=""):
    """An experiment with this fault and these limits, and a job on these hosts."""
    job = JOB.format(hosts=hosts).replace("{{", "{").replace("}}", "}") if hosts else ""
    text = TEXT.format(fault=fault, limits=limits, probes=job)
    if hosts:
        text = text.replace("limits:", "exposed: flow\nlimits:")
    return loads(text, "limits.yaml")


@pytest.fixture(scope="module")
def clos():
    return topology.load("clos-2x4x8")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Limits()),
        ({"hosts_isolated": 0, "links": 2}, Limits(hosts_isolated=0, links=2)),
        ({"bisection_left": "50 %"}, Limits(bisection_left=Percent(50))),
        (
            {"bisection_left": "50%", "host_ports": "6.25%"},
            Limits(host_ports=Percent(6.25), bisection_left=Percent(50)),
        ),
        ({"links": "any", "planes_left": 1}, Limits(links="any", planes_left=1)),
    ],
)  # fmt: skip
def test_limits_are_read_in_a_file_and_on_the_command_line(values, expected):
    words = [f"{name}={value}" for name, value in values.items()]

    assert Limits.parse(values) == Limits.said(words) == expected
    assert Limits.parse(expected.as_json()) == Limits(**expected.given())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([], "limits by name expected, such as hosts_isolated: 0; got a list of 0"),
        ({"link": 1}, "no limit 'link'; did you mean links?"),
        ({"links": -1}, "a limit is 0 or more, got -1"),
        ({"links": True}, "a whole number expected, got true; any lifts a limit"),
        ({"links": "50%"}, "a whole number expected, got '50%'; any lifts a limit"),
        ({"links": None}, "a limit expected, got nothing; any lifts one"),
        ({"bisection_left": "120 %"}, "a share must be 0 to 100 %, got 120 %; any lifts a limit"),
    ],
)
def test_wrong_limits_are_refused(values, sentence):
    with pytest.raises(SpecError) as refusal:
        Limits.parse(values)

    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["links"], "NAME=VALUE expected, such as hosts_isolated=0, got 'links'"),
        (["links=1", "links=2"], "links: links is given twice"),
        (["links=x"], "links: a whole number expected, got 'x'; any lifts a limit"),
    ],
)
def test_wrong_words_are_refused(words, sentence):
    with pytest.raises(SpecError) as refusal:
        Limits.said(words)

    assert str(refusal.value) == sentence


def test_a_wrong_limit_in_a_file_names_its_line():
    with pytest.raises(SpecError) as refusal:
        written("node_down: {node: leaf4}", "{links: many}")

    assert str(refusal.value).startswith("limits.yaml:7: limits.links: a whole number expected")


def test_the_schema_takes_what_is_read():
    """And marks what is not."""
    validator = jsonschema.Draft202012Validator(json_schema()["properties"]["limits"])

    for right in ({}, {"links": 2}, {"links": "any"}, {"host_ports": "5 %"}, {"host_ports": 0}):
        Limits.parse(right)
        validator.validate(right)
    for wrong in ({"link": 2}, {"links": -1}, {"links": "2"}, {"host_ports": "x"}, []):
        assert not validator.is_valid(wrong)
    assert all(one["description"] for one in validator.schema["properties"].values())


@pytest.mark.parametrize(
    ("fault", "limits", "sentence"),
    [
        (
            "node_down: {node: leaf4}",
            "{hosts_isolated: 0}",
            "limits.yaml:9: limits.hosts_isolated: node_down(node=leaf4) would isolate 2 hosts "
            "(host7, host8); at most 0 allowed; break something smaller, or allow it with --limit "
            "hosts_isolated=2",
        ),
        ("node_down: {node: spine1}", "{links: 3}", "would take out 4 links (leaf1:eth1--spine1:e"),
        ("node_down: {node: spine1}", "{bisection_left: 75 %}",
         "would leave 50 % of the bisection (2 of 4 links); at least 75 % allowed"),
        ("link_down: {link: leaf1--host1, end: both}", "{planes_left: 1}",
         "would leave host1 0 of 1 planes; at least 1 allowed"),
        ("link_down: {link: leaf1--host1, end: both}", "{host_ports: 50 %}",
         "would take out 100 % of host1's ports (1 of 1); at most 50 % allowed"),
        ("node_down: {node: leaf1}", "{ranks: 1}",
         "would touch 2 ranks (rank0, rank1); at most 1 allowed"),
        ("rank_kill: {rank: 1}", "{ranks_lost: 0}",
         "rank_kill(rank=1) would stop or cut off 1 rank (rank1); at most 0 allowed"),
        ("node_down: {node: in-use}", "{hosts_isolated: 0}",
         "would isolate 2 hosts (host1, host2); at most 0 allowed (if that is what the traffic "
         "crosses)"),
    ],
)  # fmt: skip
def test_what_goes_too_far_is_refused(fault, limits, sentence, clos):
    experiment = written(fault, limits, hosts="host1, host2, host3, host5")
    experiment.check(clos)

    with pytest.raises(SpecError) as refusal:
        budget.be_within(experiment, clos, "namespace")

    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("fault", "limits"),
    [
        ("node_down: {node: leaf4}", "{hosts_isolated: 2, links: 4, planes_left: 0}"),
        ("node_down: {node: spine1}", "{hosts_isolated: 0, links: 4, bisection_left: 50 %}"),
        ("link_down: {link: leaf1--host1, end: both}", "{hosts_isolated: 1, host_ports: 100 %}"),
        ("link_down: {link: in-use leaf--spine}", "{links: 1, planes_left: 1, ranks: 0}"),
        ("node_down: {node: leaf1}", "{}"),
        ("rank_kill: {rank: 1}", "{ranks: 1, ranks_lost: 1}"),
    ],
)
def test_what_is_just_within_is_let_through(fault, limits, clos):
    budget.be_within(written(fault, limits, hosts="host1, host2, host3, host5"), clos, "namespace")


def test_the_cure_that_a_refusal_names_is_enough(clos):
    """For every limit: what is said to be allowed lets the same experiment through."""
    every = {"hosts_isolated": 0, "ranks": 0, "ranks_lost": 0, "links": 0, "host_ports": 0}
    every |= {"bisection_left": "100%", "planes_left": 1}
    drawn = replace(clos, links=clos.links[:5] + clos.links[6:])  # thirds: odd shares
    for name, value in every.items():
        tried = written("node_down: {node: leaf1}", f"{{{name}: {value}}}", hosts="host1, host5")
        with pytest.raises(SpecError) as refusal:
            budget.be_within(tried, drawn, "namespace")
        cure = str(refusal.value).rpartition("--limit ")[2]
        budget.be_within(varied(tried, None, None, None, Limits.said([cure])), drawn, "namespace")


def test_real_machines_have_limits_of_their_own(clos):
    """They hold unless that one is stated; the others stay."""
    fault = "node_down: {node: leaf4}"

    assert defaults("namespace") == defaults("container") == Limits()
    budget.be_within(written(fault), clos, "namespace")
    with pytest.raises(SpecError) as refusal:
        budget.be_within(written(fault), clos, "hardware")
    assert str(refusal.value) == (
        "limits.yaml:1: node_down(node=leaf4) would isolate 2 hosts (host7, host8); at most 0 "
        "allowed; this is the default for hardware: break something smaller, or allow it with "
        "--limit hosts_isolated=2"
    )
    with pytest.raises(SpecError, match="would take out 4 links"):
        budget.be_within(written(fault, "{hosts_isolated: 2}"), clos, "hardware")
    lifted = "{hosts_isolated: any, links: any, planes_left: any}"
    budget.be_within(written(fault, lifted), clos, "hardware")
    budget.be_within(written("link_down: {link: in-use leaf--spine}"), clos, "hardware")


def test_the_command_line_stands_over_the_file():
    experiment = written("node_down: {node: leaf4}", "{hosts_isolated: 2, links: 4}")

    found = varied(experiment, None, None, None, Limits.said(["links=1"])).limits

    assert found == Limits(hosts_isolated=2, links=1)
    assert varied(experiment, None, None, None).limits == experiment.limits
    assert Limits(links="any").over(HARDWARE).given().keys() == HARDWARE.given().keys() - {"links"}


def test_what_is_aimed_at_in_the_end_is_looked_at_once_more(clos):
    """Two faults with many meanings each are sampled; what is armed is not."""
    changes = NodeDown("leaf4").changes(clos)

    with pytest.raises(BlockedError, match="would isolate 2 hosts"):
        budget.hold("node_down", changes, clos, Limits(hosts_isolated=0), "namespace")
    with pytest.raises(BlockedError, match="this is the default for hardware"):
        budget.hold("node_down", changes, clos, Limits(), "hardware")
    assert budget.hold("node_down", changes, clos, Limits(links=4), "namespace").links.out == 4


def test_two_faults_count_together(clos):
    """Either spine alone is half; both are all of it."""
    text = TEXT.replace("fault:\n  {fault}", "faults:\n  - node_down: {{node: spine1}}\n"
                        "  - node_down: {{node: in-use spine}}")  # fmt: skip
    both = loads(text.format(limits="{bisection_left: 40 %}", probes=""))
    many = budget.meant(both, clos)

    assert sorted(one.radius.bisection_left_percent for one in many) == [0, 50]
    farthest = budget.worst(many)
    assert farthest.text == "node_down(node=spine1); node_down(node=spine2)"
    assert farthest.radius.hosts_isolated == tuple(f"host{n}" for n in range(1, 9))


def test_many_meanings_are_looked_at_evenly(clos):
    text = TEXT.replace(
        "fault:\n  {fault}",
        "faults:\n" + "".join(f"  - {words}\n" for words in (
            "link_down: {{link: in-use}}", "link_down: {{link: in-use, mode: silent}}",
            "packet_loss: {{link: in-use, share: 1 %}}")),
    )  # fmt: skip
    three = loads(text.format(limits="{}", probes=""))

    many = budget.meant(three, clos)

    assert 100 < len(many) <= budget.MOST_MEANINGS
    assert any("leaf4" in link for one in many for link in one.radius.links_out)  # from all over


@pytest.fixture
def railbreak(monkeypatch, capsys, tmp_path):
    """`railbreak("plan", "x")` -> exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["railbreak", *words])
        try:
            main()
            status = 0
        except SystemExit as ending:
            status = ending.code
        return status, *capsys.readouterr()

    return call


def test_a_plan_shows_the_radius_and_what_would_be_refused(railbreak):
    status, said, _ = railbreak("plan", "spine_down", "--limit", "links=2")

    assert status == 0
    assert "radius     at worst of 2, node_down(node=spine1)" in said
    assert "  bisection left  50 % (2 of 4 links)" in said
    assert "limits     links at most 2" in said
    assert "REFUSED    node_down(node=spine2) would take out 4 links" in said


def test_a_plan_as_json_has_the_numbers(railbreak):
    _, said, _ = railbreak("plan", "spine_down", "--limit", "links=2", "--json")
    blast = json.loads(said)["blast"]

    assert blast["radius"]["links"] == {"out": 4, "of": 16, "left": 12, "percent": 25.0}
    assert blast["limits"] == {"links": 2}
    assert len(blast["refused"]) == blast["meanings"] == 2
    _, said, _ = railbreak("plan", "placebo", "--json")
    assert json.loads(said)["blast"]["radius"] is None


def test_a_run_beyond_the_limit_touches_nothing(railbreak, tmp_path):
    """No fabric, no run folder: one sentence and exit status 3."""
    status, _, said = railbreak("run", "spine_down", "--limit", "links=2")

    assert status == 3
    assert "would take out 4 links" in said
    assert "at most 2 allowed" in said
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "state").exists()
