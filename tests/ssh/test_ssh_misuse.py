"""What goes wrong before anything is broken: one sentence each, and nothing left on any machine."""

import asyncio
import dataclasses
import subprocess
from pathlib import Path

import pytest

from chaos.change import PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.drivers.ssh.connect import Connections
from chaos.drivers.ssh.machine import Machine
from chaos.errors import BlockedError, CapabilityError, FabricError, RailbreakError, SpecError
from chaos.units import Duration
from tests.ssh.box import OPS, OPS_SSHD
from tests.waiting import until, wait_until

pytestmark = pytest.mark.ssh


@pytest.fixture(scope="module")
def machines(shared_machines):
    """Four that are well, and one of each kind that is not.

    `plain` has no nft, `old` no Python 3.10, `tiny` no room on /run or /tmp, `stranger` a host key
    that nobody knows, `other` forbids root, `bare` has no sudo, that of `asks` wants a password.
    """
    hide = "for one in {}; do [ -e $one ] && mount --bind /dev/null $one; done"
    shared_machines.add("h1", "h2", "h3", "h4")
    shared_machines.add("plain", setup=hide.format("/usr/sbin/nft /sbin/nft"))
    shared_machines.add(
        "old",
        setup="mount -t tmpfs tmpfs /root; "  # whose files may add other interpreters
        "for one in /usr/bin/python3*; do mount --bind /bin/false $one; done",
        more="SetEnv PATH=/usr/bin:/bin:/usr/sbin:/sbin",
    )
    shared_machines.add("tiny", run_size="64k", tmp_size="64k")
    shared_machines.add("stranger", known=False)
    shared_machines.add("other", more="PermitRootLogin no")
    ops = OPS.format(key=f"{shared_machines.key}.pub")
    shared_machines.add("bare", setup=hide.format("/usr/bin/sudo") + ops, more=OPS_SSHD)
    asked = "echo 'ops ALL=(ALL) ALL' >/etc/sudoers.d/ops"
    shared_machines.add("asks", setup=ops + asked, more=OPS_SSHD)
    return shared_machines


def refused(machines, target):
    """The sentence with which one machine is refused; it is one line, and names the machine."""

    async def work():
        async with Connections([target], connect_s=5) as connections:
            for why in (await connections.open()).values():
                raise FabricError(why)
            machine = await Machine.prepare(connections[target.name])
            await machine.leave()
        return ""

    with pytest.raises(FabricError) as caught:
        machines.control(work)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(target.name)
    return said


def test_an_unknown_host_key_is_refused_with_its_fingerprint(machines):
    said = refused(machines, machines.target("stranger"))
    shown = subprocess.run(
        ("ssh-keygen", "-lf", str(machines.folder / "host_stranger.pub")),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[1]

    assert shown in said
    assert "connect once by hand: ssh " in said
    assert "keyscan" not in said


def test_a_changed_host_key_is_refused(machines, tmp_path):
    lines = machines.known_hosts.read_text().splitlines()
    own = next(line for line in lines if line.startswith(machines["h1"].address + " "))
    other = next(line for line in lines if line.startswith(machines["h2"].address + " "))
    swapped = tmp_path / "known_hosts"
    swapped.write_text(own.split()[0] + " " + other.split(" ", 1)[1] + "\n")

    said = refused(machines, machines.target("h1", known_hosts=str(swapped)))

    assert f"is not the one in {swapped}" in said


def test_an_ssh_config_cannot_switch_the_check_off(machines, tmp_path):
    config = tmp_path / "config"
    config.write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")

    said = refused(machines, machines.target("h1", known_hosts="", ssh_config=str(config)))

    assert "host key" in said


def test_a_wrong_key_is_refused_and_no_password_is_asked_for(machines, tmp_path):
    key = tmp_path / "key"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)), check=True)

    said = refused(machines, machines.target("h1", key_file=str(key)))

    assert "by none of our keys" in said


def test_a_key_with_a_passphrase_is_left_to_the_agent(machines, tmp_path):
    key = tmp_path / "key"
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key))
    subprocess.run(argv, check=True)

    assert "ssh-add it instead" in refused(machines, machines.target("h1", key_file=str(key)))


def test_root_is_refused_there(machines):
    assert "lets user root in by none" in refused(machines, machines.target("other"))


