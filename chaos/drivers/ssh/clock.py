"""How far a machine's CLOCK_MONOTONIC is from ours, with a bound of its error.

Of many small round trips the quickest is kept: the machine read its clock somewhere within it, so
the offset is known to half its length. No assumption about the two directions is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

#: Two quartz clocks, each steered by its own NTP daemon, part by less than this.
DRIFT_PER_MILLION = 100
ROUNDS = 40

#: Send a question now; the machine's clock when it had read it, and when it answered, in ns.
Echo = Callable[[], Awaitable[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Clock:
    """What was measured.

    Attributes:
        offset_ns: The machine's clock minus ours.
        error_ns: The true offset lay within `offset_ns` ± this at `at_ns`.
        at_ns: When, on our clock.
    """

    offset_ns: int
    error_ns: int
    at_ns: int

    def error_at(self, now_ns: int) -> int:
        """Bound of the error at another time: the clocks drift."""
        return self.error_ns + abs(now_ns - self.at_ns) * DRIFT_PER_MILLION // 1_000_000

    def since(self, later: Clock) -> int:
        """Bound of the error of this offset between its own measurement and a later one."""
        return max(self.error_ns, abs(later.offset_ns - self.offset_ns) + later.error_ns)


def clock_of(trips: Iterable[tuple[int, int, int, int]]) -> Clock:
    """The best of round trips.

    Args:
        trips: Sent (ours), read (theirs), answered (theirs), received (ours), in ns.

    Examples:
        >>> clock_of([(0, 1_050, 1_060, 110), (0, 1_900, 1_910, 2_000)])
        Clock(offset_ns=1000, error_ns=51, at_ns=110)
    """
    best = min(trips, key=lambda trip: (trip[3] - trip[0]) - (trip[2] - trip[1]))
    sent, read, answered, received = best
    offset = ((read - sent) + (answered - received)) // 2
    error = ((received - sent) - (answered - read)) // 2 + 1
    return Clock(offset, error, received)


async def measure(echo: Echo, ours: Callable[[], int], rounds: int = ROUNDS) -> Clock:
    """Ask a machine's clock many times, one after another.

    Args:
        echo: Asks it once.
        ours: Reads our clock, ns.
        rounds: How many times.
    """
    trips = []
    for _ in range(rounds):
        sent = ours()
        read, answered = await echo()
        trips.append((sent, read, answered, ours()))
    return clock_of(trips)
