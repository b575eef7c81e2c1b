"""The command line refuses in one sentence, with its own exit status, and never a traceback."""

import json
import sys

import pytest

from chaos.cli import main
from chaos.cli.words import fields_from
from chaos.errors import SpecError
from chaos.registry import FAULTS
from chaos.registry import load as load_registry


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
        (["inject", "pair", "link_down", "link=a", "--for", "5"], 3, "a time expected"),
        (["inject", "pair", "link_down", "link=a", "--for", "0s"], 3, "--for must be above 0"),
        (["inject", "pair", "rank_stop", "rank=two"], 3, "a whole number expected, got 'two'"),
        (["inject", "pair", "link_down", "link=host1--router1"], 5, "railbreak up pair"),
        (["report", "no-such-run"], 3, "no run 'no-such-run'"),
        (["undo"], 3, "name journals, or give --all"),
        (["undo", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["run", "placebo", "--trials", "0"], 3, "--trials"),
        (["run", "placebo", "--calm-load", "lots"], 3, "a share expected"),
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
