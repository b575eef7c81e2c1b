"""Misuse of inventories and link files: one sentence with file, line, field, found and wanted."""

import re
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.inventory import load, read_heard, read_names, to_fabric

TWO = "all:\n  hosts:\n    leaf1: {ansible_host: 192.0.2.1}\n    gpu1: {ansible_host: 192.0.2.2}\n"

#: name: (file name, content, the sentence without the folder)
INVENTORIES = {
    "empty": ("hosts.yml", "", "hosts.yml:1: found 0 bytes, wanted an inventory"),
    "only blanks": ("hosts.yml", " \n\n", "hosts.yml:1: found only blanks, wanted an inventory"),
    "only comments": ("hosts.yml", "# x\n", "hosts.yml:1: found only comments, wanted an inventor"),
    "not text": (
        "hosts.yml",
        b"all:\n  \xff: 1\n",
        "hosts.yml:2: found the byte 0xff, wanted text",
    ),
    "a tab": ("hosts.yml", "all:\n\thosts:\n", "hosts.yml:2: found text that is not YAML: "),
    "a list": ("hosts.yml", "- leaf1\n", "hosts.yml:1: found a list, wanted an inventory"),
    "a topology": (
        "hosts.yml",
        "name: x\ntopology: {nodes: {}}\n",
        "hosts.yml:2: topology: found a topology, wanted an inventory of hosts; give it as --links",
    ),
    "neither form": (
        "hosts.yml",
        "leaf1: {address: 192.0.2.1}\n",
        "hosts.yml:1: found no word of any inventory, wanted groups with hosts, children, vars",
    ),
    "both forms": (
        "hosts.yml",
        "all: {hosts: {a: }}\nb: {hostname: 192.0.2.1}\n",
        "hosts.yml:1: found words of both Ansible and Nornir",
    ),
    "no host": ("hosts.yml", "all:\n  children:\n", "hosts.yml: found no host, wanted at least"),
    "ini": ("hosts", "[leafs]\nleaf1\n", "hosts: found an INI inventory, which needs ansible-inv"),
    "a plugin": (
        "hosts.yml",
        "plugin: netbox\nall: {}\n",
        "hosts.yml:1: plugin: found the inventory plugin 'netbox', which needs Ansible itself",
    ),
    "one host, two addresses": (
        "hosts.yml",
        "all:\n  children:\n    a: {hosts: {h1: {ansible_host: 192.0.2.1}}}\n"
        "    b: {hosts: {h1: {ansible_host: 192.0.2.2}}}\n",
        "hosts.yml:4: h1.ansible_host: found '192.0.2.2', but hosts.yml:3 gives h1 '192.0.2.1'; "
        "write it once",
    ),
    "two hosts, one address": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {ansible_host: 192.0.2.1}\n    h2: {ansible_host: 192.0.2.1}\n",
        "hosts.yml:4: h2.address: found the address 192.0.2.1, but hosts.yml:3 gives it to h1",
    ),
    "a host twice in one group": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n    h2:\n    h1:\n",
        "hosts.yml:5: all.hosts.h1: found 'h1' a second time, first in line 3; write it once",
    ),
    "groups in a circle": (
        "hosts.yml",
        "all:\n  children:\n    a: {children: {b: {children: {a: }}}}\n",
        "hosts.yml:3: all.children.a.children.b: found the group b under a, which ",
    ),
    "a group in itself": (
        "hosts.yml",
        "a:\n  hosts: {h1: }\n  children: {a: }\n",
        "hosts.yml:3: a.children.a: found the group a under itself; groups must not go in a circle",
    ),
    "hosts as a list": (
        "hosts.yml",
        "all:\n  hosts:\n    - h1\n",
        "hosts.yml:2: all.hosts: found a list, wanted a mapping (write `hosts:` and `NAME:` under",
    ),
    "variables that are none": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: 192.0.2.1\n",
        "hosts.yml:3: all.hosts.h1: found '192.0.2.1', wanted variables of h1",
    ),
    "a port of 0": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      ansible_port: 0\n",
        "hosts.yml:4: h1.ansible_port: found 0, wanted a port of 1 to 65535",
    ),
    "a port of 70000": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {ansible_port: 70000}\n",
        "hosts.yml:3: h1.ansible_port: found 70000, wanted a port of 1 to 65535",
    ),
    "a port in words": (
        "hosts.yml",
        "all:\n  vars: {ansible_port: ssh}\n  hosts: {h1: }\n",
        "hosts.yml:2: h1.ansible_port: found 'ssh', wanted a port of 1 to 65535",
    ),
    "a template": (
        "hosts.yml",
        'all:\n  hosts:\n    h1:\n      ansible_host: "{{ mgmt }}"\n',
        "hosts.yml:4: h1.ansible_host: found the template '{{ mgmt }}', which is not evaluated; wr",
    ),
    "a user that is true": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {ansible_user: yes}\n",
        "hosts.yml:3: h1.ansible_user: found true, wanted text; put it in quotes",
    ),
    "no address": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      ansible_host:\n",
        "hosts.yml:4: h1.ansible_host: found no address, wanted a name or address",
    ),
    "an address with a user": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {ansible_host: root@192.0.2.1}\n",
        "hosts.yml:3: h1.ansible_host: found 'root@192.0.2.1', wanted a name or address alone",
    ),
    "become that is neither": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {ansible_become: maybe}\n",
        "hosts.yml:3: h1.ansible_become: found 'maybe', wanted true or false",
    ),
    "an open quote": (
        "hosts.yml",
        'all:\n  hosts:\n    h1: {ansible_ssh_common_args: "-o \'x"}\n',
        'hosts.yml:3: h1.ansible_ssh_common_args: found "-o \'x", wanted words of ssh',
    ),
    "an open range": (
        "hosts.yml",
        "all:\n  hosts:\n    leaf[1:4: {}\n",
        "hosts.yml:3: all.hosts.leaf[1:4: found the host pattern 'leaf[1:4', wanted both brackets",
    ),
    "a backward range": (
        "hosts.yml",
        "all:\n  hosts:\n    leaf[4:1]:\n",
        "hosts.yml:3: all.hosts.leaf[4:1]: found the host range [4:1] in 'leaf[4:1]', wanted begin",
    ),
    "an endless range": (
        "hosts.yml",
        "all:\n  hosts:\n    leaf[1:999999]:\n",
        "hosts.yml:3: all.hosts.leaf[1:999999]: found the host pattern 'leaf[1:999999]', which is",
    ),
    "unlike widths": (
        "hosts.yml",
        "all:\n  hosts:\n    leaf[08:100]:\n",
        "hosts.yml:3: all.hosts.leaf[08:100]: found the host range [08:100] in 'leaf[08:100]', wan",
    ),
    "two roles": (
        "hosts.yml",
        "leafs: {hosts: {x1: }}\nspines: {hosts: {x1: }}\n",
        "hosts.yml:1: x1: found the roles leaf (group leafs) and spine (group spines) for x1; set",
    ),
    "our setting unknown": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      railbreak: {roles: leaf}\n",
        "hosts.yml:4: h1.railbreak.roles: found the unknown field 'roles'; did you mean",
    ),
    "our ports a list": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      railbreak: {ports: [swp1]}\n",
        "hosts.yml:4: h1.railbreak.ports: found a list, wanted a mapping such as {eth1: swp1}",
    ),
    "our port a number": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      railbreak: {ports: {eth1: 1.5}}\n",
        "hosts.yml:4: h1.railbreak.ports.eth1: found 1.5, wanted text; put it in quotes",
    ),
    "our ports unlike": (
        "hosts.yml",
        'all:\n  hosts:\n    h1:\n      railbreak: {ports: {"eth[1:4]": "swp[1:3]"}}\n',
        "hosts.yml:4: h1.railbreak.ports.eth[1:4]: found 4 ports in 'eth[1:4]' and 3 in 'swp[1:3]'",
    ),
    "two ports, one interface": (
        "hosts.yml",
        "all:\n  hosts:\n    h1:\n      railbreak: {ports: {eth1: swp1, eth2: swp1}}\n",
        "hosts.yml:4: h1.railbreak.ports: found the interface 'swp1' for two ports, wanted one",
    ),
    "a tag": (
        "hosts.yml",
        "all:\n  hosts:\n    h1: {a: !!python/name:os.system x}\n",
        "hosts.yml:3: all.hosts.h1.a: found the tag !!python/name:os.system, which is not read",
    ),
    "broken json": ("x.json", '{"all": \n', "x.json:2: found text that is not JSON: expecting"),
    "a list of the tool without hosts": (
        "x.json",
        '{"_meta": {}, "a": {"hosts": 5}}',
        "x.json:1: a.hosts: found 5, wanted a list",
    ),
    "json with a key twice": (
        "x.json",
        '{"all": {}, "all": {}}',
        "x.json: found 'all' twice in one",
    ),
    "our json of the future": (
        "x.json",
        '{"railbreak-inventory": 99}',
        "x.json:1: railbreak-inventory: found version 99, wanted 1; write it again",
    ),
    "nornir with an unknown word": (
        "hosts.yaml",
        "h1:\n  hostname: 192.0.2.1\n  user: root\n",
        "hosts.yaml:3: h1.user: found the unknown field 'user', wanted connection_options, data, ",
    ),
    "nornir groups as text": (
        "hosts.yaml",
        "h1:\n  hostname: 192.0.2.1\n  groups: leafs\n",
        "hosts.yaml:3: h1.groups: found 'leafs', wanted a list of group names",
    ),
    "nornir with a bad port": (
        "hosts.yaml",
        "h1:\n  hostname: 192.0.2.1\n  port: 99999\n",
        "hosts.yaml:3: h1.ansible_port: found 99999, wanted a port of 1 to 65535",
    ),
}


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(work, folder):
    """The sentence, without the folder's name."""
    with pytest.raises(SpecError) as caught:
        work()
    return re.sub(re.escape(str(folder)) + "/", "", str(caught.value))


