"""What a driver notes reaches the person and the record; a hint harms nobody."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from chaos import describe, drivers
from chaos.cli.app import fabrics
from chaos.cli.live import View
from chaos.errors import SpecError
from chaos.experiment import find
from chaos.run import _tell_notes


def stand_in(fabric="clos-2x4x8", refused=lambda change, fabric: ""):
    return SimpleNamespace(
        fabric=drivers.fabric(fabric),
        name="netns",
        fidelity="namespace",
        instance="x",
        warnings=["first"],
        addresses=dict,
        refusal=refused,
    )


def test_a_note_is_told_once_and_a_later_one_too():
    driver, told = stand_in(), []

    def tell(kind, facts):
        told.append((kind, facts["sentence"]))

    known = _tell_notes(driver, 0, tell)
    driver.warnings.append("second")
    _tell_notes(driver, known, tell)

    assert told == [("fabric.noted", "first"), ("fabric.noted", "second")]


def test_what_is_noted_during_a_run_stands_in_its_record():
    driver = stand_in()
    described = describe.fabric(driver)
    driver.warnings.append("second")
    assert described["notes"] == ["first", "second"]


def test_the_live_view_shows_a_note():
    page = io.StringIO()
    with View(find("placebo"), Console(file=page, width=120)) as view:
        view.tell("fabric.noted", {"sentence": "two links were rewritten"})
    assert "note: two links were rewritten" in page.getvalue()


def test_the_link_that_is_hinted_at_is_between_switches_where_there_is_one():
    assert fabrics._harmless(stand_in()) == "leaf1:eth1--spine1:eth1"
    assert fabrics._harmless(stand_in("pair")) == "host1:eth1--router1:eth1"


def test_no_link_is_hinted_at_that_the_driver_refuses():
    assert fabrics._harmless(stand_in(refused=lambda change, fabric: "no")) == ""


def test_an_inventory_is_not_taken_for_a_lab(tmp_path):
    hosts, lab = tmp_path / "hosts.yml", tmp_path / "lab.clab.yml"
    hosts.write_text("all: {hosts: {gpu1: {}}}\n")
    lab.write_text("name: lab\ntopology: {nodes: {}}\n")

    with pytest.raises(SpecError, match=r"hosts.yml --driver ssh"):
        fabrics._refuse_inventory(hosts)
    fabrics._refuse_inventory(lab)
    fabrics._refuse_inventory(tmp_path / "name-of-a-lab")
