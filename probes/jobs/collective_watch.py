"""What the coordinator of a collective job looks at by itself: its machine, and silent ranks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chaos.timeline import now_ns
from probes.jobs.collective_rank import Out, Rank, process_state

SILENT_MS = 700.0


async def watch(ranks: Sequence[Rank], out: Out) -> None:
    """Once a second: load of the machine; ranks whose control channel is silent."""
    before, told = _cpu(), now_ns()
    while True:
        await asyncio.sleep(0.1)
        _silence(ranks, out)
        if now_ns() - told >= 1_000_000_000:
            told = now_ns()
            now = _cpu()
            spent = [b - a for a, b in zip(before, now, strict=True)]
            all_of_it = sum(spent) or 1
            busy = 100 * (all_of_it - spent[3] - spent[4]) / all_of_it
            out.say("env", cpu_busy=busy, steal=100 * spent[7] / all_of_it)
            before = now


def _silence(ranks: Sequence[Rank], out: Out) -> None:
    for rank in ranks:
        silence = (now_ns() - rank.heard_ns) / 1e6
        if rank.alive and rank.heard_ns and (silence > SILENT_MS) != rank.silent:
            rank.silent = silence > SILENT_MS
            ev, state = ("ctl_lost" if rank.silent else "ctl_back"), process_state(rank)
            out.say(ev, who=rank.spec["rank"], silent_ms=silence, state=state)


def _cpu() -> list[int]:
    """Ticks of this machine: user, nice, system, idle, iowait, irq, softirq, steal."""
    with open("/proc/stat") as stat:
        return [int(word) for word in stat.readline().split()[1:9]]
