"""A switch through the driver: FRR behind a real OpenSSH server, its ports called otherwise there.

r1 is a machine of `conftest` with FRR in it. The fabric calls its ports `eth1` and `eth2`, the
machine `swp1` and `swp2`. It is logged in to as `ops`, who may do nothing without sudo.

    h1 ─eth1── eth1=swp1 r1 swp2=eth2 ─── eth1 r2      BGP between r1 and r2, by their ports
"""

import asyncio
import json
import shutil

import pytest

from chaos import journal as book
from chaos.change import BgpNeighbour, LinkState, PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.ssh.box import OPS, OPS_SSHD
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.ssh,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("vtysh") is None, reason="no vtysh (apt-get install frr)"),
    pytest.mark.skipif(shutil.which("sudo") is None, reason="no sudo (apt-get install sudo)"),
]
S = 10**9
ROUTER = """
mount -t tmpfs tmpfs /etc/frr
mkdir -p /var/tmp/frr
mount -t tmpfs -o mode=1777 tmpfs /var/tmp/frr
cp {folder}/frr-{name}.conf /etc/frr/frr.conf
touch /etc/frr/vtysh.conf
chown -R frr:frr /etc/frr /run/frr
for one in zebra bgpd; do /usr/lib/frr/$one -d -A 127.0.0.1 2>/dev/null; done
vtysh -b >/dev/null
"""
CONFIG = """
frr defaults datacenter
interface {port}
 no ipv6 nd suppress-ra
router bgp {asn}
 bgp router-id 198.19.255.{asn}
 no bgp ebgp-requires-policy
 neighbor {port} interface remote-as external
exit
"""


@pytest.fixture
def fabric(machines, tmp_path, monkeypatch):
    """The machines, and the inventory and table that say how they are called."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    machines.add("h1")
    for name, port, asn, more in (("r1", "swp2", 1, OPS), ("r2", "eth1", 2, "")):
        (machines.folder / f"frr-{name}.conf").write_text(CONFIG.format(port=port, asn=asn))
        setup = ROUTER.format(folder=machines.folder, name=name) + more.format(
            key=f"{machines.key}.pub"
        )
        machines.add(name, setup=setup, more=OPS_SSHD if more else "")
    machines.link("h1:eth1", "r1:swp1")
    machines.link("r1:swp2", "r2:eth1")
    common = {
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={machines.known_hosts}",
        "ansible_ssh_private_key_file": str(machines.key),
    }
    r1 = {
        "ansible_host": machines["r1"].address,
        "ansible_user": "ops",
        "ansible_become": True,
        "ansible_network_os": "frr",
        "railbreak": {"role": "leaf", "ports": {"eth[1:2]": "swp[1:2]"}},
    }
    h1 = {"ansible_host": machines["h1"].address, "ansible_user": "root"}
    hosts = machines.folder / "hosts.json"
    plain = {"all": {"vars": common, "hosts": {"h1": h1, "r1": r1}}}
    hosts.with_suffix(".yml").write_text(json.dumps(plain))
    table = machines.folder / "links.csv"
    table.write_text("StartDevice,StartPort,EndDevice,EndPort\nh1,eth1,r1,swp1\n")
    return machines, hosts.with_suffix(".yml"), table


async def until(condition, what, within_s=40.0):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def test_attach_arm_in_force_heal(fabric):
    machines, hosts, table = fabric
    r1 = machines["r1"]

    def up(port):
        return "UP" in json.loads(r1.run("ip", "-j", "link", "show", port))[0]["flags"]

    def peer():
        told = json.loads(r1.run("vtysh", "-c", "show bgp summary json", check=False) or "{}")
        return told.get("ipv4Unicast", {}).get("peers", {}).get("swp2", {}).get("state")

    async def work():
        await until(lambda: peer() == "Established", "BGP between r1 and r2")
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="mapped")
        try:
            lost = Place("h1", "eth1", "wire")
            changes = [
                PacketDrop(lost, table_name("test", lost), "udp dport 4791"),
                BgpNeighbour(Place("r1"), "eth2"),
                LinkState(Place("r1", "eth1")),
            ]
            journal = driver.folder / "journal.jsonl"
            hands = await driver.arm(
                changes,
                journal=journal,
                max_life=Duration.parse("60s"),
                log_dir=driver.folder / "logs",
            )
            try:
                assert r1.run("ls", "/run/railbreak-switch") != ""  # the dead-man stands
                # longer than any look here takes: it is the heal that ends it
                await hands.start(now_ns() + S, [InForce(0, 50 * S)])
                await until(lambda: not up("swp1"), "swp1 to go down")
                await until(lambda: peer() == "Idle (Admin)", "the neighbour to be shut")
                assert 'device "swp1"' in r1.run("nft", "list", "ruleset").replace("= ", "")
                assert up("swp2")
                proof = await hands.heal()
                await hands.wait()
            finally:
                await hands.close()
            return proof, changes, book.read(journal)
        finally:
            await driver.down()

    proof, changes, entries = machines.control(work)

    assert [one.change for one in proof.changes] == changes
    assert (proof.in_force, proof.taken_back, proof.trouble) == (True, True, ())
    assert up("swp1")
    assert peer() != "Idle (Admin)"
    assert "railbreak" not in r1.run("nft", "list", "tables")
    assert r1.run("ls", "/run/railbreak-switch") == ""
    assert {one.where.ifname for one in entries} == {"swp1", "swp2"}
    assert all("swp" not in one.change.describe() for one in entries)
    # a disarmed dead-man ends when it next looks at its lease
    wait_until(lambda: machines.left() == [], f"nothing to be left: {machines.left()}")
