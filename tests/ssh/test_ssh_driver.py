"""The driver `ssh` on machines with real OpenSSH servers: what every driver promises."""

import asyncio
import shutil
import subprocess
import sys

import pytest

from chaos import drivers
from chaos.change import LinkState, NodePower, PacketDrop, Place, table_name
from chaos.drivers.ssh import SshDriver
from chaos.errors import BlockedError, CapabilityError, FabricError, SpecError
from chaos.fabric import Stream
from chaos.registry import InForce
from tests.ssh.attached import on, put
from tests.waiting import until, wait_until

pytestmark = pytest.mark.ssh
S = 10**9


def drop(node, port, match=""):
    place = Place(node, port)
    return PacketDrop(place, table_name("test", place, match), match)


def test_it_is_registered():
    assert "ssh" in drivers.names()
    assert drivers.named("ssh") is SshDriver


def test_attach_checks_and_says_what_is_there(three, home):
    async def work(driver):
        await driver.wait_ready(10)
        found = await driver.audit()
        return dict(driver.addresses()), found, driver.fidelity

    addresses, audit, fidelity = on(three, home, work)

    assert addresses == {"h1": "198.19.1.2", "h2": "198.19.2.2"}
    assert (audit.findings, fidelity) == ((), "hardware")
    assert audit.facts["clocks"].keys() == {"h1", "h2", "r1"}


def test_exec_gives_bytes_and_status_and_no_shell(three, home):
    async def work(driver):
        done = await driver.exec("h1", ("cat",), stdin=b"\0\xff\n")
        failed = await driver.exec("h1", ("sh", "-c", "echo $HOME; exit 3"))
        quoted = await driver.exec("h1", ("printf", "%s", "$HOME; 'a b'\n*"))
        with pytest.raises(FabricError, match="was killed after 1 s"):
            await driver.exec("h1", ("sh", "-c", "sleep 4321 & sleep 4321"), deadline_s=1)
        return done, failed, quoted

    done, failed, quoted = on(three, home, work)

    assert (done.code, done.stdout) == (0, b"\0\xff\n")
    assert (failed.code, failed.stdout) == (3, b"/root\n")
    assert quoted.stdout == b"$HOME; 'a b'\n*"
    assert "4321" not in three["h1"].run("ps", "-ww", "-eo", "args=")


def test_a_drop_acts_is_counted_and_leaves_no_trace(three, home):
    async def work(driver):
        async def ping(hands):
            await until(lambda: hands.actions, "the drop to be in force")
            argv = ("ping", "-c", "3", "-i", "0.2", "-W", "1", "198.19.2.2")
            done = await driver.exec("h1", argv)
            assert b" 0 received" in done.stdout
            assert (await hands.hits())[0].hit > 0

        return await put(driver, home, [drop("r1", "eth1")], [InForce(0, 3 * S)], ping)

    proof = on(three, home, work)

    assert (proof.in_force, proof.taken_back, proof.late, proof.trouble) == (True, True, (), ())
    assert proof.changes[0].hit >= 3
    assert proof.event.width_ns > 0


