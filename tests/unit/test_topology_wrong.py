"""One wrong topology file per mistake, and the whole sentence that its author reads."""

from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.topology import find, load

FOLDER = Path(__file__).resolve().parents[1] / "data" / "topologies"
FILES = sorted(FOLDER.glob("*.clab.yml"))


def test_there_are_enough_and_each_has_its_sentence():
    assert len(FILES) >= 18
    names = [file.name.removesuffix(".clab.yml") for file in FILES]
    assert sorted(file.stem for file in FOLDER.glob("*.txt")) == names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".clab.yml"))
def test_the_refusal_says_file_line_field_found_and_wanted(file):
    expected = file.with_name(file.name.replace(".clab.yml", ".txt")).read_text().rstrip("\n")

    with pytest.raises(SpecError) as refusal:
        load(str(file), environ={})

    assert str(refusal.value).replace(f"{FOLDER}/", "") == expected
    assert refusal.value.file == str(file)


def test_a_name_that_is_nothing_offers_the_shipped_ones():
    with pytest.raises(SpecError, match="no shipped fabric of that name; did you mean pair"):
        load("pairs")


def test_a_folder_with_several_topologies_wants_one_named(tmp_path):
    for name in ("a.clab.yml", "b.clab.yaml"):
        (tmp_path / name).write_text("name: x\n")

    with pytest.raises(SpecError, match=r"found a\.clab\.yml, b\.clab\.yaml; name the file"):
        find(str(tmp_path))


def test_a_file_without_permission_or_a_huge_one_is_a_sentence(tmp_path):
    huge = tmp_path / "huge.clab.yml"
    with huge.open("wb") as file:
        file.truncate(2**30)

    with pytest.raises(SpecError, match="found more than 16000000 bytes"):
        load(str(huge))


@pytest.mark.parametrize(
    "text",
    [
        "name: x\ntopology: &a\n  nodes: *a\n",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
                  for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "name: x\ntopology: {nodes: {n: {kind: linux, config: {vars: {v: *i}}}}}\n",
        "name: x\ntopology: " + "[" * 5000,
        "name: x\ntopology: " + "{a: " * 500 + "}" * 500,
        "{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}",
        "{{ range seq 100000 }}{{ range seq 100000 }}x{{ end }}{{ end }}",
        "{{ printf \"%999999999d\" 1 }}",
        "{{ range seq 1 999999999999 }}x{{ end }}",
        "\x00\x01",
        "{{ \"\\q\" }}",
        "name: !!python/object:os.system x\ntopology: {nodes: {a: }}\n",
    ],
    ids=["own-alias", "alias-bomb", "deep-list", "deep-map", "endless-template", "endless-range",
         "wide-printf", "long-seq", "control", "escape", "python-tag"],
)  # fmt: skip
def test_a_hostile_file_is_refused_quickly_and_in_words(tmp_path, text):
    file = tmp_path / "hostile.clab.yml"
    file.write_text(text)

    with pytest.raises(SpecError) as refusal:
        load(str(file), environ={})

    assert str(refusal.value).startswith(str(file))
