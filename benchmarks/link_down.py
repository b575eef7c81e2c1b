"""From asking to the kernel's acknowledgement: a link down, a link up, a drop rule.

Ours is a message built beforehand on a socket opened beforehand, as the injector uses it. Peers are
what scripts do. The rule is the same text for both.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable

from pyroute2 import IPRoute

from benchmarks.ground import Pair, must, need, pair
from benchmarks.reading import Contender, Outcome, Result
from chaos.change import PacketDrop, Place
from chaos.native import build
from chaos.netns import inside
from chaos.nft import Tables

_OURS_PER_ROUND = 5
_DROP = PacketDrop(Place("a", "eth1"), "railbreak_bench")


def run(quick: bool, tell: Callable[[str], None]) -> Outcome:
    """Everything, in rounds in which each contender has its turn."""
    need("ip", "nft")
    rounds = 20 if quick else 60
    with pair() as ground:
        tell(f"link down and up, {rounds} rounds")
        links = _links(ground, rounds)
        tell(f"drop rule, {rounds} rounds")
        rules = inside(ground.path("a"), lambda: _rules(ground, rounds))
    return Outcome("link_down", (*links, rules))


def _links(ground: Pair, rounds: int) -> tuple[Result, ...]:
    native = build(ground.link_state(), ground.where())
    warm = IPRoute(fileno=inside(ground.path("a"), _socket))  # its `netns=` forks all of us
    index = ground.INDEX["a"]
    down: dict[str, list[float]] = {}
    up: dict[str, list[float]] = {}
    plain, entering = ("ip", "-n", ground.a), ("ip", "netns", "exec", ground.a, "ip")
    ways: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {
        "prebuilt message, warm socket": (native.do, native.undo, _OURS_PER_ROUND),
        "pyroute2 IPRoute, warm": (
            lambda: warm.link("set", index=index, state="down"),
            lambda: warm.link("set", index=index, state="up"),
            1,
        ),
        "`ip -n NS link set`": (*_by_command(plain), 1),
        "`ip netns exec NS ip link set`": (*_by_command(entering), 1),
    }
    try:
        for _ in range(rounds):
            for who, (do, undo, times) in ways.items():
                for _ in range(times):
                    down.setdefault(who, []).append(timed(do))
                    up.setdefault(who, []).append(timed(undo))
        changes = native.hits()
    finally:
        warm.close()
        native.close()
    done = sum(len(listed) for listed in down.values())
    note = f"{done} times down by all together; the kernel counted {changes.hit} losses of carrier"
    return (
        Result("link down, asked → acknowledged", _contenders(down), note),
        Result("link up, asked → acknowledged", _contenders(up)),
    )


def _socket() -> int:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE).detach()


def _by_command(prefix: tuple[str, ...]) -> tuple[Callable[[], object], Callable[[], object]]:
    argv = (*prefix, "link", "set", "dev", "eth1")
    return lambda: must(*argv, "down"), lambda: must(*argv, "up")


def _rules(ground: Pair, rounds: int) -> Result:
    """Called inside the namespace, so that the command needs nothing to get there."""
    native = build(_DROP, ground.where())
    text = _DROP.ruleset("eth1").encode()
    found: dict[str, list[float]] = {}

    def command() -> None:
        subprocess.run(("nft", "-f", "-"), input=text, check=True)

    ways = {"libnftables, warm": (native.do, _OURS_PER_ROUND), "`nft -f -`": (command, 1)}
    try:
        for _ in range(rounds):
            for who, (do, times) in ways.items():
                for _ in range(times):
                    found.setdefault(who, []).append(timed(do))
                    native.undo()
                    _settle()
    finally:
        native.undo()
        native.close()
    return Result("drop rule in, asked → acknowledged", _contenders(found))


def _settle() -> None:
    """Let the kernel finish a deletion: it does when any nfnetlink socket closes.

    Otherwise that wait, a grace period, would be charged to the next command that ends.
    """
    Tables.open().close()


def _contenders(found: dict[str, list[float]]) -> tuple[Contender, ...]:
    return tuple(
        Contender(who, listed, ours=at == 0) for at, (who, listed) in enumerate(found.items())
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
