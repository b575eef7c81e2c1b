"""The driver `containerlab` on the real program: labs come up whole, break, heal, and go."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from chaos import drivers, registry, snapshot
from chaos.change import LinkState, Place
from chaos.drivers.containerlab import ContainerlabDriver, guard
from chaos.errors import CapabilityError, FabricError
from chaos.fabric import Port, Stream
from chaos.registry import InForce, Program
from chaos.timeline import now_ns
from chaos.units import Duration

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "labs"


def sh(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def home(lab_runtime, monkeypatch):
    """A state folder of this test's own; afterwards nothing may be left that came from it."""
    root = Path("/run", f"railbreak-clab-{os.getpid()}-{time.monotonic_ns()}")
    root.mkdir()
    monkeypatch.setenv("RAILBREAK_STATE", str(root))
    for name, value in lab_runtime.environment.items():
        monkeypatch.setenv(name, value)
    yield root
    left = [str(path) for path in root.iterdir()]
    tables = [guard.table_of(path.name) for path in root.iterdir()]
    listed = sh("nft", "list", "tables")
    left += [table for table in tables if table in listed]
    shutil.rmtree(root, ignore_errors=True)
    assert left == []


def traces(name):
    """What this machine still has of a lab, whoever made it."""
    mark = f"clab-{name}"
    listings = (
        sh("docker", "ps", "-a", "--format", "{{.Names}}"),
        "\n".join(os.listdir("/run/netns")),
        Path("/etc/hosts").read_text(),
        "\n".join(os.listdir("/etc/ssh/ssh_config.d")),
        sh("nft", "list", "tables"),
        sh("ip", "link"),
    )
    words = (mark, f"railbreak_guard_{re.sub('[^A-Za-z0-9]', '_', name)}", f"stitch-{name}-")
    return [
        line for text in listings for line in text.splitlines() if any(w in line for w in words)
    ]


@pytest.fixture
def up(home, lab_name):
    """`async with up("pair") as driver`: deployed and ready; nothing of it is left at the end."""

    @contextlib.asynccontextmanager
    async def begin(file, *, ready=True, deadline_s=90.0, **words):
        word = re.sub(r"\W", "", Path(file).name.removesuffix(".clab.yml"))[:12]
        name = lab_name(word)
        fabric = drivers.fabric(str(file), "containerlab")
        driver = await ContainerlabDriver.up(fabric, instance=name, **words)
        try:
            if ready:
                await driver.wait_ready(deadline_s)
            yield driver
        finally:
            await driver.down()
            assert traces(name) == []

    return begin


@pytest.fixture
def shared_lab(tmp_path):
    """`shared_lab(name)`: the topology file of a copy of a public lab."""

    def copy(name):
        if not (SHARED / name).is_dir():
            pytest.skip(f"the public lab {name} is not here")
        shutil.copytree(SHARED / name, tmp_path / name)
        return next((tmp_path / name).glob("*.clab.yml"))

    return copy


async def answered(driver, source, address, count=3):
    """How many pings came back."""
    argv = ("ping", "-n", "-q", "-c", str(count), "-i", "0.05", "-W", "1", address)
    done = await driver.exec(source, argv)
    found = re.search(rb"(\d+) received", done.stdout)
    return int(found[1]) if found else 0  # without a route it does not even begin


async def reaches(driver, source, address, deadline_s=20.0):
    """Return when pings come back (a neighbour that was asked for in vain is asked for again)."""
    async with asyncio.timeout(deadline_s):
        while await answered(driver, source, address) < 3:
            pass


async def unreached(driver, rounds=4):
    """Pairs of hosts between which no ping comes back, also when asked again."""
    addresses = driver.addresses()
    left = [(a, b) for a in addresses for b in addresses if a != b]
    few = asyncio.Semaphore(6)

    async def ask(pair):
        async with few:
            return await answered(driver, pair[0], addresses[pair[1]], 1)

    for _ in range(rounds):
        found = await asyncio.gather(*(ask(pair) for pair in left))
        left = [pair for pair, count in zip(left, found, strict=True) if count != 1]
    return left


