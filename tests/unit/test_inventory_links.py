"""Cables: twins, tables, names and port aliases; merged, with where they were read; → Fabric."""

import json

import pytest

from chaos.errors import SpecError
from chaos.fabric import Port
from chaos.inventory import Cable, Source, from_json, load, merge, read_names, to_fabric, to_json
from chaos.inventory.roles import ROLE_WORDS
from chaos.inventory.ssh_words import read_ssh_words
from chaos.inventory.tree import parse_json
from chaos.topology import load as load_topology
from chaos.topology import load_lab
from chaos.topology.fabric import _ROLE_WORDS

HOSTS = """\
all:
  vars:
    ansible_user: ops
  children:
    leafs:
      vars:
        ansible_network_os: sonic
        ansible_become: true
        railbreak: {ports: {"eth[1:4]": "Ethernet[0:12:4]"}}
      hosts:
        dc1-leaf1: {ansible_host: 192.0.2.1}
    gpus:
      hosts:
        gpu1: {ansible_host: 192.0.2.2, railbreak: {hw-host: node-31, rails: {eth1: 0}}}
        gpu2: {ansible_host: 192.0.2.3, railbreak: {rail: 4}}
"""
TWIN = """\
name: real
topology:
  nodes:
    leaf1: {kind: linux, labels: {hw-host: dc1-leaf1}}
    node-31: {kind: linux}
    gpu2: {kind: linux}
    spine1: {kind: linux, labels: {hw-host: none}}
  links:
    - endpoints: ["leaf1:eth1", "node-31:eth1"]
    - endpoints: ["leaf1:eth2", "gpu2:eth1"]
      vars: {speed: 100000, note: short}
    - endpoints: ["leaf1:eth4", "spine1:eth1"]
    - endpoints: ["gpu2:eth9", "host:br0"]
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "hosts.yml").write_text(HOSTS)
    (tmp_path / "twin.clab.yml").write_text(TWIN)
    return tmp_path


def test_a_twin_speaks_of_the_inventory_s_hosts_and_interfaces(files):
    """By name, by the label hw-host, by what the box calls itself; ports by their alias."""
    found = load(files / "hosts.yml", [files / "twin.clab.yml"], tool="")

    assert [str(cable) for cable in found.cables] == [
        "dc1-leaf1:Ethernet0--gpu1:eth1",
        "dc1-leaf1:Ethernet4--gpu2:eth1",
        "dc1-leaf1:Ethernet12--spine1:eth1",
    ]
    assert [cable.sources[0].line for cable in found.cables] == [9, 10, 12]
    assert (found.cables[1].speed_mbps, found.cables[1].vars) == (100000, {"note": "short"})
    assert found.warnings == (f"{files}/twin.clab.yml:13: a host link is no cable; left out",)


def test_the_fabric_has_the_twin_s_names_so_one_experiment_fits_both(files):
    found = load(files / "hosts.yml", [files / "twin.clab.yml"], tool="")
    fabric, twin = to_fabric(found), load_lab(files / "twin.clab.yml")

    assert fabric.name == "real"
    assert set(fabric.nodes) == set(twin.nodes)
    assert [link.id for link in fabric.links] == [
        "leaf1:eth1--node-31:eth1",
        "gpu2:eth1--leaf1:eth2",
        "leaf1:eth4--spine1:eth1",
    ]
    assert fabric.links[1].vars == {"note": "short", "speed_mbps": 100000}


def test_a_node_carries_what_a_driver_needs(files):
    fabric = to_fabric(load(files / "hosts.yml", [files / "twin.clab.yml"], tool=""))
    leaf = fabric.nodes["leaf1"]

    assert (leaf.kind, leaf.role, leaf.runs, leaf.group) == ("sonic", "leaf", "sonic", "leafs")
    assert leaf.settings["ssh"] == {
        "name": "leaf1",
        "host": "dc1-leaf1",
        "address": "192.0.2.1",
        "port": 0,
        "user": "ops",
        "key_file": "",
        "known_hosts": "",
        "ssh_config": "",
        "jump": "",
        "become": "sudo",
        "become_user": "",
        "platform": "sonic",
        "connection": "",
        "python": "",
        "torch": "",
        "ports": {f"eth{n}": f"Ethernet{4 * (n - 1)}" for n in (1, 2, 3, 4)},
        "rails": {},
        "secrets": [],
    }
    assert fabric.nodes["node-31"].settings["ssh"]["rails"] == {"eth1": "0"}
    assert fabric.nodes["gpu2"].labels == {"rail": "4"}
    assert fabric.nodes["spine1"].settings == {}, "nobody logs in to it"
    json.dumps([dict(node.settings) for node in fabric.nodes.values()])


def test_a_fabric_of_a_shipped_twin_has_the_same_links(tmp_path):
    """Every link id of an experiment on the embedded fabric names the same cable of hardware."""
    twin = load_topology("rails-2x4")
    (tmp_path / "hosts.yml").write_text(
        "all:\n  hosts:\n" + "".join(f"    {name}: \n" for name in twin.nodes)
    )
    fabric = to_fabric(load(tmp_path / "hosts.yml", [load_lab("rails-2x4").file], tool=""))

    assert sorted(link.id for link in fabric.links) == sorted(link.id for link in twin.links)
    assert {n: node.role for n, node in fabric.nodes.items()} == {
        n: node.role for n, node in twin.nodes.items()
    }


def test_a_mapping_file_names_hosts_and_nobody(files):
    (files / "names.yml").write_text("tor: dc1-leaf1\nfanout: none\n")
    (files / "l.csv").write_text(
        "StartDevice,StartPort,EndDevice,EndPort\ntor,eth1,gpu2,eth1\ntor,eth2,fanout,Et1\n"
    )
    named = read_names(files / "names.yml")
    found = load(files / "hosts.yml", [files / "l.csv"], named=named, tool="")

    assert [str(cable) for cable in found.cables] == [
        "dc1-leaf1:Ethernet0--gpu2:eth1",
        "dc1-leaf1:Ethernet4--fanout:Et1",
    ]
    assert found.hosts["fanout"].address == ""


def test_a_table_of_sonic_mgmt_with_bom_crlf_blanks_and_remarks(files):
    rows = (
        "\ufeffStartDevice, StartPort ,EndDevice,EndPort,BandWidth,VlanID,VlanMode,AutoNeg\r\n"
        "# spare row\r\n\r\n"
        'dc1-leaf1,Ethernet0,"gpu1", eth1,40000,1711,Access,on\r\n'
        "dc1-leaf1,Ethernet4,gpu2,eth1,,,,\r\n"
    )
    (files / "l.csv").write_bytes(rows.encode())
    found = load(files / "hosts.yml", [files / "l.csv"], tool="")

    assert [(str(one), one.speed_mbps, one.vars) for one in found.cables] == [
        (
            "dc1-leaf1:Ethernet0--gpu1:eth1",
            40000,
            {"VlanID": "1711", "VlanMode": "Access", "AutoNeg": "on"},
        ),
        ("dc1-leaf1:Ethernet4--gpu2:eth1", 0, {}),
    ]
    assert [one.sources[0].line for one in found.cables] == [4, 5]


def test_sources_that_agree_are_one_cable_with_both_places(files):
    (files / "l.csv").write_text(
        "StartDevice,StartPort,EndDevice,EndPort,BandWidth\n"
        "gpu1,eth1,dc1-leaf1,Ethernet0,100000\ngpu1,eth2,dc1-leaf1,Ethernet8,100000\n"
    )
    found = load(files / "hosts.yml", [files / "twin.clab.yml", files / "l.csv"], tool="")

    assert len(found.cables) == 4
    assert [source.line for source in found.cables[0].sources] == [9, 2]
    assert found.cables[0].speed_mbps == 100000


def test_merging_is_the_same_whichever_comes_first():
    one = Cable(Port("a", "e1"), Port("b", "e1"), speed_mbps=5, sources=(Source("x", 1),))
    other = Cable(Port("a", "e1"), Port("b", "e1"), macs=("", "m"), sources=(Source("y", 2),))

    for made in (merge([one], [other]), merge([other], [one])):
        assert (made[0].speed_mbps, made[0].macs, len(made[0].sources)) == (5, ("", "m"), 2)


def test_an_inventory_is_json_and_back(files):
    found = load(files / "hosts.yml", [files / "twin.clab.yml"], tool="")
    text = json.dumps(to_json(found))

    assert from_json(parse_json(text, "x.json")) == found
    (files / "saved.json").write_text(text)
    assert load(files / "saved.json") == found


def test_our_json_with_a_word_too_many_is_refused(files):
    body = to_json(load(files / "hosts.yml", tool=""))
    body["hosts"]["gpu1"] |= {"password": "x"}

    with pytest.raises(SpecError, match=r"hosts.gpu1.password: found the unknown field 'password'"):
        from_json(parse_json(json.dumps(body), "x.json"))


def test_roles_are_said_in_the_same_words_as_in_topologies():
    assert dict(ROLE_WORDS) == dict(_ROLE_WORDS)


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["leafs"], "leaf"),
        (["leaves", "switches"], "leaf"),
        (["dc1_spines"], "spine"),
        (["superspine"], "superspine"),
        (["tors"], "leaf"),
        (["gpu"], "host"),
        (["gpu", "servers"], "host"),
        (["routers"], "router"),
        (["rack7"], "host"),
    ],
)
def test_groups_give_roles(tmp_path, groups, role):
    (tmp_path / "h.yml").write_text("".join(f"{group}: {{hosts: {{x1: }}}}\n" for group in groups))

    assert load(tmp_path / "h.yml", tool="").hosts["x1"].role == role


def test_a_map_of_roles_comes_before_the_known_words(tmp_path):
    (tmp_path / "h.yml").write_text("leafs: {hosts: {x1: }}\npod: {hosts: {x1: }}\n")

    assert load(tmp_path / "h.yml", roles={"pod": "spine"}, tool="").hosts["x1"].role == "spine"


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["-J", "a,b"], "jump", "a,b"),
        (["-oProxyJump=a"], "jump", "a"),
        (["-o", "ProxyJump a"], "jump", "a"),
        (["-qC", "-p2222"], "port", "2222"),
        (["-o", "User=x", "-l", "y"], "user", "x"),
        (["-F", "/f", "-i", "/k"], "ssh_config", "/f"),
        (["-i", "/k"], "key_file", "/k"),
        (["-o", "ProxyCommand=nc %h"], "ignored", ("-o ProxyCommand=nc %h",)),
        (["-o", "ServerAliveInterval=5", "-4"], "ignored", ()),
        (["stray"], "ignored", ("stray",)),
    ],
)
def test_words_of_ssh(words, field, value):
    assert getattr(read_ssh_words(words), field) == value


def test_words_of_ssh_that_are_not_followed_are_told(tmp_path):
    path = tmp_path / "h.yml"
    path.write_text(
        "all:\n  vars: {ansible_ssh_common_args: -o StrictHostKeyChecking=no -J bastion}\n"
        "  hosts: {h1: , h2: }\n"
    )
    found = load(path, tool="")

    assert found.warnings == (
        f"{path}: -o StrictHostKeyChecking=no of h1 and 1 more is not followed; "
        "host keys are checked",
    )
    assert to_fabric(found).nodes["h1"].settings["ssh"]["jump"] == "bastion"
