"""All changes of one injector: let go, done in order, taken back again and again, last first."""

import subprocess
from dataclasses import asdict

import pytest

from chaos.change import Hits, LinkState, Place, ProcessSignal, Where, to_json
from chaos.errors import ApplyError, FabricError
from chaos.grip import Grip
from chaos.held import Held
from chaos.journal import open_changes, read
from chaos.native import process_state


class Lamp:
    """A change that is on or off, and can be told to misbehave."""

    def __init__(self, name, log, *, refusals=0, breaks=False, dark=False):
        self.name, self.log, self.refusals = name, log, refusals
        self.breaks, self.dark, self.on = breaks, dark, False
        self.saved, self.lasting = {}, False

    def do(self):
        self.log.append(f"do {self.name}")
        if self.breaks:
            raise ApplyError(f"{self.name} is broken")
        self.on = True

    def undo(self):
        self.log.append(f"undo {self.name}")
        if self.refusals:
            self.refusals -= 1
            return ("not yet",)
        self.on = False
        return ()

    def in_force(self):
        if self.dark:
            raise FabricError(f"{self.name} cannot be seen")
        return self.on

    def hits(self):
        return Hits(3, 2)

    def close(self):
        self.log.append(f"close {self.name}")


def gripping(*lamps):
    """A grip that holds lamps, and what it said."""
    said = []
    grip = Grip((1, 1), lambda **words: said.append((words["kind"], words["change"])))
    for at, lamp in enumerate(lamps):
        change = LinkState(Place("h1", f"eth{at}"))
        grip.held.append(Held(at, f"1.1-{at}", change, Where(), lamp, (("light", "off"),)))
    return grip, said


def test_an_undo_that_was_refused_is_tried_until_it_works():
    log = []
    grip, said = gripping(Lamp("a", log, refusals=2), Lamp("b", log))
    assert grip.act("do", 0) == grip.prove(None) == ""

    assert grip.heal()
    assert log == ["do a", "do b", "undo b", "undo a", "undo a", "undo a", "close a", "close b"]
    assert said == [("do", 0), ("do", 1), ("undo", 1), ("undo", 0), ("undo", 0)], (
        "the first, and what worked"
    )
    assert [one.told()["cure"] for one in grip.held] == ["", ""]
    assert [one.told()["hits"] for one in grip.held] == [[3, 2], [3, 2]]


def test_what_came_back_after_its_undo_is_undone_again():
    log = []
    lamp = Lamp("a", log)
    grip, _ = gripping(lamp)
    grip.act("do", 0)
    grip.act("undo", 0)
    lamp.on = True

    assert grip.heal()
    assert log == ["do a", "undo a", "undo a", "close a"]


def test_what_was_never_begun_is_not_touched():
    log = []
    grip, said = gripping(Lamp("a", log, breaks=True), Lamp("b", log))

    assert grip.act("do", 0) == "a is broken"
    assert grip.heal()
    assert log == ["do a", "undo a", "close a", "close b"], "half done is undone too"
    assert said == [("undo", 0)]


def test_one_that_cannot_be_seen_is_left_over_and_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr("chaos.grip.GONE_WITHIN_NS", 0)
    log = []
    blind = Lamp("b", log)
    grip, _ = gripping(Lamp("a", log), blind)
    grip.act("do", 0)
    blind.dark = True

    assert not grip.heal()
    told = [one.told() for one in grip.held]
    assert [one["taken_back"] for one in told] == [True, False]
    assert told[1]["refused"] == ["b cannot be seen"]
    assert told[1]["cure"] == "light off"


def test_letting_go_leaves_no_line_open(tmp_path):
    """As when the dead-man cannot be armed: all was written, and nothing done."""
    victim = subprocess.Popen(("sleep", "600"))
    try:
        where = Where(pid=victim.pid, started=process_state(victim.pid)[1])
        change = ProcessSignal(Place("h1", process="p"), "STOP")
        grip, journal = Grip((1, 1), print), tmp_path / "journal.jsonl"
        grip.make_ready([to_json(change)], [asdict(where)], journal)
        assert len(open_changes(journal)) == 1

        grip.let_go()

        assert grip.held == []
        assert [one.history for one in read(journal)] == [("intended", "taken_back")]
        assert process_state(victim.pid)[0] != "T"
    finally:
        victim.kill()
        victim.wait()


def test_a_change_that_is_not_made_ready_is_no_line(tmp_path):
    """The first cannot be taken back where it was never written: its place is gone."""
    grip = Grip((1, 1), print)
    change = ProcessSignal(Place("h1", process="p"), "STOP")

    with pytest.raises(FabricError):
        grip.make_ready([to_json(change)], [asdict(Where(pid=2**22, started=1))], tmp_path / "j")
    assert not (tmp_path / "j").exists()
