"""The injector under a lease: it heals when nobody speaks to it, and takes its dead-man along."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from chaos.change import Place, ProcessSignal, Where, to_json
from chaos.native import process_state
from chaos.timeline import OFFSET_VARIABLE

S = 10**9
DAY_NS = 86_400 * S


class Injector:
    """One that holds a stopped `sleep`; `say` and `hear` are its lines."""

    def __init__(self, folder, lease_s, offset_ns=0):
        self.folder = folder / "deadman"
        self.victim = subprocess.Popen(("sleep", "600"))
        argv = (sys.executable, "-m", "chaos.injector", "parent")
        env = os.environ | {OFFSET_VARIABLE: str(offset_ns)}
        self.offset_ns = offset_ns
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=0
        )
        where = Where(pid=self.victim.pid, started=process_state(self.victim.pid)[1])
        self.say(
            cmd="arm",
            changes=[to_json(ProcessSignal(Place("h1", process="p"), "STOP"))],
            wheres=[asdict(where)],
            journal=str(self.folder / "journal.jsonl"),
            max_life_ns=60 * S,
            lease_ns=round(lease_s * S),
            deadman=str(self.folder),
        )

    def say(self, **words):
        self.process.stdin.write(json.dumps(words).encode() + b"\n")

    def hear(self, event):
        for line in self.process.stdout:
            said = json.loads(line)
            if said["ev"] == event:
                return said
        raise AssertionError(f"it ended without {event}")

    def break_now(self):
        now = time.monotonic_ns() + self.offset_ns
        self.say(cmd="start", t0_ns=now + S // 10, spans=[[0, 50 * S]])
        return self.hear("action")

    @property
    def stopped(self):
        return process_state(self.victim.pid)[0] == "T"

    def end(self):
        self.victim.kill()
        self.victim.wait()
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def injector(tmp_path):
    made = []

    def make(lease_s, offset_ns=0):
        made.append(Injector(tmp_path, lease_s, offset_ns))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_no_word_means_heal(injector):
    one = injector(1.5)
    assert one.hear("ready")["owner"][0] == one.process.pid
    one.break_now()
    assert one.stopped

    healed = one.hear("healed")

    assert healed["why"] == "its lease ran out"
    assert healed["changes"][0]["taken_back"]
    assert not one.stopped
    assert not one.folder.exists()


def test_beats_renew_it(injector):
    one = injector(3)
    one.hear("ready")
    one.break_now()
    until = time.monotonic() + 6
    while time.monotonic() < until:
        one.say(cmd="beat")
        time.sleep(0.3)

    assert one.stopped
    lease = (one.folder / "lease").read_text().split()
    assert lease[1] == "started"
    assert int(lease[0]) > 3


def test_beats_that_lay_unread_renew_nothing(injector):
    """Frozen for longer than its lease: it heals on waking, whatever its input holds."""
    one = injector(2)
    one.hear("ready")
    one.break_now()
    one.process.send_signal(19)
    one.say(cmd="beat")
    time.sleep(2.5)
    one.say(cmd="beat")
    one.process.send_signal(18)

    assert one.hear("healed")["why"] == "its lease ran out"


def test_it_acts_and_tells_on_the_controllers_clock(injector):
    one = injector(20, offset_ns=DAY_NS)
    one.hear("ready")
    action = one.break_now()

    assert abs(action["before"] - action["planned"]) < S
    assert action["planned"] > DAY_NS


def test_a_dead_man_that_cannot_be_written_refuses_and_leaves_nothing(tmp_path):
    (tmp_path / "deadman").write_text("")
    one = Injector(tmp_path, 2)
    try:
        assert one.hear("refused")["kind"] == "BlockedError"
        assert not one.stopped
    finally:
        one.end()
