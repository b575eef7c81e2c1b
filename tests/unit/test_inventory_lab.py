"""Containerlab's topology-data.json: recorded ones of the real binary, in both shapes."""

import json
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.inventory import load, to_fabric

RECORDINGS = Path(__file__).parents[3] / "shared" / "containerlab-recorded" / "recordings"
pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings of the real containerlab are not here"
)


def step(lane, section, name):
    """What one recorded command printed."""
    steps = json.loads((RECORDINGS / lane / f"{section}.json").read_text())
    return next(one["stdout"] for one in steps if one["name"] == name)


def lab(folder, lane, section, name="labdir-topology-data.json"):
    """The lab's folder as containerlab left it."""
    (folder / "topology-data.json").write_text(step(lane, section, name))
    if name.startswith("labdir"):
        text = step(lane, section, "labdir-ansible-inventory.yml")
        (folder / "ansible-inventory.yml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("lane", "section", "nodes", "cables"),
    [
        ("host", "clos", 14, 16),
        ("vm", "clos", 14, 16),
        ("host", "frr01", 6, 6),
        ("host", "bgp_basics", 4, 3),
    ],
)
def test_a_first_deploy_gives_hosts_and_cables(tmp_path, lane, section, nodes, cables):
    found = load(lab(tmp_path, lane, section))

    assert (len(found.hosts), len(found.cables)) == (nodes, cables)
    assert all(host.address.startswith("172.20.20.") for host in found.hosts.values())
    assert all(cable.macs[0].startswith("aa:c1:ab") for cable in found.cables)
    assert found.warnings == ()


def test_the_fabric_of_the_recorded_clos(tmp_path):
    fabric = to_fabric(load(lab(tmp_path, "host", "clos")))

    assert fabric.name == "clos"
    assert [len(fabric.with_role(role)) for role in ("spine", "leaf", "host")] == [2, 4, 8]
    assert fabric.link("leaf1:eth1--spine1:eth1").macs[0] == "aa:c1:ab:de:c4:59"
    assert fabric.nodes["h1"].settings["ssh"]["address"] == "172.20.20.5"


def test_the_shape_before_0_71_reads_alike(tmp_path):
    """Both ends lay one level higher then."""
    new = load(lab(tmp_path, "host", "frr01"))
    body = json.loads((tmp_path / "topology-data.json").read_text())
    body["links"] = [{**link.pop("endpoints"), **link} for link in body["links"]]
    (tmp_path / "topology-data.json").write_text(json.dumps(body))
    old = load(tmp_path / "topology-data.json")

    assert [str(cable) for cable in old.cables] == [str(cable) for cable in new.cables]


def test_a_second_deploy_leaves_no_addresses_and_is_refused(tmp_path):
    """Recorded: the reconciling deploy emptied the addresses and invented MACs."""
    with pytest.raises(SpecError, match=r"topology-data.json:\d+: nodes.a.*second deploy"):
        load(lab(tmp_path, "host", "t1_basic"))


def test_an_interrupted_deploy_leaves_0_bytes_and_is_refused(tmp_path):
    with pytest.raises(SpecError, match="found 0 bytes: a deploy is running, or was interrupted"):
        load(lab(tmp_path, "host", "interrupt", "4-SIGKILL-topology-data"))


def test_nodes_without_a_management_network_are_refused(tmp_path):
    with pytest.raises(SpecError, match="found no management address: the node has none"):
        load(lab(tmp_path, "host", "errors", "nomgmt-topology-data"))


def test_the_inventory_beside_says_how_to_log_in(tmp_path):
    folder = lab(tmp_path, "host", "clos")
    path = folder / "ansible-inventory.yml"
    path.write_text(path.read_text().replace("  vars:\n", "  vars:\n    ansible_user: admin\n", 1))

    assert load(folder).hosts["h1"].user == "admin"


def test_an_inventory_beside_that_contradicts_is_refused_with_both_places(tmp_path):
    folder = lab(tmp_path, "host", "clos")
    path = folder / "ansible-inventory.yml"
    path.write_text(path.read_text().replace("172.20.20.5\n", "172.20.20.99\n"))

    with pytest.raises(SpecError, match=r"ansible-inventory.yml:11: .*172.20.20.99, but .*-data"):
        load(folder)


def test_the_nornir_file_of_the_lab_reads_too(tmp_path):
    text = step("host", "clos", "labdir-nornir-simple-inventory.yml")
    (tmp_path / "hosts.yaml").write_text(text)

    assert load(tmp_path / "hosts.yaml").hosts["h1"].address == "172.20.20.5"


def test_an_empty_nornir_file_of_the_lab_is_refused(tmp_path):
    text = step("host", "t1_basic", "labdir-nornir-simple-inventory.yml")
    (tmp_path / "hosts.yaml").write_text(text)

    with pytest.raises(SpecError, match=r"hosts.yaml:6: a.hostname: found no address"):
        load(tmp_path / "hosts.yaml")
