"""Attach with no table of cables: a real lldpd on every machine says how they are cabled."""

import shutil

import pytest

from chaos.drivers.ssh import SshDriver
from chaos.errors import FabricError, SpecError
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.ssh,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("lldpd") and shutil.which("lldpcli")),
        reason="lldpd is not installed (apt-get install lldpd)",
    ),
]
#: The interval is in the file that the daemon's own client reads before it lets it begin.
START = """
mkdir -p /run/lldpd && echo configure lldp tx-interval 1 >/run/lldpd/own.conf &&
lldpd -O /run/lldpd/own.conf -I eth*
"""
CABLES = {"h1:eth1--r1:eth1", "h2:eth1--r1:eth2", "h1:eth2--h2:eth2"}


@pytest.fixture
def three(machines, tmp_path, monkeypatch):
    """h1, h2 and r1 in a triangle, no address on any cable."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    machines.add("h1", "h2", "r1")
    for cable in CABLES:
        machines.link(*cable.split("--"))
    return machines


def hears(box):
    return box.run("lldpcli", "-f", "keyvalue", "show", "neighbors", check=False).count(
        "chassis.name="
    )


def start(machines):
    """A daemon on each of them, and both its neighbours heard."""
    for box in machines.boxes.values():
        box.run("sh", "-c", START)
    for box in machines.boxes.values():
        wait_until(lambda box=box: hears(box) == 2, f"{box.name} to hear its neighbours", 60)


def attach(machines):
    hosts, _ = machines.inventory()
    said = []

    async def work():
        driver = await SshDriver.adopt(
            str(hosts), links=["lldp"], instance="heard", progress=said.append
        )
        try:
            return {link.id for link in driver.fabric.links}, tuple(driver.warnings)
        finally:
            await driver.down()

    return (*machines.control(work), said)


def test_the_cables_are_those_that_the_machines_hear(three):
    with pytest.raises(FabricError) as caught:
        attach(three)
    for name in three.boxes:  # each that has no daemon, in one sentence
        assert f"{name}: lldpcli -f json0 show neighbors failed; install lldpd" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert three.left() == []

    start(three)

    links, _, said = attach(three)

    assert links == CABLES
    assert "asking the machines for their LLDP neighbours" in said
    assert three.left() == []


def test_a_table_that_contradicts_what_is_heard_is_refused_and_both_are_named(three):
    start(three)
    hosts, table = three.inventory()
    text = (
        table.read_text()
        .replace("h1,eth1,r1,eth1", "h1,eth1,r1,eth2")
        .replace("h2,eth1,r1,eth2", "h2,eth1,r1,eth1")
    )
    assert text != table.read_text()
    table.write_text(text)

    async def work():
        await SshDriver.adopt(str(hosts), links=[str(table), "lldp"], instance="heard")

    with pytest.raises(SpecError, match=r"LLDP of h\d.*links\.csv:\d") as caught:
        three.control(work)
    assert "\n" not in str(caught.value)
    assert three.left() == []
