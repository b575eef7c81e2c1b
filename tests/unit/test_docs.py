"""What pages, help and shipped promises say is what the code does."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from chaos.experiment import load
from chaos.fabric import Fabric, Link, Node, Port
from chaos.objectives import Bound
from chaos.observe import LASTING
from chaos.packets import Action, Selector, When
from chaos.registry import FAULTS, build
from chaos.registry import load as load_registry
from chaos.shipped import experiment_path

ROOT = Path(__file__).parents[2]


def test_the_page_on_probes_names_every_lasting_kind():
    page = (ROOT / "docs" / "adding-a-probe.md").read_text()

    assert [kind for kind in sorted(LASTING) if f"`{kind}`" not in page] == []


def test_make_help_tells_the_ways_to_torch():
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True).stdout

    for word in ("wheels/", "TORCH_INDEX=URL", "RAILBREAK_NO_TORCH=1", "demo"):
        assert word in told


@pytest.mark.parametrize(
    ("name", "words", "measure", "limit"),
    [
        ("remote_link_down", "half a second at most", "flow_outage_longest_ms", 500),
        ("local_link_down", "ten milliseconds at most", "flow_lost_packets", 20),
        ("spine_down", "twenty milliseconds at most", "flow_lost_packets", 40),
        ("silent_one_way", "within a second", "flow_outage_longest_ms", 1000),
    ],
)
def test_a_promise_is_held_to_its_words(name, words, measure, limit):
    """At 2 kpps a lost packet is half a millisecond."""
    experiment = load(experiment_path(name))
    bounds = {one.measure: one for one in experiment.objectives if isinstance(one, Bound)}

    assert words in experiment.promise
    assert bounds[measure].at_most == limit


def test_the_page_on_faults_shows_one_that_can_be_planned(monkeypatch, tmp_path):
    """As it stands there; the names that it gives a test are there as well."""
    page = (ROOT / "docs" / "adding-a-fault.md").read_text()
    shown, tried = re.findall(r"```python\n(.*?)```", page, re.S)
    load_registry()
    monkeypatch.setattr("chaos.registry.FAULTS", dict(FAULTS))
    (tmp_path / "port_drop.py").write_text(shown)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("port_drop")
    monkeypatch.delitem(sys.modules, "port_drop")
    cable = Link(Port("h1", "eth1"), Port("h2", "eth1"))
    pair = Fabric("pair", {"h1": Node("h1"), "h2": Node("h2")}, (cable,))
    (change,) = module.PortDrop(cable.id, "h1").changes(pair)

    assert change.describe() == "h1:eth1: drop everything at ingress"
    there = (ROOT / "tests" / "netns" / "test_faults_bite.py").read_text()
    for name in ("Broken(two_hosts, ", "two_hosts.ping() == 0", ".hits() ", "two_hosts.reaches()"):
        assert name in tried
        assert name in there


def test_the_page_on_packets_shows_rules_that_are_read():
    """The YAML, and every example of the tables; every word of a selector has its row."""
    page = (ROOT / "docs" / "packets.md").read_text()
    parts = dict(re.findall(r"## (select|when|then)\n(.*?)(?=\n## )", page, re.S))
    rows = {
        part: [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in rows_of(text)]
        for part, text in parts.items()
    }
    for row in rows["select"]:
        Selector.parse(row[-1])
    for row in rows["when"]:
        When.parse(row[-1])
    for row in rows["then"]:
        Action.parse(row[0])
    named = {word for row in rows["select"] for word in re.split(r"`, `", row[0])}
    assert named == {item.name for item in fields(Selector)}

    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    made = yaml.safe_load(example)["fault"]["packet_fault"]
    load_registry()
    build(FAULTS, "fault", "packet_fault", made)


def rows_of(text):
    table = [line for line in text.splitlines() if line.startswith("| ")]
    return table[1:]  # without its head


@pytest.mark.parametrize("package", ["asyncssh", "paramiko", "scapy"])
def test_a_package_said_to_be_imported_nowhere_is(package):
    page = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    (line,) = [one for one in page.splitlines() if one.startswith(f"| {package} ")]
    rooms = [p for folder in ("chaos", "faults", "probes") for p in (ROOT / folder).rglob("*.py")]
    used = [p.name for p in rooms if f"import {package}" in p.read_text()]

    assert ("imported nowhere yet" in line) is (not used), used
