"""The fork server: imports torch once, forks one worker per rank into its host.

    python -m probes.jobs.collective_launch

Reads one JSON line on standard input: `{"server": fd, "ranks": [{"rank": …, "fd": …, …}]}`.
On the server descriptor it says `forked` and `exited`, and obeys `{"rank": r}`: kill it.
It ends when all ranks have, and kills them when the coordinator is gone.

Where a rank has `"again": true` it is a supervisor: it starts again what it has lost, on
SIGUSR1 all of it, on `{"rank": r, "start": true}` one rank, and ends only with the coordinator.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from chaos.drivers.home import aim_children, move_in
from chaos.timeline import now_ns

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
MISSING = "collective needs torch: pip install railbreak[job]"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, also when it already has."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() not in (0, parent) or not started(parent):
        os._exit(1)


def started(pid: int) -> int:
    """Start time of a process in clock ticks (`/proc/PID/stat` field 22); 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[19])
    except OSError:
        return 0


class Server:
    """Forks, reaps, kills.

    Args:
        channel: To the coordinator.
        specs: One per rank.
    """

    def __init__(self, channel: socket.socket, specs: list[dict[str, Any]]) -> None:
        self._channel, self._specs = channel, specs
        self._again = any(spec.get("again") for spec in specs)
        self._pids: dict[int, int] = {}
        self._told = False

    def _say(self, ev: str, **fields: Any) -> None:
        line = json.dumps({"ev": ev, "t": now_ns(), **fields}).encode() + b"\n"
        self._channel.sendall(line)

    def fork(self) -> None:
        """One child per rank."""
        for spec in self._specs:
            self._bear(spec)
        if not self._again:
            for spec in self._specs:
                os.close(spec["fd"])

    def _bear(self, spec: dict[str, Any]) -> None:
        from probes.jobs import collective_worker as worker

        me = os.getpid()
        pid = self._fork(spec["home"].get("pid", ""))
        if pid == 0:
            try:
                self._child(spec, me, worker)
            except BaseException as error:  # a child never returns into the server
                sys.stderr.write(f"rank{spec['rank']} on {spec['node']}: {error!r}\n")
            finally:
                os._exit(1)
        self._pids[pid] = spec["rank"]
        self._say("forked", rank=spec["rank"], pid=pid, started=started(pid))

    def _bear_again(self, wanted: set[int]) -> None:
        """Start ranks that ended; their channels are as good as new."""
        for spec in self._specs:
            if spec["rank"] in wanted - set(self._pids.values()):
                fd = spec["fd"]
                _drain(fd)  # what was meant for the one that ended
                os.write(fd, b"\n")  # and what that one did not say to its end
                self._bear(spec)

    @staticmethod
    def _fork(space: str) -> int:
        """Fork a child that is born among the process ids of a node, where it has its own."""
        if not space:
            return os.fork()
        aim_children(space)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                aim_children("/proc/self/ns/pid")
        return pid

    def _child(self, spec: dict[str, Any], parent: int, worker: Any) -> None:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the rank listens for it
        self._channel.close()
        for other in self._specs:
            if other is not spec:
                os.close(other["fd"])
        _call_itself(f"rank{spec['rank']}")
        move_in(spec["home"])
        worker.main(spec, socket.socket(fileno=spec["fd"]))

    def serve(self) -> None:
        """Until every child is gone."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        if self._again:
            signal.signal(signal.SIGUSR1, self._asked)
        self.fork()
        waiting = b""
        self._reap()
        while self._pids or self._again:
            readable, _, _ = select.select([self._channel.fileno(), wake], [], [])
            if wake in readable:
                os.read(wake, 4096)
                self._reap()
                if self._told:
                    self._told = False
                    self._bear_again({spec["rank"] for spec in self._specs})
            if self._channel.fileno() in readable:
                got = self._channel.recv(65536)
                if not got:
                    break  # the coordinator is gone; the children go with this process
                *lines, waiting = (waiting + got).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    if order.get("start"):
                        self._bear_again({int(order["rank"])})
                    else:
                        self._kill(int(order["rank"]))
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)

    def _asked(self, number: int, frame: object) -> None:
        self._told = True

    def _kill(self, rank: int) -> None:
        for pid, other in self._pids.items():
            if other == rank:
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            rank = self._pids.pop(pid)
            self._say("exited", rank=rank, pid=pid, code=os.waitstatus_to_exitcode(status))


def _drain(fd: int) -> None:
    """Read what waits in a rank's end of its channel, and forget it."""
    with socket.socket(fileno=os.dup(fd)) as sock, contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 16, socket.MSG_DONTWAIT):
            pass


def _call_itself(name: str) -> None:
    """Name this process, for `ps` and for who would find it again."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def main() -> int:
    """Run the server; 4 when torch is missing."""
    order = json.loads(sys.stdin.readline())
    die_with_parent(order["parent"])
    channel = socket.socket(fileno=order["server"])
    try:
        import torch  # noqa: F401
    except ImportError:
        channel.sendall(
            json.dumps({"ev": "failed", "t": now_ns(), "msg": MISSING}).encode() + b"\n"
        )
        return 4
    Server(channel, order["ranks"]).serve()
    return 0


if __name__ == "__main__":
    os._exit(main())  # torch would spend half a second on saying goodbye
