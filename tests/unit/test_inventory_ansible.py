"""Ansible inventories: our reader gives what `ansible-inventory --list` gives."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.inventory import load
from chaos.inventory.ansible import from_list, read_ansible
from chaos.inventory.ansible_plain import read_plain
from chaos.inventory.settings import is_secret
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


def test_it_reaches_every_field_of_a_host():
    found = load(DATA / "ansible" / "29_full.yml", tool="")
    leaf, spine, gpu = (found.hosts[name] for name in ("leaf2", "spine1", "gpu1"))

    assert (leaf.role, leaf.platform, leaf.user) == ("leaf", "arista.eos.eos", "ops")
    assert (leaf.become, leaf.become_method) == (True, "enable")
    assert leaf.connection == "ansible.netcommon.network_cli"
    assert leaf.interface("eth3") == "Ethernet3"
    assert leaf.twin_port("Ethernet3") == "eth3"
    assert (spine.address, spine.port, spine.interface("eth3")) == ("192.0.2.21", 2022, "Ethernet8")
    assert (gpu.role, gpu.python, gpu.hardware) == ("host", "/opt/py/bin/python3", "node-31")
    assert gpu.rails == {"eth1": "0", "eth2": "1"}
    assert gpu.ssh_args[:2] == ("-o", "ProxyJump=bastion.example.com")
    assert gpu.ssh_args[3] == "UserKnownHostsFile=/tmp/known hosts"
    assert str(gpu.source).endswith("29_full.yml:31")


def test_no_secret_is_kept_and_its_presence_is_told():
    found = load(DATA / "ansible" / "22_secrets.yml", tool="")
    (host,) = found.hosts.values()

    assert host.secrets == ("ansible_become_pass", "ansible_password", "api_token")
    assert "ansible_password" in found.warnings[0]
    assert "not used" in found.warnings[0]
    assert host.key_file == "~/.ssh/lab_ed25519"
    assert host.vars == {"deep": {"kept": 1}}
    for text in ("not-to-be-kept", "nor-this", "nor-that"):
        assert text not in repr(found)


@pytest.mark.parametrize("system", ["sonic", ""])
def test_where_the_password_of_a_switch_comes_from_is_told(tmp_path, system):
    """Of a host none is ever used."""
    path = tmp_path / "h.yml"
    known = {"ansible_network_os": system, "ansible_password": "hush"}
    path.write_text(f"all: {{hosts: {{x1: {json.dumps(known)}}}}}\n")

    (warning,) = load(path, tool="").warnings

    assert ("RAILBREAK_SWITCH_PASSWORD" in warning) is bool(system)
    assert "hush" not in warning


def test_an_encrypted_value_is_no_value_unless_it_is_needed(tmp_path):
    path = tmp_path / "hosts.yml"
    path.write_text(
        "all:\n  hosts:\n    h1:\n      ansible_password: !vault |\n        $ANSIBLE_VAULT;1.1\n"
        "      other: !vault |\n        $ANSIBLE_VAULT;1.1\n"
    )
    (host,) = load(path, tool="").hosts.values()
    assert (host.secrets, host.vars) == (("ansible_password",), {})

    path.write_text("all:\n  hosts:\n    h1:\n      ansible_host: !vault |\n        x\n")
    with pytest.raises(SpecError, match=r"hosts.yml:4: h1.ansible_host: found an encrypted value"):
        load(path, tool="")


def test_a_saved_answer_of_the_tool_is_an_inventory(tmp_path):
    answer = json.loads((DATA / "recorded" / "29_full.json").read_text())["answer"]
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(answer))
    ours_, saved = load(DATA / "ansible" / "29_full.yml", tool=""), load(path)

    for name, host in ours_.hosts.items():
        other = saved.hosts[name]
        for field in ("address", "port", "user", "role", "platform", "ports", "rails", "ssh_args"):
            assert getattr(host, field) == getattr(other, field), (name, field)


def program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_tool_is_asked_where_it_is_there_and_its_warnings_are_told(tmp_path):
    """A stand-in that answers; the values are its, the lines are ours."""
    answer = {"_meta": {"hostvars": {"gpu1": {"ansible_host": "203.0.113.1"}}}}
    script = f"#!/bin/sh\necho '[WARNING]: something\n  odd' >&2\necho '{json.dumps(answer)}'\n"
    tool = program(tmp_path / "ansible-inventory", script)

    found = load(DATA / "ansible" / "01_flat.yml", tool=tool)

    assert [host.address for host in found.hosts.values()] == ["203.0.113.1"]
    assert found.hosts["gpu1"].source.line == 3
    assert found.warnings == ("ansible-inventory: something odd",)


def test_one_host_with_two_addresses_is_refused_although_the_tool_takes_one(tmp_path):
    tool = program(tmp_path / "ansible-inventory", "#!/bin/sh\necho '{\"_meta\": {}}'\n")
    path = tmp_path / "hosts.yml"
    path.write_text(
        "a: {hosts: {h1: {ansible_host: 192.0.2.1}}}\nb: {hosts: {h1: {ansible_host: 192.0.2.2}}}\n"
    )

    with pytest.raises(SpecError, match=r"yml:2: h1.ansible_host: found '192.0.2.2', but .*yml:1"):
        load(path, tool=tool)


def test_what_the_tool_refuses_is_refused_with_its_words(tmp_path):
    script = "#!/bin/sh\necho '[WARNING]: w' >&2\necho 'ERROR! no such\n  thing.' >&2\nexit 4\n"
    tool = program(tmp_path / "ansible-inventory", script)

    with pytest.raises(
        SpecError, match=r"01_flat.yml: ansible-inventory refuses it: no such thing"
    ):
        load(DATA / "ansible" / "01_flat.yml", tool=tool)


@pytest.mark.skipif(not TOOL, reason=NO_TOOL)
def test_ini_is_read_by_the_installed_tool(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("[leafs]\nleaf[1:2] ansible_user=ops\n[leafs:vars]\nansible_port=2222\n")
    found = load(path, tool=TOOL)

    assert [(host.name, host.role, host.port) for host in found.hosts.values()] == [
        ("leaf1", "leaf", 2222),
        ("leaf2", "leaf", 2222),
    ]
    assert found.hosts["leaf1"].source.line == 2


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("ansible_password", True),
        ("ansible_ssh_pass", True),
        ("ansible_become_password", True),
        ("ansible_ssh_private_key_passphrase", True),
        ("ansible_ssh_private_key", True),
        ("vault_token", True),
        ("snmp_community", True),
        ("ansible_ssh_private_key_file", False),
        ("passive_interfaces", False),
        ("ansible_user", False),
    ],
)
def test_names_of_secrets(name, secret):
    assert is_secret(name) is secret
