"""How busy this machine is, and how much of that is not ours.

A calm phase on a machine that others keep busy is not calm: every latency measured in it belongs
to them. Read from `/proc`: total CPU time, stolen time, and the CPU time of our own processes (this
one, its descendants, and whatever lives in the fabric's network namespaces).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU ticks since boot.

    Attributes:
        total: All ticks of all cores.
        busy: Ticks in user and system mode of processes (not interrupts, not idle, not stolen).
        stolen: Ticks the hypervisor gave to others.
        ours: Ticks of our own processes, by (pid, start time).
        reaped: Ticks of children that ended and that one of ours waited for, by the same.
        parents: Process id of the parent of each.
    """

    total: int
    busy: int
    stolen: int
    ours: dict[tuple[int, int], int]
    reaped: dict[tuple[int, int], int] = field(default_factory=dict)
    parents: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """Shares of the machine over a stretch of time, in percent of all cores.

    Attributes:
        busy_percent: By anybody's processes.
        foreign_percent: By processes that are not ours.
        stolen_percent: By the hypervisor.
    """

    busy_percent: float
    foreign_percent: float
    stolen_percent: float


def read(namespaces: Iterable[str] = ()) -> Reading:
    """Read the counters now."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, _, _, stolen = fields
    inodes = {os.stat(path).st_ino for path in namespaces if os.path.exists(path)}
    return Reading(sum(fields), user + nice + system, stolen, *_ours(inodes))


_Table = dict[tuple[int, int], int]


def _ours(inodes: set[int]) -> tuple[_Table, _Table, _Table]:
    """Ticks, ticks of children waited for, and parents, of our own processes."""
    parents: dict[int, int] = {}
    ticks: dict[int, tuple[int, int, int]] = {}
    inside: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        pid = int(name)
        try:
            rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            parents[pid] = int(rest[1])
            own, reaped = int(rest[11]) + int(rest[12]), int(rest[13]) + int(rest[14])
            ticks[pid] = (int(rest[19]), own, reaped)
            if inodes and os.stat(f"/proc/{pid}/ns/net").st_ino in inodes:
                inside.add(pid)
        except OSError:
            continue  # gone meanwhile, or not ours to look at
    me = os.getpid()
    mine = {pid for pid in parents if pid in inside or _descends(pid, me, parents)}
    keys = {pid: (pid, ticks[pid][0]) for pid in mine if pid in ticks}
    return (
        {key: ticks[pid][1] for pid, key in keys.items()},
        {key: ticks[pid][2] for pid, key in keys.items()},
        {key: parents[pid] for pid, key in keys.items()},
    )


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parents.get(pid, 0)
    return False


def between(before: Reading, after: Reading) -> Load:
    """Shares between two readings.

    What began and ended between them counts by the one of ours who waited for it, such as the
    busy processes of a fault.

    Examples:
        >>> a = Reading(0, 0, 0, {})
        >>> between(a, Reading(200, 150, 10, {(7, 1): 50}))
        Load(busy_percent=75.0, foreign_percent=50.0, stolen_percent=5.0)
    """
    total = max(1, after.total - before.total)
    busy = after.busy - before.busy
    ours = sum(ticks - before.ours.get(key, 0) for key, ticks in after.ours.items())
    ours += sum(ticks - before.reaped.get(key, 0) for key, ticks in after.reaped.items())
    ours -= sum(
        ticks + before.reaped.get(key, 0)
        for key, ticks in before.ours.items()
        if key not in after.ours and _waited_for(key, before, after)
    )
    return Load(
        100.0 * busy / total,
        100.0 * max(0, busy - ours) / total,
        100.0 * (after.stolen - before.stolen) / total,
    )


def _waited_for(key: tuple[int, int], before: Reading, after: Reading) -> bool:
    """Whether all ticks of a process that ended are now among those that one of ours reaped."""
    above = {pid: parent for (pid, _), parent in before.parents.items()}
    living = {pid for pid, _ in after.reaped}
    pid = above.get(key[0], 0)
    while pid in above and pid not in living:
        pid = above[pid]
    return pid in living
