"""A node as a home for processes: its namespaces and control groups, entered from this machine.

Whoever moves in keeps the machine's own files and Python, so any image will do; the node's network,
process ids, IPC and host name are the node's, and pausing or killing the node hits it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.netns import CLONE_NEWPID, setns

#: Kinds of namespaces that are joined, and their flags; `pid` takes effect at the next fork.
KINDS = {"uts": 0x04000000, "ipc": 0x08000000, "net": 0x40000000}

Home = Mapping[str, Any]


def home_of(pid: int) -> dict[str, Any]:
    """The home of a process: paths of its namespaces, and the files that admit to its groups."""
    spaces = {kind: f"/proc/{pid}/ns/{kind}" for kind in (*KINDS, "pid")}
    return {**spaces, "cgroups": admissions(pid)}


def admissions(pid: int) -> list[str]:
    """Files that a process writes itself into to join every control group of `pid`."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return admissions_in(lines, mounts)


def admissions_in(groups: list[str], mounts: list[str]) -> list[str]:
    """The same, from the lines of `/proc/PID/cgroup` and `/proc/self/mountinfo`.

    Examples:
        >>> mount = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
        >>> admissions_in(["0::/docker/abc"], [mount])
        ['/sys/fs/cgroup/docker/abc/cgroup.procs']
    """
    places: dict[str, tuple[str, str]] = {}
    for line in mounts:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[0], after.split()[1], after.split()[2]
        root, point = before.split()[3:5]
        if kind == "cgroup2":
            places[""] = (root, point)
        elif kind == "cgroup":
            words = [word for word in options.split(",") if word not in ("rw", "ro")]
            places[",".join(words)] = (root, point)
            places |= {word: (root, point) for word in words}
    found = []
    for line in groups:
        _, name, path = line.split(":", 2)
        if name in places:
            root, point = places[name]
            inner = path.removeprefix(root.rstrip("/")).lstrip("/")
            found.append(os.path.join(point, inner, "cgroup.procs"))
    return found


def aim_children(path: str) -> None:
    """Have the next children be born among the process ids of another namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWPID)
    finally:
        os.close(fd)


def move_in(home: Home) -> None:
    """Join everything of a home but its process ids, which a child is born into."""
    for file in home.get("cgroups", ()):
        with open(file, "w", encoding="ascii") as procs:
            procs.write("0")
    fds = {
        kind: os.open(home[kind], os.O_RDONLY | os.O_CLOEXEC) for kind in KINDS if home.get(kind)
    }
    for kind, fd in fds.items():
        setns(fd, KINDS[kind])
        os.close(fd)
