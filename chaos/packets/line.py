"""What a worker does with the packets it gets, one by one; pure: time is what it is told.

A line is given packets (`meet`) and gives back those that are to leave (`due`), in the order in
which they leave. Nothing is lost in it, and nothing is doubled; what an action throws away it
counts as `dropped`.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from chaos.packets.how import Delay, Rate, Reorder

T = TypeVar("T")


class Line(ABC, Generic[T]):
    """Packets on their way through a worker.

    Attributes:
        dropped: How many the action threw away.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._heap: list[tuple[int, int, T]] = []
        self._met = 0

    @abstractmethod
    def meet(self, packet: T, size: int, now_ns: int, psn: int | None = None) -> None:
        """A packet comes.

        Args:
            packet: It.
            size: Its bytes from the Ethernet header on.
            now_ns: The time.
            psn: Its packet sequence number, where it has one.
        """

    def next_ns(self) -> int | None:
        """When something is due; None while nothing is held."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> list[T]:
        """What is to leave by now."""
        found = []
        while self._heap and self._heap[0][0] <= now_ns:
            found.append(heapq.heappop(self._heap)[2])
        return found

    def rest(self) -> list[T]:
        """All that is held, as it would have left; nothing is held afterwards."""
        return self.due(1 << 63)

    def _leave(self, at_ns: int, packet: T) -> None:
        """It leaves at that time; of equal times the first that came is the first to leave."""
        heapq.heappush(self._heap, (at_ns, self._met, packet))
        self._met += 1


class Delayed(Line[T]):
    """Each packet is held for as long as is drawn for it, and never overtakes another."""

    def __init__(self, how: Delay) -> None:
        super().__init__()
        self._draw = how.draws()
        self._last_ns = 0

    def meet(self, packet: T, size: int, now_ns: int, psn: int | None = None) -> None:
        """Held."""
        self._last_ns = max(self._last_ns, now_ns + self._draw())
        self._leave(self._last_ns, packet)


class Slowed(Line[T]):
    """Packets leave one after the other: each when its last bit would be on the line."""

    def __init__(self, how: Rate) -> None:
        super().__init__()
        self._how = how
        self._free_ns = 0

    def meet(self, packet: T, size: int, now_ns: int, psn: int | None = None) -> None:
        """It waits for those before it, or vanishes where that would take too long."""
        begin = max(now_ns, self._free_ns)
        if begin - now_ns > self._how.queue.ns:
            self.dropped += 1
            return
        self._free_ns = begin + size * 8_000_000_000 // self._how.of.bps
        self._leave(self._free_ns, packet)


class Overtaken(Line[T]):
    """Chosen packets wait until others have passed them.

    Args:
        how: How many, and how long at most.
        chosen: Whether the schedule chooses the packet of an ordinal and a sequence number.
    """

    def __init__(self, how: Reorder, chosen: Callable[[int, int | None], bool]) -> None:
        super().__init__()
        self._how, self._chosen = how, chosen
        self._ordinal = 0
        self._waiting: list[list[int]] = []  # left to pass, when it goes at the latest, number
        self._held: dict[int, T] = {}

    def meet(self, packet: T, size: int, now_ns: int, psn: int | None = None) -> None:
        """A chosen one waits; another passes, and those that waited for it follow."""
        ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        if self._chosen(ordinal, psn):
            self._waiting.append([self._how.of, now_ns + self._how.within.ns, ordinal])
            self._held[ordinal] = packet
            return
        self._leave(now_ns, packet)
        for one in self._waiting:
            one[0] -= 1
        self._release(now_ns)

    def next_ns(self) -> int | None:
        """The first that has waited long enough, where nothing is due before."""
        known = [one for one in (super().next_ns(), *(one[1] for one in self._waiting)) if one]
        return min(known, default=None)

    def due(self, now_ns: int) -> list[T]:
        """Those that passed, and those that waited long enough."""
        self._release(now_ns)
        return super().due(now_ns)

    def _release(self, now_ns: int) -> None:
        for one in [one for one in self._waiting if one[0] <= 0 or one[1] <= now_ns]:
            self._waiting.remove(one)
            self._leave(now_ns, self._held.pop(one[2]))


class Straight(Line[T]):
    """Every packet leaves at once; what is done to it is done elsewhere."""

    def meet(self, packet: T, size: int, now_ns: int, psn: int | None = None) -> None:
        """On."""
        self._leave(now_ns, packet)
