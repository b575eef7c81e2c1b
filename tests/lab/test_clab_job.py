"""A collective job whose ranks live in containers: what hits the container hits the rank."""

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from chaos import drivers, registry
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.drivers.state import start_ticks
from chaos.netns import inode
from chaos.observe import Observer

pytestmark = [pytest.mark.lab, pytest.mark.job, pytest.mark.slow]


def ticks(pid):
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def groups(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def docker(*words):
    subprocess.run(["docker", *words], check=True, capture_output=True)


@pytest.fixture
def job(lab_runtime, lab_name, managed_file, tmp_path, monkeypatch):
    """`async with job() as (driver, observer)`: a job over the two hosts of a pair.

    Its nodes are on a management network, too, which the job must not use.
    """
    pytest.importorskip("torch")
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    for name, value in lab_runtime.environment.items():
        monkeypatch.setenv(name, value)
    registry.load()

    @contextlib.asynccontextmanager
    async def begin():
        fabric = drivers.fabric(str(managed_file()), "containerlab")
        driver = await ContainerlabDriver.up(fabric, instance=lab_name("job"))
        try:
            await driver.wait_ready()
            values = {"hosts": ["host1", "host2"], "size": "64 KiB"}
            probe = registry.build(registry.PROBES, "probe", "collective", values)
            observer = Observer(driver, {"collective": probe})
            try:
                await observer.start()
                yield driver, observer
            finally:
                await observer.stop()
        finally:
            await driver.down()

    return begin


def eth0(driver, node):
    """Bytes in and out of a node by its management interface."""
    argv = ["nsenter", f"--net={driver.namespaces()[node]}", "ip", "-s", "-j", "link", "show"]
    done = subprocess.run([*argv, "eth0"], check=True, capture_output=True)
    stats = json.loads(done.stdout)[0]["stats64"]
    return stats["rx"]["bytes"] + stats["tx"]["bytes"]


def said(observer, event):
    records = observer.records("collective")
    return [r for some in records.values() for r in some if r.get("ev") == event]


async def until(condition, what, deadline_s=20.0):
    """Look every 50 ms until it holds."""
    for _ in range(int(deadline_s / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {deadline_s:g} s until {what}")


def test_ranks_live_in_their_containers_and_talk_over_the_fabric(job):
    async def scenario():
        async with job() as (driver, observer):
            boxes = driver._nodes.now()
            for name, node in (("rank0", "host1"), ("rank1", "host2")):
                pid = driver.processes[f"{node}/{name}"].pid
                for kind in ("net", "pid", "ipc", "uts"):
                    theirs = inode(f"/proc/{boxes[node].pid}/ns/{kind}")
                    assert inode(f"/proc/{pid}/ns/{kind}") == theirs
                assert inode(f"/proc/{pid}/ns/mnt") == inode("/proc/self/ns/mnt")
                assert boxes[node].id in groups(pid)
            addresses = {record["addr"] for record in said(observer, "hello")}
            assert addresses == set(driver.addresses().values())
            (link,) = driver.fabric.select_links("host2--router1")
            paths = driver.paths()
            before = (await paths.counters([link]))[link.port_of("host2")].tx_bytes
            astray = {node: eth0(driver, node) for node in ("host1", "host2")}
            await asyncio.sleep(1)
            after = (await paths.counters([link]))[link.port_of("host2")].tx_bytes
            paths.close()
            assert after - before > 64 * 1024
            for node, bytes_ in astray.items():  # a neighbour or a router is asked for, at most
                assert eth0(driver, node) - bytes_ < 1024, f"{node} uses the management network"

    asyncio.run(scenario())


def test_pause_and_kill_of_a_node_hit_its_rank(job):
    async def scenario():
        async with job() as (driver, observer):
            container = driver._nodes.box("host2").name
            pid = driver.processes["host2/rank1"].pid
            docker("pause", container)
            await asyncio.sleep(0.2)  # what it was doing is done
            used = ticks(pid)
            await until(lambda: said(observer, "stall"), "the job notices")
            assert ticks(pid) == used
            docker("unpause", container)
            await until(lambda: ticks(pid) > used, "the rank goes on")

            docker("kill", container)
            await until(lambda: not start_ticks(pid), "the rank dies")
            await until(lambda: said(observer, "exited"), "the job is told")
            (gone,) = said(observer, "exited")
            assert (gone["node"], gone["code"]) == ("host2", -9)
            assert start_ticks(driver.processes["host1/rank0"].pid)

    asyncio.run(scenario())
