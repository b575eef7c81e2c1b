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
    assert ip("route", "show", "table", "all", "type", "unicast") == []
    assert {link["ifname"] for link in ip("link")} == {"lo", "eth0", "eth1", "eth2", "eth3"}
    assert all("UP" not in link["flags"] for link in ip("link") if link["ifname"] != "lo")
