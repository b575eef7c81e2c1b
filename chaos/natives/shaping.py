"""`PortShape`: one message adds the token bucket, one deletes it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos import netlink as nl
from chaos.change import Hits, PortShape, Where
from chaos.changes.shaping import HANDLE
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.netlink import Netlink

_ROOT = 0xFFFFFFFF
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_STATS_BASIC, _STATS_QUEUE = 1, 3
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_ETHERNET, _MOST_32 = 1, (1 << 32) - 1
_ASK = nl.NLM_F_REQUEST | nl.NLM_F_ACK


@dataclass(slots=True)
class Shaped:
    """`PortShape`: a tbf with a handle of ours at the root, and never another's deleted."""

    change: PortShape
    where: Where
    link: Netlink
    counted: Hits = field(default_factory=lambda: Hits(0, 0))
    saved: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def open(cls, change: PortShape, where: Where, saved: Mapping[str, Any] | None) -> Shaped:
        """Called inside the namespace."""
        made = cls(change, where, Netlink.open())
        try:
            kind, handle, _ = made._root()
            if saved is None and handle == HANDLE:
                raise BlockedError(
                    f"{change.place}: {where.ifname} is shaped by us already: a leftover or "
                    "another run (railbreak undo takes it back)"
                )
            if saved is None and handle:
                raise BlockedError(
                    f"{change.place}: the root of {where.ifname} is a {kind} ({handle:x}:) that is "
                    "not ours and would be lost; delete it first (tc qdisc del dev "
                    f"{where.ifname} root), or choose another link"
                )
        except BaseException:
            made.close()
            raise
        return made

    def do(self) -> None:
        """Add it."""
        flags = _ASK | nl.NLM_F_CREATE | nl.NLM_F_EXCL
        body = self._head() + nl.text(_KIND, "tbf") + nl.attr(_OPTIONS, _options(self.change))
        try:
            self.link.send(nl.message(nl.RTM_NEWQDISC, flags, body))
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Count, then delete ours; what waits in it is lost."""
        try:
            if not self.in_force():
                return ()
            self.counted = self.hits()
            self.link.send(nl.message(nl.RTM_DELQDISC, _ASK, self._head()))
        except (OSError, FabricError) as error:
            return (f"delete tbf {HANDLE:x}: at the root of {self.where.ifname}: {error}",)
        return ()

    def in_force(self) -> bool:
        """Whether the root is ours."""
        return self._root()[1] == HANDLE

    def hits(self) -> Hits:
        """`seen`: packets that were to go. `hit`: those that had to wait or were dropped.

        The kernel counts how often it had to wait, not which packets did, so never more than seen.
        """
        _, handle, got = self._root()
        if handle != HANDLE:
            return self.counted
        stats = nl.attrs(got.get(_STATS2, b""), 0)
        _, sent = struct.unpack_from("=QI", stats[_STATS_BASIC])
        waiting, _, drops, _, waits = struct.unpack_from("=5I", stats[_STATS_QUEUE])
        seen = sent + waiting + drops
        before = self.counted
        return Hits((before.seen or 0) + seen, (before.hit or 0) + min(seen, drops + waits))

    def _head(self) -> bytes:
        return struct.pack("=BBHiIII", 0, 0, 0, self.where.ifindex, HANDLE << 16, _ROOT, 0)

    def _root(self) -> tuple[str, int, dict[int, bytes]]:
        """Kind, handle and attributes of the root; a default of the kernel has the handle 0."""
        try:
            found = self.link.dump(nl.RTM_GETQDISC, bytes(20))
        except OSError as error:
            raise FabricError(f"{self.change.place}: queues cannot be read: {error}") from None
        for one in found:
            index, handle, parent = struct.unpack_from("=iII", one.body, 4)
            if index == self.where.ifindex and parent == _ROOT:
                got = nl.attrs(one.body, 20)
                return got[_KIND].rstrip(b"\0").decode(), handle >> 16, got
        return "", 0, {}

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def _options(change: PortShape) -> bytes:
    """Options of tbf. With the burst in bytes the kernel works its times out by itself."""
    rate = change.rate_bps // 8
    spec = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(rate, _MOST_32))
    parms = spec + bytes(12) + struct.pack("=III", change.limit, 0, 0)
    wide = nl.attr(_TBF_RATE64, struct.pack("=Q", rate)) if rate > _MOST_32 else b""
    return nl.attr(_TBF_PARMS, parms) + nl.u32(_TBF_BURST, change.burst) + wide
