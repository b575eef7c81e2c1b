"""A run of tests that was killed leaves nothing that the next one does not take away."""

import os
import subprocess

import pytest

from tests.leftovers import reap

pytestmark = pytest.mark.netns


def test_what_a_dead_run_left_is_removed_and_what_lives_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, theirs = f"rbs{os.getpid()}n991mgmt", f"rbs{dead.pid}n991mgmt"
    more = [f"rb{kind}" for kind in (f"t{dead.pid}h1", f"c{dead.pid}r", f"p{dead.pid}")]
    foreign = f"rb-of-somebody-{dead.pid}"
    folder = tmp_path / f"railbreak-ssh-{dead.pid}-abc"
    folder.mkdir()
    try:
        for name in (ours, theirs, foreign, *more):
            subprocess.run(("ip", "netns", "add", name), check=True)

        found = set(reap(folders=tmp_path))

        assert folder.name in found
        left = {ours, theirs, foreign, *more} & set(os.listdir("/run/netns"))
        assert left == {ours, foreign}, "of the dead run's some may have gone by another's reaping"
        assert not folder.exists()
    finally:
        for name in (ours, theirs, foreign, *more):
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
