"""The process that a fabric lives in: pid 1 of a pid namespace of its own.

It holds every namespace as an open file and is the ancestor of every daemon. When it ends, the
kernel kills all of them and frees all namespaces, links and mounts: there are no names to clean up.
It reads orders as JSON lines and answers each with one line. When its input ends, its owner died:
unless told to stay it removes the fabric's folder and ends.

Started by path, with the standard library and `chaos.netns` only, so that it is there in 30 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.netns import CLONE_NEWNET, CLONE_NEWNS, mount, setns, unshare

CLONE_NEWUTS = 0x04000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 0x1, 0x20, 0x1000, 0x4000, 0x80000
_FLAG = {"net": CLONE_NEWNET, "mnt": CLONE_NEWNS, "uts": CLONE_NEWUTS}

_names: dict[int, str] = {}
_ended: dict[int, int] = {}


def main() -> None:
    """Obey orders until the input ends."""
    root, token = Path(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGCHLD, _collect)
    unshare(CLONE_NEWNS)
    mount("none", "/", "none", MS_REC | MS_SLAVE)
    mount("proc", "/proc", "proc", 0)
    home = _open_own(("net", "mnt", "uts"))
    spaces: dict[str, dict[str, int]] = {}
    leave_after_s: float | None = 0.0
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if order["op"] == "stay":
            leave_after_s = order["leave_after_s"]
        _say(_obey(order, spaces, home))
    if leave_after_s is None:
        while True:
            signal.pause()
    time.sleep(leave_after_s)  # an injector may be healing in these namespaces
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    forget(root, token)


def forget(root: Path, token: str) -> None:
    """Remove the folder whose name or state has the token, if it was made yet."""
    for folder in root.iterdir() if root.is_dir() else ():
        try:
            ours = folder.name.endswith(token) or token in (folder / "state.json").read_text()
        except OSError:
            continue
        if ours:
            shutil.rmtree(folder, ignore_errors=True)


def _say(answer: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _obey(
    order: dict[str, Any], spaces: dict[str, dict[str, int]], home: Mapping[str, int]
) -> dict[str, Any]:
    try:
        if order["op"] == "node":
            spaces[order["name"]] = make_node(order, home)
            return {"spaces": spaces[order["name"]]}
        if order["op"] == "start":
            pid = start(order, spaces[order["node"]])
            _names[pid] = f"{order['node']}'s {os.path.basename(order['argv'][0])}"
            return {"pid": pid}
        if order["op"] == "dead":
            dead = {_names[pid]: code for pid, code in _ended.items() if pid in _names}
            return {"dead": dead}
        return {}
    except OSError as error:
        return {"error": str(error)}


def make_node(order: Mapping[str, Any], home: Mapping[str, int]) -> dict[str, int]:
    """Make the namespaces of one node; their open files by kind."""
    kinds = ("net", "mnt", "uts") if order["mounts"] is not None else ("net",)
    try:
        unshare(sum(_FLAG[kind] for kind in kinds))
        for key, value in order["sysctls"].items():
            _sysctl(key, value)
        if "mnt" in kinds:
            socket.sethostname(order["name"])
            with contextlib.suppress(OSError):  # where /sys is not ours to mount, it stays as it is
                mount("sysfs", "/sys", "sysfs", 0)
            cover(order["mounts"])
        return _open_own(kinds)
    finally:
        for kind in kinds:
            setns(home[kind], _FLAG[kind])


def _sysctl(key: str, value: str) -> None:
    path = "/proc/sys/" + key.translate({ord("."): "/", ord("/"): "."})
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        return  # interfaces that are still to come, or a setting newer than this kernel
    except OSError as error:
        raise OSError(error.errno, f"sysctl {key}={value}: {error.strerror}") from None


def cover(mounts: list[tuple[str, str, bool]]) -> None:
    """Show each source at its target in the calling process's mount namespace.

    All sources are opened first: a mount over /run hides the folder that sources lie in.
    """
    opened = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source, _, _ in mounts]
    try:
        for fd, (_, target, readonly) in zip(opened, mounts, strict=True):
            mount(f"/proc/self/fd/{fd}", target, "none", MS_BIND | MS_REC)
            if readonly:
                mount("none", target, "none", MS_BIND | MS_REMOUNT | MS_RDONLY)
    finally:
        for fd in opened:
            os.close(fd)


def _open_own(kinds: tuple[str, ...]) -> dict[str, int]:
    return {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}


def start(order: Mapping[str, Any], space: Mapping[str, int]) -> int:
    """Start a program in a node, its output appended to a file; its pid in this pid namespace.

    One that goes `first` is scheduled before ordinary programs where that is allowed: a switch's
    control plane has a processor of its own and does not wait behind somebody's training job.
    """
    told, tell = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            null = os.open("/dev/null", os.O_RDONLY)
            for kind, fd in space.items():
                setns(fd, _FLAG[kind])
            if order.get("first"):
                go_first()
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606
        except BaseException as error:
            os.write(tell, str(error).encode())
        finally:
            os._exit(127)
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        said = answer.read()
    if said:
        raise OSError(0, f"{order['argv'][0]}: {said.decode(errors='replace')}")
    return child


def go_first() -> None:
    """Be nice to nobody: by this process's own weight, and by its session's where those count.

    Not real-time: a routing daemon that spins must not take the machine with it.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -19)
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write("-19")


def _collect(_number: int, _frame: Any) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _ended[pid] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