def test_nobody_answers(machines):
    target = dataclasses.replace(machines.target("h1"), name="gone", address="198.18.200.1")

    assert "answer" in refused(machines, target) or "not reachable" in refused(machines, target)


def test_nothing_listens(machines):
    assert "not reachable (" in refused(machines, machines.target("h1", port=2222))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("plain", "it has no nft"),
        ("old", "it has no Python 3.10 or newer"),
        ("tiny", "did not arrive whole; /run/railbreak has"),
    ],
)
def test_a_machine_that_lacks_something(machines, name, why):
    assert why in refused(machines, machines.target(name))
    assert machines[name].run("sh", "-c", "ls -d /run/railbreak /tmp/railbreak-0 2>&1", check=False)
    assert "railbreak/" not in machines[name].run("sh", "-c", "find /run /tmp", check=False)


@pytest.mark.parametrize("name", ["bare", "asks"])
def test_become_that_wants_a_password_is_refused(machines, name):
    """There is no sudo, or it asks: the sentence is its own."""
    said = refused(machines, machines.target(name, user="ops", become="sudo"))

    assert "commands there cannot be run as root" in said


def test_an_interpreter_of_the_inventory_that_is_not_there_is_passed_over(machines):
    async def work():
        target = machines.target("h1", python="/nonexistent/python3")
        async with Connections([target]) as connections:
            assert await connections.open() == {}
            machine = await Machine.prepare(connections["h1"])
            return machine.python, await machine.leave()

    python, left = machines.control(work)

    assert python.endswith("python3")
    assert left == ""


def test_becoming_root_by_su_keeps_every_word(machines):
    """The command goes through two shells there, and is quoted once for each."""
    word = "$HOME; 'a b'\n*"

    async def work():
        async with Connections([machines.target("h1", become="su")]) as connections:
            assert await connections.open() == {}
            done = await connections["h1"].run(("printf", "%s", word), stdin=b"")
            machine = await Machine.prepare(connections["h1"])
            return done.stdout.decode(), machine.facts["root"], await machine.leave()

    assert machines.control(work) == (word, True, "")
    assert machines["h1"].left() == []


def adopt(machines, hosts, table):
    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)])
        await driver.down()

    with pytest.raises(RailbreakError) as caught:
        machines.control(work)
    return caught.value


def test_half_of_the_machines_fail_each_in_one_sentence(machines, home):
    names = ["h1", "h2", "plain", "tiny", "stranger", "h3"]
    hosts, table = machines.inventory(names, routers=())

    error = adopt(machines, hosts, table)

    assert isinstance(error, FabricError)
    first, *told = str(error).splitlines()
    assert first == "3 of 6 machines are not ready:"
    assert sorted(line.split()[0].rstrip(":") for line in told) == ["plain", "stranger", "tiny"]
    assert [machines[name].left() for name in names if name != "plain"] == [[]] * 5
    assert not any((home / "state").glob("*"))


def test_a_name_that_exists_twice(machines, home):
    hosts, table = machines.inventory(["h1", "h2"], routers=())
    text = hosts.read_text()
    again = f"        h1: {{ansible_host: {machines['h3'].address}}}\n"
    hosts.write_text(text + again)

    error = adopt(machines, hosts, table)

    assert isinstance(error, SpecError)
    assert "h1" in str(error)


def test_one_machine_under_two_names(machines, home):
    """By two addresses: only the machine itself can tell."""
    second = "198.18.100.1"
    machines.ip("h2", f"addr add {second}/16 dev mgmt0")
    key = (machines.folder / "host_h2.pub").read_text().split()
    with machines.known_hosts.open("a") as file:
        file.write(f"{second} {key[0]} {key[1]}\n")
    hosts, table = machines.inventory(["h1", "h2"], routers=())
    hosts.write_text(hosts.read_text() + f"        h9: {{ansible_host: {second}}}\n")

    error = adopt(machines, hosts, table)

    assert "h9 and h2 are one and the same machine" in str(error)
    assert machines["h2"].left() == []


def test_a_cable_on_an_interface_that_is_not_there(machines, home):
    hosts, table = machines.inventory(["h1", "h2"], routers=())
    table.write_text("StartDevice,StartPort,EndDevice,EndPort\nh1,eth7,h2,eth7\n")

    error = adopt(machines, hosts, table)

    assert "h1 has no interface eth7; it has lo, mgmt0" in str(error)


