"""Quarantine: a node with a leftover is left alone until it is taken back or given up."""

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from chaos import quarantine
from chaos.change import LinkState, Place, ProcessSignal, Where
from chaos.cli import main
from chaos.errors import BlockedError
from chaos.experiment import loads
from chaos.journal import Entry, Journal, boot_id
from chaos.native import process_state
from chaos.preflight import be_free
from chaos.recover import Status
from chaos.topology import load

NOBODY = (2**22 - 1, 1)  # a process id and start time that no process has


@pytest.fixture
def state(monkeypatch, tmp_path):
    """A state folder of this test's own."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("RAILBREAK_STATE", str(folder))
    return folder


@pytest.fixture
def stopped(state):
    """A process on host1 of lab, stopped by a fault that nobody holds; its journal."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    where = Where(pid=process.pid, started=process_state(process.pid)[1])
    journal = Journal(state / "lab" / "journal.jsonl")
    change = ProcessSignal(Place("host1", process="rank0"), "STOP")
    cure = f"kill -CONT {process.pid}"
    journal.intended("1", change, where, saved={}, cure=cure, owner=NOBODY)
    journal.note("in_force", "1")
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield journal.path
    journal.close()
    process.kill()
    process.communicate()


def driver(state, instance="lab", fidelity="namespace"):
    return SimpleNamespace(folder=state / instance, instance=instance, fidelity=fidelity)


def left(state, node="leaf1", host="", instance="lab", **where):
    """A status: a change on a node that may be in force and that nobody holds."""
    place = Place(node, "eth1")
    entry = Entry(
        id="7",
        change=LinkState(place),
        where=Where(host=host, ifname="eth1", **where),
        saved={},
        cure="ip link set eth1 up",
        state="in_force",
        owner=NOBODY,
        boot=boot_id(),
        journal=state / instance / "journal-7.jsonl",
    )
    return Status(entry, None, False, "cannot be told")


def listed(state):
    path = state / quarantine.NAME
    return json.loads(path.read_text())["nodes"] if path.exists() else []


def test_nothing_left_is_no_file(state):
    assert quarantine.look() == quarantine.nodes() == ()
    assert list(state.iterdir()) == []
    quarantine.be_free(["leaf1"], driver(state))


def test_without_a_state_folder_nothing_is_in_quarantine(monkeypatch, tmp_path):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "nowhere"))

    assert quarantine.look() == ()
    assert not (tmp_path / "nowhere").exists()


def test_a_leftover_puts_its_node_on_the_list(state, stopped):
    (held,) = quarantine.look(state / "lab")

    assert listed(state)[0]["node"] == held.node == "host1"
    assert (held.instance, held.change) == ("lab", "host1/rank0: SIGSTOP")
    assert held.journal == str(stopped)
    assert held.cure.startswith("kill -CONT ")
    assert held.since.endswith("Z")


def test_faults_on_that_node_are_refused_with_the_cure(state, stopped):
    with pytest.raises(BlockedError) as refusal:
        quarantine.be_free(["leaf1", "host1"], driver(state))

    said = str(refusal.value)
    assert said.startswith("host1 of lab is in quarantine since 20")
    assert ": host1/rank0: SIGSTOP is, or may be, still in force there; " in said
    assert f"take it back with railbreak undo {stopped} (by hand: kill -CONT " in said
    assert said.endswith(f"or give it up with railbreak forget {stopped}")
    quarantine.be_free(["host2"], driver(state))
    quarantine.be_free(["host1"], driver(state, "lab-2"))


def test_since_when_it_is_there_is_kept(state, stopped):
    quarantine.look()
    path = state / quarantine.NAME
    path.write_text(path.read_text().replace(listed(state)[0]["since"], "2001-01-01T00:00:00Z"))

    (held,) = quarantine.look()

    assert held.since == "2001-01-01T00:00:00Z"


@pytest.mark.parametrize("state_word", ["taken_back", "gone", "forgotten"])
def test_a_journal_that_closes_it_lifts_it(state, stopped, state_word):
    assert quarantine.look()
    journal = Journal(stopped)
    journal.note(state_word, "1")
    journal.close()

    assert quarantine.nodes() == ()
    assert not (state / quarantine.NAME).exists()


def test_what_somebody_holds_is_no_leftover(state):
    status = left(state)

    assert quarantine.note([replace(status, held=True)]) == ()
    assert quarantine.note([replace(status, in_force=False)]) == ()
    assert listed(state) == []


def test_another_machine_stays_on_the_list_when_its_journal_is_gone(state):
    """And under whatever name it is attached again, until it is given up."""
    status = left(state, host="switch-17")
    (held,) = quarantine.note([status])

    assert not status.entry.journal.exists()
    assert quarantine.nodes() == (held,)
    assert held.sentence().startswith("leaf1 (switch-17) of lab is in quarantine")
    assert held.sentence().endswith(
        f"take it back by hand (ip link set eth1 up), then railbreak forget {status.entry.journal}"
    )
    with pytest.raises(BlockedError, match="leaf1"):
        quarantine.be_free(["leaf1"], driver(state, "again", "hardware"))
    quarantine.be_free(["leaf1"], driver(state, "again", "namespace"))
    assert quarantine.lift(status.entry.journal) == (held,)
    assert quarantine.nodes() == () == quarantine.lift(status.entry.journal)


