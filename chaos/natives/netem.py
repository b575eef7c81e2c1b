"""The queues of rules as rtnetlink messages, and what they counted.

`python -m chaos.natives.netem ORDER` adds the one leaf that `tc` has no words for: a netem with a
table of its own and a seed.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from chaos import netlink as nl
from chaos.changes.queue import AT_ONCE, HANDLE, MOST_HELD, MOST_WAITING, Queue
from chaos.netlink import Netlink

_ROOT = 0xFFFFFFFF
_QDISC = HANDLE << 16
_KIND, _OPTIONS, _STATS2 = 1, 2, 7
_STATS_BASIC, _STATS_QUEUE = 1, 3
_HTB_PARMS, _HTB_INIT, _HTB_DIRECT_QLEN, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 5, 6, 7
_DIST, _RATE, _RATE64, _LATENCY64, _JITTER64, _PRNG_SEED = 2, 6, 8, 10, 11, 14
_RTM_NEWTCLASS, _RTM_DELTCLASS, _RTM_GETTCLASS = 40, 41, 42
_ETHERNET, _MOST_32, _TICK_NS = 1, (1 << 32) - 1, 64
_ASK = nl.NLM_F_REQUEST | nl.NLM_F_ACK
_NEW = _ASK | nl.NLM_F_CREATE | nl.NLM_F_EXCL


@dataclass(frozen=True, slots=True)
class Lane:
    """What became of the packets of our class.

    Attributes:
        sent: Gone on; a packet still to be segmented counts as its segments.
        dropped: For which there was no room.
        waiting: Held now.
    """

    sent: int = 0
    dropped: int = 0
    waiting: int = 0


def rooted(index: int) -> bytes:
    """The message that makes a root of ours, which lets pass what has no class."""
    options = nl.attr(_HTB_INIT, struct.pack("=5I", 3, 10, 0, 0, 0))
    options += nl.u32(_HTB_DIRECT_QLEN, MOST_WAITING)
    return _qdisc(index, _ROOT, _QDISC, "htb", options)


def added(queue: Queue, index: int) -> Iterator[bytes]:
    """Messages that put a class and what lies in it under our root."""
    yield sped(queue, index)
    yield leaf(queue, index)


def leaf(queue: Queue, index: int) -> bytes:
    """The message that puts a queue into its class."""
    if queue.kind == "bfifo":
        return _qdisc(index, _QDISC | queue.minor, 0, "bfifo", struct.pack("=I", queue.limit))
    head = struct.pack("=6I", 0, MOST_HELD, 0, 0, 0, 0)
    words = nl.attr(_RATE, struct.pack("=IiIi", _MOST_32, 0, 0, 0))
    words += nl.attr(_RATE64, struct.pack("=Q", AT_ONCE // 8))
    words += nl.attr(_LATENCY64, struct.pack("=q", queue.delay_ns))
    if queue.spread_ns:
        words += nl.attr(_JITTER64, struct.pack("=q", queue.spread_ns))
        words += nl.attr(_PRNG_SEED, struct.pack("=Q", queue.seed & (1 << 64) - 1))
    if table := queue.table():
        words += nl.attr(_DIST, struct.pack(f"={len(table)}h", *table))
    return _qdisc(index, _QDISC | queue.minor, 0, "netem", head + words)


def sped(queue: Queue, index: int, *, change: bool = False) -> bytes:
    """The message that gives a class its rate."""
    rate = max(1, queue.rate_bps // 8)
    spec = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(rate, _MOST_32))
    ticks = min(max(1, queue.burst * 1_000_000_000 // rate // _TICK_NS), _MOST_32)
    parms = spec + spec + struct.pack("=5I", ticks, ticks, 60_000, 0, 0)
    words = nl.attr(_HTB_PARMS, parms)
    if rate > _MOST_32:
        words += nl.attr(_HTB_RATE64, struct.pack("=Q", rate))
        words += nl.attr(_HTB_CEIL64, struct.pack("=Q", rate))
    body = head(index, _QDISC | queue.minor, _QDISC)
    body += nl.text(_KIND, "htb") + nl.attr(_OPTIONS, words)
    return nl.message(_RTM_NEWTCLASS, _ASK if change else _NEW, body)


def lane_deleted(queue: Queue, index: int) -> bytes:
    """The message that deletes a class, and all in it."""
    return nl.message(_RTM_DELTCLASS, _ASK, head(index, _QDISC | queue.minor, _QDISC))


def root_deleted(index: int) -> bytes:
    """The message that deletes our root, and all in it."""
    return nl.message(nl.RTM_DELQDISC, _ASK, head(index, _QDISC, _ROOT))


def head(index: int, handle: int, parent: int) -> bytes:
    """`struct tcmsg`."""
    return struct.pack("=BBHiIII", 0, 0, 0, index, handle, parent, 0)


def _qdisc(index: int, parent: int, handle: int, kind: str, options: bytes) -> bytes:
    body = head(index, handle, parent) + nl.text(_KIND, kind) + nl.attr(_OPTIONS, options)
    return nl.message(nl.RTM_NEWQDISC, _NEW, body)


def root_of(link: Netlink, index: int) -> tuple[str, int]:
    """Kind and handle of what is at the root of an interface; a kernel's default has handle 0."""
    for one in link.dump(nl.RTM_GETQDISC, bytes(20)):
        at, handle, parent = struct.unpack_from("=iII", one.body, 4)
        if at == index and parent == _ROOT:
            return nl.attrs(one.body, 20)[_KIND].rstrip(b"\0").decode(), handle >> 16
    return "", 0


def lanes_of(link: Netlink, index: int) -> dict[int, Lane]:
    """What our classes at an interface counted, by their numbers."""
    found = {}
    for one in link.dump(_RTM_GETTCLASS, head(index, 0, 0)):
        at, handle = struct.unpack_from("=iI", one.body, 4)
        if at == index and handle >> 16 == HANDLE:
            stats = nl.attrs(nl.attrs(one.body, 20)[_STATS2], 0)
            _, sent = struct.unpack_from("=QI", stats[_STATS_BASIC])
            waiting, _, dropped = struct.unpack_from("=3I", stats[_STATS_QUEUE])
            found[handle & 0xFFFF] = Lane(sent, dropped, waiting)
    return found


def repeats(index: int) -> bool:
    """Whether a netem under a root at an interface takes a seed; it is left there."""
    link = Netlink.open()
    try:
        queue = Queue("netem", delay_ns=1_000_000, spread_ns=1000, seed=7)
        for message in (rooted(index), *added(queue, index)):
            link.send(message)
        for one in link.dump(nl.RTM_GETQDISC, bytes(20)):
            at, _, parent = struct.unpack_from("=iII", one.body, 4)
            if (at, parent) == (index, _QDISC | queue.minor):
                found = nl.attrs(nl.attrs(one.body, 20)[_OPTIONS], 24).get(_PRNG_SEED, b"")
                return found == struct.pack("=Q", 7)
        return False
    finally:
        link.close()


def main() -> None:
    """Add the leaf that is told on the command line."""
    order = json.loads(sys.argv[1])
    index = socket.if_nametoindex(order.pop("dev"))
    link = Netlink.open()
    try:
        link.send(leaf(Queue(**order), index))
    except OSError as error:
        sys.exit(f"netem: {error.strerror or error}")
    finally:
        link.close()


if __name__ == "__main__":
    main()