def faults(driver, *wanted):
    """Faults by name and fields, made for a running fabric."""
    registry.load()
    return [registry.build(registry.FAULTS, "fault", name, fields) for name, fields in wanted]


async def broken(driver, changes, during, lasting_s=1.0):
    """Bring changes into force, do something meanwhile, heal; the proof and what was done."""
    hands = await driver.arm(
        changes,
        journal=driver.folder / f"journal-test-{now_ns()}.jsonl",
        max_life=Duration(60 * 10**9),
        log_dir=driver.folder,
    )
    try:
        await hands.start(now_ns() + 20_000_000, (InForce(0, int(lasting_s * 1e9)),))
        await asyncio.sleep(0.1)
        seen = await during()
        await hands.wait()
    finally:
        proof = await hands.heal()
        await hands.close()
    return proof, seen


# ---- up and down ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "hosts"), [("pair", 2), ("rails-2x4", 4), ("clos-2x4x8", 8)])
def test_a_shipped_fabric_deploys_as_it_is(up, name, hosts):
    async def scenario():
        async with up(name) as driver:
            assert len(driver.addresses()) == hosts
            assert await unreached(driver) == []
            assert (await driver.audit()).findings == ()
            assert {link.kind for link in driver.fabric.links} == {"veth-stitch"}

    asyncio.run(scenario())


def test_a_public_lab_of_bgp_comes_up(up, shared_lab):
    """Its nodes would be privileged and on the management network; what is changed is said."""

    async def scenario():
        async with up(shared_lab("bgp-ebgp-basics")) as driver:
            held = driver.addresses()
            assert not any(address.startswith("172.20.20.") for address in held.values())
            assert await answered(driver, "r1", "10.1.1.2") == 3
            assert (await driver.audit()).findings == ()
            assert any("default route over the management" in w for w in driver.warnings)

    asyncio.run(scenario())


def test_a_public_lab_of_ospf_comes_up(up, shared_lab):
    async def scenario():
        async with up(shared_lab("frr01"), deadline_s=150.0) as driver:
            assert sorted(driver.addresses()) == ["PC1", "PC2", "PC3"]
            assert await unreached(driver) == []

    asyncio.run(scenario())


def test_the_users_folder_stays_as_it_was(up, shared_lab):
    file = shared_lab("bgp-ebgp-basics")
    before = sorted(str(path) for path in file.parent.rglob("*"))

    async def scenario():
        async with up(file, ready=False):
            assert sorted(str(path) for path in file.parent.rglob("*")) == before

    asyncio.run(scenario())


# ---- faults --------------------------------------------------------------------------------------

LINK = "host1:eth1--router1:eth1"


def test_a_plain_link_is_refused_its_carrier_with_what_to_use(up, monkeypatch):
    monkeypatch.setenv("RAILBREAK_CLAB_LINKS", "plain")

    async def scenario():
        async with up("pair") as driver:
            assert {link.kind for link in driver.fabric.links} == {"veth-plain"}
            with pytest.raises(CapabilityError, match="mode: admin with end: both"):
                driver.locate(LinkState(Place("host1", "eth1", "wire")))
            (fault,) = faults(driver, ("link_down", {"link": LINK, "mode": "admin"}))
            before = await driver.snapshot()
            proof, seen = await broken(
                driver,
                fault.changes(driver.fabric),
                lambda: answered(driver, "host1", driver.addresses()["host2"], 2),
                2.5,
            )
            assert proof.taken_back
            assert seen == 0
            assert await snapshot.settled(driver.snapshot, before, 10.0) == ()

    asyncio.run(scenario())


