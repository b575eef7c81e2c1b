"""On a real Containerlab lab: link down, from asking to the kernel's acknowledgement.

Ours is the prebuilt message on a socket opened in the container's network namespace, as the
injector uses it. Peers are what people type: `docker exec … ip link set` and
`containerlab tools netem set`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Mapping

from benchmarks.ground import must
from benchmarks.link_down import timed
from benchmarks.reading import Contender, Outcome, Result
from chaos import topology
from chaos.change import LinkState, Place, Where
from chaos.drivers.containerlab import ContainerlabDriver
from chaos.errors import CapabilityError
from chaos.native import build

_OURS_PER_ROUND = 5
_CHANGE = LinkState(Place("router1", "eth1"))


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Deploy a lab, let the contenders take turns on it, and destroy it."""
    return asyncio.run(_run(10 if quick else 40, tell))


async def _run(rounds: int, tell: Callable[[str], None]) -> Outcome:
    fabric = topology.load("pair")
    try:
        driver = await ContainerlabDriver.up(fabric, instance=f"rbbench{os.getpid()}")
    except CapabilityError as error:
        return Outcome("lab_link", (), (str(error),))
    try:
        await driver.wait_ready()
        tell(f"link down and up in a container, {rounds} rounds")
        where = driver.locate(_CHANGE)
        return _measured(where, f"clab-{driver.instance}-router1", rounds)
    finally:
        await driver.down()


def _measured(where: Where, container: str, rounds: int) -> Outcome:
    native = build(_CHANGE, where)
    inside = ("docker", "exec", container, "ip", "link", "set", "dev", "eth1")
    ours: list[float] = []
    shell: list[float] = []
    netem: list[float] = []
    netem_works = True
    try:
        for _ in range(rounds):
            for _ in range(_OURS_PER_ROUND):
                ours.append(timed(native.do))
                native.undo()
            shell.append(timed(lambda: must(*inside, "down")))
            native.undo()
            took, works = _netem(container)
            netem.append(took)
            netem_works = netem_works and works
    finally:
        native.undo()
        native.close()
    named_netem = "`containerlab tools netem set --loss 100`" + (
        "" if netem_works else " (refused by this kernel: until its refusal)"
    )
    contenders = (
        Contender("prebuilt message, warm socket", ours, ours=True),
        Contender("`docker exec … ip link set`", shell),
        Contender(named_netem, netem),
    )
    note = "" if netem_works else "the kernel has no netem, so that row is a lower bound"
    return Outcome(
        "lab_link", (Result("link down in a container, asked → acknowledged", contenders, note),)
    )


def _netem(container: str) -> tuple[float, bool]:
    """Seconds that the tool takes, and whether it did it; its impairment is taken off again."""
    tool = ("containerlab", "tools", "netem")
    ends = ("-n", container, "-i", "eth1")
    env: Mapping[str, str] = {**os.environ, "CLAB_VERSION_CHECK": "disable"}
    before = time.perf_counter()
    done = subprocess.run((*tool, "set", *ends, "--loss", "100"), capture_output=True, env=env)
    took = time.perf_counter() - before
    if done.returncode == 0:
        subprocess.run((*tool, "reset", *ends), capture_output=True, env=env, check=False)
    return took, done.returncode == 0
