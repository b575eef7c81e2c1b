"""The embedded driver brings fabrics up, reaches into them, and leaves nothing."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from chaos import topology
from chaos.change import Place
from chaos.drivers.fib import read_running
from chaos.drivers.netns import NetnsDriver
from chaos.drivers.state import Life
from chaos.errors import FabricError, SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.netns import inode, inside
from chaos.packets.engines import ENGINES
from chaos.registry import Program
from tests.waiting import wait_until

pytestmark = pytest.mark.netns

LABS = Path(__file__).resolve().parents[3] / "shared" / "labs"


async def received(driver, source, address, count=3, *options):
    """How many pings were answered."""
    argv = ("ping", "-n", "-q", "-c", str(count), "-i", "0.01", "-W", "1", *options, address)
    done = await driver.exec(source, argv)
    return int(re.search(rb"(\d+) received", done.stdout)[1])


async def all_pairs(driver):
    """Pairs of hosts that cannot ping each other."""
    addresses = driver.addresses()
    pairs = [(a, b) for a in addresses for b in addresses if a != b]
    answers = await asyncio.gather(*(received(driver, a, addresses[b], 1) for a, b in pairs))
    return [pair for pair, count in zip(pairs, answers, strict=True) if count != 1]


@pytest.mark.parametrize(
    ("name", "hosts"), [("pair", 2), ("clos-2x4x8", 8), ("rails-2x4", 4)], ids=str
)
def test_a_shipped_fabric_forwards_between_all_hosts(bring_up, name, hosts):
    """When `wait_ready` returns, every host reaches every other, at the first packet."""

    async def scenario():
        async with bring_up(topology.load(name)) as driver:
            assert len(driver.addresses()) == hosts
            assert await all_pairs(driver) == []
            assert (await driver.audit()).findings == ()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "file",
    [
        "bgp-ebgp-basics/topology.clab.yml",
        pytest.param("frr01/frr01.clab.yml", marks=pytest.mark.slow),
    ],
)
def test_a_published_lab_comes_up_unmodified(bring_up, file):
    """frr01 takes OSPF's 40 s of waiting for a designated router."""
    if not LABS.is_dir():
        pytest.skip(f"the published labs are not in {LABS}")

    async def scenario():
        async with bring_up(topology.load(str(LABS / file)), deadline_s=90) as driver:
            assert (await driver.audit()).findings == ()
            assert await all_pairs(driver) == []
            if file.startswith("bgp"):  # it has no hosts: r2's network reaches r4's across r3
                source = ("-I", "192.168.2.1")
                assert await received(driver, "r2", "192.168.4.1", 3, *source) == 3

    asyncio.run(scenario())


def test_ready_means_every_leg_and_bfd(bring_up, square):
    async def scenario():
        async with bring_up(square) as driver:
            routes = (await driver.exec("r1", ("ip", "route", "show", "10.7.2.0/24"))).stdout
            assert routes.count(b"nexthop") == 2
            (peers,) = await driver.vtysh("r1", "show bfd peers json")
            assert [peer["status"] for peer in peers] == ["up", "up"]

    asyncio.run(scenario())


def test_not_ready_says_which_node_lacks_what(bring_up, square):
    """r2 announces nothing: r1 never learns the way to h2."""
    conf = Path(square.source).with_name("r2.conf")
    conf.write_text(conf.read_text().replace("  redistribute connected\n", ""))

    async def scenario():
        async with bring_up(square, ready=False) as driver:
            with pytest.raises(FabricError, match=r"r1 has no route to 10\.7\.2\.0/24"):
                await driver.wait_ready(5.0)

    asyncio.run(scenario())


