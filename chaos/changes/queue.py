"""A queue of ours at the root of an interface, for packets that a rule marks. Pure.

The root has a class for them, and all others pass it by. A packet belongs to the class whose number
is its priority, which the rule's table has set; no filter is needed.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist

from chaos.changes.place import Argv
from chaos.packets import Rule
from chaos.packets.how import Delay, Rate

#: The handle of our root, by which we know it; that of a shaped port is another.
HANDLE = 0x7262
QUEUES = ("netem", "htb")
#: Packets that netem holds, and others that wait for a link that is busy.
MOST_HELD, MOST_WAITING = 100_000, 100_000
#: As fast as no link is (bit/s): a class that only has a netem; there it keeps packets in order.
AT_ONCE = 8_000_000_000_000
#: A kernel is asked for a chance of one in so many; it knows deviations in parts of 8192.
POINTS, _SCALE = 4096, 8192
#: Sigmas of netem that one mean of `exponential` is: its tail needs more room than a bell's.
TAIL = 3
#: A whole packet at least may wait; the kernel counts no more than 4 GiB.
_PACKET, _MOST_BYTES = 1_518, (1 << 32) - 1
#: What still waits when a rule is taken back has so long to leave; then it is lost.
DRAIN_S = 1.0
#: Rules at one port share the root: the first makes it, and the last deletes it.
_ADD = (
    f'tc qdisc add dev "$0" root handle {HANDLE:x}: htb default 0 direct_qlen {MOST_WAITING} '
    f'2>/dev/null || tc qdisc show dev "$0" | grep "^qdisc htb {HANDLE:x}: root"'
)
_DELETE = (
    f'tc qdisc show dev "$0" | grep -q "^qdisc htb {HANDLE:x}: root" || exit 0; '
    'mine() { tc -s class show dev "$0" | grep -A 3 "^class htb $1 "; }; '
    'if mine "$1" >/dev/null; then '
    f'tc class change dev "$0" parent {HANDLE:x}: classid "$1" htb rate {AT_ONCE}bit burst 1m '
    "cburst 1m quantum 60000; "
    'n=0; while [ $n -lt $2 ] && mine "$1" | grep -q "backlog [0-9]*b [1-9]"; '
    "do n=$((n + 1)); sleep 0.05 || sleep 1; done; "
    'tc class del dev "$0" classid "$1" || exit 1; fi; '
    f'tc class show dev "$0" | grep -q "^class htb {HANDLE:x}:" || '
    f'exec tc qdisc del dev "$0" root handle {HANDLE:x}:'
)


@dataclass(frozen=True, slots=True)
class Queue:
    """What holds the chosen packets: a class of ours, and what lies in it.

    Attributes:
        kind: `bfifo`: they wait for their turn at the rate of the class. `netem`: for their time.
        minor: Number of the class.
        rate_bps: What leaves the class at most.
        limit: Bytes that may wait for that.
        delay_ns: How long each packet is held.
        spread_ns: How far that is drawn: the half width of a uniform draw, or a sigma.
        shape: Of the draw.
        seed: Of the draw.
    """

    kind: str
    minor: int = 1
    rate_bps: int = AT_ONCE
    limit: int = 0
    delay_ns: int = 0
    spread_ns: int = 0
    shape: str = "uniform"
    seed: int = 0

    @classmethod
    def of(cls, rule: Rule, table: str) -> Queue:
        """The queue that does the action of a rule."""
        how, minor = rule.then.how, minor_of(table)
        if isinstance(how, Rate):
            waiting = how.of.bps * how.queue.ns // 8_000_000_000
            return cls("bfifo", minor, how.of.bps, min(max(waiting, _PACKET), _MOST_BYTES))
        assert isinstance(how, Delay)
        spread = how.jitter.ns * TAIL if how.shape == "exponential" else how.jitter.ns
        return cls("netem", minor, AT_ONCE, 0, how.of.ns, spread, how.shape, how.seed)

    @property
    def lane(self) -> str:
        """The class, and the priority that means it."""
        return lane_of(self.minor)

    @property
    def burst(self) -> int:
        """Bytes of a head start: what it sends in half a millisecond, as late as a timer may be.

        A packet leaves when the class owes nothing, so one that is longer leaves as well.
        """
        return min(max(1, self.rate_bps // 16_000), 1 << 20)

    def table(self) -> tuple[int, ...]:
        """The draw as netem takes it: that many sigmas, in 8192 parts, each as likely.

        Examples:
            >>> Queue("netem", spread_ns=3, shape="normal").table()[2047:2049]
            (-3, 3)
            >>> Queue("netem", spread_ns=0).table()
            ()
        """
        if not self.spread_ns or self.shape == "uniform":
            return ()
        return tuple(round(_SCALE * one) for one in _quantiles(self.shape))

    def do(self, dev: str) -> tuple[Argv, ...]:
        """Commands that make it."""
        add = ("tc", "class", "add", "dev", dev, "parent", f"{HANDLE:x}:", "classid", self.lane)
        speed = ("htb", "rate", f"{self.rate_bps}bit", "burst", f"{self.burst}b")
        made = (
            ("sh", "-c", _ADD, dev),
            (*add, *speed, "cburst", f"{self.burst}b", "quantum", "60000"),
        )
        leaf: Argv = ("tc", "qdisc", "add", "dev", dev, "parent", self.lane)
        if self.kind == "bfifo":
            return (*made, (*leaf, "bfifo", "limit", f"{self.limit}b"))
        if self.spread_ns:  # tables and seeds are beyond tc's words
            order = json.dumps({"dev": dev, **asdict(self)}, separators=(",", ":"))
            return (*made, (sys.executable, "-m", "chaos.natives.netem", order))
        held = ("netem", "delay", f"{self.delay_ns / 1000:.3f}us", "limit", str(MOST_HELD))
        return (*made, (*leaf, *held, "rate", f"{AT_ONCE}bit"))

    def undo(self, dev: str) -> Argv:
        """The command that lets what waits leave, then deletes ours and nothing else."""
        return ("sh", "-c", _DELETE, dev, self.lane, str(round(DRAIN_S / 0.05)))


def minor_of(table: str) -> int:
    """The number of the class that a table's packets go to.

    Examples:
        >>> 0 < minor_of("railbreak_a") < 0xFFFF
        True
    """
    return 1 + zlib.crc32(table.encode()) % 0xFFFE


def lane_of(minor: int) -> str:
    """A class of ours, as tc and nft write it."""
    return f"{HANDLE:x}:{minor:x}"


def _quantiles(shape: str) -> Iterator[float]:
    bell = NormalDist()
    for at in range(POINTS):
        share = (at + 0.5) / POINTS
        yield bell.inv_cdf(share) if shape == "normal" else -math.log(1 - share) / TAIL
