"""`railbreak fabric verify`: exit statuses, table, JSON, misuse."""

import json
import re
import sys
from pathlib import Path

import pytest

from chaos.cli import main
from chaos.inventory import load, to_fabric
from chaos.inventory.settings import FIELDS

DATA = Path(__file__).parents[1] / "data" / "inventory"
LLDP = DATA / "lldp"


@pytest.fixture
def verify(monkeypatch, capsys, tmp_path):
    """`verify("x", …)` -> exit status, stdout, stderr; in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["railbreak", "fabric", "verify", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as ending:
            status = ending.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_equal_is_0_differing_is_1_not_judged_is_2(verify, tmp_path):
    assert verify("rails-2x4", "--lldp", LLDP / "rails")[0] == 0
    assert verify("rails-2x4", "--lldp", LLDP / "rails-swapped")[0] == 1
    assert verify("rails-2x4", "--lldp", LLDP / "rails" / "host1.json")[0] == 2


def test_a_swap_is_one_row_and_one_sentence(verify):
    _, said, _ = verify("rails-2x4", "--lldp", LLDP / "rails-swapped")
    lines = said.splitlines()

    assert lines[0].split() == ["difference", "declared", "plugged"]
    assert lines[1].split() == ["swapped", "host1:eth1--leaf1:eth1", "host1:eth1--leaf1:eth2"]
    assert lines[2].split() == ["host2:eth1--leaf1:eth2", "host2:eth1--leaf1:eth1"]
    assert lines[3].startswith("swapped: two cables are exchanged: ")
    assert lines[4] == (
        "differs rails-2x4: 6 of 8 declared cables are plugged as declared, 0 not judged; "
        "6 of 6 hosts asked"
    )


def test_json_for_programs(verify):
    status, said, _ = verify("rails-2x4", "--lldp", LLDP / "rails-swapped", "--json")
    body = json.loads(said)

    assert (status, body["equal"], body["declared"], body["confirmed"]) == (1, False, 8, 6)
    (one,) = body["differences"]
    assert (one["kind"], one["where"][0]) == ("swapped", "host1:eth1")


def test_an_inventory_with_links(verify, tmp_path):
    """The hosts' names are not the nodes'; lldpd tells the nodes'."""
    names = ("leaf1", "leaf2", "host1", "host2", "host3", "host4")
    hosts = "".join(f"    dc1-{name}: {{railbreak: {{hw-host: {name}}}}}\n" for name in names)
    (tmp_path / "hosts.yml").write_text(f"all:\n  hosts:\n{hosts}")
    twin = Path(__file__).parents[2] / "containerlab" / "rails-2x4" / "rails-2x4.clab.yml"

    status, said, _ = verify("hosts.yml", "--links", twin, "--lldp", LLDP / "rails")
    assert status == 0
    assert "equal rails-2x4: 8 of 8" in said


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["no-such"], 3, "found no file 'no-such' and no shipped fabric of that name"),
        (["rails-2x4"], 5, "name the fabric with --on; nothing is up"),
        (["rails-2x4", "--on", "lab9"], 5, "no fabric 'lab9' is running"),
        (["rails-2x4", "--lldp", "nowhere"], 3, "nowhere: cannot be read: no such file"),
        (["rails-2x4", "--lldp", "."], 3, ".: found no HOST.json in the folder"),
        (["rails-2x4", "--links", "x.csv"], 3, "--links, --names and --role go with an inventory"),
        (["h.yml", "--lldp", "."], 3, "h.yml: found no cable; name a *.clab.yml or a CSV"),
        (
            ["h.yml", "--role", "leafs", "--lldp", "."],
            3,
            "--role: found 'leafs', wanted GROUP=ROLE",
        ),
        (["h.yml", "--form", "x", "--lldp", "."], 3, "found the form 'x'; "),
    ],
)
def test_misuse_is_one_sentence(verify, tmp_path, words, status, sentence):
    (tmp_path / "h.yml").write_text("all: {hosts: {h1: }}\n")
    got, out, err = verify(*words)

    assert (got, out) == (status, "")
    assert sentence in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_one_host_twice_is_refused(verify):
    same = LLDP / "rails" / "host1.json"
    status, _, err = verify("rails-2x4", "--lldp", LLDP / "rails", "--lldp", same)

    assert status == 3
    assert "found a second output of host1; give one each" in err


def test_the_examples_of_the_page_are_read(verify, tmp_path):
    """The files of docs/inventory.md, as they stand there."""
    page = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text()
    hosts, twin = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (table,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    for name, text in (("hosts.yml", hosts), ("fabric.clab.yml", twin), ("links.csv", table)):
        (tmp_path / name).write_text(text)

    found = load(
        tmp_path / "hosts.yml", [tmp_path / "fabric.clab.yml", tmp_path / "links.csv"], tool=""
    )
    fabric = to_fabric(found)
    assert [link.id for link in fabric.links] == [
        "gpu1:eth1--leaf1:eth1",
        "gpu1:eth2--leaf2:eth1",
        "gpu2:eth1--leaf1:eth2",
        "leaf1:eth4--spine1:eth1",
    ]
    assert len(found.cables[0].sources) == 2
    assert fabric.nodes["gpu2"].settings["ssh"]["host"] == "dc1-r7-u12"
    assert {node.role for node in fabric.nodes.values()} == {"leaf", "host", "spine"}


def test_the_page_names_every_setting_form_and_difference():
    page = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text()
    source = (Path(__file__).parents[2] / "chaos" / "inventory" / "verify.py").read_text()
    kinds = set(re.findall(r'self\.say\(\s*"([a-z-]+)"', source))

    assert len(kinds) == 9
    for word in (*FIELDS, *kinds):
        assert f"`{word}`" in page
