"""NICs by PCI address, RDMA devices and rails: from a /sys laid out as kernels do, and from facts.

No NIC with RDMA is here. The trees have the files and links that the kernel documents
(Documentation/ABI: sysfs-class-infiniband, sysfs-class-net), with names of mlx5 and soft-RoCE.
"""

import os

import pytest

from chaos.drivers.ssh import adopt
from chaos.drivers.ssh.far import steward
from chaos.drivers.ssh.rails import with_rails
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.inventory import load, to_fabric
from faults.rail_down import RailDown


class Sys:
    """A /sys in a folder: devices under a PCI root, and the two classes of links to them."""

    def __init__(self, root):
        self.root = root
        for name in ("net", "infiniband"):
            (root / "class" / name).mkdir(parents=True)

    def _linked(self, kind, name, parent):
        folder = parent / kind / name
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(f"../../../{parent.name}")  # as the kernel writes it
        link = self.root / "class" / kind / name
        link.symlink_to(os.path.relpath(folder, link.parent))
        return folder

    def pci(self, address):
        folder = self.root / "devices" / "pci0000:3a" / "0000:3a:00.0" / address
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def nic(self, name, address):
        return self._linked("net", name, self.pci(address))

    def virtual(self, kind, name):
        folder = self.root / "devices" / "virtual" / kind / name
        folder.mkdir(parents=True)
        link = self.root / "class" / kind / name
        link.symlink_to(os.path.relpath(folder, link.parent))
        return folder

    def rdma(self, name, address, *ndevs):
        """One device; `ndevs` are what its GIDs hang on, an empty one has no GID."""
        parent = self.pci(address) if address else None
        folder = (
            self._linked("infiniband", name, parent) if parent else self.virtual("infiniband", name)
        )
        for at, ndev in enumerate(ndevs):
            file = folder / "ports" / "1" / "gid_attrs" / "ndevs" / str(at)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{ndev}\n")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    made = Sys(tmp_path / "sys")
    monkeypatch.setattr(steward, "_NET", made.root / "class" / "net")
    monkeypatch.setattr(steward, "_INFINIBAND", made.root / "class" / "infiniband")
    return made


def test_the_pci_address_of_an_interface(tree):
    """A function, a virtual function; nothing for a veth and for what hangs on another bus."""
    tree.nic("ens3f0np0", "0000:3b:00.0")
    tree.nic("ens3f0v2", "0000:3b:00.4")
    tree.virtual("net", "veth0")
    other = tree.root / "devices" / "vmbus" / "3f1c" / "net" / "eth0"
    other.mkdir(parents=True)
    (other / "device").symlink_to("../../../3f1c")
    (tree.root / "class" / "net" / "eth0").symlink_to(other)

    assert steward._pci("ens3f0np0") == "0000:3b:00.0"
    assert steward._pci("ens3f0v2") == "0000:3b:00.4"
    assert steward._pci("veth0") == steward._pci("eth0") == steward._pci("gone") == ""


def test_rdma_devices_by_the_interfaces_of_their_gids(tree):
    """By GID, by the PCI function they share; soft-RoCE has no PCI address and is found by GID."""
    tree.nic("ens3f0np0", "0000:3b:00.0")
    tree.nic("ens3f1np1", "0000:3b:00.1")
    tree.rdma("mlx5_0", "0000:3b:00.0", "ens3f0np0", "ens3f0np0.100", "")
    tree.rdma("mlx5_1", "0000:3b:00.1")  # its port is down: no GID yet
    tree.virtual("net", "eth9")
    tree.rdma("rxe0", "", "eth9")

    found = steward._rdma()

    assert found["ens3f0np0"] == found["0000:3b:00.0"] == found["ens3f0np0.100"] == ["mlx5_0"]
    assert found["ens3f1np1"] == found["0000:3b:00.1"] == ["mlx5_1"]
    assert found["eth9"] == ["rxe0"]
    assert "" not in found


def test_no_rdma_at_all(tree):
    (tree.root / "class" / "infiniband").rmdir()

    assert steward._rdma() == {}


def test_every_port_of_a_bond_has_the_bonds_rdma_device():
    """RoCE over a bond is one device, which sysfs puts at the first port."""
    facts = {
        "bond0": {"index": 9, "master": 0, "rdma": ["mlx5_bond_0"]},
        "ens3f0np0": {"index": 3, "master": 9, "rdma": ["mlx5_bond_0"]},
        "ens3f1np1": {"index": 4, "master": 9, "rdma": []},
        "br0": {"index": 5, "master": 0, "rdma": []},
        "eth1": {"index": 6, "master": 5, "rdma": []},
    }

    found = {name: one["rdma"] for name, one in steward._bonded(facts).items()}

    assert found["ens3f1np1"] == ["mlx5_bond_0"]
    assert found["eth1"] == []


# ---- names ---------------------------------------------------------------------------------------

INTERFACES = {
    "ens3f0np0": {"pci": "0000:3b:00.0"},
    "ens3f1np1": {"pci": "0000:3b:00.1"},
    "ib0": {"pci": "0000:5e:00.0"},
    "ib1": {"pci": "0000:5e:00.0"},
    "eth0": {"pci": ""},
}


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ens3f0np0", "ens3f0np0"),
        ("0000:3b:00.1", "ens3f1np1"),
        ("3b:00.1", "ens3f1np1"),
        ("pci-0000:3B:00.1", "ens3f1np1"),
        ("0000:5e:00.0", ""),  # two of them: which one cannot be told
        ("0000:3c:00.0", ""),
        ("", ""),
    ],
)
def test_an_interface_by_name_or_pci_address(word, name):
    assert adopt.named(INTERFACES, word) == name


