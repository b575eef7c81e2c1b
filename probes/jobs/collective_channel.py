"""A worker's side of the control channel: records out, never blocking; commands in."""

from __future__ import annotations

import collections
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from chaos.timeline import now_ns

VERSION = 1
#: Bytes that may wait for a slow coordinator before records are dropped (and counted).
MOST_WAITING = 4 << 20


class Recorder:
    """Queues records and sends them when `flush` is called by one thread.

    Args:
        channel: Stream socket to the coordinator; made non-blocking for sending.
        common: Fields of every record: rank, incarnation and so on; read at each record.
    """

    def __init__(self, channel: socket.socket, common: dict[str, Any]) -> None:
        self._channel, self.common = channel, common
        self._lines: collections.deque[bytes] = collections.deque()
        self._rest = b""
        self._waiting = 0
        self._number = 0
        self._lost = 0
        self._lock = threading.Lock()

    def say(self, ev: str, **fields: Any) -> None:
        """Queue one record; what does not fit is dropped and counted in the next one."""
        with self._lock:
            self._number += 1
            record = {"v": VERSION, "ev": ev, "t": now_ns(), **self.common, "n": self._number}
            if self._lost:
                record["lost"] = self._lost
            line = json.dumps({**record, **fields}, separators=(",", ":")).encode() + b"\n"
            if self._waiting + len(line) > MOST_WAITING:
                self._lost += 1
                return
            self._lost = 0
            self._waiting += len(line)
            self._lines.append(line)

    @property
    def lost(self) -> int:
        """Records dropped and not yet told of."""
        return self._lost

    def flush(self) -> bool:
        """Send what the socket takes now; whether nothing is left."""
        with self._lock:
            while self._rest or self._lines:
                self._rest = self._rest or self._lines.popleft()
                try:
                    sent = self._channel.send(self._rest, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return False
                except OSError:
                    self._rest = b""
                    self._lines.clear()
                    self._waiting = 0
                    return True
                self._waiting -= sent
                self._rest = self._rest[sent:]
            return True


def commands(channel: socket.socket) -> Iterator[dict[str, Any]]:
    """Commands as they come; ends when the coordinator is gone."""
    waiting = b""
    while True:
        try:
            got = channel.recv(65536)
        except OSError:
            return
        if not got:
            return
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            yield json.loads(line)


def listen(channel: socket.socket, handle: Callable[[dict[str, Any]], None]) -> threading.Thread:
    """Hand every command to `handle` in a thread; then once `{"cmd": "gone"}`."""

    def body() -> None:
        for command in commands(channel):
            handle(command)
        handle({"cmd": "gone"})

    thread = threading.Thread(target=body, name="control", daemon=True)
    thread.start()
    return thread