@pytest.mark.parametrize(("name", "content", "sentence"), INVENTORIES.values(), ids=INVENTORIES)
def test_an_inventory_is_refused_with_one_sentence(tmp_path, name, content, sentence):
    path = put(tmp_path, name, content)
    said = refusal(lambda: load(path, tool=""), tmp_path)

    assert said.startswith(sentence)
    assert "\n" not in said


def test_a_vaulted_file_of_variables_is_refused(tmp_path):
    path = put(tmp_path, "hosts.yml", TWO)
    (tmp_path / "group_vars").mkdir()
    put(tmp_path, "group_vars/all.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")

    said = refusal(lambda: load(path, tool=""), tmp_path)

    assert said.startswith("group_vars/all.yml: found a file that ansible-vault has encrypted; ")


def test_nornir_groups_in_a_circle(tmp_path):
    path = put(tmp_path, "hosts.yaml", "h1: {hostname: 192.0.2.1, groups: [a]}\n")
    put(tmp_path, "groups.yaml", "a: {groups: [b]}\nb:\n  groups: [a]\n")

    said = refusal(lambda: load(path), tmp_path)

    assert said.startswith("groups.yaml:3: b.groups: found the group a under b under a; groups mus")


def test_a_role_for_an_unknown_group(tmp_path):
    path = put(tmp_path, "hosts.yml", "dgx: {hosts: {n1: }}\n")

    said = refusal(lambda: load(path, roles={"dgxs": "host"}, tool=""), tmp_path)

    assert (
        said == "hosts.yml: found a role for the group 'dgxs', which has no host; did you mean dgx?"
    )


