"""The fork server: imports torch once, forks one worker per rank into its host.

    python -m probes.jobs.collective_launch

Reads one JSON line on standard input: `{"server": fd, "ranks": [{"rank": …, "fd": …, …}]}`.
On the server descriptor it says `forked` and `exited`, and obeys `{"cmd": "kill", "rank": r}`.
It ends when all ranks have, and kills them when the coordinator is gone.
"""

from __future__ import annotations

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

_PR_SET_PDEATHSIG = 1
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
        self._pids: dict[int, int] = {}

    def _say(self, ev: str, **fields: Any) -> None:
        line = json.dumps({"ev": ev, "t": now_ns(), **fields}).encode() + b"\n"
        self._channel.sendall(line)

    def fork(self) -> None:
        """One child per rank."""
        from probes.jobs import collective_worker as worker

        me = os.getpid()
        for spec in self._specs:
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
        for spec in self._specs:
            os.close(spec["fd"])

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
        self._channel.close()
        for other in self._specs:
            if other is not spec:
                os.close(other["fd"])
        move_in(spec["home"])
        worker.main(spec, socket.socket(fileno=spec["fd"]))

    def serve(self) -> None:
        """Until every child is gone."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.fork()
        waiting = b""
        self._reap()
        while self._pids:
            readable, _, _ = select.select([self._channel.fileno(), wake], [], [])
            if wake in readable:
                os.read(wake, 4096)
                self._reap()
            if self._channel.fileno() in readable:
                got = self._channel.recv(65536)
                if not got:
                    break  # the coordinator is gone; the children go with this process
                *lines, waiting = (waiting + got).split(b"\n")
                for line in lines:
                    self._kill(int(json.loads(line)["rank"]))
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)

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
