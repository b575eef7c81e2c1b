"""Nornir's SimpleInventory: our reader gives what Nornir itself gives."""

import json
from pathlib import Path

import pytest

from chaos.inventory import load

DATA = Path(__file__).parents[1] / "data" / "inventory" / "nornir"
FOLDERS = sorted(path for path in DATA.iterdir() if path.is_dir())


def same(host, told):
    """Whether a host is what Nornir told of it."""
    assert host.address == (told["hostname"] or host.name)
    assert host.port == (told["port"] or 0)
    assert host.user == (told["username"] or "")
    assert host.platform == (told["platform"] or "")
    assert host.connection == told["kind"]
    assert list(host.groups) == told["groups"]
    assert host.key_file == told["extras"].get("key_file", "")
    assert {key: one for key, one in host.vars.items() if not key.startswith("ansible")} == told[
        "data"
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_our_reader_answers_as_the_recorded_nornir_did(folder):
    recorded = json.loads((DATA / f"{folder.name}.json").read_text())
    hosts = load(folder / "hosts.yaml").hosts

    assert recorded["tool"].startswith("nornir 3.")
    assert hosts.keys() == recorded["answer"].keys()
    for name, host in hosts.items():
        same(host, recorded["answer"][name])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_our_reader_answers_as_the_installed_nornir_does(folder):
    simple = pytest.importorskip(
        "nornir.plugins.inventory.simple", reason="nornir is not installed (pip install nornir)"
    )
    files = [str(folder / f"{word}.yaml") for word in ("hosts", "groups", "defaults")]
    real = simple.SimpleInventory(*files).load().hosts
    hosts = load(folder / "hosts.yaml").hosts

    assert hosts.keys() == real.keys()
    for name, host in hosts.items():
        told = real[name].get_connection_parameters(host.connection) if host.connection else None
        told = told or real[name]
        assert (host.address, host.port, host.user, host.platform) == (
            told.hostname or name,
            told.port or 0,
            told.username or "",
            told.platform or "",
        )
        assert list(host.groups) == [group.name for group in real[name].extended_groups()]


def test_a_group_that_no_file_defines_is_a_bare_name(tmp_path):
    """Nornir itself stops with a KeyError; Containerlab writes such files."""
    path = tmp_path / "hosts.yaml"
    path.write_text("a1:\n  hostname: 192.0.2.1\n  groups: [spines]\n")
    found = load(path)

    assert found.hosts["a1"].role == "spine"
    assert "no file defines the group spines" in found.warnings[0]


def test_passwords_are_not_read():
    found = load(DATA / "connections" / "hosts.yaml")

    assert found.hosts["leaf1"].secrets == ("ansible_password",)
    assert "not-to-be-kept" not in repr(found)
    assert "not used" in found.warnings[0]


def test_our_settings_lie_under_data(tmp_path):
    (tmp_path / "hosts.yaml").write_text("sw1:\n  groups: [sonic]\n  hostname: 192.0.2.1\n")
    (tmp_path / "groups.yaml").write_text(
        "sonic:\n  platform: sonic\n  data:\n    railbreak:\n      role: leaf\n"
        '      ports: {"eth[1:2]": "Ethernet[0:4:4]"}\n'
    )
    host = load(tmp_path).hosts["sw1"]

    assert (host.role, host.interface("eth2")) == ("leaf", "Ethernet4")
