"""Whom the heartbeats name: evidence from every rank put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Matrix:
    """Who does not hear whom, now.

    Attributes:
        world: Number of ranks.
        deaf: Pairs (who listens, who is silent).
        gone: Ranks that left and were forgotten.
    """

    world: int
    deaf: set[tuple[int, int]] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    def lost(self, listener: int, silent: int) -> None:
        """`listener` no longer hears `silent`."""
        if listener not in self.gone and silent not in self.gone:
            self.deaf.add((listener, silent))

    def back(self, listener: int, silent: int) -> None:
        """`listener` hears `silent` again."""
        self.deaf.discard((listener, silent))

    def forget(self, rank: int) -> None:
        """Whatever `rank` said or was said of is no evidence any more."""
        self.gone.add(rank)
        self.deaf = {pair for pair in self.deaf if rank not in pair}

    def remember(self, rank: int) -> None:
        """`rank` was started again: what it says counts."""
        self.gone.discard(rank)

    def named(self) -> int | None:
        """The one rank that is an end of every broken pair; None while that is not clear.

        Everybody else must miss it, or be missed by it: a rank that is cut off from some only is
        the sign of a broken path. With two ranks neither can be told from the other.

        Examples:
            >>> Matrix(4, {(0, 2), (1, 2), (3, 2)}).named()
            2
            >>> Matrix(4, {(2, 0), (2, 1), (2, 3)}).named()
            2
            >>> Matrix(4, {(0, 2), (1, 2)}).named() is None
            True
            >>> Matrix(2, {(0, 1), (1, 0)}).named() is None
            True
        """
        if not self.deaf:
            return None
        common = set.intersection(*(set(pair) for pair in self.deaf))
        others = {rank for pair in self.deaf for rank in pair} - common
        there = self.world - len(self.gone)
        return common.pop() if len(common) == 1 and len(others) >= max(2, there - 1) else None

    def reachable(self, ranks: Iterable[int]) -> list[int]:
        """A largest set of ranks that all hear each other (greedy: the worst connected leave)."""
        left = sorted(ranks)
        while True:
            broken = [pair for pair in self.deaf if pair[0] in left and pair[1] in left]
            if not broken:
                return left
            counts = {rank: sum(rank in pair for pair in broken) for rank in left}
            left.remove(max(left, key=lambda rank: (counts[rank], rank)))
