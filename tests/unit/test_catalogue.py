"""The catalogue: every fault has a class, can be tried as written, and is on the page."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos import catalogue, drivers
from chaos.errors import SpecError
from chaos.registry import FAULTS, fault, load

ROOT = Path(__file__).resolve().parents[2]
load()
OURS = {name: cls for name, cls in FAULTS.items() if cls.__module__.startswith("faults.")}
each = pytest.mark.parametrize("cls", OURS.values(), ids=OURS.keys())


@each
def test_every_fault_has_a_class_and_can_be_tried_as_written(cls):
    fabric = drivers.fabric(catalogue.SAMPLE)

    assert cls.area
    assert catalogue.examples(cls), "no line under Try"
    for example in catalogue.examples(cls):
        assert example.on(fabric), example.words


@each
def test_every_field_is_told(cls):
    for row in catalogue._fields(cls):
        assert not row.endswith("|  |"), f"Args says nothing of {row}"


def test_the_page_is_what_the_code_says():
    page = (ROOT / "docs" / "faults.md").read_text()
    assert page == catalogue.markdown(), "railbreak faults --markdown > docs/faults.md"


def test_what_no_driver_can_do_has_its_reason():
    [example] = [one for one in catalogue.examples(FAULTS["node_stop"]) if "pause" not in one.words]
    reach = catalogue.reach(example)

    assert reach["containerlab"] == ""
    assert "driver netns cannot stop spine1" in reach["netns"]
    assert "driver ssh cannot stop spine1" in reach["ssh"]


def test_an_unknown_class_is_refused_with_near_ones():
    with pytest.raises(SpecError, match=r"area 'lnik'.*link"):
        fault("dark", area="lnik")


def test_a_line_that_names_another_fault_is_refused():
    @dataclass(frozen=True)
    class Dark:
        """Light is lost.

        Try:
            link_down link=leaf1--spine1
        """

        name = "dark"

    with pytest.raises(SpecError, match="begins with another name"):
        catalogue.examples(Dark)