def test_fewer_legs_than_paths_are_taken_as_meant_with_a_word(bring_up, square):
    conf = Path(square.source).with_name("r1.conf")
    limited = "  redistribute connected\n  maximum-paths 1\n"
    conf.write_text(conf.read_text().replace("  redistribute connected\n", limited))

    async def scenario():
        async with bring_up(square) as driver:
            said = "r1 has 1 of 2 legs to 10.7.2.0/24 (as its routing means)"
            assert driver.warnings == [said]

    asyncio.run(scenario())


def test_session_changes_are_in_the_log_with_microseconds(bring_up, square):
    async def scenario():
        async with bring_up(square) as driver:
            log = driver.logs("r1").read_text()
            stamp = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6}"
            assert re.search(stamp + r" BGP: .*%ADJCHANGE: neighbor eth1\(r2\).* Up", log)
            assert re.search(stamp + r" BFD: .*state-change: .*ifname:eth2\] .* -> up", log)

    asyncio.run(scenario())


@pytest.mark.parametrize("line", ["neighbour 10.0.0.1 remote-as 1", "route-map x allow 10"])
def test_a_line_that_frr_refuses_is_quoted(left, square, line):
    """Both ways of configuring: cut per daemon, and through vtysh."""
    conf = Path(square.source).with_name("r1.conf")
    text = conf.read_text()
    conf.write_text(
        text.replace(" neighbor fab peer-group\n", f" {line}\n")
        if line.startswith("neighbour")
        else text + line + "\n"
    )

    async def scenario():
        with pytest.raises(FabricError, match=rf"r1: FRR refused .*{line}"):
            await (await NetnsDriver.up(square)).wait_ready(5.0)
        for instance in NetnsDriver.running():
            await (await NetnsDriver.attach(instance.instance)).down()

    asyncio.run(scenario())
    assert left() == []


# ---- wires --------------------------------------------------------------------------------------


def test_a_hidden_end_takes_the_carrier_from_one_side_only(bring_up):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            link = driver.fabric.links[0]
            near, far = (driver.resolve(Place.at(port)) for port in link.ports)
            wire = driver.resolve(Place.at(link.a, "wire"))
            assert (wire.netns, wire.inode) == (driver.wire, inode(driver.wire))

            inside(wire.netns, lambda: _ip("link", "set", wire.ifname, "down"))

            # what the kernel tells of the state follows the carrier a moment later
            wait_until(lambda: "NO-CARRIER" in inside(near.netns, _shown), "no carrier")
            assert near.ifindex not in inside(near.netns, read_running)
            assert far.ifindex in inside(far.netns, read_running)
            assert ",UP" in inside(near.netns, _shown), "the node's own setting is untouched"
            with pytest.raises(FabricError, match=f"without carrier .*{link.a.id}"):
                await driver.wait_ready(0.1)

            inside(wire.netns, lambda: _ip("link", "set", wire.ifname, "up"))
            await driver.wait_ready()
            assert await all_pairs(driver) == []

    asyncio.run(scenario())


def _shown():
    argv = ("ip", "link", "show", "eth1")
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _ip(*argv):
    subprocess.run(("ip", *argv), check=True)


def test_a_drop_at_the_hidden_end_loses_what_the_node_sent(bring_up):
    """The wire is joined by nftables at ingress; a fault's rule (priority -500) comes before."""

    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            addresses = driver.addresses()
            host = next(iter(addresses))
            wire = driver.resolve(Place.at(driver.plan.ends_of(host)[0].port, "wire"))
            hook = f"type filter hook ingress device {wire.ifname} priority -500;"
            rules = (
                f"table netdev t {{\n chain c {{ {hook}\n ip protocol icmp counter drop\n }}\n}}"
            )

            def nft(text):
                return inside(
                    wire.netns,
                    lambda: subprocess.run(("nft", text), check=True, capture_output=True).stdout,
                )

            other = next(address for name, address in addresses.items() if name != host)
            nft(rules)
            assert await received(driver, host, other) == 0
            assert b"counter packets 3" in nft("list table netdev t")
            nft("delete table netdev t")
            assert await received(driver, host, other) == 3

    asyncio.run(scenario())


