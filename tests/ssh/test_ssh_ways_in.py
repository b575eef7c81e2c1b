"""Ways in: a key that only an agent has, a switch behind jump hosts, root by sudo. All real."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time

import pytest

from chaos.change import PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.drivers.ssh.connect import Connections
from chaos.drivers.ssh.console import Console
from chaos.errors import CapabilityError, FabricError
from chaos.nos import platform
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration
from tests.ssh.box import OPS, OPS_SSHD
from tests.waiting import wait_until

pytestmark = pytest.mark.ssh
S = 10**9


@pytest.fixture(scope="module")
def machines(shared_machines):
    """h1 and h2 as root; b1, b2 on the way; `ops` at o1, who may sudo, and at o2, who is asked."""
    made = shared_machines
    made.add("h1", "b1", "b2")
    ops = OPS.format(key=f"{made.key}.pub")
    made.add("o1", setup=ops, more=OPS_SSHD)
    asked = "echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops"
    made.add("o2", setup=ops + asked, more=OPS_SSHD)
    return made


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without keys, known hosts or an agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture
def agent(machines, home, monkeypatch):
    """An ssh-agent that has the machines' key."""
    path = home / "agent"
    process = subprocess.Popen(
        ("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    asked = ("ssh-add", "-l")  # 2: no agent; its socket is there before it listens
    wait_until(lambda: subprocess.run(asked, capture_output=True).returncode != 2, "the agent")
    subprocess.run(("ssh-add", "-q", str(machines.key)), check=True)
    yield path
    process.terminate()
    process.wait()


def keyless(machines, name, **more):
    return machines.target(name, key_file="", ssh_config="/dev/null", **more)


def at_host(machines, target):
    """Where a host sees us come from."""

    async def work():
        async with Connections([target], connect_s=8) as connections:
            for why in (await connections.open()).values():
                raise FabricError(why)
            done = await connections[target.name].run(("sh", "-c", "echo $SSH_CONNECTION"))
            return done.stdout.decode().split()[0]

    return machines.control(work)


def at_switch(machines, target, *commands):
    """What a switch prints for commands; by default where it sees us come from."""
    target = dataclasses.replace(target, platform="frr")

    async def work():
        console = Console(target, platform("frr"), connect_s=15, answer_s=10)
        try:
            console.open()
            asked = commands or ("echo $SSH_CONNECTION",)
            return [console.run(one).strip() for one in asked]
        finally:
            console.close()

    return machines.control(work)


# ---- an agent ------------------------------------------------------------------------------------


def test_a_key_that_only_an_agent_has_lets_us_in_at_a_host(machines, agent, monkeypatch):
    """Without the agent the same is refused: it was the agent's key."""
    target = keyless(machines, "h1")

    assert at_host(machines, target) == "198.18.0.1"

    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(FabricError, match="by none of our keys"):
        at_host(machines, target)


def test_a_key_that_only_an_agent_has_lets_us_in_at_a_switch(machines, agent, monkeypatch):
    target = keyless(machines, "h1")

    assert at_switch(machines, target)[0].split()[0] == "198.18.0.1"

    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(FabricError, match="refused the login of root"):
        at_switch(machines, target)


def test_an_agent_lets_us_through_a_jump_host_too(machines, agent):
    """To a host, and to a switch."""
    target = keyless(machines, "h1", jump=f"root@{machines['b1'].address}")

    assert at_host(machines, target) == machines["b1"].address
    assert at_switch(machines, target)[0].split()[0] == machines["b1"].address


# ---- a switch behind jump hosts ------------------------------------------------------------------


def test_a_switch_behind_one_jump_host_and_behind_two(machines, home):
    """With the inventory's key and known hosts alone; the last one is where we come from."""
    one, two = (f"root@{machines[name].address}" for name in ("b1", "b2"))

    target = machines.target("h1", ssh_config="/dev/null", jump=f"{one}:22")
    assert at_switch(machines, target)[0].split()[0] == machines["b1"].address

    target = machines.target("h1", ssh_config="/dev/null", jump=f"{one}:22,{two}")
    assert at_switch(machines, target)[0].split()[0] == machines["b2"].address


def children():
    told = subprocess.run(
        ("ps", "-o", "args=", "--ppid", str(os.getpid())),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [line for line in told.stdout.splitlines() if line.startswith(("ssh ", "[ssh]"))]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"key_file": "other"}, "through its jump host: root@.*Permission denied"),
        ({"known_hosts": "none"}, "through its jump host: Host key verification failed"),
        ({"port": 2222}, "through its jump host: .*(refused|failed|closed)"),
    ],
    ids=["key", "host key", "port"],
)
def test_a_jump_host_that_refuses_is_told_at_once_and_asks_nothing(machines, home, more, why):
    """One sentence with its words; no `ssh` of ours is left, not even as a zombie."""
    other = home / "other"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)), check=True)
    (home / "none").write_text("")
    more = {key: str(home / one) if isinstance(one, str) else one for key, one in more.items()}
    jump = f"root@{machines['b1'].address}"
    target = machines.target("h1", ssh_config="/dev/null", jump=jump, **more)

    began = time.monotonic()
    with pytest.raises(FabricError, match=why) as caught:
        at_switch(machines, target)

    assert time.monotonic() - began < 12
    assert "\n" not in str(caught.value)
    assert children() == []


