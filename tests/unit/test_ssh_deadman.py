"""The dead-man: a shell script that acts when nobody renews its lease; real shells."""

import os
import time

import pytest

from chaos import deadman
from chaos.deadman import Deadman
from chaos.errors import BlockedError


def wait_until(condition, what, deadline_s=30.0):
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.02)


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def arm(tmp_path, monkeypatch):
    """Arms one whose undo writes into `undone`, one line per command."""
    monkeypatch.setattr(deadman, "AFTER_S", 0)
    made = []

    def make(*undo, lease_s=1, life_s=60):
        lines = undo or (("sh", "-c", f"echo one >>{tmp_path}/undone"),)
        made.append(
            Deadman.arm(tmp_path / "root" / f"d{len(made)}", lines, lease_s=lease_s, life_s=life_s)
        )
        return made[-1]

    yield make
    for one in made:
        one.disarm()


def test_it_acts_when_the_lease_is_not_renewed(arm, tmp_path):
    one = arm()

    wait_until(lambda: not one.folder.parent.exists(), "the dead-man, and its folder")

    assert (tmp_path / "undone").read_text() == "one\n"


def test_it_waits_while_the_lease_is_renewed(arm, tmp_path):
    one = arm(lease_s=3)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        one.renew("armed")
        time.sleep(0.2)

    assert not (tmp_path / "undone").exists()
    assert one.folder.exists()


def test_life_counts_from_the_start_whatever_the_lease_says(arm, tmp_path):
    one = arm(lease_s=30, life_s=1)
    one.renew("started")

    wait_until(lambda: not one.folder.exists(), "the dead-man")

    assert (tmp_path / "undone").read_text() == "one\n"


def test_disarmed_it_leaves_nothing(arm, tmp_path):
    one = arm()
    pid = int((one.folder / "pid").read_text())
    one.disarm()
    one.renew("started")  # a word from the controller that came meanwhile

    wait_until(lambda: gone(pid), "the script to end")

    assert not one.folder.parent.exists()
    assert not (tmp_path / "undone").exists()


def test_it_outlives_whoever_started_it_and_says_what_it_did(arm):
    one = arm()
    pid = int((one.folder / "pid").read_text())

    with open(f"/proc/{pid}/stat") as file:
        assert int(file.read().rpartition(")")[2].split()[3]) == pid  # leads a session of its own
    assert os.getsid(0) != pid


def test_undo_is_tried_again_and_goes_on_after_an_error(arm, tmp_path):
    """The first command fails until the second has run, as a route before its interface."""
    one = arm(
        ("sh", "-c", f"[ -e {tmp_path}/link ] && touch {tmp_path}/route"),
        ("touch", str(tmp_path / "link")),
    )

    wait_until(lambda: not one.folder.exists(), "the dead-man")

    assert (tmp_path / "route").exists()


def test_there_already_is_as_good_as_put_back(arm, tmp_path):
    one = arm(
        ("sh", "-c", f"echo x >>{tmp_path}/undone; echo 'RTNETLINK: File exists' >&2; exit 2")
    )

    wait_until(lambda: not one.folder.exists(), "the dead-man")

    assert (tmp_path / "undone").read_text() == "x\n"


def test_words_are_quoted(arm, tmp_path):
    one = arm(("touch", f"{tmp_path}/a b; $(touch {tmp_path}/never)".replace("/", "/", 1)))
    wait_until(lambda: not one.folder.exists(), "the dead-man")

    assert not (tmp_path / "never").exists()


def test_no_room_means_nothing_may_be_broken(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(BlockedError, match="nothing was broken"):
        Deadman.arm(tmp_path / "file" / "d", [], lease_s=1, life_s=1)
