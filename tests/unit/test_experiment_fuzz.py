"""No text whatever makes the experiment reader do anything but read or refuse with a sentence."""

import random
from pathlib import Path

import pytest
import yaml

from chaos.errors import SpecError
from chaos.experiment import Experiment, loads

DATA = Path(__file__).parent.parent / "data" / "experiments"
SEEDS = [path.read_text() for path in sorted(DATA.glob("*.yaml")) if path.stem != "latin1"]
TOKENS = (
    *("{}", "[]", "{", "}", "[", "]", ":", ": ", "- ", "\n", "\n  ", "#", "&a ", "*a", "!!int "),
    *("!x ", "? ", "| ", "> ", "'", '"', "\\", "\t", "\0", "\ud7ff", "\x85", "é", "%", "---\n"),
    *(
        "null",
        "true",
        "no",
        "0",
        "-1",
        "1e999",
        "9" * 5000,
        ".5",
        "1.5.2",
        "2 s",
        "-1 s",
        "1e400 s",
    ),
    *(
        "1e-400 s",
        "nan",
        "inf",
        "0x10",
        "<<",
        "in-use",
        "in-use a--b",
        "host1",
        "link",
        "flow/",
        "/",
    ),
    *("flow/a/b", "storm", "from", "exposed", "none", "share", "200 %", "0 %", "because", "[[[[[["),
)


def mutated(rng):
    """One of the example files with a few tokens cut, copied, moved or put in."""
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((0, 1, 3, 10, 40)))
        text = text[:at] + rng.choice((rng.choice(TOKENS), "", text[at:end] * 2)) + text[end:]
    return text


VALUES = (
    *(None, True, False, 0, -1, 7, 10**400, 1.5, -0.5, "", "x", "none", "in-use", "in-use x--y"),
    *("flow", "2 s", "0 s", "1e400 s", "200 %", "0 %", "carrier", "near", "host1", "a/b", "\u2028"),
    *([], ["x"], [None], [[]], {}, {"from": 1}, {"from": "2 s", "to": "1 s"}, {"x": {"y": []}}),
)


def stirred(rng):
    """The right file with a few of its values and keys replaced: still YAML, seldom right."""
    tree = yaml.safe_load((DATA / "right.yaml").read_text())
    for _ in range(rng.randint(1, 3)):
        at = tree
        while True:
            key = rng.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not at[key] or not isinstance(at[key], dict | list) or rng.random() < 0.2:
                break
            at = at[key]
        value = rng.choice(VALUES)
        if isinstance(at, dict) and rng.random() < 0.3:
            key = rng.choice(("fault", "storm", "exposed", "share", "within", "hosts", "mode", "3"))
        at[key] = value
        tree = tree if tree else {"promise": value}
    return yaml.safe_dump(tree, allow_unicode=True)


@pytest.mark.parametrize("make", [mutated, stirred])
def test_read_or_refused(make):
    rng = random.Random(2024)
    refused = 0
    for _ in range(120):
        text = make(rng)
        try:
            assert isinstance(loads(text, "e.yaml"), Experiment)
        except SpecError as error:
            refusal, refused = error, refused + 1
        else:
            continue
        assert refusal.file == "e.yaml", text
        assert "\n" not in str(refusal), text
    assert refused > 60, "too little was broken"