def test_a_way_outlives_ctrl_c_and_ends_with_the_console(machines, home):
    """Ctrl-C reaches a whole group of processes; healing needs the way."""
    jump = f"root@{machines['b1'].address}"
    target = machines.target("h1", ssh_config="/dev/null", jump=jump, platform="frr")

    async def work():
        console = Console(target, platform("frr"), connect_s=15, answer_s=10)
        with contextlib.closing(console):
            console.open()
            assert len(children()) == 1
            assert os.getpgid(console._way._process.pid) != os.getpgid(0)
            console.run("true")
        assert children() == []

    machines.control(work)


# ---- root by sudo --------------------------------------------------------------------------------

sudo = pytest.mark.skipif(shutil.which("sudo") is None, reason="no sudo (apt-get install sudo)")


@sudo
def test_a_host_by_sudo_the_whole_way(machines, home):
    """Attached, broken, healed and let go of, as a user who can do nothing alone."""
    hosts, _ = machines.inventory(["o1", "h1"])
    text = hosts.read_text().replace(
        f"o1: {{ansible_host: {machines['o1'].address}}}",
        f"o1: {{ansible_host: {machines['o1'].address}, ansible_user: ops, ansible_become: true}}",
    )
    hosts.write_text(text)
    machines.link("o1:eth1", "h1:eth1")
    table = machines.folder / "links.csv"
    table.write_text("StartDevice,StartPort,EndDevice,EndPort\no1,eth1,h1,eth1\n")

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="sudo")
        try:
            assert (await driver.exec("o1", ("id", "-u"))).stdout == b"0\n"
            place = Place("o1", "eth1")
            hands = await driver.arm(
                [PacketDrop(place, table_name("test", place))],
                journal=driver.folder / "journal.jsonl",
                max_life=Duration.parse("20s"),
                log_dir=driver.folder / "logs",
            )
            try:
                await hands.start(now_ns() + driver.lead_ns, [InForce(0, 1 * S)])
                await hands.wait()
                return await hands.heal()
            finally:
                await hands.close()
        finally:
            await driver.down()

    proof = machines.control(work)

    assert (proof.in_force, proof.taken_back, proof.trouble) == (True, True, ())
    assert machines["o1"].left() == []


@sudo
def test_without_become_a_user_is_told_so(machines, home):
    """At a host, and at a switch."""
    target = machines.target("o1", user="ops")

    async def host():
        from chaos.drivers.ssh.machine import Machine

        async with Connections([target]) as connections:
            assert await connections.open() == {}
            await (await Machine.prepare(connections["o1"])).leave()

    with pytest.raises((CapabilityError, FabricError), match="root"):
        machines.control(host)


@sudo
def test_a_sudo_that_asks_for_a_password_is_refused_at_a_switch(machines, home):
    target = machines.target("o2", user="ops", become="sudo", ssh_config="/dev/null")

    with pytest.raises(FabricError, match="ops may not sudo without a password"):
        at_switch(machines, target)
    assert at_switch(machines, dataclasses.replace(target, become=""), "id -u") == ["4242"]
    target = machines.target("o1", user="ops", become="sudo", ssh_config="/dev/null")
    assert at_switch(machines, target, "id -u") == ["0"]
