"""What every element of a collective must be, in closed form. Pure numbers, no torch.

Rank r puts `a(i, r) + j mod 251` into element j in iteration i. The value depends on iteration,
rank and position: a stale buffer, a shifted chunk and a missing contribution all show, and which
of them it was can be read from the difference. All values are whole and exact in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
#: Outputs of these are equal on every rank, so their hashes are compared across ranks.
SHARED = ("all_reduce", "all_gather", "broadcast")
TURNS, PATTERN = 97, 251


def own(i: int, rank: int, world: int) -> int:
    """What rank `rank` adds to the position pattern in iteration `i`."""
    return (i % TURNS) * world + rank + 1


def total(i: int, world: int) -> int:
    """Sum of `own` over all ranks."""
    return world * world * (i % TURNS) + world * (world + 1) // 2


def busbw_factor(op: str, world: int) -> float:
    """Bus bandwidth as a multiple of algorithm bandwidth, by the formulas of nccl-tests.

    Examples:
        >>> [busbw_factor(op, 4) for op in ("all_reduce", "all_gather", "broadcast")]
        [1.5, 0.75, 1.0]
    """
    if op == "all_reduce":
        return 2 * (world - 1) / world
    return 1.0 if op == "broadcast" else (world - 1) / world


@dataclass(frozen=True, slots=True)
class Layout:
    """How `elements` values of one operation are cut into blocks, each followed by a flag.

    The flag is what makes every rank stop at the same iteration: a rank that was told to stop puts
    1 into it, and the operation itself carries it to the others.

    Attributes:
        op: One of `OPS`.
        world: Ranks in the group.
        elements: float32 values of the whole message, without flags.
    """

    op: str
    world: int
    elements: int

    @property
    def chunk(self) -> int:
        """Values per block."""
        return max(1, self.elements // self.blocks)

    @property
    def blocks(self) -> int:
        """Blocks of the whole message."""
        return 1 if self.op in ("all_reduce", "broadcast") else self.world

    @property
    def blocks_in(self) -> int:
        """Blocks that a rank puts in."""
        return 1 if self.op == "all_gather" else self.blocks

    @property
    def blocks_out(self) -> int:
        """Blocks that a rank gets out."""
        return 1 if self.op == "reduce_scatter" else self.blocks

    @property
    def bytes(self) -> int:
        """Size S of nccl-tests: the whole message, without flags."""
        return self.chunk * self.blocks * 4

    def root(self, i: int) -> int:
        """Who broadcasts in iteration `i`: each rank in turn, so that no link stays unused."""
        return i % self.world

    def start_in(self, block: int) -> int:
        """Position of the first value of an input block in the pattern."""
        return block * (self.chunk + 1)

    def start_out(self, block: int, rank: int) -> int:
        """Position, in the pattern, of the first value of an output block on `rank`."""
        if self.op == "all_gather":
            return 0
        if self.op in ("reduce_scatter", "all_to_all"):
            return rank * (self.chunk + 1)
        return block * (self.chunk + 1)

    def times(self) -> int:
        """How often the position pattern is counted in an output value."""
        return self.world if self.op in ("all_reduce", "reduce_scatter") else 1

    def added(self, i: int) -> tuple[int, ...]:
        """What is added to the pattern, per output block, in iteration `i`."""
        if self.op in ("all_reduce", "reduce_scatter"):
            return (total(i, self.world),) * self.blocks_out
        if self.op == "broadcast":
            return (own(i, self.root(i), self.world),)
        return tuple(own(i, owner, self.world) for owner in range(self.world))

    def expected(self, i: int, rank: int, index: int) -> int:
        """The value at output position `index` (flags counted) on `rank` in iteration `i`."""
        block, offset = divmod(index, self.chunk + 1)
        place = self.start_out(block, rank) + offset
        return self.added(i)[block] + self.times() * (place % PATTERN)

    def is_flag(self, index: int) -> bool:
        """Whether an output position holds a flag rather than a value."""
        return index % (self.chunk + 1) == self.chunk

    def stale_of(self, i: int, rank: int, index: int, got: float) -> int | None:
        """The earlier iteration whose value this is (the last one that fits), or None."""
        if got != int(got):
            return None
        return next(
            (
                k
                for k in range(i - 1, max(-1, i - TURNS), -1)
                if self.expected(k, rank, index) == int(got)
            ),
            None,
        )

    def missing_rank(self, i: int, rank: int, index: int, got: float) -> int | None:
        """The rank whose contribution a sum lacks, or None."""
        if self.op not in ("all_reduce", "reduce_scatter") or got != int(got):
            return None
        block, offset = divmod(index, self.chunk + 1)
        pattern = (self.start_out(block, rank) + offset) % PATTERN
        lacking = self.expected(i, rank, index) - int(got) - pattern
        who = lacking - own(i, 0, self.world)
        return who if 0 <= who < self.world else None