@pytest.mark.alone
def test_a_shipped_experiment_passes_on_real_containers(home, lab_name, tmp_path, monkeypatch):
    """Deploy, expose, break, measure, heal, judge, destroy, from the embedded fabric's file."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    words = ["--driver", "containerlab", "--trials", "1", "--placebos", "1", "--calm-load", "100%"]
    done = railbreak("run", "remote_link_down", *words, "--json", "record.json")
    assert (tmp_path / "record.json").exists(), done.stdout + done.stderr
    record = json.loads((tmp_path / "record.json").read_text())

    (trial,) = [one for one in record["trials"] if not one["placebo"]]
    assert trial["exposure"]["exposed"] is True, done.stdout
    assert trial["proof"]["in_force"]
    assert trial["proof"]["taken_back"]
    assert trial["proof"]["residue"] == []
    assert record["comparability"]["fidelity"] == "container"
    assert traces("clos-2x4x8") == []
    judged = [one["sentence"] for one in record["findings"] if one["verdict"] != "pass"]
    assert record["verdict"] != "inconclusive", f"neither passed nor failed: {judged}"
    assert (record["verdict"], done.returncode) == ("pass", 0), judged


# ---- processes in nodes --------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def asleep(tmp_path, monkeypatch):
    """A module that tells where it lives, and then counts twenty times a second."""
    (tmp_path / "tests_asleep.py").write_text(
        "import json, os, time\n"
        "here = {'net': os.stat('/proc/self/ns/net').st_ino,\n"
        "        'pid_space': os.stat('/proc/self/ns/pid').st_ino,\n"
        "        'groups': open('/proc/self/cgroup').read(),\n"
        "        'outer': int(os.readlink('/proc/self'))}\n"
        "print(json.dumps(here), flush=True)\n"
        "while True:\n"
        "    time.sleep(0.05)\n"
        "    print('{}', flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_pausing_a_node_stops_its_programs_and_killing_it_ends_them(up):
    async def scenario():
        async with up("pair", ready=False) as driver:
            child = await driver.spawn(Program("asleep", "tests_asleep", {}, "host1"))
            lines = child.lines()
            await anext(lines)
            container = driver._nodes.box("host1").name
            sh("docker", "pause", container)
            with contextlib.suppress(TimeoutError):  # what it had said before
                while True:
                    await asyncio.wait_for(asyncio.shield(anext(lines)), 0.5)
            sh("docker", "unpause", container)
            sh("docker", "kill", container)
            assert await asyncio.wait_for(child._process.wait(), 10) != 0

    asyncio.run(scenario())


# ---- the guard -----------------------------------------------------------------------------------

# documentation addresses: nobody answers there
OUTSIDE, OUTSIDE6 = "198.51.100.7", "2001:db8:198::7"


def test_what_would_leave_by_the_management_network_is_counted_and_dropped(up, shared_lab):
    async def scenario():
        async with up(shared_lab("bgp-ebgp-basics"), ready=False) as driver:
            before = driver.held_back()
            assert await answered(driver, "r1", OUTSIDE, 4) == 0
            assert driver.held_back() == before + 4
            paths = driver.paths()
            stream = Stream("r1", "r2", "10.1.1.1", OUTSIDE, 17, 1000, 2000)
            with pytest.raises(FabricError, match="leaves r1 by eth0, which is no link"):
                await paths.crossings(stream)
            paths.close()

    asyncio.run(scenario())


def test_the_guard_is_there_before_the_first_container(up, monkeypatch):
    """It is seen at the moment at which Containerlab is called."""
    from chaos.drivers.containerlab.binary import Binary

    seen = []
    whole = Binary.run

    async def run(self, verb, *words, **more):
        if verb == "deploy":
            seen.append(sh("nft", "list", "tables"))
        return await whole(self, verb, *words, **more)

    monkeypatch.setattr(Binary, "run", run)

    async def scenario():
        async with up("pair", ready=False) as driver:
            assert guard.table_of(driver.instance) in seen[0]

    asyncio.run(scenario())


# ---- labs of others ------------------------------------------------------------------------------


@pytest.fixture
def passing():
    """`passing()`: packets to OUTSIDE that no guard has stopped, of both families."""
    table = f"railbreak_test_{os.getpid()}"
    rules = (
        f"table inet {table} {{\n counter passed {{ }}\n chain forward {{\n"
        f" type filter hook forward priority -349;\n ip daddr {OUTSIDE} counter name passed\n"
        f" ip6 daddr {OUTSIDE6} counter name passed\n }}\n}}\n"
    )
    sh("nft", rules)
    yield lambda: int(re.search(r"packets (\d+)", sh("nft", "list", "table", "inet", table))[1])
    sh("nft", "delete", "table", "inet", table)


def test_a_foreign_labs_way_out_is_held_back_while_it_is_attached(
    home, deployed, managed_file, passing
):
    """Both families are counted, others on its network are let through, nothing of it changes."""
    lab = deployed(managed_file())
    (network,) = json.loads(sh("docker", "inspect", lab.container("host1")))[0]["NetworkSettings"][
        "Networks"
    ]
    other = f"{lab.name}-other"
    sh(
        "docker",
        "run",
        "-d",
        "--name",
        other,
        "--network",
        network,
        "--cap-add",
        "NET_RAW",
        os.environ["HOST_IMAGE"],
        "sleep",
        "999",
    )
    ping = ("ping", "-q", "-c", "3", "-i", "0.1", "-W", "1")
    try:
        before = lab.state()

        async def scenario():
            driver = await ContainerlabDriver.adopt(lab.name)
            assert any("default route over the management" in one for one in driver.warnings)
            await driver.wait_ready()
            held, passed = driver.held_back(), passing()
            assert await answered(driver, "host1", OUTSIDE) == 0
            assert (driver.held_back() - held, passing() - passed) == (3, 0)
            await driver.exec("host1", (*ping, "-6", OUTSIDE6))
            assert (driver.held_back() - held, passing() - passed) == (6, 0)
            sh("docker", "exec", other, *ping, OUTSIDE, check=False)
            assert (driver.held_back() - held, passing() - passed) == (6, 3)

            stray = eth0_sent(driver)
            assert await unreached(driver) == []
            assert max(eth0_sent(driver)[n] - stray[n] for n in stray) < 512  # neighbours, at most
            addresses = driver.addresses()
            assert addresses == {"host1": "10.0.1.1", "host2": "10.0.2.1"}
            paths = driver.paths()
            stream = Stream("host1", "host2", *addresses.values(), 17, 1000, 2000)
            assert len(await paths.crossings(stream)) == 2
            astray = Stream("host1", "host2", "10.0.1.1", OUTSIDE, 17, 1000, 2000)
            with pytest.raises(FabricError, match="leaves host1 by eth0, which is no link"):
                await paths.crossings(astray)
            paths.close()
            await driver.down()

        asyncio.run(scenario())
        assert guard.dropped(lab.name) is None
        passed = passing()
        sh("docker", "exec", lab.container("host1"), *ping, OUTSIDE, check=False)
        assert passing() == passed + 3
        assert lab.state() == before
    finally:
        sh("docker", "rm", "-f", other)


def eth0_sent(driver):
    """Bytes that left each node by its management interface."""
    found = {}
    for node, path in driver.namespaces().items():
        told = json.loads(sh("nsenter", f"--net={path}", "ip", "-s", "-j", "link", "show", "eth0"))
        found[node] = told[0]["stats64"]["tx"]["bytes"]
    return found


@pytest.mark.parametrize("by", ["name", "file", "data"])
def test_attaching_leaves_a_lab_as_it_was(home, deployed, by):
    from chaos.shipped import fabric_path

    lab = deployed(fabric_path("pair"))
    before = lab.state()
    target = {
        "name": lab.name,
        "file": str(lab.file),
        "data": str(lab.folder / f"clab-{lab.name}" / "topology-data.json"),
    }[by]

    async def scenario():
        driver = await ContainerlabDriver.adopt(target)
        assert driver.instance == lab.name
        await driver.wait_ready()
        assert await unreached(driver) == []
        (fault,) = faults(driver, ("link_down", {"link": LINK, "mode": "admin"}))
        held = await driver.snapshot()
        proof, _ = await broken(driver, fault.changes(driver.fabric), driver.snapshot)
        assert proof.taken_back
        assert await snapshot.settled(driver.snapshot, held, 10.0) == ()
        with pytest.raises(CapabilityError, match="plain veth pair"):
            driver.locate(LinkState(Place("host1", "eth1", "wire")))
        assert guard.dropped(lab.name) == 0
        await driver.down()

    asyncio.run(scenario())
    assert guard.dropped(lab.name) is None
    assert lab.state() == before


def test_a_running_labs_name_is_refused_and_the_lab_stays(home, deployed):
    from chaos.shipped import fabric_path

    lab = deployed(fabric_path("pair"))
    before = lab.state()
    fabric = drivers.fabric(str(lab.file), "containerlab")
    with pytest.raises(FabricError, match=f"lab {lab.name} runs already, deployed from"):
        asyncio.run(ContainerlabDriver.up(fabric))
    assert lab.state() == before


def test_a_lab_with_a_node_twice_is_refused(home, deployed):
    from chaos.shipped import fabric_path

    lab = deployed(fabric_path("pair"))
    labels = json.loads(sh("docker", "inspect", lab.container("host1")))[0]["Config"]["Labels"]
    words = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    image = os.environ["HOST_IMAGE"]
    again = f"{lab.container('host1')}-again"
    sh("docker", "run", "-d", "--network", "none", "--name", again, *words, image, "sleep", "99")
    try:
        with pytest.raises(FabricError, match="has node host1 twice"):
            asyncio.run(ContainerlabDriver.adopt(lab.name))
    finally:
        sh("docker", "rm", "-f", again)


def test_a_container_restarted_in_mid_trial_is_named(up):
    async def scenario():
        async with up("pair") as driver:
            container = driver._nodes.box("host1").name
            sh("docker", "restart", "-t", "0", container)
            with pytest.raises(FabricError, match=f"{container} was restarted .* eth1 are gone"):
                await driver.snapshot()
            assert "was restarted" in (await driver.audit()).findings[0]
            with pytest.raises(FabricError, match="was restarted"):
                driver.resolve(Place.at(Port("host1", "eth1")))

    asyncio.run(scenario())


STORM = """
promise: A node is restarted by hand.
fabric: pair
fault: {link_down: {link: host1--router1, mode: silent}}
probes:
  flow: {source: host1, target: host2, rate: 200 pps}
