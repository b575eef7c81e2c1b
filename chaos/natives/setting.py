"""`Setting`: a file under /proc/sys/net, held open from inside the namespace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chaos.change import Hits, Setting, Where
from chaos.errors import ApplyError, BlockedError, FabricError


@dataclass(slots=True)
class Set:
    """`Setting`: one write does it, one takes it back."""

    change: Setting
    fd: int
    saved: Mapping[str, Any]
    acted: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: Setting, where: Where, saved: Mapping[str, Any] | None) -> Set:
        """Called inside the namespace: /proc/sys/net is the calling thread's."""
        key = change.named(where.ifname)
        path = "/proc/sys/" + key.translate({ord("."): "/", ord("/"): "."})
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise FabricError(f"{change.place.node}: sysctl {key}: {error.strerror}") from None
        made = cls(change, fd, saved or {})
        try:
            if saved is None:
                was = made._now()
                if was == change.value:
                    raise BlockedError(
                        f"{change.place.node}: {key} is {was} already, so writing it breaks nothing"
                    )
                made.saved = {"value": was}
        except BaseException:
            os.close(fd)
            raise
        return made

    def _now(self) -> str:
        try:
            return os.pread(self.fd, 64, 0).decode().strip()
        except OSError as error:
            raise FabricError(f"{self.change.describe()}: {error.strerror}") from None

    def do(self) -> None:
        """Write it."""
        try:
            os.pwrite(self.fd, f"{self.change.value}\n".encode(), 0)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None

    def undo(self) -> tuple[str, ...]:
        """Write what was there; nothing where the value is not ours."""
        if not self.in_force():
            return ()
        self.acted += 1
        try:
            os.pwrite(self.fd, f"{self.saved['value']}\n".encode(), 0)
        except OSError as error:
            return (f"{self.change.describe()}: {error.strerror}",)
        return ()

    def in_force(self) -> bool:
        """Whether our value is there."""
        return self._now() == self.change.value

    def hits(self) -> Hits:
        """How many times it was seen in force."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
