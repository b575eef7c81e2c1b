"""Skew of one change on hundreds of hosts over SSH: the driver `ssh` against Ansible, ad hoc.

Every host has a network namespace and an OpenSSH server of its own; the change sets its link down.
A witness beside all of them dates each link's end by the kernel's announcement. A host's skew is
its date minus the first host's of the same round.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.ansible_peer import ABSENT
from benchmarks.ground import child, need
from benchmarks.reading import Contender, Outcome, Result, show_time
from benchmarks.ssh_hosts import SSHD
from chaos.errors import FabricError

HOSTS = 500
_QUICK_HOSTS = 50
_ROUNDS = 1
_LOCAL = "no SSH: one process here, one host after another"
#: Its first process reaps those that have lost their parent, which a Python would not.
_SPACE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_FIRST = ("sh", "-c", '"$@"; exit $?', "hosts")


def run(quick: bool, tell: Callable[[str], None], hosts: int = HOSTS) -> Outcome:
    """The hosts are made, every contender sets all their links down, and all of it is gone.

    Args:
        quick: At most fifty hosts.
        tell: Told each step.
        hosts: How many; even.
    """
    need("ip", "unshare", "nsenter", "ssh", "ssh-keygen")
    if SSHD is None:
        return Outcome("ssh_skew", (), ("no sshd here: apt-get install openssh-server",))
    count = min(hosts, _QUICK_HOSTS) if quick else hosts
    argv = (sys.executable, "-m", "benchmarks.ssh_contest", str(count), str(_ROUNDS))
    told: list[dict[str, Any]] = []
    with child((*_SPACE, *_FIRST, *argv), stdout=subprocess.PIPE, start_new_session=True) as worker:
        assert worker.stdout is not None
        for line in worker.stdout:
            said = json.loads(line)
            if said["ev"] == "step":
                tell(f"ssh_skew: {said['text']}")
            elif said["ev"] == "failed":
                raise FabricError(f"ssh_skew: {said['message']}")
            else:
                told.append(said)
    if not told or told[-1]["ev"] != "done":
        raise FabricError("ssh_skew: its process died before it was done")
    return outcome(count, told)


def skews(rounds: Sequence[Sequence[int]]) -> list[float]:
    """Every host's instant after the first one's of its round, in seconds.

    Args:
        rounds: Instants in ns, sorted, per round.

    Examples:
        >>> skews([[5_000_000_000, 6_000_000_000], [9_000_000_000, 9_500_000_000]])
        [0.0, 1.0, 0.0, 0.5]
    """
    return [(at - one[0]) / 1e9 for one in rounds for at in one]


def outcome(count: int, told: Sequence[Mapping[str, Any]]) -> Outcome:
    """The result of what the contest has told."""
    found = {f"{one['who']}{one.get('forks', '')}": one for one in told if one["ev"] == "found"}
    facts = next(one for one in told if one["ev"] == "facts")
    mine, alone = found["ours"], found["local"]
    contenders = [Contender("driver `ssh`", skews(mine["rounds"]), ours=True)]
    for one in found.values():
        if one["who"] == "ansible":
            who = f"`ansible -f {one['forks']} -m raw -a 'ip link set …'`"
            contenders.append(Contender(who, skews(one["rounds"])))
    contenders.append(Contender(_LOCAL, skews(alone["rounds"])))
    peers = [one for one in found.values() if one["who"] == "ansible"]
    result = Result(
        f"skew of one change on {count} hosts over SSH, first host → each",
        tuple(contenders),
        "; ".join((*_ours_said(mine), *_peers_said(peers), *_facts_said(facts))),
    )
    return Outcome("ssh_skew", (result,), () if peers else (ABSENT,))


def _ours_said(mine: Mapping[str, Any]) -> list[str]:
    after = ", ".join(show_time(one) for one in mine["after_s"])
    return [
        f"ours: attached in {mine['attach_s']:.0f} s, armed in {mine['arm_s']:.0f} s "
        f"({mine['used_kb'] / 1e6:.1f} GB for the far ends), told {mine['lead_s']:.1f} s ahead "
        f"(all had it after {mine['told_s']:.1f} s), first host {after} after the instant told, "
        f"clocks known to {show_time(mine['clock_error_s'])}, healed and proved in "
        f"{mine['heal_s']:.0f} s, gone in {mine['down_s']:.0f} s"
    ]


def _peers_said(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"Ansible with {one['forks']} forks: {statistics.median(one['took_s']):.0f} s a command, "
        f"its connections opened before in {one['warm_s']:.0f} s"
        for one in peers
    ]


def _facts_said(facts: Mapping[str, Any]) -> list[str]:
    versions = facts["openssh"] + (f", Ansible {facts['ansible']}" if facts["ansible"] else "")
    if not facts["real_time"]:
        versions += "; the witness was refused real-time priority here"
    return [versions]
