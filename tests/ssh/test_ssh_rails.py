"""A machine with RDMA NICs is attached to: what is found of them, and what follows from it.

The machines are real; their NICs are stand-ins: over /sys/class lies a copy in which the veths
`ens9` and `ens2` hang on PCI and have an RDMA device each, as the kernel lays it out.
"""

import json

import pytest

from chaos.change import PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.errors import CapabilityError
from chaos.units import Duration
from faults.rail_down import RailDown

pytestmark = pytest.mark.ssh
NICS = {"ens9": ("0000:0a:00.0", "mlx5_0"), "ens2": ("0000:3b:00.0", "mlx5_1")}


def sys_class(nics):
    """Lines that lay a /sys/class with such NICs over the machine's own."""
    lines = ["mkdir -p /run/class && cp -a /sys/class/. /run/class"]
    for name, (pci, device) in nics.items():
        gids = f"/run/class/infiniband/{device}/ports/1/gid_attrs/ndevs"
        lines += [
            f"mkdir -p /run/class/net/{name} {gids} && echo {name} >{gids}/0",
            f"ln -s ../../../{pci} /run/class/net/{name}/device",
            f"ln -s ../../../{pci} /run/class/infiniband/{device}/device",
        ]
    return "\n".join([*lines, "mount --bind /run/class /sys/class"])


@pytest.fixture
def gpus(machines, tmp_path, monkeypatch):
    """gpu1 and gpu2 with two NICs each; ens9 to leaf1, ens2 to leaf2."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    machines.add("gpu1", "gpu2", setup=sys_class(NICS))
    machines.add("leaf1", "leaf2")
    for number in (1, 2):
        machines.link(f"gpu{number}:ens9", f"leaf1:p{number}")
        machines.link(f"gpu{number}:ens2", f"leaf2:p{number}")
    return machines


def test_nics_rdma_devices_and_rails_are_found(gpus):
    _, table = gpus.inventory()
    known = {
        "ansible_user": "root",
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={gpus.known_hosts}",
        "ansible_ssh_private_key_file": str(gpus.key),
    }
    ports = {"eth1": "0000:0a:00.0", "eth2": "3b:00.0"}
    nodes = {
        name: {"ansible_host": box.address}
        | ({"railbreak": {"ports": ports}} if name.startswith("gpu") else {})
        for name, box in gpus.boxes.items()
    }
    hosts = gpus.folder / "hosts.yml"
    hosts.write_text(json.dumps({"all": {"vars": known, "hosts": nodes}}))
    table.write_text(table.read_text().replace("ens9", "eth1").replace("ens2", "eth2"))

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="gpus")
        try:
            place = Place("leaf1", "p1", "wire")  # what leaf1 sends would be dropped at gpu1
            lost = PacketDrop(place, table_name("test", place), "udp dport 4791")
            with pytest.raises(CapabilityError, match=r"RDMA device mlx5_0.*\(end: gpu1\)"):
                await driver.arm(
                    [lost],
                    journal=driver.folder / "journal.jsonl",
                    max_life=Duration.parse("9s"),
                    log_dir=driver.folder,
                )
            again = await SshDriver.attach("gpus")  # from the state alone, as another verb does
            names = [again.ifname(port) for port in again.fabric.walk() if port.node == "gpu1"]
            return again.fabric, names, tuple(driver.warnings)
        finally:
            await driver.down()

    fabric, names, warnings = gpus.control(work)

    assert sorted(names) == ["ens2", "ens9"]
    ssh = fabric.node("gpu1").settings["ssh"]
    assert ssh["rdma"] == {"eth1": ["mlx5_0"], "eth2": ["mlx5_1"]}
    assert {link.id: link.labels["rail"] for link in fabric.links} == {
        "gpu1:eth1--leaf1:p1": "0",
        "gpu2:eth1--leaf1:p2": "0",
        "gpu1:eth2--leaf2:p1": "1",
        "gpu2:eth2--leaf2:p2": "1",
    }
    assert any(
        one.startswith("rails by the order of the RDMA NICs on PCI: 0 (") for one in warnings
    )
    nodes = {change.place.node for change in RailDown("gpu2:eth2").changes(fabric)}
    assert nodes == {"gpu1", "gpu2", "leaf2"}
    assert gpus.left() == []
