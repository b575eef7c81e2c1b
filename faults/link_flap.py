"""A link that goes down and comes back, again and again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.units import Duration, Hertz, Percent
from faults.link_down import LinkDown

NO_JITTER = Percent(0)
FASTEST_HZ = 100  # above it the other end no longer sees every event


@fault("link_flap", area="link")
@dataclass(frozen=True, slots=True)
class LinkFlap:
    """Flap one link: down and up in turns, by times or by a frequency, with seeded jitter.

    A flap ends up: whatever its last state was, the link is whole after the storm.

    Reach: as `link_down` of the same mode and end. Linux reports at most one loss of carrier per
    change; above 100 Hz the other end misses events, so that is refused. Debounce of real optics
    and PHYs (tens of milliseconds) is not modelled.

    Needs: CAP_NET_ADMIN; nftables for *silent*; a real-time clock priority for more than 10 Hz on a
    busy machine (late actions are reported).

    Args:
        link: As for `link_down`.
        mode: `carrier`, `admin` or `silent`.
        end: As for `link_down`.
        down: Time down in each turn; give it with `up`, or give `frequency`.
        up: Time up in each turn.
        frequency: Turns per second, half down and half up.
        count: Number of turns; 0 is as many as the storm holds.
        jitter: Each time is longer or shorter by up to this share, from the trial's seed.

    Try:
        link_flap link=leaf1--spine1 frequency=2Hz
        link_flap link=leaf1--spine1 down=50ms up=200ms count=5

    Examples:
        >>> flap = LinkFlap("leaf1--spine1", frequency=Hertz(10), count=2)
        >>> [(one.start_ns, one.end_ns) for one in flap.schedule(Duration(10**9), random.Random(1))]
        [(0, 50000000), (100000000, 150000000)]
    """

    link: str
    mode: str = "carrier"
    end: str = "both"
    down: Duration | None = None
    up: Duration | None = None
    frequency: Hertz | None = None
    count: int = 0
    jitter: Percent = NO_JITTER

    def __post_init__(self) -> None:
        LinkDown(self.link, self.mode, self.end)  # refuses a wrong mode
        timed = self.down is not None and self.up is not None
        if timed is (self.frequency is not None) or (self.down is None) is not (self.up is None):
            raise SpecError("link_flap needs either down and up, or frequency")
        if min(self._turn()) <= 0 or sum(self._turn()) < 1e9 / FASTEST_HZ:
            raise SpecError(
                f"a flap must have at most {FASTEST_HZ} turns per second, each with time down and "
                f"up, got down {self._turn()[0] / 1e6:g} ms and up {self._turn()[1] / 1e6:g} ms"
            )
        if self.count < 0:
            raise SpecError(f"count must be 0 (as many as fit) or more, got {self.count}")
        if self.jitter.value >= 100:
            raise SpecError(f"jitter must be below 100 %, got {self.jitter}")

    def _turn(self) -> tuple[int, int]:
        """Nanoseconds down and up, without jitter."""
        if self.frequency is not None:
            half = round(5e8 / self.frequency.value)
            return half, half
        assert self.down is not None
        assert self.up is not None
        return self.down.ns, self.up.ns

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down`."""
        return LinkDown(self.link, self.mode, self.end).changes(fabric)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Turns from the start of the storm on; only whole times down, none after its end."""
        down, up = self._turn()
        turns: list[InForce] = []
        at = 0
        while not self.count or len(turns) < self.count:
            ends = at + self._jittered(down, rng)
            if ends > storm.ns:
                break
            turns.append(InForce(at, ends))
            at = ends + self._jittered(up, rng)
        if len(turns) < max(self.count, 1):
            raise SpecError(
                f"{self.count or 1} turns of {(down + up) / 1e6:g} ms do not fit into a storm of "
                f"{storm}; {len(turns)} do"
            )
        return tuple(turns)

    def _jittered(self, length_ns: int, rng: random.Random) -> int:
        share = self.jitter.value / 100
        return max(1, round(length_ns * rng.uniform(1 - share, 1 + share)))
