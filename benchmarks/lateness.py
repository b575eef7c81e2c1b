"""How late a planned action begins: a flap of 100 Hz, on an idle machine and beside CPU hogs.

The injector (a process of its own, real-time where allowed, the last 200 µs spun) against what else
a Python program would do, each in a process of its own, with the same netlink message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.ground import Pair, child, hogs, need, pair
from benchmarks.reading import Contender, Outcome, Result
from chaos.errors import FabricError
from chaos.hands import Hands
from chaos.registry import InForce
from chaos.timeline import now_ns
from chaos.units import Duration

_HALF_NS = 5_000_000  # 100 Hz: 5 ms down, 5 ms up
_LEAD_NS = 400_000_000  # from asking to the first action, for all of them
_PEERS = {"sleep": "`time.sleep` in a thread", "asyncio": "asyncio `loop.call_at`"}


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Both conditions, each contender in turn, twice."""
    need("ip")
    rounds, cycles = (1, 100) if quick else (2, 300)
    many = (os.cpu_count() or 1) + 1
    results: list[Result] = []
    with pair() as ground:
        for words, count in (("idle", 0), (f"beside {many} CPU hogs", many)):
            found: dict[str, list[float]] = {}
            real_time = True
            for turn in range(rounds):
                tell(f"lateness, {words}, round {turn + 1} of {rounds}")
                with hogs(count) if count else contextlib.nullcontext():
                    for kind, who in _PEERS.items():
                        found.setdefault(who, []).extend(_peer(kind, ground, cycles))
                    late, fifo = asyncio.run(_ours(ground, cycles))
                    found.setdefault("injector", []).extend(late)
                    real_time = real_time and fifo
            results.append(_result(words, found, real_time))
    return Outcome("lateness", tuple(results))


def _result(words: str, found: dict[str, list[float]], real_time: bool) -> Result:
    contenders = (
        Contender("injector", found.pop("injector"), ours=True),
        *(Contender(who, listed) for who, listed in found.items()),
    )
    note = "" if real_time else "the injector was refused real-time priority here"
    return Result(f"lateness of a 100 Hz flap, {words}", contenders, note)


def planned(t0_ns: int, cycles: int) -> list[int]:
    """Instants of all actions, down and up in turn.

    Examples:
        >>> planned(0, 2)
        [0, 5000000, 10000000, 15000000]
    """
    return [t0_ns + at * _HALF_NS for at in range(2 * cycles)]


async def _ours(ground: Pair, cycles: int) -> tuple[list[float], bool]:
    change = ground.link_state()
    spans = [InForce(at * 2 * _HALF_NS, (at * 2 + 1) * _HALF_NS) for at in range(cycles)]
    with tempfile.TemporaryDirectory(prefix="railbreak-bench-") as name:
        hands = await Hands.arm(
            (change,),
            {change.place: ground.where()},
            journal=Path(name, "journal.jsonl"),
            max_life=Duration.parse("60 s"),
            log_dir=Path(name),
        )
        async with hands:
            await hands.start(now_ns() + _LEAD_NS, spans)
            await hands.wait()
            proof = await hands.heal()
            fifo = hands.fifo
    if len(proof.actions) != 2 * cycles or not proof.taken_back:
        raise FabricError(f"the injector did {len(proof.actions)} of {2 * cycles} actions")
    return [(one.before_ns - one.planned_ns) / 1e9 for one in proof.actions], fifo


def _peer(kind: str, ground: Pair, cycles: int) -> list[float]:
    argv = (sys.executable, "-m", "benchmarks.peers", kind)
    with child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has started and imported, which takes long beside hogs
        setup = {
            "netns": ground.path("a"),
            "ifindex": ground.INDEX["a"],
            "planned": planned(now_ns() + _LEAD_NS, cycles),
        }
        out, _ = process.communicate(json.dumps(setup).encode() + b"\n", timeout=120)
    actions = json.loads(out)
    if len(actions) != 2 * cycles:
        raise FabricError(f"{kind} did {len(actions)} of {2 * cycles} actions")
    return [(before - due) / 1e9 for due, before, _ in actions]