def test_an_unknown_form(tmp_path):
    path = put(tmp_path, "hosts.yml", TWO)

    assert "found the form 'terraform'" in refusal(lambda: load(path, form="terraform"), tmp_path)


TWIN = "name: lab\ntopology:\n  nodes:\n    leaf1: {kind: linux}\n    gpu1: {kind: linux}\n"
ROW = "StartDevice,StartPort,EndDevice,EndPort\n"

LINKS = {
    "twin, unknown node": (
        "t.clab.yml",
        TWIN + "    gpu9: {kind: linux}\n  links: []\n",
        "t.clab.yml:6: topology.nodes.gpu9: found 'gpu9', which is no host of the inventory; did y",
    ),
    "twin, unknown label": (
        "t.clab.yml",
        TWIN.replace("gpu1: {kind: linux}", "x: {labels: {hw-host: gpu7}}"),
        "t.clab.yml:5: topology.nodes.x: found 'gpu7' (for x), which is no host of the inventory; ",
    ),
    "twin, one host twice": (
        "t.clab.yml",
        TWIN + "    x: {labels: {hw-host: gpu1}}\n",
        "t.clab.yml:6: topology.nodes.x: found x for the host gpu1, which gpu1 is already",
    ),
    "twin, one port twice": (
        "t.clab.yml",
        TWIN + '  links:\n    - endpoints: ["leaf1:eth1", "gpu1:eth1"]\n'
        '    - endpoints: ["leaf1:eth1", "gpu1:eth2"]\n',
        "t.clab.yml:8: topology.links: found the port leaf1:eth1 again, first in line 7 (gpu1:eth1",
    ),
    "twin, a node that is not there": (
        "t.clab.yml",
        TWIN + '  links:\n    - endpoints: ["leaf1:eth1", "gpu2:eth1"]\n',
        "t.clab.yml:7: topology.links[0]",
    ),
    "table, empty": (
        "l.csv",
        "",
        "l.csv:1: found an empty file, wanted a heading with StartDevice, StartPort, EndDevice, En",
    ),
    "table, missing columns": (
        "l.csv",
        "StartDevice,StartPort\nleaf1,swp1\n",
        "l.csv:1: found the columns StartDevice, StartPort, wanted EndDevice, EndPort as well",
    ),
    "table, column twice": (
        "l.csv",
        "StartDevice,StartPort,EndDevice,EndPort,EndPort\n",
        "l.csv:1: found the column 'EndPort' twice, wanted it once",
    ),
    "table, short row": (
        "l.csv",
        ROW + "leaf1,swp1,gpu1\n",
        "l.csv:2: found 3 fields, wanted 4 as in the heading",
    ),
    "table, empty field": (
        "l.csv",
        ROW + "leaf1,swp1,gpu1,\n",
        "l.csv:2: EndPort: found nothing in EndPort, wanted a name",
    ),
    "table, unknown device": (
        "l.csv",
        ROW + "\nleaf1,swp1,gpu2,eth1\n",
        "l.csv:3: EndDevice: found 'gpu2', which is no host of the inventory; did you mean gpu1?",
    ),
    "table, one port twice": (
        "l.csv",
        ROW + "leaf1,swp1,gpu1,eth1\nleaf1,swp2,gpu1,eth1\n",
        "l.csv:3: StartPort, EndPort: found the port gpu1:eth1 again, first in line 2 (gpu1:eth1--",
    ),
    "table, the same row twice": (
        "l.csv",
        ROW + "leaf1,swp1,gpu1,eth1\ngpu1,eth1,leaf1,swp1\n",
        "l.csv:3: StartPort, EndPort: found the port gpu1:eth1 again, first in line 2",
    ),
    "table, to itself": (
        "l.csv",
        ROW + "leaf1,swp1,leaf1,swp1\n",
        "l.csv:2: StartPort, EndPort: found a cable from leaf1:swp1 to itself",
    ),
    "table, bandwidth in words": (
        "l.csv",
        "StartDevice,StartPort,EndDevice,EndPort,BandWidth\nleaf1,swp1,gpu1,eth1,100G\n",
        "l.csv:2: BandWidth: found '100G', wanted whole Mbit/s such as 100000",
    ),
    "table, open quote": (
        "l.csv",
        ROW + 'leaf1,"swp1,gpu1,eth1\n',
        "l.csv:2: found no table: unexpected end of data",
    ),
    "neither": (
        "l.yml",
        "a: 1\n",
        "l.yml: found no topology in it, wanted a *.clab.yml or a table",
    ),
}


