"""No input may end in a traceback: mutated files are accepted or refused in words."""

import random
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.topology import lab_json, load_lab, to_fabric

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "containerlab-cases" / "cases"
#: Trials per seed file; each takes about a millisecond.
TRIALS = 20
SPICE = (
    *("~", "[]", "{}", "null", "&a ", "*a", "<<: ", "? ", ": ", "- ", "\t", "\n", '"', "'", "|\n"),
    *("{{", "}}", "{{ . }}", "{{ end }}", "${", "}", "$A", "${A:-", ":", "%", "0x", "!!int ", "#"),
    *("\x00", "\ufeff", "\u2028", "é", "-1", "1e999", ".inf", "9" * 30, "!!binary ", "!!set "),
)  # fmt: skip


def seeds():
    """The recorded cases where they are, and the shipped and the wrong files in any case."""
    files = [*CASES.glob("*.clab.yml"), *(ROOT / "containerlab").glob("*/*.clab.yml")]
    return sorted((*files, *(ROOT / "tests" / "data" / "topologies").glob("*.clab.yml")))


def mutated(text, rng):
    """`text` with a few random cuts, copies, swaps and insertions."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        what = rng.randrange(5)
        if what == 0:
            text = text[:at] + rng.choice(SPICE) + text[at:]
        elif what == 1:
            text = text[:at] + text[at + rng.randint(1, 12) :]
        elif what == 2 and lines:
            text = text[:at] + rng.choice(lines) + text[at:]
        elif what == 3:
            end = min(len(text), at + rng.randint(1, 40))
            text = text[:end] + text[at:end] + text[end:]
        else:
            text = text[:at] + rng.choice(SPICE) + text[at + 1 :]
    return text


@pytest.mark.parametrize("seed", seeds(), ids=lambda path: path.name.removesuffix(".clab.yml"))
def test_a_mutated_file_is_read_or_refused_in_words(tmp_path, seed):
    rng = random.Random(seed.name)
    source = seed.read_bytes().decode(errors="replace")
    file = tmp_path / "mutated.clab.yml"
    for _ in range(TRIALS):
        text = mutated(source, rng)
        file.write_text(text, newline="")
        try:
            lab = load_lab(file, environ={"A": "1", "HOME": "/root"})
            lab_json(lab)
            to_fabric(lab)
        except SpecError:
            continue
        except Exception as error:  # the failure carries the text that did it
            pytest.fail(f"{type(error).__name__}: {error}\n{text}")
