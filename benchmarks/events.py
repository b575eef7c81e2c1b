"""How soon a change of a link is known to a listener: before it was asked → after it was read.

The probe `kernel_events` against pyroute2 listening in a process of its own. Carrier is what the
far end of the cable sees.
"""

from __future__ import annotations

import bisect
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.ground import Pair, child, need, pair
from benchmarks.reading import Contender, Outcome, Result
from chaos import netlink
from chaos.errors import FabricError
from chaos.netlink import Netlink
from chaos.netns import inside

_STEP_S = 0.01
_AFTER_S = 0.2
_WHAT = {"a": "own admin state", "b": "far carrier"}
Event = tuple[int, bool]  # when, up


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Rounds in which each listens alone to the same flap."""
    need("ip")
    rounds, cycles = (1, 50) if quick else (4, 50)
    found: dict[str, dict[str, list[float]]] = {end: {} for end in _WHAT}
    asked = 0
    with pair() as ground:
        for turn in range(rounds):
            tell(f"events, round {turn + 1} of {rounds}")
            for end in _WHAT:
                theirs, steps = _pyroute2(ground, end, cycles)
                found[end].setdefault("pyroute2 AsyncIPRoute", []).extend(match(steps, theirs))
                mine, steps = _ours(ground, end, cycles)
                found[end].setdefault("probe kernel_events", []).extend(match(steps, mine))
                asked += len(steps)
    asked //= len(_WHAT)
    results = tuple(
        Result(
            f"link event known, {words}",
            tuple(
                Contender(who, listed, ours=who.startswith("probe"))
                for who, listed in reversed(found[end].items())
            ),
            "; ".join(
                f"{who} knew {len(listed)} of {asked} before the next"
                for who, listed in found[end].items()
            ),
        )
        for end, words in _WHAT.items()
    )
    return Outcome("events", results)


def match(steps: Sequence[Event], events: Iterable[Event]) -> list[float]:
    """Seconds from each step to the first event of its kind before the next step; missed: none.

    Examples:
        >>> match([(0, False), (10, True)], [(2_000, True), (3, False), (4, False)])
        [3e-09, 1.99e-06]
    """
    starts = [at for at, _ in steps]
    first: dict[int, int] = {}
    for at, up in sorted(events):
        step = bisect.bisect_right(starts, at) - 1
        if step >= 0 and steps[step][1] == up:
            first.setdefault(step, at)
    return [(first[step] - starts[step]) / 1e9 for step in sorted(first)]


def _flap(ground: Pair, cycles: int) -> list[Event]:
    """Set a's end down and up in turn; when each was asked."""
    link = inside(ground.path("a"), Netlink.open)
    messages = {up: netlink.set_updown(ground.INDEX["a"], up) for up in (False, True)}
    steps: list[Event] = []
    try:
        for at in range(2 * cycles):
            steps.append((time.monotonic_ns(), bool(at % 2)))
            link.send(messages[bool(at % 2)])
            time.sleep(_STEP_S)
        time.sleep(_AFTER_S)  # what is late is still heard
    finally:
        link.close()
    return steps


def _heard(
    argv: Sequence[str], setup: dict[str, Any], flap: Callable[[], list[Event]]
) -> tuple[list[dict[str, Any]], list[Event]]:
    """Records of a listener during a flap, and the steps of the flap."""
    with child(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(setup).encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            if json.loads(line)["ev"] == "ready":
                break
        else:
            raise FabricError(f"{' '.join(argv)} ended before it listened")
        raw: list[bytes] = []
        stdout = process.stdout
        reader = threading.Thread(target=lambda: raw.extend(stdout))
        reader.start()
        try:
            steps = flap()
        finally:
            process.kill()
            reader.join()
    return [json.loads(line) for line in raw if line.endswith(b"\n")], steps


def _ours(ground: Pair, end: str, cycles: int) -> tuple[list[Event], list[Event]]:
    argv = (sys.executable, "-m", "probes.jobs.kernel_events")
    setup = {
        "config": {"nodes": [end], "buffer_bytes": 1 << 22},
        "namespaces": ground.paths,
        "logs": {},
    }
    wanted = "link_admin" if end == "a" else "link_carrier"
    records, steps = _heard(argv, setup, lambda: _flap(ground, cycles))
    return [(one["t"], one["up"]) for one in records if one["ev"] == wanted], steps


def _pyroute2(ground: Pair, end: str, cycles: int) -> tuple[list[Event], list[Event]]:
    argv = (sys.executable, "-m", "benchmarks.peers", "monitor")
    flag = netlink.IFF_UP if end == "a" else netlink.IFF_LOWER_UP
    setup = {"netns": getattr(ground, end)}
    records, steps = _heard(argv, setup, lambda: _flap(ground, cycles))
    return [(one["t"], bool(one["flags"] & flag)) for one in records if one["ev"] == "link"], steps