phases: {calm: 500 ms, storm: 8 s, after: 500 ms}
trials: 1
placebos: 0
objectives:
  - {measure: flow_lost_packets, at_most: 100000, because: always true}
"""


def storming(tmp_path, name):
    """`railbreak run` on an instance, in its storm."""
    (tmp_path / "storm.yaml").write_text(STORM)
    argv = [sys.executable, "-c", "from chaos.cli import main; main()", "run", "storm.yaml"]
    process = subprocess.Popen(
        [*argv, "--on", name, "--calm-load", "100%"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    for line in process.stdout:
        if line.rstrip().endswith("storm"):
            break
    deadline = time.monotonic() + 5
    while rules_left(name, ["host1", "router1"]) != ["host1", "router1"]:
        assert time.monotonic() < deadline, "waited 5 s until the fault is in force"
        assert process.poll() is None, "the run ended before its storm"
    return process


def rules_left(name, nodes):
    return [
        node
        for node in nodes
        if sh("docker", "exec", f"clab-{name}-{node}", "nft", "list", "ruleset")
    ]


def test_a_container_restarted_in_the_storm_of_a_run_is_named(home, lab_name, tmp_path):
    name = lab_name("again")
    assert railbreak("up", "pair", "--driver", "containerlab", "--name", name).returncode == 0
    try:
        process = storming(tmp_path, name)
        sh("docker", "restart", "-t", "0", f"clab-{name}-host2")
        said = process.communicate(timeout=120)[0]
        assert said.count(f"container clab-{name}-host2 was restarted") == 1, said
        assert "takes its links away: eth1 are gone" in " ".join(said.split())
        assert process.returncode == 5, said
        assert json.loads(railbreak("status", "--json").stdout)["in_force"] == []
        assert rules_left(name, ["host1", "router1"]) == []
    finally:
        done = railbreak("down", name)
        assert done.returncode == 0, done.stderr
    assert traces(name) == []


class Between:
    """A socket of our own that passes on to docker's, until it is cut: a daemon that goes away."""

    def __init__(self, path):
        self.path, self.open = path, []
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self.target = host.removeprefix("unix://")
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(str(path))
        self.door.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.door.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                self.open += [near, far]
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    @staticmethod
    def _pass(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self):
        self.door.close()
        self.path.unlink()
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_a_daemon_that_goes_in_the_storm_keeps_no_fault_in_force(
    home, lab_name, tmp_path, monkeypatch
):
    """Faults are healed without it; what needs it says so, with the cure, and exit status 4."""
    name, held = lab_name("gone"), os.environ.get("DOCKER_HOST")
    between = Between(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    done = railbreak("up", "pair", "--driver", "containerlab", "--name", name)
    assert done.returncode == 0, done.stderr
    try:
        process = storming(tmp_path, name)
        between.cut()
        said = process.communicate(timeout=120)[0]
        assert process.returncode in (0, 4), said
        done = railbreak("down", name)
        assert done.returncode == 4, done.stderr
        assert re.search(r"the docker daemon does not answer .*; start it", done.stderr)
        assert "Traceback" not in said + done.stderr
    finally:
        if held is None:
            monkeypatch.delenv("DOCKER_HOST")
        else:
            monkeypatch.setenv("DOCKER_HOST", held)
        left = railbreak("status", "--json").stdout
        rules = rules_left(name, ["host1", "router1"])
        down = railbreak("down", name)
    assert json.loads(left)["in_force"] == []
    assert rules == []
    assert down.returncode == 0, down.stderr
    assert traces(name) == []


def test_a_link_that_is_missing_is_named(home, deployed):
    from chaos.shipped import fabric_path

    lab = deployed(fabric_path("pair"))
    lab.run("host2", "ip", "link", "del", "eth1")
    with pytest.raises(FabricError, match="link host2:eth1--router1:eth2: host2 has no interface"):
        asyncio.run(ContainerlabDriver.adopt(lab.name))
    assert guard.dropped(lab.name) is None


def test_a_lab_that_does_not_run_is_named(home):
    with pytest.raises(FabricError, match="no lab 'nobody-has-this' runs here"):
        asyncio.run(ContainerlabDriver.adopt("nobody-has-this"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(home, lab_name, tmp_path, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(full))
    monkeypatch.setenv("RAILBREAK_STATE", str(full))
    name = lab_name("full")
    try:
        with pytest.raises(FabricError, match=r"[Nn]o space left on device"):
            asyncio.run(
                ContainerlabDriver.up(drivers.fabric("pair", "containerlab"), instance=name)
            )
        assert list(full.iterdir()) == []
        assert traces(name) == []
    finally:
        sh("umount", str(full))


# ---- owners that die -----------------------------------------------------------------------------


def railbreak(*words):
    argv = [sys.executable, "-c", "from chaos.cli import main; main()", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def orphaned(name):
    """A pair of ours whose owner is dead."""
    code = (
        "import asyncio, os, signal\n"
        "from chaos import drivers\n"
        "async def go():\n"
        f"    fabric = drivers.fabric('pair', 'containerlab')\n"
        f"    await drivers.named('containerlab').up(fabric, instance={name!r})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(go())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)


def test_down_of_a_dead_owners_lab_spares_who_has_its_name_now(home, lab_named):
    """Our lab's owner died, it was destroyed by hand; somebody deployed its name anew."""
    from chaos.shipped import fabric_path

    lab = lab_named(fabric_path("pair"))
    orphaned(lab.name)
    ours = home / lab.name / "lab"
    sh("containerlab", "destroy", "--cleanup", "-t", str(next(ours.glob("*.clab.yml"))))
    lab.deploy()
    before = lab.state()

    done = railbreak("down", lab.name)

    assert done.returncode == 0, done.stderr
    assert lab.state() == before
    assert lab.run("host1", "ping", "-c1", "-W1", "10.0.2.1")
    assert guard.dropped(lab.name) is None


def test_a_dead_owners_lab_is_told_and_taken_down(home, lab_name):
    name = lab_name("orphan")
    orphaned(name)
    told = json.loads(railbreak("status", "--json").stdout)["fabrics"]
    assert [(one["instance"], one["stale"]) for one in told] == [(name, True)]
    assert guard.dropped(name) == 0

    done = railbreak("down", name)

    assert done.returncode == 0, done.stderr
    assert traces(name) == []
