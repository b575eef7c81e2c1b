"""A queue of ours at the root of an interface, for packets that a rule marks. Pure.

The root has a class for them, and all others pass it by. A packet belongs to the class whose number
is its priority, which the rule's table has set; no filter is needed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist

from chaos.changes.place import Argv
from chaos.packets import Rule
from chaos.packets.how import Delay, Rate

#: The handle of our root, by which we know it; that of a shaped port is another.
HANDLE = 0x7262
#: The class of the chosen packets, and the priority that means it.
LANE = f"{HANDLE:x}:1"
QUEUES = ("netem", "htb")
#: Packets that netem holds, and others that wait for a link that is busy.
MOST_HELD, MOST_WAITING = 100_000, 100_000
#: As fast as no link is; only there does netem keep packets in their order (bit/s).
AT_ONCE = 8_000_000_000_000
#: A kernel is asked for a chance of one in so many; it knows deviations in parts of 8192.
POINTS, _SCALE = 4096, 8192
#: Sigmas of netem that one mean of `exponential` is: its tail needs more room than a bell's.
TAIL = 3
#: A whole packet at least may wait.
_PACKET = 1_518
#: What still waits when a rule is taken back has so long to leave; then it is lost.
DRAIN_S = 1.0
_DELETE = (
    f'tc qdisc show dev "$0" | grep -q "^qdisc $1 {HANDLE:x}: root" || exit 0; '
    f'[ "$1" = prio ] || tc class change dev "$0" parent {HANDLE:x}: classid {LANE} htb '
    f"rate {AT_ONCE}bit burst 1m cburst 1m quantum 60000; "
    "n=0; while [ $n -lt $2 ] && "
    f"tc -s class show dev \"$0\" | grep -A 3 '{LANE} ' | grep -q 'backlog [0-9]*b [1-9]'; "
    "do n=$((n + 1)); sleep 0.05 || sleep 1; done; "
    f'exec tc qdisc del dev "$0" root handle {HANDLE:x}:'
)


@dataclass(frozen=True, slots=True)
class Queue:
    """What holds the chosen packets.

    Attributes:
        root: Kind of the root: `htb`, or `prio`, which holds nothing back itself.
        rate_bps: What leaves the class at most; 0 where time alone holds packets.
        limit: Bytes that may wait for that.
        delay_ns: How long each packet is held.
        spread_ns: How far that is drawn: the half width of a uniform draw, or a sigma.
        shape: Of the draw.
        seed: Of the draw.
    """

    root: str
    rate_bps: int = 0
    limit: int = 0
    delay_ns: int = 0
    spread_ns: int = 0
    shape: str = "uniform"
    seed: int = 0

    @classmethod
    def of(cls, rule: Rule) -> Queue:
        """The queue that does the action of a rule."""
        how = rule.then.how
        if isinstance(how, Rate):
            waiting = how.of.bps * how.queue.ns // 8_000_000_000
            return cls("htb", how.of.bps, max(waiting, _PACKET))
        assert isinstance(how, Delay)
        spread = how.jitter.ns * TAIL if how.shape == "exponential" else how.jitter.ns
        return cls("prio", 0, 0, how.of.ns, spread, how.shape, how.seed)

    @property
    def burst(self) -> int:
        """Bytes of a head start: what it sends in half a millisecond, as late as a timer may be.

        A packet leaves when the class owes nothing, so one that is longer leaves as well.
        """
        return max(1, self.rate_bps // 16_000)

    def table(self) -> tuple[int, ...]:
        """The draw as netem takes it: that many sigmas, in 8192 parts, each as likely.

        Examples:
            >>> Queue("prio", spread_ns=3, shape="normal").table()[2047:2049]
            (-3, 3)
            >>> Queue("prio", spread_ns=0).table()
            ()
        """
        if not self.spread_ns or self.shape == "uniform":
            return ()
        return tuple(round(_SCALE * one) for one in _quantiles(self.shape))

    def do(self, dev: str) -> tuple[Argv, ...]:
        """Commands that make it."""
        root = ("tc", "qdisc", "add", "dev", dev, "root", "handle", f"{HANDLE:x}:")
        leaf = ("tc", "qdisc", "add", "dev", dev, "parent", LANE)
        if self.root == "htb":
            add = ("tc", "class", "add", "dev", dev, "parent", f"{HANDLE:x}:", "classid", LANE)
            speed = ("htb", "rate", f"{self.rate_bps}bit", "burst", f"{self.burst}b")
            return (
                (*root, "htb", "default", "0", "direct_qlen", str(MOST_WAITING)),
                (*add, *speed, "cburst", f"{self.burst}b", "quantum", "60000"),
                (*leaf, "bfifo", "limit", f"{self.limit}b"),
            )
        bands = ("bands", "2", "priomap", *("1" for _ in range(16)))
        if self.spread_ns:  # tables and seeds are beyond tc's words
            words = {"dev": dev, **asdict(self)}
            order = json.dumps(words, separators=(",", ":"))
            held: Argv = (sys.executable, "-m", "chaos.natives.netem", order)
        else:
            held = (*leaf, "netem", "delay", f"{self.delay_ns}ns", "limit", str(MOST_HELD))
            held = (*held, "rate", f"{AT_ONCE}bit")
        return ((*root, "prio", *bands), held)

    def undo(self, dev: str) -> Argv:
        """The command that lets what waits leave, then deletes ours and nothing else."""
        return ("sh", "-c", _DELETE, dev, self.root, str(round(DRAIN_S / 0.05)))


def _quantiles(shape: str) -> Iterator[float]:
    bell = NormalDist()
    for at in range(POINTS):
        share = (at + 0.5) / POINTS
        yield bell.inv_cdf(share) if shape == "normal" else -math.log(1 - share) / TAIL