def test_a_bridge_and_a_dummy_are_made_in_namespaces_of_ours(bring_up):
    lines = "ip addr add 10.8.0.{}/24 dev eth1"
    nodes = {f"h{n}": Node(f"h{n}", settings={"exec": [lines.format(n)]}) for n in (1, 2)}
    nodes["sw"] = Node("sw", kind="bridge", role="bridge", runs="bridge")
    links = (
        Link(Port("h1", "eth1"), Port("sw", "p1")),
        Link(Port("h2", "eth1"), Port("sw", "p2")),
        Link(Port("h1", "eth9"), Port("", ""), kind="dummy"),
    )

    async def scenario():
        async with bring_up(Fabric("l2", nodes, links)) as driver:
            assert await all_pairs(driver) == []
            members = (await driver.exec("sw", ("ip", "link", "show", "master", "sw"))).stdout
            assert members.count(b"master sw") == 2
            assert b",UP" in (await driver.exec("h1", ("ip", "link", "show", "eth9"))).stdout

    asyncio.run(scenario())
    assert not Path("/sys/class/net/sw").exists()


# ---- exec and spawn -----------------------------------------------------------------------------


def test_exec_gives_bytes_and_status_and_kills_at_the_deadline(bring_up):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            host = next(iter(driver.addresses()))
            done = await driver.exec(host, ("sh", "-c", "cat; exit 3"), stdin=b"\xff\0")
            assert (done.code, done.stdout) == (3, b"\xff\0")
            assert done.ended_ns > done.started_ns
            with pytest.raises(FabricError, match=r"sleep 77: not over after 0\.2 s"):
                await driver.exec(host, ("sleep", "77"), deadline_s=0.2)
            async with asyncio.timeout(5):  # what is killed may take a moment to be gone
                while (await driver.exec(host, ("pgrep", "-f", "^sleep 77"))).stdout:
                    pass
            with pytest.raises(FabricError, match="there is no program 'nonsense'"):
                await driver.exec(host, ("nonsense",))
            with pytest.raises(SpecError, match="no node 'hots1'"):
                await driver.exec("hots1", ("true",))

    asyncio.run(scenario())


def test_a_node_sees_its_own_files_names_and_processes(bring_up, square):
    async def scenario():
        async with bring_up(square, ready=False) as driver:
            done = await driver.exec("r1", ("hostname",))
            assert done.stdout == b"r1\n"
            assert await received(driver, "h1", "r1") == 3
            processes = (await driver.exec("r1", ("ps", "ax", "-o", "args="))).stdout
            assert b"pytest" not in processes
            await driver.exec("r1", ("sh", "-c", "echo mine > /var/tmp/x; echo mine > /run/x"))

    asyncio.run(scenario())
    assert not Path("/run/x").exists()
    assert not Path("/var/tmp/x").exists()


def test_a_failed_exec_line_names_node_and_line(left):
    lines = ["ip link set eth1 up", "ip addr add 10.0.0.1/33 dev eth1"]
    nodes = {"h1": Node("h1", settings={"exec": lines}), "h2": Node("h2")}
    links = (Link(Port("h1", "eth1"), Port("h2", "eth1")),)
    with pytest.raises(FabricError, match=r"h1: exec line 2 \(ip addr add .*\) failed .*10\.0"):
        asyncio.run(NetnsDriver.up(Fabric("bad", nodes, links)))
    assert left() == []