def test_what_is_asked_of_the_wire_is_done_at_the_other_end(three, home):
    """Packets that h1 sends are lost at the ingress of r1; the carrier goes with r1's port."""

    async def work(driver):
        place = Place("h1", "eth1", "wire")
        lost = PacketDrop(place, table_name("test", place))
        first = await put(driver, home, [lost], [InForce(0, S // 2)])

        async def look(hands):
            show = ("ip", "-o", "link", "show", "eth1")
            dark = lambda: "NO-CARRIER" in three["h1"].run(*show)  # noqa: E731
            await asyncio.to_thread(wait_until, dark, "h1 to lose its carrier", 5)
            assert ",UP" in three["h1"].run(*show)

        both = [LinkState(place), LinkState(Place("r1", "eth1", "wire"))]
        second = await put(driver, home, both, [InForce(0, 4 * S)], look)
        return first, second

    first, second = on(three, home, work)

    assert first.changes[0].change.place == Place("h1", "eth1", "wire")
    assert [one.taken_back for one in second.changes] == [True, True]


def test_flap_on_two_machines_at_once(three, home):
    spans = [InForce(at * S // 4, at * S // 4 + S // 8) for at in range(4)]

    async def work(driver):
        changes = [LinkState(Place("h1", "eth1")), LinkState(Place("h2", "eth1"))]
        return await put(driver, home, changes, spans)

    proof = on(three, home, work)

    assert [action.kind for action in proof.actions].count("do") == 8
    assert {action.change for action in proof.actions} == {0, 1}
    assert proof.taken_back


def test_link_down_puts_routes_back(three, home):
    async def work(driver):
        await put(driver, home, [LinkState(Place("h1", "eth1"))], [InForce(0, S)])
        return (await driver.exec("h1", ("ip", "route"))).stdout

    assert b"198.19.0.0/16 via 198.19.1.1" in on(three, home, work)


def test_paths_and_counters_come_from_the_machines(three, home):
    async def work(driver):
        paths = driver.paths()
        stream = Stream("h1", "h2", "198.19.1.2", "198.19.2.2", 17, 4000, 4791)
        before = await paths.counters(driver.fabric.links)
        await driver.exec("h1", ("ping", "-c", "5", "-i", "0.05", "198.19.2.2"))
        after = await paths.counters(driver.fabric.links)
        return await paths.crossings(stream), before, after

    crossings, before, after = on(three, home, work)

    assert [str(one) for one in crossings] == [
        "h1->r1 (h1:eth1--r1:eth1)",
        "r1->h2 (h2:eth1--r1:eth2)",
    ]
    assert len(before) == 4
    assert all(after[port].tx_packets - before[port].tx_packets >= 5 for port in before)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (NodePower(Place("h1")), "PDU or BMC"),
        (LinkState(Place("h1", "mgmt0")), "no link at port|carries our own connection"),
    ],
    ids=["power", "our own interface"],
)
def test_refused_before_anything_is_touched(three, home, change, why):
    async def work(driver):
        with pytest.raises((CapabilityError, SpecError), match=why):
            await put(driver, home, [change], [InForce(0, S)])

    on(three, home, work)


def test_the_interface_that_carries_us_is_refused_by_name(three, home):
    """Even when the inventory draws a cable there."""
    hosts, table = three.inventory()
    with table.open("a") as file:
        file.write("h1,mgmt0,h2,mgmt0\n")

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="own")
        try:
            with pytest.raises(CapabilityError, match=r"mgmt0.*carries our own connection to h1"):
                driver.resolve(Place("h1", "mgmt0"))
        finally:
            await driver.down()

    three.control(work)
    assert three.left() == []


def test_a_change_in_force_already_is_blocked_and_names_the_machine(three, home):
    async def work(driver):
        await driver.exec("h2", ("nft", f"add table netdev {drop('h2', 'eth1').table}"))
        try:
            with pytest.raises(BlockedError, match=r"h2: .*is there already"):
                await put(driver, home, [drop("h1", "eth1"), drop("h2", "eth1")], [InForce(0, S)])
        finally:
            await driver.exec("h2", ("nft", f"delete table netdev {drop('h2', 'eth1').table}"))

    on(three, home, work)


def test_up_is_refused_with_the_way_to_attach(three):
    async def work():
        with pytest.raises(CapabilityError, match="attach INVENTORY"):
            await SshDriver.up(None)

    asyncio.run(work())


def test_the_command_line_attaches_injects_and_lets_go(three, home):
    hosts, table = three.inventory()

    def railbreak(*words):
        argv = ("nsenter", f"--net={three.mgmt}", sys.executable, "-c")
        body = "from chaos.cli import main; main()"
        done = subprocess.run((*argv, body, *words), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    railbreak("attach", str(hosts), "--driver", "ssh", "--links", str(table), "--name", "cli")
    try:
        assert "198.19.1.2" in railbreak("exec", "h1", "--on", "cli", "--", "ip", "-o", "addr")
        fault = (
            "link_down",
            "link=h1:eth1--r1:eth1",
            "mode=silent",
            "--for",
            "1s",
            "--limit",
            "hosts_isolated=2",
            "--limit",
            "bisection_left=0%",
            "--limit",
            "planes_left=0",
        )
        assert "nothing is left of it" in railbreak("inject", "cli", *fault)
        assert "no fault is in force" in railbreak("status")
    finally:
        assert "let go of cli" in railbreak("down", "cli")
    assert three.left() == []


def test_nothing_is_left_when_the_controller_just_exits(three, home):
    """No farewell is needed: the steward sees its input end."""
    hosts, table = three.inventory()

    async def work():
        driver = await SshDriver.adopt(str(hosts), links=[str(table)], instance="gone")
        for one in driver.fleet.ready.values():
            for ssh in one.connection._open:
                ssh.abort()

    three.control(work)
    wait_until(lambda: three.left() == [], "everything shipped to be removed")
    shutil.rmtree(home / "state")
