"""Ansible inventories: our reader gives what `ansible-inventory --list` gives."""

import json
import os
import shutil
from pathlib import Path

import pytest

from chaos.inventory.ansible import from_list, read_ansible
from chaos.inventory.ansible_plain import read_plain
from chaos.inventory.tree import parse_json

DATA = Path(__file__).parents[1] / "data" / "inventory"
FILES = sorted((DATA / "ansible").iterdir())
TOOL = os.environ.get("ANSIBLE_INVENTORY_TOOL") or shutil.which("ansible-inventory") or ""
NO_TOOL = "" if TOOL else "ansible-inventory is not installed (pip install ansible-core)"


def inventory(path):
    return path / "hosts.yml" if path.is_dir() else path


def answered(answer):
    """Variables and groups per host, as the tool's answer gives them."""
    raws, _ = from_list((parse_json(json.dumps(answer), "recorded"), ()))
    return {raw.name: (dict(raw.vars), set(raw.groups)) for raw in raws}


def ours(path):
    return {name: (dict(raw.vars), set(raw.groups)) for name, raw in read_plain(path).hosts.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_reader_answers_as_the_recorded_tool_did(path):
    recorded = json.loads((DATA / "recorded" / f"{path.stem}.json").read_text())

    assert recorded["tool"].startswith("ansible-inventory [core ")
    assert ours(inventory(path)) == answered(recorded["answer"])


@pytest.mark.skipif(not TOOL, reason=NO_TOOL)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_reader_answers_as_the_installed_tool_does(path):
    raws, _ = read_ansible(inventory(path), TOOL)

    assert ours(inventory(path)) == {raw.name: (dict(raw.vars), set(raw.groups)) for raw in raws}


def test_there_are_answers_for_every_file_and_no_others():
    recorded = {path.stem for path in (DATA / "recorded").iterdir()}

    assert recorded == {path.stem for path in FILES}
    assert len(FILES) >= 20
