"""`--on` means the fabric that is up: the experiment's own need not be one that could be built."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.netns

#: A twin as people keep it of real switches: no image, and a kind that only Containerlab has.
TWIN = """
name: twin
topology:
  nodes:
    left: {kind: linux}
    right: {kind: nokia_srlinux}
  links:
    - endpoints: ["left:eth1", "right:eth1"]
"""
MINE = """
promise: a cable that is pulled is lost
fabric: twin.clab.yml
fault: {link_down: {link: host1--router1, mode: silent, end: host1}}
probes:
  flow: {source: host1, target: host2, rate: 1 kpps}
phases: {calm: 1 s, storm: 500 ms, after: 1 s}
trials: 1
placebos: 0
objectives:
  - {measure: flow_loss_percent, at_least: 90, because: nothing gets through}
"""


@pytest.fixture
def railbreak(tmp_path):
    """The command, with a state folder of its own, in a folder that holds the two files."""
    (tmp_path / "twin.clab.yml").write_text(TWIN)
    (tmp_path / "mine.yaml").write_text(MINE)
    environ = os.environ | {"RAILBREAK_STATE": str(tmp_path / "state")}

    def run(*words):
        argv = (sys.executable, "-c", "from chaos.cli import main; main()", *words)
        return subprocess.run(
            argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    yield run
    run("down", "--all")


def test_the_attached_fabric_is_what_counts(railbreak):
    assert railbreak("up", "pair").returncode == 0
    without = railbreak("plan", "mine.yaml")
    assert without.returncode == 3, "the twin can be built here, so this test shows nothing"

    plan = railbreak("plan", "mine.yaml", "--on", "pair")
    assert plan.returncode == 0, plan.stderr
    assert "host1:eth1~wire" in plan.stdout

    ran = railbreak("run", "mine.yaml", "--on", "pair", "--calm-load", "100%")
    assert ran.returncode == 0, ran.stdout + ran.stderr
