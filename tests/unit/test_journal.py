"""The journal: what is on disk before the deed, and what a reader makes of it."""

import json
import os

import pytest

from chaos.change import LinkState, PacketDrop, Place, Where
from chaos.errors import BlockedError, SpecError
from chaos.journal import SCHEMA, Journal, boot_id, open_changes, read

CHANGE = LinkState(Place("leaf1", "eth1"))
WHERE = Where("/run/netns/x", 77, "eth1", 7001)
SAVED = {"messages": ["00ff"], "commands": [["ip", "route"]]}


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "deep" / "journal.jsonl")
    yield made
    made.close()


def intend(journal, id="1", change=CHANGE):
    journal.intended(id, change, WHERE, saved=SAVED, cure="ip link set eth1 up", owner=(42, 4242))


def test_an_intention_holds_all_that_another_process_needs(journal):
    intend(journal)
    (entry,) = read(journal.path)
    assert (entry.change, entry.where, entry.saved) == (CHANGE, WHERE, SAVED)
    assert (entry.state, entry.owner, entry.boot) == ("intended", (42, 4242), boot_id())
    assert entry.cure == "ip link set eth1 up"
    assert json.loads(journal.path.read_text())["schema"] == SCHEMA


def test_an_intention_is_on_disk_before_it_returns(journal, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(journal.path.read_text()))
    intend(journal)
    assert '"state":"intended"' in synced[0]


@pytest.mark.parametrize(
    ("states", "is_open"),
    [
        ((), True),
        (("in_force",), True),
        (("in_force", "acted"), True),
        (("in_force", "acted", "taken_back"), False),
        (("in_force", "leftover"), True),
        (("leftover", "taken_back"), False),
        (("leftover", "forgotten"), False),
        (("gone",), False),
    ],
)
def test_what_is_open(journal, states, is_open):
    intend(journal)
    for state in states:
        journal.note(state, "1")
    assert bool(open_changes(journal.path)) is is_open
    assert read(journal.path)[0].history == ("intended", *states)


def test_writers_share_a_journal_by_appending(journal):
    intend(journal, "a")
    second = Journal(journal.path)
    intend(second, "b", PacketDrop(Place("h1", "eth1", "wire"), "railbreak_x"))
    second.note("taken_back", "b")
    second.close()
    journal.note("in_force", "a")
    assert [(one.id, one.state) for one in read(journal.path)] == [
        ("a", "in_force"),
        ("b", "taken_back"),
    ]


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_line_in_which_its_writer_died_is_passed_over(journal, cut):
    intend(journal, "a")
    whole = journal.path.read_bytes()
    intend(journal, "b")
    torn = journal.path.read_bytes()[: len(whole) + cut]
    journal.path.write_bytes(torn)

    assert [one.id for one in read(journal.path)] == ["a"]
    later = Journal(journal.path)  # recovery goes on in the same file
    later.note("taken_back", "a")
    later.close()
    assert [(one.id, one.state) for one in read(journal.path)] == [("a", "taken_back")]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"state": "in_force", "id": "unknown"}',
        '{"state": "intended", "schema": "railbreak-journal/99", "id": "1"}',
    ],
)
def test_a_line_that_cannot_be_read_is_named(journal, line):
    intend(journal)
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SpecError, match=r"journal\.jsonl:2: not a journal line of railbreak"):
        read(journal.path)


@pytest.mark.parametrize("path", ["/dev/full", "/proc/journal.jsonl", "/dev/null/journal.jsonl"])
def test_a_journal_that_cannot_be_written_blocks(path, tmp_path):
    def write():
        made = Journal(type(tmp_path)(path))
        try:
            intend(made)
        finally:
            made.close()

    with pytest.raises(BlockedError, match=r"cannot be written .*nothing was broken"):
        write()


def test_a_note_that_cannot_be_written_is_a_sentence(journal, monkeypatch):
    """Half of a line goes in, as where the disk is full; what became of the change stands."""
    intend(journal)
    assert journal.told("in_force", "1") == ()
    monkeypatch.setattr(os, "write", lambda _fd, data: len(data) // 2)
    assert journal.told("acted", "1") == (
        f"journal {journal.path}: no space left for a whole line (acted)",
    )