def test_the_disk_of_a_machine_fills_up_before_the_fault(machines, home):
    """The dead-man cannot be written: blocked, and nothing was broken."""
    machines.add("full", run_size="512k")
    machines.link("full:eth1", "h4:eth1")
    hosts, table = machines.inventory(["full", "h4"], routers=())
    place = Place("full", "eth1")

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)])
        try:
            fill = "dd if=/dev/zero of=/run/fill bs=1k 2>/dev/null; true"
            await driver.exec("full", ("sh", "-c", fill))
            with pytest.raises(BlockedError, match=r"full: .*nothing was broken"):
                await driver.arm(
                    [PacketDrop(place, table_name("test", place))],
                    journal=driver.folder / "journal.jsonl",
                    max_life=Duration.parse("5s"),
                    log_dir=home,
                )
        finally:
            await driver.exec("full", ("rm", "/run/fill"))
            await driver.down()

    machines.control(work)
    machines.cables.clear()
    assert machines["full"].left() == machines["h4"].left() == []


def test_a_connection_lost_while_shipping_leaves_nothing(machines):
    there = Path(f"/proc/{machines['h1'].pid}/root/run/railbreak")

    async def work():
        async with Connections([machines.target("h1")]) as connections:
            await connections.open()
            task = asyncio.create_task(Machine.prepare(connections["h1"]))
            await until(lambda: list(there.glob("*/railbreak.pyz")), "our programs to arrive")
            for ssh in connections["h1"]._open:
                ssh.abort()
            with pytest.raises((FabricError, CapabilityError)):
                await task

    machines.control(work)
    wait_until(lambda: machines["h1"].left() == [], lambda: f"{machines['h1'].left()} to go")


def test_no_more_sessions_than_a_server_allows(machines):
    """The eleventh session on one connection is refused by default; another one is opened."""

    async def work():
        async with Connections([machines.target("h1")]) as connections:
            await connections.open()
            one = connections["h1"]
            found = await asyncio.gather(*(one.run(("sleep", "0.5")) for _ in range(25)))
            return [done.code for done in found], len(one._open)

    codes, used = machines.control(work)

    assert codes == [0] * 25
    assert 2 < used <= 4


def test_handshakes_are_limited(machines):
    """Never more at one time than was said, seen from outside."""
    seen = []

    async def work():
        connections = Connections([machines.target(f"h{n}") for n in (1, 2, 3, 4)], at_once=2)
        turn = connections._turn

        class Counted:
            async def __aenter__(self):
                await turn.acquire()
                seen.append(1)
                running.append(1)
                peak.append(len(running))

            async def __aexit__(self, *exc):
                running.pop()
                turn.release()

        connections._turn = Counted()
        try:
            assert await connections.open() == {}
        finally:
            await connections.close()

    running, peak = [], []
    machines.control(work)

    assert len(seen) == 4
    assert max(peak) <= 2


def test_jump_hosts_and_ssh_config(machines, tmp_path):
    """h2 by way of h1; and everything named by an ssh_config alone."""
    config = tmp_path / "config"
    config.write_text(
        f"Host box\n  HostName {machines['h3'].address}\n  User root\n"
        f"  IdentityFile {machines.key}\n  UserKnownHostsFile {machines.known_hosts}\n"
    )
    by_config = dataclasses.replace(
        machines.target("h3"),
        name="h3", address="box", user="", key_file="", known_hosts="", ssh_config=str(config),
    )  # fmt: skip

    async def work():
        jump = f"root@{machines['h1'].address}:22"
        targets = [machines.target("h2", jump=jump), by_config]
        async with Connections(targets) as connections:
            assert await connections.open() == {}
            came = await connections["h2"].run(("sh", "-c", "echo $SSH_CONNECTION"))
            host = await connections["h3"].run(("hostname",))
            return came.stdout.split()[0].decode(), host.stdout

    came, host = machines.control(work)

    assert came == machines["h1"].address
    assert host == b"h3\n"


def test_a_jump_host_that_fails_is_named(machines):
    target = machines.target("h2", jump=f"root@{machines['h1'].address}:2222")

    async def work():
        async with Connections([target]) as connections:
            return await connections.open()

    assert "jump host" in machines.control(work)["h2"]