PROGRAM = """
import json, os, sys, time
setup = json.loads(sys.stdin.readline())
print(json.dumps({"ev": "ready", "net": os.stat("/proc/self/ns/net").st_ino,
                  "python": sys.executable, **setup}), flush=True)
print("words", file=sys.stderr, flush=True)
if setup["config"].get("deaf"):
    time.sleep(1000)
for line in sys.stdin:
    print(json.dumps({"heard": line.strip()}), flush=True)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "parrot.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Program("parrot", "parrot", {"a": 1}, node="host1")


def test_a_program_is_born_in_its_node_and_speaks_lines(bring_up, program):
    import json

    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            child = await driver.spawn(program)
            lines = child.lines()
            first = json.loads(await anext(lines))
            assert first["net"] == inode(driver.namespaces()["host1"])
            assert first["config"] == {"a": 1}
            assert first["namespaces"] == driver.namespaces()
            await child.send(b"hello")
            assert json.loads(await anext(lines)) == {"heard": "hello"}
            assert await child.stop() == 0
            assert (driver.folder / "logs" / "parrot.log").read_text() == "words\n"

            at_home = await driver.spawn(replace(program, node=""))
            assert json.loads(await anext(at_home.lines()))["net"] == inode("/proc/self/ns/net")
            await at_home.stop()

            deaf = await driver.spawn(replace(program, config={"deaf": True}))
            await anext(deaf.lines())
            assert await deaf.stop(deadline_s=0.1) == -signal.SIGKILL

    asyncio.run(scenario())


# ---- copies, owners, leavings -------------------------------------------------------------------


def test_two_copies_live_side_by_side(bring_up, left):
    fabric = topology.load("pair")

    async def scenario():
        async with bring_up(fabric) as one:
            async with bring_up(fabric) as two:
                assert (one.instance, two.instance) == ("pair", "pair-2")
                assert await all_pairs(one) == await all_pairs(two) == []
                assert set(one.namespaces().values()).isdisjoint(two.namespaces().values())
                found = [(item.instance, item.alive) for item in NetnsDriver.running()]
                assert found == [("pair", True), ("pair-2", True)]
                with pytest.raises(FabricError, match="pair-2 is up already"):
                    await NetnsDriver.up(fabric, instance="pair-2")
            assert await all_pairs(one) == []
            await two.down()  # repeatable

    asyncio.run(scenario())
    assert left() == []


def test_attach_reaches_what_another_brought_up(bring_up):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            other = await NetnsDriver.attach("pair")
            assert other.fabric == driver.fabric
            assert other.namespaces() == driver.namespaces()
            assert await all_pairs(other) == []
            with pytest.raises(FabricError, match=r"no fabric 'piar' is up; did you mean pair\?"):
                await NetnsDriver.attach("piar")

    asyncio.run(scenario())


def test_nothing_is_left_of_a_program_that_a_node_started_and_forgot(bring_up, left):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            node = next(iter(driver.namespaces()))
            await driver.exec(node, ("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"))
            assert len(left()) > 2, "this test would notice"

    asyncio.run(scenario())
    assert left() == []


OWNER = """
import asyncio, os, signal, sys
from chaos import topology
from chaos.drivers.netns import NetnsDriver

