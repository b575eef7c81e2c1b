"""`PacketRule` by a queue of the kernel: the table marks, a class of ours holds what is marked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chaos.change import Hits, PacketRule, Where
from chaos.changes import shaping
from chaos.changes.queue import AT_ONCE, DRAIN_S, HANDLE, Queue
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.natives.netem import (
    Lane,
    added,
    lane_deleted,
    lanes_of,
    root_deleted,
    root_of,
    rooted,
    sped,
)
from chaos.natives.tables import Dropped, index_of
from chaos.netlink import Netlink

_PAUSE_S = 0.0005


@dataclass(slots=True)
class Queued:
    """A class of ours where the packets leave, and a table where they come."""

    change: PacketRule
    table: Dropped
    link: Netlink
    dev: str
    index: int
    queue: Queue
    met: Lane = field(default_factory=Lane)
    saved: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def open(cls, change: PacketRule, where: Where, saved: Mapping[str, Any] | None) -> Queued:
        """Called inside the namespace."""
        table = Dropped.open(change, where, saved)
        link = Netlink.open()
        dev = where.across
        queue = Queue.of(change.rule, change.table)
        made = cls(change, table, link, dev, 0, queue)
        try:
            made.index = index_of(change, dev, saved is None)
            if saved is None and (why := made._taken()):
                raise BlockedError(f"{change.place}: {why}")
        except BaseException:
            made.close()
            raise
        return made

    def do(self) -> None:
        """The queue first: then what is marked has somewhere to go."""
        try:
            if not self._ours():
                self.link.send(rooted(self.index))
            for message in added(self.queue, self.index):
                self.link.send(message)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {self.dev}: {error}") from None
        self.table.do()

    def undo(self) -> tuple[str, ...]:
        """Mark no more, let what waits leave, then delete both; of rules that share it the last."""
        refused = self.table.undo()
        try:
            if self.queue.minor in self._lanes():
                fast = replace(self.queue, rate_bps=AT_ONCE)
                self.link.send(sped(fast, self.index, change=True))
                one, last = self.met, self._drained()
                self.link.send(lane_deleted(self.queue, self.index))
                self.met = Lane(
                    one.sent + last.sent, one.dropped + last.dropped, one.waiting + last.waiting
                )
            if self._ours() and not self._lanes():
                self.link.send(root_deleted(self.index))
        except (OSError, FabricError) as error:
            refused = (*refused, f"delete class {self.queue.lane} of {self.dev}: {error}")
        return refused

    def _drained(self) -> Lane:
        """What was counted once nothing waits any more, or too long."""
        until = time.monotonic() + DRAIN_S
        while (now := self._lanes()[self.queue.minor]).waiting and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        return now

    def in_force(self) -> bool:
        """Whether the table or the class is there: half of it is also ours to take back."""
        try:
            return self.table.in_force() or self.queue.minor in self._lanes()
        except OSError as error:
            raise FabricError(f"{self.change.place}: queues cannot be read: {error}") from None

    def _lanes(self) -> dict[int, Lane]:
        return lanes_of(self.link, self.index)

    def _ours(self) -> bool:
        return root_of(self.link, self.index) == ("htb", HANDLE)

    def _taken(self) -> str:
        """Why our class cannot be at the interface; empty when it can.

        Raises:
            BlockedError: it cannot be told.
        """
        dev = self.dev
        try:
            kind, handle = root_of(self.link, self.index)
            lanes = self._lanes()
        except OSError as error:
            raise BlockedError(f"{self.change.place}: queues cannot be read: {error}") from None
        if self.queue.minor in lanes:
            return (
                f"class {self.queue.lane} is at {dev} already: a leftover or another run "
                "(railbreak undo takes it back)"
            )
        if handle == shaping.HANDLE:
            return (
                f"{dev} is shaped by us already (link_slow, tiny_buffers), and has one root; take "
                "that back first, or give the rule engine: worker"
            )
        if handle and (kind, handle) != ("htb", HANDLE):
            return (
                f"the root of {dev} is a {kind} ({handle:x}:) that is not ours and would be lost; "
                f"delete it first (tc qdisc del dev {dev} root), give the rule engine: worker, or "
                "choose another link"
            )
        return ""

    def hits(self) -> Hits:
        """As the table counts: packets that the selector meant, and those that were marked."""
        return self.table.hits()

    @property
    def counted(self) -> dict[str, int]:
        """The table's counters, over all times in force."""
        return self.table.counted

    @property
    def trouble(self) -> tuple[str, ...]:
        """Packets that cannot be accounted for, in sentences."""
        return (*self.table.trouble, *unaccounted(self.change, self.counted["hit"], self.met))

    def close(self) -> None:
        """Close sockets and handle."""
        self.table.close()
        self.link.close()


def unaccounted(change: PacketRule, marked: int, met: Lane) -> tuple[str, ...]:
    """Sentences where what was marked is not what left, fell away or waited.

    More may leave than was marked: a packet that is still to be segmented leaves as its segments.

    Examples:
        >>> from chaos.change import Place
        >>> from chaos.packets import Rule
        >>> one = PacketRule(Place("h1", "eth1"), "railbreak_t", Rule())
        >>> unaccounted(one, 5, Lane(3, 2))
        ()
        >>> unaccounted(one, 5, Lane(3, 1))
        ('h1:eth1: drop on all of everything at ingress: 5 packets were marked, but 3 left the \
queue + 1 found it full + 0 waited still',)
    """
    found = []
    what = change.describe()
    if met.sent + met.dropped + met.waiting < marked:
        found.append(
            f"{what}: {marked} packets were marked, but {met.sent} left the queue + {met.dropped} "
            f"found it full + {met.waiting} waited still"
        )
    if met.waiting:
        found.append(
            f"{what}: {met.waiting} packets waited still {DRAIN_S:g} s after it was taken back, "
            "and were lost"
        )
    return tuple(found)
