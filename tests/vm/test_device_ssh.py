"""A NIC of a machine that is reached over SSH: its PCI device leaves the bus and comes back.

The machine is the whole of QEMU's, with an SSH server on a management network; who breaks it sits
in a namespace at the other end of that.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from chaos.drivers.ssh import SshDriver, connect, machine, remote
from chaos.drivers.ssh.places import ssh_of
from chaos.errors import BlockedError
from chaos.netns import inside
from chaos.registry import InForce
from faults.nic_kill import NicKill
from tests.ssh.attached import put
from tests.ssh.box import CONFIG, SSHD
from tests.vm.conftest import NAME, ip, run

pytestmark = pytest.mark.vm

OFFICE, MACHINE = "198.18.0.1", "198.18.0.2"


def knock():
    socket.create_connection((MACHINE, 22), 1).close()


@pytest.fixture
def inventory(lane, tmp_path, monkeypatch):
    """An inventory of this machine and a table of its cable; both paths."""
    if SSHD is None:
        pytest.skip("openssh-server is not installed")
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    for room, name in ((machine, "ANSWER_S"), (connect, "GRACE_S"), (remote, "READY_S")):
        monkeypatch.setattr(room, name, 120.0)  # a machine without KVM is slow
    ip("netns add office")
    ip("link add mgmt0 type veth peer name up0 netns office")
    ip(f"addr add {MACHINE}/24 dev mgmt0")
    ip("link set mgmt0 up")
    for words in (f"addr add {OFFICE}/24 dev up0", "link set up0 up", "link set lo up"):
        ip(f"-n office {words}")
    for name in ("key", "host_gpu1"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
    shutil.copy(tmp_path / "key.pub", tmp_path / "authorized")
    public = (tmp_path / "host_gpu1.pub").read_text().split()
    (tmp_path / "known_hosts").write_text(f"{MACHINE} {public[0]} {public[1]}\n")
    (tmp_path / "config").write_text(CONFIG.format(folder=tmp_path, name="gpu1", more=""))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen((SSHD, "-D", "-e", "-f", str(tmp_path / "config")))
    try:
        until = time.monotonic() + 30
        while True:
            try:
                inside("/run/netns/office", knock)
                break
            except OSError:
                assert time.monotonic() < until, "no SSH server"
                time.sleep(0.1)
        hosts, table = tmp_path / "hosts.yml", tmp_path / "links.csv"
        hosts.write_text(
            "all:\n"
            "  vars:\n"
            "    ansible_user: root\n"
            f"    ansible_ssh_common_args: -o UserKnownHostsFile={tmp_path}/known_hosts\n"
            f"    ansible_ssh_private_key_file: {tmp_path}/key\n"
            "  hosts:\n"
            f"    gpu1: {{ansible_host: {MACHINE}, railbreak: {{ports: {{eth1: {NAME}}}}}}}\n"
            "    leaf1: {ansible_host: 198.18.0.9, ansible_network_os: arista.eos.eos}\n"
        )
        table.write_text(f"StartDevice,StartPort,EndDevice,EndPort\ngpu1,{NAME},leaf1,eth4\n")
        yield str(hosts), str(table)
    finally:
        server.terminate()
        server.wait()
        subprocess.run(("ip", "link", "del", "mgmt0"), check=False)
        subprocess.run(("ip", "netns", "del", "office"), check=False)


def over_ssh(inventory, work):
    """Attach from the office, do something with the driver, let go."""
    hosts, table = inventory

    async def body():
        driver = await SshDriver.adopt(hosts, links=[table], instance="machine")
        driver.lease_s = 60.0
        try:
            return await work(driver)
        finally:
            await driver.down()

    return inside("/run/netns/office", lambda: asyncio.run(body()))


@pytest.mark.timeout(900)  # every program there starts as slowly as the machine is
def test_a_nic_goes_and_comes_back_over_ssh(inventory, pair, tmp_path):
    async def work(driver):
        assert NAME in ssh_of(driver.fabric, "gpu1")["kernel"]["eth1"]
        reloaded = NicKill("gpu1", mode="reload").changes(driver.fabric)
        with pytest.raises(BlockedError, match=rf"driver {pair.driver} .*has no devlink"):
            await put(driver, tmp_path, reloaded, (InForce(0, 10**9),))
        seen = []

        async def between(hands):
            for _ in range(100):
                await asyncio.sleep(0.1)
                seen.append(NAME in os.listdir("/sys/class/net"))

        changes = NicKill("gpu1", mode="remove").changes(driver.fabric)
        return await put(driver, tmp_path, changes, (InForce(0, 4 * 10**9),), between), seen

    proof, seen = over_ssh(inventory, work)

    assert proof.in_force
    assert proof.taken_back, proof.leftovers
    assert proof.trouble == ()
    assert [one.hit for one in proof.changes] == [1]
    assert False in seen
    pair.is_back()
