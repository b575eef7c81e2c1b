"""Dead-men where systemd runs: started as units of it, else detached. With a stand-in, not real.

systemd cannot run here. Its `systemd-run` is played by a program that is found first: it writes
down what it was asked for and starts it as a service is, in a session and with an environment of
its own. The scripts and the shells that run them are real.
"""

import os
import subprocess
import time

import pytest

from chaos import deadman
from chaos.deadman import Deadman
from chaos.nos import deadman as on_switch

STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >{folder}/argv
[ -e {folder}/refuses ] && {{ echo 'Failed to start transient service unit' >&2; exit 1; }}
while [ "${{1#--}}" != "$1" ]; do [ "$1" = --unit ] && shift; shift; done
exec </dev/null >/dev/null 2>&1
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin STARTED_BY=systemd setsid "$@" &
"""


class Systemd:
    """The stand-in: `argv` is what it was last asked for; `running` says whether systemd runs."""

    def __init__(self, folder, marker):
        self.folder, self.marker = folder, marker
        program = folder / "bin" / "systemd-run"
        program.parent.mkdir()
        program.write_text(STAND_IN.format(folder=folder))
        program.chmod(0o755)

    @property
    def argv(self):
        file = self.folder / "argv"
        return file.read_text().splitlines() if file.exists() else None

    def refuses(self):
        (self.folder / "refuses").touch()

    def stops(self):
        self.marker.rmdir()


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    folder = tmp_path / "systemd"
    marker = folder / "system"
    marker.mkdir(parents=True)
    made = Systemd(folder, marker)
    real = os.path.isdir
    monkeypatch.setattr(
        deadman.os.path, "isdir", lambda p: real(marker if p == "/run/systemd/system" else p)
    )
    monkeypatch.setattr(on_switch, "SYSTEMD", str(marker))
    monkeypatch.setattr(on_switch, "FOLDER", str(tmp_path / "leases"))
    monkeypatch.setattr(deadman, "AFTER_S", 0)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    return made


def wait_until(condition, what, deadline_s=30.0):
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.02)


def environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read().split(b"\0")


# ---- on a host -----------------------------------------------------------------------------------


@pytest.fixture
def arm(tmp_path):
    made = []

    def make(lease_s=1):
        undo = [("sh", "-c", f"echo one >>{tmp_path}/undone")]
        made.append(Deadman.arm(tmp_path / "root" / "d0", undo, lease_s=lease_s, life_s=60))
        return made[-1]

    yield make
    for one in made:
        one.disarm()


def pid_of(one):
    return int((one.folder / "pid").read_text())


def test_a_unit_of_systemd_takes_back(systemd, arm, tmp_path):
    one = arm()

    assert systemd.argv == [
        *("--collect", "--quiet", "--unit", "railbreak-d0"),
        *("sh", f"{one.folder}/takeback.sh"),
    ]
    assert b"STARTED_BY=systemd" in environment(pid_of(one))
    wait_until(lambda: not one.folder.exists(), "the unit to end")
    assert (tmp_path / "undone").read_text() == "one\n"


def test_a_unit_of_systemd_that_is_disarmed_ends_and_does_nothing(systemd, arm, tmp_path):
    one = arm(lease_s=60)
    pid = pid_of(one)
    one.disarm()

    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the unit to end")
    assert not (tmp_path / "undone").exists()


@pytest.mark.parametrize("how", ["stops", "refuses"])
def test_without_systemd_a_detached_shell_takes_back(systemd, arm, tmp_path, how):
    """No systemd there; or one that starts no unit. Started once either way."""
    getattr(systemd, how)()
    one = arm()

    assert (systemd.argv is None) is (how == "stops")
    assert b"STARTED_BY=systemd" not in environment(pid_of(one))
    assert os.getsid(pid_of(one)) == pid_of(one)
    wait_until(lambda: not one.folder.exists(), "the script to end")
    assert (tmp_path / "undone").read_text() == "one\n"


# ---- on a switch ---------------------------------------------------------------------------------


def sh(command):
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return done.returncode


def arm_switch(tmp_path, lease_s=1):
    for command in on_switch.arm("t", [f"echo one >>{tmp_path}/undone"], lease_s):
        assert sh(command) == 0, command
    wait_until(lambda: sh(on_switch.stands("t")) == 0, "the script to stand", 5)


def scripts(tmp_path):
    """Ids of the processes that run the script."""
    told = subprocess.run(
        ["pgrep", "-f", f"^(/bin/)?sh {tmp_path}/leases/t.sh"], capture_output=True, check=False
    )
    return [int(word) for word in told.stdout.split()]


def test_a_unit_of_systemd_takes_back_on_a_switch(systemd, tmp_path):
    arm_switch(tmp_path, lease_s=2)

    assert systemd.argv == [
        *("--quiet", "--collect", "--unit=railbreak-t"),
        *("/bin/sh", f"{tmp_path}/leases/t.sh"),
    ]
    (pid,) = scripts(tmp_path)
    assert b"STARTED_BY=systemd" in environment(pid)
    wait_until(lambda: (tmp_path / "undone").exists(), "the unit to act")
    wait_until(lambda: not scripts(tmp_path), "the unit to end")
    assert (tmp_path / "undone").read_text() == "one\n"


def test_a_unit_on_a_switch_that_is_disarmed_ends_and_does_nothing(systemd, tmp_path):
    arm_switch(tmp_path, lease_s=30)
    assert sh(on_switch.disarm("t")) == 0

    wait_until(lambda: not scripts(tmp_path), "the unit to end")
    assert not (tmp_path / "undone").exists()


@pytest.mark.parametrize("how", ["stops", "refuses"])
def test_without_systemd_a_detached_shell_takes_back_on_a_switch(systemd, tmp_path, how):
    getattr(systemd, how)()
    arm_switch(tmp_path, lease_s=2)

    assert (systemd.argv is None) is (how == "stops")
    (pid,) = scripts(tmp_path)
    assert b"STARTED_BY=systemd" not in environment(pid)
    assert os.getsid(pid) == pid
    wait_until(lambda: (tmp_path / "undone").exists(), "the script to act")
    wait_until(lambda: not scripts(tmp_path), "the script to end")
    assert (tmp_path / "undone").read_text() == "one\n"