# whoever started us in the background may have had us ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    fabric = topology.load(sys.argv[1])
    driver = await NetnsDriver.up(
        fabric, linger=sys.argv[2] == "linger", progress=lambda step: print(step, flush=True)
    )
    print("up", flush=True)
    if sys.argv[2] == "stay":
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def owner(*argv):
    return subprocess.Popen(
        (sys.executable, "-c", OWNER, *argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def read_until(process, wanted):
    for line in process.stdout:
        if line.strip() == wanted:
            return
    pytest.fail(f"it ended before {wanted!r}")


#: After which step, how many ms later, by which signal: spread over the whole of `up`.
MOMENTS = [
    (step, later, number)
    for later, (step, number) in enumerate(
        (step, number)
        for step in ("namespaces", "links", "exec lines", "FRR on 6 routers")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    )
]


@pytest.mark.parametrize(
    ("step", "later", "number"), MOMENTS, ids=lambda item: getattr(item, "name", str(item))
)
def test_interrupted_while_coming_up_nothing_is_left(left, step, later, number):
    """Moments from the first mount to the last daemon."""
    process = owner("clos-2x4x8", "stay")
    try:
        read_until(process, step)
        time.sleep(later * 0.029 % 0.2)
        process.send_signal(number)
        process.wait(15)
    finally:
        process.stdout.close()
        process.kill()
    if number == signal.SIGINT:  # Python unwinds; the others leave it to the keeper
        assert left() == []
    wait_until(lambda: left() == [], "everything to go")


def test_a_fabric_ends_with_its_owner(left):
    process = owner("pair", "stay")
    read_until(process, "up")
    assert left() != []
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: left() == [], "its keeper to go")


def test_what_owner_and_keeper_left_when_both_were_killed_is_reaped(left):
    process = owner("pair", "stay")
    read_until(process, "up")
    (found,) = NetnsDriver.running()
    os.kill(found.owner, signal.SIGKILL)
    os.kill(found.keeper, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not any("process" in item for item in left()), "the processes to go")
    assert left() == [str(found.folder)]

    assert NetnsDriver.reap() == ("pair",)
    assert left() == []


DEAF_OWNER = """
import asyncio, sys
from chaos import topology
from chaos.drivers.netns import NetnsDriver
from chaos.registry import Program

async def main():
    driver = await NetnsDriver.up(topology.load("pair"))
    child = await driver.spawn(Program("parrot", "parrot", {"deaf": True}, node="host1"))
    await anext(child.lines())
    print(child.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_a_program_that_does_not_listen_dies_with_its_owner(left, program):
    argv = (sys.executable, "-c", DEAF_OWNER)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
    pid = int(process.stdout.readline())
    child = Life.of(pid)
    assert child.alive
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not child.alive, "the deaf program to go", 1.5)
    wait_until(lambda: left() == [], "the fabric to go")


def test_a_lingering_fabric_outlives_its_owner(left):
    process = owner("pair", "linger")
    read_until(process, "up")
    process.wait(10)
    process.stdout.close()

    async def scenario():
        (found,) = NetnsDriver.running()
        assert (found.instance, found.fabric, found.alive, found.linger) == (
            "pair",
            "pair",
            True,
            True,
        )
        assert found.owner == process.pid
        driver = await NetnsDriver.attach("pair")
        assert await all_pairs(driver) == []
        await driver.down()

    asyncio.run(scenario())
    assert left() == []


def test_a_killed_keeper_takes_all_with_it_and_is_reaped(bring_up, left):
    async def scenario():
        async with bring_up(topology.load("pair")) as driver:
            os.kill(NetnsDriver.running()[0].keeper, signal.SIGKILL)
            wait_until(lambda: not any("process" in item for item in left()), "the processes")
            assert inode(driver.wire) == 0
            assert NetnsDriver.running() == ()
            with pytest.raises(FabricError, match="fabric 'pair' is down"):
                await driver.exec("host1", ("true",))

    asyncio.run(scenario())
    assert left() == []


def test_an_ordinary_user_gets_one_sentence():
    code = (
        "import asyncio; from chaos import topology; from chaos.drivers.netns import NetnsDriver\n"
        "from chaos.errors import CapabilityError\n"
        "try: asyncio.run(NetnsDriver.up(topology.load('pair')))\n"
        "except CapabilityError as error: print(error)"
    )
    argv = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c")
    done = subprocess.run((*argv, code), capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == [
        "namespaces, links and routers can only be made by root here; "
        "run it as root: sudo railbreak …"
    ], done.stderr


def test_every_capability_that_is_missing_has_a_reason_and_a_cure():
    found = {item.name: item for item in NetnsDriver.probe()}

    for name in ("root", "netns", "mount_namespace", "pid_namespace", "veth", "nft", "frr"):
        assert found[name].here, found[name]
    assert all(item.reason and item.cure for item in found.values() if not item.here)
    assert {f"engine {name}" for name in ENGINES} < found.keys()
    assert found["engine nftables"].here
