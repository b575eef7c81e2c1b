"""A link that goes down and comes back, again and again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.turns import NO_JITTER, Turns
from chaos.units import Duration, Hertz, Percent
from faults.link_down import LinkDown


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
        self._turns()

    def _turns(self) -> Turns:
        return Turns.of(self.down, self.up, self.frequency, self.count, self.jitter)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down`."""
        return LinkDown(self.link, self.mode, self.end).changes(fabric)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Turns from the start of the storm on; only whole times down, none after its end."""
        return self._turns().spans(storm, rng)
