"""The machine of the lane itself: its kernel, and that nothing leads out of it."""

import json
import os
import subprocess

import pytest

from chaos.drivers.netns import NetnsDriver

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif("RAILBREAK_VM" not in os.environ, reason="about the machine of .ci/vm"),
]


def ip(*words):
    argv = ("ip", "-j", *words)
    return json.loads(subprocess.run(argv, capture_output=True, check=True).stdout or "[]")


def test_the_doctor_finds_what_the_lane_is_for():
    lacks = {one.name: one.reason for one in NetnsDriver.probe() if not one.here}
    assert lacks == {}
    assert os.uname().release.startswith("6.12.")


def test_there_is_no_way_out():
    assert ip("route", "show", "table", "all", "default") == []
    cards = [link for link in ip("link") if link["ifname"] != "lo"]
    assert len(cards) == 4
    assert {card["address"] for card in cards} == {f"52:54:00:00:00:0{n}" for n in "1234"}