def test_a_place_on_this_machine_goes_with_its_namespace(state):
    """A namespace that is still there keeps it on the list, also without its journal."""
    here = os.stat("/proc/self/ns/net").st_ino
    stays = left(state, "leaf1", netns="/proc/self/ns/net", inode=here)
    goes = left(state, "leaf2", netns="/proc/self/ns/net", inode=here + 1)
    rebooted = left(state, "leaf3", netns="/proc/self/ns/net", inode=here)
    rebooted = replace(rebooted, entry=replace(rebooted.entry, boot="another"))
    for number, status in enumerate((stays, goes, rebooted)):
        quarantine.note([replace(status, entry=replace(status.entry, id=str(number)))])

    assert [held.node for held in quarantine.nodes()] == ["leaf1"]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "other", "nodes": []}', '{"nodes": 1}'])
def test_a_list_that_cannot_be_read_blocks(state, text):
    """Nobody knows then which nodes are faulted; a guess would break what is broken."""
    (state / quarantine.NAME).write_text(text)

    with pytest.raises(BlockedError, match="cannot be read"):
        quarantine.be_free(["leaf1"], driver(state))
    assert (state / quarantine.NAME).read_text() == text


def _note_one(folder, number):
    os.environ["RAILBREAK_STATE"] = str(folder)
    status = left(folder, f"leaf{number}", host="far")
    quarantine.note([replace(status, entry=replace(status.entry, id=str(number)))])


def test_processes_that_write_at_once_lose_nothing(state):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_note_one, [(state, number) for number in range(24)])

    assert {held.node for held in quarantine.nodes()} == {f"leaf{n}" for n in range(24)}
    assert [path.name for path in state.iterdir()] == [quarantine.NAME]


TEXT = """\
promise: It is left alone.
fabric: pair
fault: FAULT
probes:
  flow: {source: host1, target: host2}
objectives:
  - {measure: flow_lost_packets, at_most: 5}
"""


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        ("{link_down: {link: host1--router1, end: both}}", True),
        ("{link_down: {link: host2--router1, end: both}}", False),
        ("{link_down: {link: in-use host--router, mode: silent, end: near}}", False),
        ("{node_down: {node: router1}}", True),
    ],
    ids=["its link", "another link", "traffic settles it", "its neighbour"],
)
def test_a_run_is_refused_when_the_fault_must_strike_it(state, fault, refused):
    """Where one meaning is free the run may start; what is armed is asked again."""
    quarantine.note([left(state, "host1", host="far")])
    experiment = loads(TEXT.replace("FAULT", fault))
    on = driver(state)
    on.fabric = load("pair")

    if not refused:
        be_free(experiment, on)
        return
    with pytest.raises(BlockedError, match="host1 \\(far\\) of lab is in quarantine"):
        be_free(experiment, on)


# ---- on the command line ------------------------------------------------------------------------


@pytest.fixture
def railbreak(monkeypatch, capsys, tmp_path):
    """`railbreak("status")` -> exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["railbreak", *words])
        try:
            main()
            status = 0
        except SystemExit as ending:
            status = ending.code
        return status, *capsys.readouterr()

    return call


def test_status_shows_it_and_undo_lifts_it(railbreak, state, stopped):
    status, said, _ = railbreak("status")
    assert status == 8
    assert "quarantine  host1 of lab is in quarantine since" in said
    _, said, _ = railbreak("status", "--json")
    (one,) = json.loads(said)["quarantine"]
    assert (one["node"], one["instance"], one["journal"]) == ("host1", "lab", str(stopped))

    assert railbreak("undo", str(stopped))[0] == 0
    assert listed(state) == []
    status, said, _ = railbreak("status")
    assert (status, "clean: no fault is in force" in said) == (0, True)


def test_forget_lifts_it(railbreak, state, stopped):
    railbreak("status")
    status, said, _ = railbreak("forget", "--yes", str(stopped))

    assert (status, said) == (0, f"forgotten: {stopped}\n")
    assert railbreak("forget", str(stopped))[1] == f"nothing was in force in {stopped}\n"
    assert listed(state) == []
    assert railbreak("status")[0] == 0


def test_forget_lifts_what_has_no_journal_any_more(railbreak, state, monkeypatch):
    status = left(state, host="switch-17")
    quarantine.note([status])
    journal = str(status.entry.journal)

    code, said, _ = railbreak("status")
    assert (code, "leaf1 (switch-17)" in said, "clean" in said) == (8, True, False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert railbreak("forget", journal)[0] == 130
    assert len(listed(state)) == 1
    code, said, err = railbreak("forget", "--yes", journal)
    assert (code, f"forgotten: {journal}" in said) == (0, True)
    assert "leaf1:eth1: admin down on leaf1; cure: ip link set eth1 up" in err
    assert listed(state) == []
    assert railbreak("forget", "--yes", journal)[0] == 3
