"""Who sees when the hosts' links go down: `python -m benchmarks.ssh_witness`, a process of its own.

It reads the kernel's own announcements of every host's network namespace, and dates each as it is
read, at a real-time priority above all contenders'. Nobody who is measured tells any time.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from chaos import netlink
from chaos.errors import FabricError
from chaos.netlink import Netlink

#: Of a cable's two ends; where they are equal, the kernel reports carrier late.
INDEX = (7001, 7002)
_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
_FIRST = 60  # the injector runs at 50
_ROOM = 64 << 20


class Witness:
    """The process, and what it saw."""

    def __init__(self) -> None:
        argv = (sys.executable, "-m", "benchmarks.ssh_witness")
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.real_time: bool = self._told()["fifo"]

    def taken(self) -> list[tuple[int, int]]:
        """What went down since this was last asked: CLOCK_MONOTONIC ns and number of the host.

        Raises:
            FabricError: it could not keep up, so that something was missed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        said = self._told()
        if said["lost"]:
            raise FabricError("the witness of links going down has missed some")
        return [(at, number) for at, number in said["downs"]]

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise FabricError("the witness of links going down has died")
        found: dict[str, Any] = json.loads(line)
        return found


def first_downs(
    downs: Sequence[tuple[int, int]], hosts: int, begin_ns: int, end_ns: int
) -> list[int]:
    """When each host's link first went down within a window; sorted.

    Args:
        downs: Instants and numbers of hosts, from 1.
        hosts: How many there are.
        begin_ns: First instant of the window.
        end_ns: First instant after it.

    Raises:
        FabricError: one did not go down; says how many did.

    Examples:
        >>> first_downs([(5, 1), (11, 2), (12, 1), (13, 1)], 2, 10, 20)
        [11, 12]
    """
    found: dict[int, int] = {}
    for at, number in sorted(downs):
        if begin_ns <= at < end_ns:
            found.setdefault(number, at)
    if len(found) != hosts:
        raise FabricError(f"{len(found)} of {hosts} links went down; the rest stayed up")
    return sorted(found.values())


def _serve() -> None:
    """Hear, and tell on every line of standard input what was heard since; until it closes."""
    link = Netlink.open((netlink.RTNLGRP_LINK,), receive_buffer=_ROOM)
    link.sock.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    link.sock.setblocking(False)
    downs: list[tuple[int, int]] = []
    lost = False
    while True:
        ready = select.select((link.sock, 0), (), ())[0]
        while link.sock in ready:
            try:
                data, more, _, _ = link.sock.recvmsg(1 << 16, 64)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: there was more than there is room for
                lost = True
                continue
            at = time.monotonic_ns()
            spaces = [one for _, kind, one in more if kind == _LISTEN_ALL_NSID]
            if spaces and _is_down(data):
                downs.append((at, int.from_bytes(spaces[0], sys.byteorder, signed=True)))
        if 0 in ready:
            if not os.read(0, 1):
                return
            print(json.dumps({"downs": downs, "lost": lost}), flush=True)
            downs.clear()


def _is_down(data: bytes) -> bool:
    """Whether an announcement is that of a cable's end that was set down."""
    for got in netlink.split(data):
        if got.kind == netlink.RTM_NEWLINK:
            index = int.from_bytes(got.body[4:8], sys.byteorder)
            flags = int.from_bytes(got.body[8:12], sys.byteorder)
            return index in INDEX and not flags & netlink.IFF_UP
    return False


def _main() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIRST))
        fifo = True
    except PermissionError:
        fifo = False
    print(json.dumps({"fifo": fifo}), flush=True)
    _serve()


if __name__ == "__main__":
    _main()
