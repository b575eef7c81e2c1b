"""All hosts' links down at one instant, by each contender in turn: `python -m … HOSTS ROUNDS`.

Run by `benchmarks.ssh_skew` in a network, mount and pid namespace of its own. It prints JSON lines:
`step` as it goes, `found` once per contender, `done`, or `failed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.ansible_peer import Ansible, command, version
from benchmarks.ssh_hosts import FOLDER, PORT, Hosts
from benchmarks.ssh_witness import Witness, first_downs
from chaos.change import LinkState, Place
from chaos.drivers.ssh import SshDriver
from chaos.errors import FabricError, RailbreakError
from chaos.netns import mount
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

S = 1_000_000_000
FORKS = (50, 500)
#: Our far ends and we share this machine's few cores, and starting hundreds of them fills these.
LEASE_S = 20.0
_EVERY_NS, _DOWN_NS = 10 * S, 5 * S
_TELL_EVERY_S = 10.0
_MS_BIND = 0x1000


def say(**words: Any) -> None:
    """One line for who runs this."""
    print(json.dumps(words), flush=True)


def step(text: str) -> None:
    """What is done now."""
    say(ev="step", text=text)


def local(hosts: Hosts, witness: Witness) -> None:
    """One process here sets all links down, one after another: what the kernel alone takes."""
    witness.taken()
    before = now_ns()
    hosts.all(up=False)
    downs = first_downs(witness.taken(), len(hosts.names), before, now_ns())
    hosts.all(up=True)
    hosts.await_carrier()
    say(ev="found", who="local", rounds=[downs])


def ansible(hosts: Hosts, witness: Witness, rounds: int) -> None:
    """Ansible, as often as asked with each number of forks; its connections are warm."""
    program = command()
    if program is None:
        return
    count = len(hosts.names)
    peer = Ansible(program, hosts.inventory, FOLDER)
    step(f"Ansible opens its connections to {count} hosts")
    warm = peer.run(FORKS[0], "true")
    try:
        for forks in [forks for forks in FORKS if forks == FORKS[0] or count > FORKS[0]]:
            found, took = [], []
            for turn in range(rounds):
                step(f"Ansible, {forks} forks, round {turn + 1} of {rounds}")
                witness.taken()
                before = now_ns()
                took.append(peer.run(forks, f"ip link set dev {PORT} down"))
                found.append(first_downs(witness.taken(), count, before, now_ns()))
                hosts.all(up=True)
                hosts.await_carrier()
            say(ev="found", who="ansible", forks=forks, rounds=found, took_s=took, warm_s=warm)
    finally:
        peer.let_go()


async def ours(hosts: Hosts, witness: Witness, rounds: int) -> None:
    """The driver `ssh`: armed once, then every round is one more span of the schedule."""
    count, free = len(hosts.names), available()
    teller = asyncio.create_task(_tell_folders(count))
    try:
        began = time.monotonic()
        driver = await SshDriver.adopt(
            str(hosts.inventory), links=[str(hosts.cables)], instance="skew", progress=step
        )
        facts: dict[str, Any] = {"attach_s": time.monotonic() - began}
        try:
            driver.lease_s = LEASE_S
            facts |= await _storm(driver, hosts, witness, rounds, free)
        finally:
            step("letting go of the hosts")
            began = time.monotonic()
            await driver.down()
    finally:
        teller.cancel()
    facts["down_s"] = time.monotonic() - began
    if left := folders():
        raise FabricError(f"left on the hosts: {len(left)} folders, such as {left[0]}")
    say(ev="found", who="ours", **facts)


async def _storm(
    driver: SshDriver, hosts: Hosts, witness: Witness, rounds: int, free: int
) -> dict[str, Any]:
    count = len(hosts.names)
    changes = [LinkState(Place(name, PORT)) for name in hosts.names]
    spans = [InForce(at * _EVERY_NS, at * _EVERY_NS + _DOWN_NS) for at in range(rounds)]
    step(f"arming {count} changes")
    began = time.monotonic()
    hands = await driver.arm(
        changes,
        journal=driver.folder / "journal.jsonl",
        max_life=Duration(rounds * _EVERY_NS + 60 * S),
        log_dir=FOLDER / "logs",
    )
    async with hands:
        facts: dict[str, Any] = {"arm_s": time.monotonic() - began, "used_kb": free - available()}
        step(f"the instant is told, {rounds} times")
        await asyncio.to_thread(witness.taken)
        asked = now_ns()
        t0 = asked + driver.lead_ns
        await hands.start(t0, spans)
        facts |= {"lead_s": (t0 - asked) / S, "told_s": (now_ns() - asked) / S}
        await hands.wait()
        began = time.monotonic()
        proof = await hands.heal()
        facts["heal_s"] = time.monotonic() - began
    if not proof.in_force or not proof.taken_back:
        raise FabricError(f"not proved: {'; '.join((*proof.leftovers, *proof.trouble))[:400]}")
    downs = await asyncio.to_thread(witness.taken)
    windows = [(t0 + one.start_ns - _DOWN_NS // 2, t0 + one.end_ns) for one in spans]
    found = [first_downs(downs, count, begin, end) for begin, end in windows]
    facts["rounds"] = found
    facts["after_s"] = [
        (first[0] - t0 - one.start_ns) / S for first, one in zip(found, spans, strict=True)
    ]
    facts["clock_error_s"] = max(one.clock.error_ns for one in driver.fleet.ready.values()) / S
    return facts


async def _tell_folders(count: int) -> None:
    """How far it is, by what lies on the hosts, whose /run is one here."""
    before = ""
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        names = folders()
        armed = sum(one.startswith("deadman-") for one in names)
        told = f"{len(names) - armed} of {count} hosts hold our programs, {armed} are armed"
        if told != before:
            step(told)
        before = told


def folders() -> list[str]:
    """What lies on the hosts of ours, by name."""
    return [one.name for one in Path("/run/railbreak").glob("*")]


def available() -> int:
    """Memory that is free or can be freed, KiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0


def versions() -> dict[str, str]:
    """Versions of what is measured with."""
    said = subprocess.run(("ssh", "-V"), capture_output=True, text=True, check=False).stderr
    program = command()
    return {
        "openssh": said.split(",")[0].strip(),
        "ansible": version(program) if program else "",
    }


def main() -> None:
    """Everything; see the module."""
    count, rounds = int(sys.argv[1]), int(sys.argv[2])
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    own = Path(pwd.getpwuid(0).pw_dir, ".bashrc")
    if own.exists():  # what it starts for every command over SSH is nobody's merit or fault
        mount("/dev/null", str(own), "", _MS_BIND)
    os.environ |= {"HOME": str(FOLDER), "RAILBREAK_STATE": str(FOLDER / "state")}
    try:
        step(f"making {count} hosts with an OpenSSH server each")
        hosts = Hosts(count)
        witness = Witness()
        hosts.await_carrier()
        say(ev="facts", real_time=witness.real_time, **versions())
        local(hosts, witness)
        ansible(hosts, witness, rounds)
        asyncio.run(ours(hosts, witness, rounds))
        say(ev="done")
    except (RailbreakError, subprocess.SubprocessError, OSError) as error:
        say(ev="failed", message=f"{type(error).__name__}: {error}")
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()


if __name__ == "__main__":
    main()