@pytest.mark.parametrize(("name", "content", "sentence"), LINKS.values(), ids=LINKS)
def test_a_file_of_links_is_refused_with_one_sentence(tmp_path, name, content, sentence):
    path, links = put(tmp_path, "hosts.yml", TWO), put(tmp_path, name, content)
    said = refusal(lambda: load(path, [links], tool=""), tmp_path)

    assert said.startswith(sentence)
    assert "\n" not in said


def test_two_sources_that_conflict_are_named_both(tmp_path):
    path = put(tmp_path, "hosts.yml", TWO)
    twin = TWIN + '  links:\n    - endpoints: ["leaf1:eth1", "gpu1:eth1"]\n'
    one, other = put(tmp_path, "t.clab.yml", twin), put(tmp_path, "l.csv", ROW)

    other.write_text(ROW + "leaf1,eth2,gpu1,eth1\n")
    assert refusal(lambda: load(path, [one, other], tool=""), tmp_path) == (
        "l.csv:2: found the cable gpu1:eth1--leaf1:eth2, but t.clab.yml:7 has gpu1:eth1--leaf1:eth1"
        "; a port has one cable"
    )


def test_two_speeds_of_one_cable_are_named_both(tmp_path):
    path = put(tmp_path, "hosts.yml", TWO)
    heading = ROW.strip() + ",BandWidth\n"
    one = put(tmp_path, "a.csv", heading + "leaf1,swp1,gpu1,eth1,100000\n")
    other = put(tmp_path, "b.csv", heading + "gpu1,eth1,leaf1,swp1,400000\n")

    assert refusal(lambda: load(path, [one, other], tool=""), tmp_path) == (
        "b.csv:2: speed_mbps: found 400000 Mbit/s for gpu1:eth1--leaf1:swp1, but a.csv:2 has "
        "100000 Mbit/s"
    )


