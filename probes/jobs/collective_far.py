"""The ranks of one host that is another machine: their channels carried through one.

    python -m probes.jobs.collective_far

Reads one JSON line, `{"ranks": [spec, …], "torch": FOLDER}`, and starts the fork server beside it
(`probes.jobs.collective_launch`) with a socket per rank. From then on every line is `RANK JSON`,
both ways; rank -1 is the fork server, which also has its ranks' process states told. When input
ends, everything here ends: the fork server is killed, and its ranks with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chaos
from chaos.timeline import now_ns
from probes.jobs.collective_launch import MISSING

SERVER = -1
#: Bytes that may wait for the way back; beyond it ranks are not read, and count what they drop.
MOST_WAITING = 1 << 20
_STATE_S = 0.1
_SOURCE = Path(chaos.__file__).resolve().parents[1]  # a folder, or the zipapp we came in


class Channel:
    """One rank's end, or the fork server's, or the way back: what waits to go, what came so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.going, self.come = bytearray(), b""
        sock.setblocking(False)

    def take(self) -> tuple[list[bytes], bool]:
        """Whole lines that have come, and whether it is over."""
        try:
            got = self.sock.recv(1 << 16)
        except BlockingIOError:
            return [], False
        except OSError:
            got = b""
        *lines, self.come = (self.come + got).split(b"\n")
        return lines, not got

    def push(self) -> None:
        """Send what goes now; a receiver that is gone gets nothing."""
        try:
            del self.going[: self.sock.send(self.going)]
        except BlockingIOError:
            return
        except OSError:
            self.going.clear()


class Ground:
    """Carries lines between one pair of streams and the sockets of the ranks."""

    def __init__(self, specs: list[dict[str, Any]], torch: str) -> None:
        self.channels: dict[int, Channel] = {}
        self._back = bytearray()
        self._rest = b""
        self._pids: dict[int, int] = {}
        self._states: dict[int, str] = {}
        self._over = False
        self._reading = True
        self._server = self._launch(specs, torch)
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, None)
        for number, channel in self.channels.items():
            self.selector.register(channel.sock, selectors.EVENT_READ, number)
        os.set_blocking(1, False)

    def _launch(self, specs: list[dict[str, Any]], torch: str) -> subprocess.Popen[bytes]:
        pairs = {number: socket.socketpair() for number in (SERVER, *(s["rank"] for s in specs))}
        for number, (ours, theirs) in pairs.items():
            self.channels[number] = Channel(ours)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        fds = {number: theirs.fileno() for number, (_, theirs) in pairs.items()}
        ranks = [spec | {"home": {}, "fd": fds[spec["rank"]]} for spec in specs]
        order = {"server": fds[SERVER], "parent": os.getpid(), "ranks": ranks}
        path = os.pathsep.join(filter(None, (str(_SOURCE), torch, os.environ.get("PYTHONPATH"))))
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        server = subprocess.Popen(
            (sys.executable, "-m", "probes.jobs.collective_launch"),
            stdin=subprocess.PIPE,
            stdout=sys.stderr,
            pass_fds=list(fds.values()),
            env=os.environ | single,
        )
        assert server.stdin is not None
        server.stdin.write(json.dumps(order).encode() + b"\n")
        server.stdin.close()
        for _, theirs in pairs.values():
            theirs.close()
        return server

    def run(self) -> None:
        """Until input ends, or the fork server has ended and its last words are away."""
        looked = 0.0
        try:
            while not (self._over and not self._back):
                self._arm()
                for key, events in self.selector.select(_STATE_S):
                    if key.fd == 1:
                        self._send_back()
                    elif key.fd == 0:
                        if not self._take_orders():
                            return
                    else:
                        self._serve(key.data, events)
                if time.monotonic() - looked > _STATE_S:
                    looked = time.monotonic()
                    self._look()
        finally:
            self._server.kill()
            self._server.wait()

    def _arm(self) -> None:
        """Listen to ranks while there is room; write where something waits."""
        room = len(self._back) < MOST_WAITING
        for number, channel in self.channels.items():
            wanted = selectors.EVENT_WRITE if channel.going else 0
            wanted |= selectors.EVENT_READ if room else 0
            known = self.selector.get_map().get(channel.sock.fileno())
            if known is None and wanted:
                self.selector.register(channel.sock, wanted, number)
            elif known is not None and not wanted:
                self.selector.unregister(channel.sock)
            elif known is not None and known.events != wanted:
                self.selector.modify(channel.sock, wanted, number)
        waiting = 1 in self.selector.get_map()
        if self._back and not waiting:
            self.selector.register(1, selectors.EVENT_WRITE, None)
        elif waiting and not self._back:
            self.selector.unregister(1)

    def _send_back(self) -> None:
        try:
            del self._back[: os.write(1, self._back)]
        except BlockingIOError:
            return
        except OSError:
            self._back.clear()

    def _take_orders(self) -> bool:
        got = os.read(0, 1 << 16)
        *lines, self._rest = (self._rest + got).split(b"\n")
        for line in lines:
            number, _, order = line.partition(b" ")
            channel = self.channels.get(int(number))
            if channel is not None:
                channel.going += order + b"\n"
        return bool(got)

    def _serve(self, number: int, events: int) -> None:
        channel = self.channels[number]
        if events & selectors.EVENT_WRITE:
            channel.push()
        if not events & selectors.EVENT_READ:
            return
        lines, over = channel.take()
        for line in lines:
            self._tell(number, self._heard(line) if number == SERVER else line)
        if over:
            with contextlib.suppress(KeyError):
                self.selector.unregister(channel.sock)
            channel.sock.close()
            del self.channels[number]
            self._over |= number == SERVER

    def _heard(self, line: bytes) -> bytes:
        """A line of the fork server; who runs where is remembered."""
        record = json.loads(line)
        if record["ev"] == "forked":
            self._pids[record["rank"]] = record["pid"]
        elif record["ev"] == "exited":
            self._pids.pop(record["rank"], None)
        elif record["ev"] == "failed" and record["msg"] == MISSING:
            record["msg"] = (
                f"collective needs torch, and {sys.executable} there has none: install it, or name "
                "the folder that holds it in the inventory (railbreak: {torch: FOLDER})"
            )
            return json.dumps(record).encode()
        return line

    def _tell(self, number: int, line: bytes) -> None:
        self._back += b"%d %s\n" % (number, line)

    def _look(self) -> None:
        """Tell of processes whose state has changed (`T` is stopped)."""
        for rank, pid in self._pids.items():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    state = stat.read().rpartition(")")[2].split()[0]
            except OSError:
                continue
            known = self._states.get(rank, "")
            if (state == "T") != (known == "T") or not known:
                self._states[rank] = state
                record = {"ev": "state", "t": now_ns(), "rank": rank, "state": state}
                self._tell(SERVER, json.dumps(record).encode())


def main() -> None:
    """Carry until told to end."""
    line = b""
    while not line.endswith(b"\n"):  # nothing beyond the line may be read here
        got = os.read(0, 1)
        if not got:
            return
        line += got
    order = json.loads(line)
    Ground(order["ranks"], order.get("torch", "")).run()


if __name__ == "__main__":
    main()