# ---- rails ---------------------------------------------------------------------------------------


def host(name, **pci):
    known = {"address": "192.0.2.1", "pci": pci, "rdma": {port: ["mlx5_0"] for port in pci}}
    return Node(name, settings={"ssh": known})


def fabric(hosts, *cables):
    nodes = {one.name: one for one in hosts}
    nodes |= {name: Node(name, role="leaf") for name in ("leaf1", "leaf2")}
    ends = [[Port(*end.split(":")) for end in cable.split()] for cable in cables]
    return Fabric("f", nodes, tuple(Link(a, b) for a, b in ends))


STRAIGHT = (
    "gpu1:ens9 leaf1:p1",
    "gpu1:ens2 leaf2:p1",
    "gpu2:ens9 leaf1:p2",
    "gpu2:ens2 leaf2:p2",
)
#: `ens2` comes later on PCI than `ens9`: names do not tell.
PCI = {"ens9": "0000:0a:00.0", "ens2": "0000:3b:00.0"}


def test_rails_are_found_by_the_order_of_the_nics():
    found, notes = with_rails(fabric([host("gpu1", **PCI), host("gpu2", **PCI)], *STRAIGHT))

    assert [link.labels["rail"] for link in found.links] == ["0", "1", "0", "1"]
    assert notes == (
        "rails by the order of the RDMA NICs on PCI: 0 (gpu1:ens9--leaf1:p1, gpu2:ens9--leaf1:p2), "
        "1 (gpu1:ens2--leaf2:p1, gpu2:ens2--leaf2:p2)",
    )
    places = {one.place.node + ":" + one.place.port for one in RailDown("gpu1:ens2").changes(found)}
    assert places == {"gpu1:ens2", "leaf2:p1", "gpu2:ens2", "leaf2:p2"}


def test_rails_that_the_cabling_does_not_bear_out_are_not_taken_for_granted():
    """Two plugs exchanged at gpu2: said with the ports, and nothing labelled."""
    crossed = (*STRAIGHT[:2], "gpu2:ens9 leaf2:p2", "gpu2:ens2 leaf1:p2")
    found, (note,) = with_rails(fabric([host("gpu1", **PCI), host("gpu2", **PCI)], *crossed))

    assert [dict(link.labels) for link in found.links] == [{}] * 4
    assert "gpu1:ens9 (NIC 0) and gpu2:ens2 (NIC 1) meet at leaf1" in note
    assert "\n" not in note


def test_one_nic_or_none_on_pci_is_no_rail():
    one = host("gpu1", ens9="0000:0a:00.0")
    soft = host("gpu2", ens9="", ens2="")

    assert with_rails(fabric([one, soft], *STRAIGHT)) == (fabric([one, soft], *STRAIGHT), ())


HOSTS = """\
all:
  children:
    leafs:
      vars: {ansible_network_os: sonic}
      hosts:
        leaf1: {ansible_host: 192.0.2.1, railbreak: {rail: RAIL}}
        spine1: {ansible_host: 192.0.2.9}
    gpus:
      hosts:
        gpu1: {ansible_host: 192.0.2.2, railbreak: {ports: {eth1: ens9}, rails: {eth1: 0, ens2: 1}}}
        gpu2: {ansible_host: 192.0.2.3, railbreak: {rail: 0}}
"""
TABLE = """\
StartDevice,StartPort,EndDevice,EndPort
leaf1,p1,gpu1,ens9
leaf1,p2,gpu2,ens9
leaf1,p9,spine1,p1
spine1,p2,gpu1,ens2
"""


@pytest.fixture
def written(tmp_path):
    def write(rail):
        (tmp_path / "hosts.yml").write_text(HOSTS.replace("RAIL", rail))
        (tmp_path / "links.csv").write_text(TABLE)
        return load(tmp_path / "hosts.yml", [tmp_path / "links.csv"], tool="")

    return write


def test_rails_of_an_inventory_are_labels_of_its_cables(written):
    """By port or by box, at either end; a cable between switches belongs to none."""
    found = to_fabric(written("0"))

    assert {link.id: dict(link.labels) for link in found.links} == {
        "gpu1:eth1--leaf1:p1": {"rail": "0"},
        "gpu2:ens9--leaf1:p2": {"rail": "0"},
        "leaf1:p9--spine1:p1": {},
        "gpu1:ens2--spine1:p2": {"rail": "1"},
    }
    assert with_rails(found)[0] is found
    assert "as the inventory says: 0 (gpu1:eth1--leaf1:p1, gpu2:ens9" in with_rails(found)[1][0]


def test_two_ends_on_different_rails_are_refused_and_both_are_named(written):
    with pytest.raises(SpecError) as caught:
        to_fabric(written("7"))

    said = str(caught.value)
    assert "rail 0 (" in said
    assert "rail 7 (" in said
    assert "gpu1" in said
    assert "leaf1" in said
    assert "hosts.yml" in said
    assert "\n" not in said
