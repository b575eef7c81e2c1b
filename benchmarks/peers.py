"""Peers that run in processes of their own: `python -m benchmarks.peers KIND`.

`sleep` and `asyncio` act on a schedule, `monitor` listens. Each says that it has started, reads one
JSON line, works and prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from pyroute2 import AsyncIPRoute

from chaos import netlink
from chaos.netlink import Netlink
from chaos.netns import inside

_LIFE_AFTER_S = 0.05


class Actor:
    """Sends our very message at planned instants, so that only the scheduling differs."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.planned: list[int] = setup["planned"]
        index = setup["ifindex"]
        self.messages = [netlink.set_updown(index, up) for up in (False, True)]
        self.link = inside(setup["netns"], Netlink.open)
        self.found: list[tuple[int, int, int]] = []

    def act(self, at: int) -> None:
        """The at-th action: down where even, up where odd."""
        before = time.monotonic_ns()
        self.link.send(self.messages[at % 2])
        self.found.append((self.planned[at], before, time.monotonic_ns()))


def by_sleep(setup: dict[str, Any]) -> None:
    """What a script does: sleep for the rest, act."""
    actor = Actor(setup)
    for at, planned in enumerate(actor.planned):
        left = planned - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
        actor.act(at)
    print(json.dumps(actor.found))


def by_asyncio(setup: dict[str, Any]) -> None:
    """What an asyncio program does: `loop.call_at`."""
    actor = Actor(setup)

    async def go() -> None:
        loop = asyncio.get_running_loop()  # its clock is CLOCK_MONOTONIC too
        done = loop.create_future()
        for at, planned in enumerate(actor.planned):
            loop.call_at(planned / 1e9, actor.act, at)
        loop.call_at(actor.planned[-1] / 1e9 + _LIFE_AFTER_S, done.set_result, None)
        await done

    asyncio.run(go())
    print(json.dumps(actor.found))


def monitor(setup: dict[str, Any]) -> None:
    """pyroute2 listening to link messages of one namespace until killed."""

    async def go() -> None:
        async with AsyncIPRoute(netns=setup["netns"]) as ipr:
            await ipr.bind()
            print(json.dumps({"ev": "ready"}), flush=True)
            while True:
                async for got in ipr.get():
                    at = time.monotonic_ns()
                    if got["event"] == "RTM_NEWLINK":
                        said = {"ev": "link", "t": at, "flags": got["flags"]}
                        print(json.dumps(said), flush=True)

    asyncio.run(go())


KINDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "sleep": by_sleep,
    "asyncio": by_asyncio,
    "monitor": monitor,
}

if __name__ == "__main__":
    print(json.dumps({"ev": "started"}), flush=True)
    KINDS[sys.argv[1]](json.loads(sys.stdin.readline()))
