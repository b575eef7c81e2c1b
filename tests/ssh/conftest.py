"""Fixtures of tests over real SSH: machines, three of them in a row, a home of one's own."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.ssh.box import SSHD
from tests.ssh.machines import Machines


@pytest.fixture(scope="session")
def _servers_possible():
    if os.geteuid() != 0:
        pytest.skip("makes network namespaces, which needs root")
    if SSHD is None:
        pytest.skip("no sshd here: apt-get install openssh-server")


def _machines():
    """A set of machines; gone afterwards, also where its making breaks off."""
    prefix = f"railbreak-ssh-{os.getpid()}-"
    made = Machines(Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp")))
    try:
        yield made.up()
    finally:
        made.down()
        shutil.rmtree(made.folder)


@pytest.fixture
def machines(_servers_possible):
    """No machines yet: `machines.add("h1", …)` makes them."""
    yield from _machines()


@pytest.fixture(scope="module")
def shared_machines(_servers_possible):
    """The same, for a whole module."""
    yield from _machines()


@pytest.fixture(scope="module")
def three(shared_machines):
    """h1 -- r1 -- h2, for a whole module."""
    shared_machines.add("h1", "h2", "r1")
    return shared_machines.star(["h1", "h2"])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of this test's own, with the controller's state in it."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    return tmp_path
