"""Whoever dies, every container heals: looked at in the containers, not by what we believe.

Twenty hosts of a real lab are under fault at once (every other one its link set down, the others
losing every packet) while the controller is killed, or controller and injector both.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.drivers.containerlab import guard
from chaos.netlink import IFF_UP, RTM_GETLINK, Netlink, ifinfo
from chaos.netns import inside
from chaos.nft import Compiler

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(400)]

HOSTS = [f"h{number}" for number in range(1, 21)]
LIFE_S = 20
NODE = """
    {name}:
      exec: [{lines}]
"""
HEAD = """
name: twenty
topology:
  defaults:
    kind: linux
    image-pull-policy: IfNotPresent
    image: ${HOST_IMAGE:=ghcr.io/srl-labs/network-multitool:latest}
    cmd: sleep infinity
    network-mode: none
    privileged: false
    cap-add: [NET_ADMIN, NET_RAW, SYS_ADMIN]
  nodes:"""
CONTROLLER = """
import asyncio, json, sys
from chaos.change import LinkState, PacketDrop, Place, table_name
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.journal import read
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

async def work():
    driver = await ContainerlabDriver.attach(sys.argv[1])
    life = Duration.parse(sys.argv[2] + " s")
    changes = []
    for at, node in enumerate(sys.argv[3:]):
        place = Place(node, "eth1")
        changes.append(PacketDrop(place, table_name("cut", place)) if at % 2 else LinkState(place))
    journal = driver.folder / f"journal-{now_ns()}.jsonl"
    hands = await driver.arm(changes, journal=journal, max_life=life, log_dir=driver.folder)
    await hands.start(now_ns() + 100_000_000, [InForce(0, life.ns)])
    while len(hands.actions) < len(changes):
        await asyncio.sleep(0.02)
    (one, *_) = read(journal)
    print(json.dumps({"injector": one.owner[0]}), flush=True)
    await hands.wait()

asyncio.run(work())
"""


def sh(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def railbreak(*words, status=0):
    argv = [sys.executable, "-c", "from chaos.cli import main; main()", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def twenty(lab_runtime, tmp_path_factory):
    """h1 … h20 around r1, real containers; the instance's name."""
    root = Path("/run", f"railbreak-clabcut-{os.getpid()}")
    root.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("RAILBREAK_STATE", str(root))
    for name, value in lab_runtime.environment.items():
        patch.setenv(name, value)
    links, nodes = [], ""
    own = ", ".join(f"ip addr add 10.9.{at}.0/31 dev eth{at}" for at in range(1, 21))
    nodes += NODE.format(name="r1", lines=own)
    for at, host in enumerate(HOSTS, 1):
        nodes += NODE.format(name=host, lines=f"ip addr add 10.9.{at}.1/31 dev eth1")
        links.append(f'    - endpoints: ["{host}:eth1", "r1:eth{at}"]')
    file = tmp_path_factory.mktemp("twenty") / "twenty.clab.yml"
    file.write_text(HEAD + nodes + "  links:\n" + "\n".join(links) + "\n")
    name = f"rbt{os.getpid()}-twenty"
    railbreak("up", str(file), "--driver", "containerlab", "--name", name)
    try:
        yield name
    finally:
        railbreak("down", name)
        left = list(root.iterdir())
        shutil.rmtree(root, ignore_errors=True)
        patch.undo()
        assert left == []
        assert guard.dropped(name) is None


def fault_here():
    """Whether the network of the calling thread has a link down, or any rule."""
    warm, compiler = Netlink.open(), Compiler()
    try:
        found = warm.dump(RTM_GETLINK, ifinfo())
        up = [int.from_bytes(one.body[8:12], sys.byteorder) & IFF_UP for one in found]
        return not all(up) or compiler.run("list ruleset").strip() != ""
    finally:
        warm.close()
        compiler.close()


def broken(lab):
    """Hosts that are under fault, by what is to be seen in each container's own network."""
    names = [f"clab-{lab}-{host}" for host in HOSTS]
    pids = sh("docker", "inspect", "--format", "{{.State.Pid}}", *names).split()
    return [
        host
        for host, pid in zip(HOSTS, pids, strict=True)
        if inside(f"/proc/{pid}/ns/net", fault_here)
    ]


def begun(lab):
    """A controller that holds all twenty under fault, and its injector's process id."""
    argv = [sys.executable, "-c", CONTROLLER, lab, str(LIFE_S), *HOSTS]
    controller = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    injector = json.loads(controller.stdout.readline())["injector"]
    assert broken(lab) == HOSTS
    return controller, injector


def test_the_controller_is_killed(twenty, record_property):
    """The injector notices and heals at once."""
    controller, _ = begun(twenty)
    os.kill(controller.pid, signal.SIGKILL)
    killed = time.monotonic()
    while left := broken(twenty):
        assert time.monotonic() - killed < LIFE_S, f"still under fault: {left}"
    record_property("healed_after_s", time.monotonic() - killed)
    controller.communicate()
    assert json.loads(railbreak("status", "--json"))["in_force"] == []


def test_controller_and_injector_are_killed(twenty, record_property):
    """Nobody is left to heal, also not after the maximum life: `undo --all` does."""
    controller, injector = begun(twenty)
    for pid in (injector, controller.pid):
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    controller.communicate()
    while time.monotonic() < killed + LIFE_S + 1:
        assert broken(twenty) == HOSTS, "who healed them?"
        time.sleep(1)
    told = json.loads(railbreak("status", "--json", status=8))["in_force"]
    assert len(told) == len(HOSTS)
    railbreak("undo", "--all")
    record_property("healed_after_s", time.monotonic() - killed)
    assert broken(twenty) == []
    assert json.loads(railbreak("status", "--json"))["in_force"] == []