def test_two_hosts_for_one_node_of_the_fabric(tmp_path):
    """A twin renames a host to a name that another host has."""
    path = put(tmp_path, "hosts.yml", TWO)
    twin = put(
        tmp_path, "t.clab.yml", "name: x\ntopology: {nodes: {gpu1: {labels: {hw-host: leaf1}}}}\n"
    )
    found = load(path, [twin], tool="")

    assert refusal(lambda: to_fabric(found), tmp_path) == (
        "hosts.yml:4: gpu1: found the hosts leaf1 and gpu1 for the node gpu1, wanted one each"
    )


def test_a_mapping_file_that_maps_to_nothing(tmp_path):
    path = put(tmp_path, "names.yml", "leaf1: dc1-leaf1\ngpu1:\n")

    assert refusal(lambda: read_names(path), tmp_path) == (
        "names.yml:2: gpu1: found nothing, wanted the inventory host that gpu1 is, or none"
    )


OUTPUTS = {
    "empty": ("", "gpu1.json:1: found 0 bytes, wanted the output of lldpcli -f json0"),
    "no json": ("lldpcli: no", "gpu1.json:1: found text that is not JSON: expecting value"),
    "another json": ('{"a": 1}', "gpu1.json:1: a: found the output of 'a', which is no host"),
    "json, not json0": (
        '{"lldp": {"interface": []}}',
        "gpu1.json:1: lldp: found the form of -f json, which changes with the count; use -f json0",
    ),
    "no name": (
        '{"lldp": [{"interface": [{}]}]}',
        "gpu1.json:1: lldp[0].interface[0]: found an in",
    ),
    "no list": (
        '{"lldp": [{"interface": 1}]}',
        "gpu1.json:1: lldp[0].interface: found 1, wanted a",
    ),
}


@pytest.mark.parametrize(("content", "sentence"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_of_lldp_is_refused_with_one_sentence(tmp_path, content, sentence):
    hosts = load(put(tmp_path, "hosts.yml", TWO), tool="").hosts
    path = put(tmp_path, "gpu1.json", content)

    assert refusal(lambda: read_heard(path, hosts), tmp_path).startswith(sentence)


def test_an_output_of_a_stranger(tmp_path):
    hosts = load(put(tmp_path, "hosts.yml", TWO), tool="").hosts
    folder = tmp_path / "outputs"
    folder.mkdir()
    assert "found no HOST.json in the folder" in refusal(
        lambda: read_heard(folder, hosts), tmp_path
    )

    put(folder, "gpu9.json", '{"lldp": []}')
    assert "gpu9.json: found the output of 'gpu9', which is no host" in refusal(
        lambda: read_heard(folder, hosts), tmp_path
    )


def test_there_is_no_such_file():
    with pytest.raises(SpecError, match=r"/nowhere: there is no such file"):
        load(Path("/nowhere"))
