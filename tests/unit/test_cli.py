"""The command line refuses in one sentence, with its own exit status, and never a traceback."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest
from rich.console import Console

from chaos.change import Place, ProcessSignal, Where
from chaos.cli import app as _the_tree  # noqa: F401  (its verbs import each other; it comes first)
from chaos.cli import main
from chaos.driver import Capability
from chaos.errors import SpecError
from chaos.journal import Journal, open_changes
from chaos.native import process_state
from chaos.registry import FAULTS
from chaos.registry import load as load_registry
from chaos.worded import fields_from


@pytest.fixture
def railbreak(monkeypatch, capsys, tmp_path):
    """`railbreak("run", "x")` -> exit status, stdout, stderr; in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["railbreak", *words])
        try:
            main()
            status = 0
        except SystemExit as ending:
            status = ending.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["run", "local_link_dwn"], 3, "did you mean local_link_down or"),
        (["run", "no/such.yaml"], 3, "no/such.yaml: no such file"),
        (["plan", "placeb"], 3, "did you mean placebo?"),
        (["show", "clos-2x4x9"], 3, "clos-2x4x8"),
        (["faults", "link_don"], 3, "did you mean link_down"),
        (["probes", "flw"], 3, "did you mean flow?"),
        (["up", "nowhere.clab.yml"], 3, "nowhere.clab.yml"),
        (["down"], 3, "name one instance, or give --all"),
        (["down", "lab9"], 5, "no fabric 'lab9' is running"),
        (["exec", "host1", "--", "true"], 5, "nothing is up"),
        (["inject", "pair", "link_down", "link"], 3, "field=value expected"),
        (["inject", "pair", "link_down", "lnk=a"], 3, "did you mean link?"),
        (["inject", "pair", "link_dwn", "link=a"], 3, "did you mean link_down"),
        (["inject", "pair", "link_down", "link=a", "link=b"], 3, "link is given twice"),
        (["inject", "pair", "packet_loss", "link=a", "share=250%"], 3, "0 to 100 %, got 250 %"),
        (["inject", "pair", "link_down", "link=a", "--for", "5"], 3, "--for: a time expected"),
        (["inject", "link_down", "link=a"], 3, "railbreak inject FABRIC link_down link=a …"),
        (
            ["inject", "pair", "packet_fault", "link=a", "when=first=3", "on=1s", "off=1s"],
            3,
            "no field 'on'; several words of one field go in quotes: 'when=first=3 on=1s'",
        ),
        (["inject", "pair", "link_down", "link=a", "mod=admin"], 3, "did you mean mode?"),
        (["inject", "pair", "link_down", "link=a", "--for", "0s"], 3, "--for must be above 0"),
        (["inject", "pair", "rank_stop", "rank=two"], 3, "a whole number expected, got 'two'"),
        (["inject", "pair", "link_down", "link=host1--router1"], 5, "railbreak up pair"),
        (
            ["inject", "pair", "link_down", "link=a", "end=near"],
            3,
            "end: 'near' says where measured",
        ),
        (["inject", "pair", "link_down", "link=in-use"], 3, "link: 'in-use' says where measured"),
        (["inject", "pair", "node_down", "node=in-use spine"], 3, "give it by its name"),
        (["run", "placebo", "--json", "no/such/r.json"], 3, "--json no/such/r.json cannot be writ"),
        (["run", "placebo", "--junit", "."], 3, "--junit . cannot be written: Is a directory"),
        (["report", "no-such-run"], 3, "no run 'no-such-run'"),
        (["undo"], 3, "name journals, or give --all"),
        (["undo", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["run", "placebo", "--trials", "0"], 3, "--trials"),
        (["run", "placebo", "--calm-load", "lots"], 3, "--calm-load: a share expected"),
        (["up", "pair", "--driver", "netsn"], 3, "no driver 'netsn'; did you mean netns?"),
        (["plan", "placebo", "--driver", "netsn"], 3, "no driver 'netsn'"),
        (["plan", "placebo", "--on", "lab9"], 5, "no fabric 'lab9' is running"),
        (["attach", "lab9", "--driver", "netns"], 4, "cannot attach to what it did not make"),
        (["compare", "only-one"], 3, "no run 'only-one'"),
        (["runn"], 3, "runn"),
        (["run"], 3, "EXPERIMENT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_misuse_is_refused_in_a_sentence(railbreak, words, status, sentence):
    code, out, err = railbreak(*words)

    assert (code, sentence in err) == (status, True), f"{code}: {out}{err}"
    assert "Traceback" not in out + err


def test_every_verb_teaches(railbreak):
    """--help of each verb opens with what it does."""
    _, top, _ = railbreak("--help")
    for verb in (
        *("demo", "doctor", "up", "down", "show", "exec", "faults", "probes", "plan", "run"),
        *("inject", "status", "undo", "forget", "report", "experiments", "schema"),
    ):
        assert f" {verb} " in top
        status, said, _ = railbreak(verb, "--help")
        assert status == 0
        assert len(said) > 200, verb


def test_doctor_cuts_no_reason_short(railbreak, monkeypatch):
    """A path is longer than its column on a narrow terminal; it is folded, not ended by dots."""
    path = "unix:///var/run/" + "x" * 60 + "/docker.sock"
    lacking = Capability("container_runtime", False, f"nobody answers at {path}", "start it")
    monkeypatch.setattr("chaos.cli.fabrics.examine", lambda: (lacking,))
    monkeypatch.setattr("chaos.cli.fabrics.out", Console(width=80))
    _, out, _ = railbreak("doctor")

    assert (out.count("x"), "…" in out) == (path.count("x"), False)


def test_show_tells_planes_and_rails(railbreak):
    """A rail is what `rail_down` takes: one label, or the hosts' interface."""
    _, rails, _ = railbreak("show", "rails-2x4")
    _, clos, _ = railbreak("show", "clos-2x4x8")

    assert "plane 1  leaf1; 4 hosts" in rails
    assert "plane 2  leaf2; 4 hosts" in rails
    assert [line.split()[2:4] for line in rails.splitlines() if line.startswith("host1:")] == [
        ["rail", "1"],
        ["rail", "2"],
    ]
    assert "plane 1  spine1, spine2, leaf1, leaf2, leaf3, leaf4; 8 hosts" in clos
    assert "plane 2" not in clos
    assert ["host1:eth1--leaf1:eth3", "host--leaf", "eth1", "9500"] in map(
        str.split, clos.splitlines()
    )


def test_json_is_json(railbreak):
    """Wherever a program would read it, standard output is JSON and nothing else."""
    for words in (
        *(["faults", "--json"], ["probes", "--json"], ["faults", "link_down", "--json"]),
        *(["show", "pair", "--json"], ["plan", "placebo", "--json"], ["schema"]),
        *(["status", "--json"], ["report", "--json"], ["experiments", "--json"]),
    ):
        status, out, err = railbreak(*words)
        assert status == 0, f"{words}: {err}"
        json.loads(out)


def test_a_plan_touches_nothing_and_shows_every_command(railbreak, tmp_path):
    status, out, _ = railbreak("plan", "silent_one_way")

    assert status == 0
    assert "do   [wire facing leaf1] nft table netdev railbreak_" in out
    assert "undo [wire facing leaf1] nft" in out
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def held(tmp_path):
    """An experiment whose rule is a list of a thousand packets, and its undo a script."""
    file = tmp_path / "held.yaml"
    file.write_text(
        "promise: a tenth that is held up is not lost\n"
        "fabric: pair\n"
        "fault:\n"
        "  packet_fault: {link: host1--router1, end: host1, when: random=10%, then: delay=2ms,\n"
        "                 engine: worker}\n"
        "probes:\n  flow: {source: host1, target: host2, rate: 1 kpps}\n"
        "objectives:\n  - {measure: flow_lost_packets, at_most: 10, because: it must}\n"
    )
    return str(file)


def test_a_plan_can_be_read_and_says_what_it_cut(railbreak, held):
    """A list of packets had 5 kB, the worker's undo half a kB of shell."""
    _, short, _ = railbreak("plan", held)
    _, whole, _ = railbreak("plan", held, "--full")
    dry_run = json.loads(railbreak("plan", held, "--json")[1])["plan"]

    assert max(map(len, short.splitlines())) < 700
    (undo,) = [line for line in short.splitlines() if " undo " in line]
    assert "end the workers of the table" in undo
    assert re.search(r"… \d+ characters more' railbreak railbreak_packet_fault_", undo), undo
    assert len(undo) < 250
    (table,) = [line for line in short.splitlines() if "its table:" in line]
    shown, more = re.search(r"mod 10000 \{ (.*), … (\d+) more \}", table).groups()
    (listed,) = re.findall(r"mod 10000 \{ (.*?) \}", whole)
    assert listed.startswith(shown)
    assert len(listed.split(", ")) == len(shown.split(", ")) + int(more)
    assert "cut short  2 lines; whole with --full" in short
    assert whole.splitlines()[: len(dry_run)] == dry_run, "what is done is what is said"
    assert "cut short" not in whole


def test_a_run_on_nothing_is_refused_before_it_promises(railbreak, tmp_path):
    status, out, err = railbreak("run", "placebo", "--on", "lab9")

    assert (status, out) == (5, "")
    assert "no fabric 'lab9' is running" in err
    assert list(tmp_path.iterdir()) == []


def test_words_are_typed_by_the_fault_itself():
    load_registry()
    given = ["link=a--b", "roce=yes", "share=10%", "seed=7"]

    assert fields_from(FAULTS["packet_loss"], given) == {
        "link": "a--b",
        "roce": True,
        "share": "10%",
        "seed": 7,
    }
    with pytest.raises(SpecError, match="true or false expected, got 'maybe'"):
        fields_from(FAULTS["packet_loss"], ["roce=maybe"])


@pytest.fixture
def stopped(railbreak, tmp_path):
    """A journal of a stopped process that nobody holds any more, and the process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    where = Where(pid=process.pid, started=process_state(process.pid)[1])
    journal = Journal(tmp_path / "state" / "lab" / "journal.jsonl")
    change = ProcessSignal(Place("host1", process="rank0"), "STOP")
    cure = f"kill -CONT {process.pid}"
    journal.intended("1", change, where, saved={}, cure=cure, owner=(process.pid, 1))
    journal.note("in_force", "1")
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    yield journal.path
    journal.close()
    process.kill()
    process.communicate()


ENDINGS = [
    pytest.param({"side_effect": KeyboardInterrupt}, id="unwound"),
    pytest.param({"return_value": 130}, id="as a status"),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_is_told_after_a_look_at_the_machine(railbreak, monkeypatch, ending):
    monkeypatch.setattr("chaos.cli.app.app", Mock(**ending))

    assert railbreak("run") == (130, "", "interrupted; nothing is left in force\n")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_that_left_something_names_it_with_its_cure(
    railbreak, monkeypatch, stopped, ending
):
    monkeypatch.setattr("chaos.cli.app.app", Mock(**ending))
    status, _, err = railbreak("run")

    assert status == 8
    assert "STILL IN FORCE: host1/rank0: SIGSTOP" in err
    assert "cure: kill -CONT" in err
    assert "nothing is left" not in err


def test_an_interrupt_with_an_unreadable_journal_claims_nothing(railbreak, monkeypatch, stopped):
    stopped.write_text("no journal\n" * 2)
    monkeypatch.setattr("chaos.cli.app.app", Mock(side_effect=KeyboardInterrupt))
    status, _, err = railbreak("run")

    assert status == 8
    assert "cannot be told" in err


def test_no_is_no_and_nothing_is_forgotten(railbreak, monkeypatch, stopped):
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    status, out, err = railbreak("forget", str(stopped))

    assert (status, "forgotten" in out, "interrupted" in err) == (130, False, False)
    assert "nothing was changed" in err
    assert len(open_changes(stopped)) == 1


def test_status_and_undo_tell_the_same_story(railbreak, stopped):
    """What `status` says is in force, with its cure, `undo` takes back."""
    status, out, _ = railbreak("status", "--json")
    (found,) = json.loads(out)["in_force"]

    assert (status, found["text"], found["held"]) == (8, "host1/rank0: SIGSTOP", False)
    assert found["cure"].startswith("kill -CONT")
    assert f"railbreak undo {stopped}" in railbreak("status")[1]
    assert "taken back: host1/rank0: SIGSTOP" in railbreak("undo", str(stopped))[1]
    assert railbreak("status")[0] == 0


SAID = {"fault": "link_down", "leftovers": [], "residue": [], "late": [], "trouble": []}


@pytest.mark.parametrize(
    ("left", "status", "sentence"),
    [
        ({}, 0, ""),
        ({"residue": ["leaf1: route 10.0.0.0/24 is missing"]}, 8, "route 10.0.0.0/24 is missing"),
        ({"leftovers": ["leaf1:eth1: still in force; cure: ip link"]}, 8, "cure: ip link"),
    ],
    ids=["clean", "residue", "leftover"],
)
def test_inject_ends_with_what_it_left(railbreak, monkeypatch, left, status, sentence):
    """And standard output is JSON all the same."""
    monkeypatch.setattr("chaos.cli.healing.pick", lambda name: "lab")
    monkeypatch.setattr("chaos.cli.healing.drive", lambda work: work.close() or SAID | left)
    code, out, err = railbreak("inject", "lab", "link_down", "link=a--b", "--json")

    assert (code, sentence in err) == (status, True), err
    assert json.loads(out) == SAID | left


def test_a_record_kept_elsewhere_gets_its_page_among_the_runs(railbreak, tmp_path):
    """The folder of the evidence stays as it is."""
    from pathlib import Path

    kept = Path(__file__).parents[2] / "docs" / "evidence" / "placebo.json.gz"
    before = sorted(kept.parent.iterdir())
    status, out, err = railbreak("report", str(kept))

    assert status == 0, err
    assert "false alarms in placebo trials: expected at most 0, got 0 in 20" in out
    assert (tmp_path / "runs" / "placebo" / "report.html").stat().st_size > 10_000
    assert sorted(kept.parent.iterdir()) == before


def test_a_plan_says_per_change_whether_the_driver_can(railbreak, tmp_path):
    """The matrix names the reason and what to use instead, before anything is touched."""
    file = tmp_path / "stop.yaml"
    file.write_text(
        "promise: a stopped spine costs nothing\n"
        "fabric: clos-2x4x8\n"
        "fault:\n  node_stop: {node: spine1}\n"
        "probes:\n  flow: {source: host1, target: host8, rate: 1 kpps}\n"
        "objectives:\n  - {measure: flow_lost_packets, at_most: 10, because: it must}\n"
    )
    status, said, _ = railbreak("plan", str(file), "--json")
    (row,) = json.loads(said)["capabilities"]
    assert (status, row["can"]) == (0, False)
    assert "cannot stop spine1 as a whole" in row["reason"]
    assert "node_down cuts it off" in row["reason"]

    status, said, told = railbreak("run", str(file))
    assert status == 4
    assert "cannot stop spine1 as a whole" in told
    assert not list(tmp_path.glob("runs/*")), "refused before anything was made"

    _, said, _ = railbreak("plan", "remote_link_down", "--json")
    assert {row["can"] for row in json.loads(said)["capabilities"]} == {True}
