"""Tensors of one collective: filled before every operation, compared after it. Needs torch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from probes.jobs.collective_values import PATTERN, Layout, own

_STRIDE, _EDGE = 997, 64
_WAIT = timedelta(milliseconds=50)
#: gloo's words for "this wait is over, the operation lives on"; any other text is an error.
_ALIVE = "Operation timed out!"


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit for bit; eight times as fast as `torch.equal` on a CPU, where it would slow the job."""
    if one.is_cuda:
        return torch.equal(one, other)
    return bool(_memcmp(one.data_ptr(), other.data_ptr(), one.numel() * 4) == 0)


@dataclass(frozen=True, slots=True)
class Wrong:
    """Values that are not what they must be.

    Attributes:
        count: How many were wrong among those looked at.
        index: Position of the first one.
        expected: What it must be.
        got: What it is.
    """

    count: int
    index: int
    expected: float
    got: float


class Buffers:
    """Input, output and expectation of one rank in one group.

    Args:
        layout: Operation, world, size.
        rank: This rank in the group.
        device: `cpu` or `cuda`.
    """

    def __init__(self, layout: Layout, rank: int, device: str = "cpu") -> None:
        self.layout, self.rank = layout, rank
        width = layout.chunk + 1
        span = torch.arange(width * layout.blocks, dtype=torch.int64)
        pattern = (span % PATTERN).to(torch.float32)
        blocks = [layout.start_out(b, rank) for b in range(layout.blocks_out)]
        outcome = torch.cat([pattern[start : start + width] for start in blocks])
        self._pattern_in = pattern[: width * layout.blocks_in].to(device)
        self._pattern_out = (outcome * layout.times()).to(device)
        self._in = torch.empty_like(self._pattern_in)
        inplace = layout.op in ("all_reduce", "broadcast")
        self._out = self._in if inplace else torch.empty_like(self._pattern_out)
        self._expected = torch.empty_like(self._pattern_out)
        where = torch.arange(self._out.numel())
        self._block = (where // width).to(device)
        self._values = where[where % width != layout.chunk]
        self._samples: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._weights = (torch.arange((self._out.numel() + 1) // 2) * 2 + 1).to(device)

    def fill(self, i: int, flag: bool) -> None:
        """Put this iteration's values in, and the flag that asks all ranks to stop."""
        layout = self.layout
        torch.add(self._pattern_in, own(i, self.rank, layout.world), out=self._in)
        self._in.view(-1, layout.chunk + 1)[:, -1] = float(flag)
        if self._out is not self._in:
            self._out.fill_(-1.0)

    def start(self, i: int, group: Any) -> Any:
        """Begin the operation; the returned work is waited for by the caller."""
        op, inp, out = self.layout.op, self._in, self._out
        if op == "all_reduce":
            return dist.all_reduce(out, group=group, async_op=True)
        if op == "broadcast":
            return dist.broadcast(out, self.layout.root(i), group=group, async_op=True)
        if op == "all_gather":
            return dist.all_gather_into_tensor(out, inp, group=group, async_op=True)
        if op == "reduce_scatter":
            return dist.reduce_scatter_tensor(out, inp, group=group, async_op=True)
        return dist.all_to_all_single(out, inp, group=group, async_op=True)

    def wait(self, work: Any) -> None:
        """Wait in slices of 50 ms: an elapsed slice leaves the operation alive.

        Raises:
            RuntimeError: it failed; in the library's words.
        """
        while True:
            try:
                work.wait(_WAIT)
            except RuntimeError as error:
                if str(error).strip() != _ALIVE:
                    raise
                continue
            if self._out.is_cuda:
                torch.cuda.current_stream().synchronize()
            return

    def flagged(self) -> bool:
        """Whether any rank asked to stop in this iteration."""
        return bool((self._out.view(-1, self.layout.chunk + 1)[:, -1] > 0).any())

    def spoil(self, index: int) -> None:
        """Plant one wrong value in the output (for tests of the check itself)."""
        self._out[index] += 1.0

    def contributes(self, i: int) -> bool:
        """Whether what this rank puts in goes anywhere in iteration `i`."""
        return self.layout.op != "broadcast" or self.layout.root(i) == self.rank

    def mislead(self) -> None:
        """Make the first value that is put in one more than it should be."""
        self._in[0] += 1.0

    def _added(self, i: int) -> torch.Tensor:
        added = torch.tensor(self.layout.added(i), dtype=torch.float32)
        return added.to(self._out.device)

    def check_all(self, i: int) -> Wrong | None:
        """Compare every value."""
        width = self.layout.chunk + 1
        want, got = self._expected.view(-1, width), self._out.view(-1, width)
        torch.add(self._pattern_out.view(-1, width), self._added(i)[:, None], out=want)
        want[:, -1] = got[:, -1]
        if _equal(self._expected, self._out):
            return None
        return self._first(torch.nonzero(self._expected != self._out).flatten(), i)

    def check_some(self, i: int) -> Wrong | None:
        """Compare the edges and every 997th value, from a start that moves with the iteration."""
        if i % _STRIDE not in self._samples:
            self._samples[i % _STRIDE] = self._sample(i % _STRIDE)
        spots, pattern, block = self._samples[i % _STRIDE]
        want, got = pattern + self._added(i)[block], self._out[spots]
        if torch.equal(want, got):
            return None
        return self._first(torch.unique(spots[want != got]), i)

    def _sample(self, start: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        values = self._values
        spots = torch.cat((values[:_EDGE], values[start::_STRIDE], values[-_EDGE:]))
        spots = spots.to(self._out.device)
        return spots, self._pattern_out[spots], self._block[spots]

    def _first(self, wrong: torch.Tensor, i: int) -> Wrong:
        index = int(wrong[0])
        expected = float(self.layout.expected(i, self.rank, index))
        return Wrong(len(wrong), index, expected, float(self._out[index]))

    def hash(self) -> int:
        """64 bits over the output, position by position."""
        even = self._out[: self._out.numel() // 2 * 2].view(torch.int64)
        return int((even * self._weights[: even.numel()]).sum()) & (2**64 - 1)
