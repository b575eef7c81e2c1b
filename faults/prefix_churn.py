"""A prefix that is withdrawn and announced, again and again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.turns import Turns
from chaos.units import Duration
from faults.route_withdraw import RouteWithdraw

TURN = Duration.parse("500 ms")
SHORTEST = Duration.parse("200 ms")  # a command line takes some tens of milliseconds


@fault("prefix_churn", area="switch")
@dataclass(frozen=True, slots=True)
class PrefixChurn:
    """Withdraw and announce one prefix in turns, as a router with a bad redistribution does.

    Reach: as `route_withdraw`. Every turn is a withdrawal and an announcement at each speaker that
    had the route; their own pacing (an advertisement interval, coalescing) may merge turns.

    Needs: as `route_withdraw`.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        prefix: The network, exactly as it is announced.
        neighbor: Only towards this neighbour or peer group of its configuration.
        down: Time withdrawn in each turn, 200 ms or more.
        up: Time announced in each turn, 200 ms or more.
        count: Number of turns; 0 is as many as the storm holds.

    Try:
        prefix_churn node=spine1 prefix=10.0.8.0/31 count=3

    Examples:
        >>> churn = PrefixChurn("spine1", "10.0.8.0/31", count=2)
        >>> [span.start_ns for span in churn.schedule(Duration.parse("2 s"), random.Random(1))]
        [0, 1000000000]
    """

    node: str
    prefix: str
    neighbor: str = ""
    down: Duration = TURN
    up: Duration = TURN
    count: int = 0

    def __post_init__(self) -> None:
        RouteWithdraw(self.node, self.prefix, self.neighbor)
        for field in ("down", "up"):
            if getattr(self, field) < SHORTEST:
                raise SpecError(
                    f"{field} must be {SHORTEST} or more, got {getattr(self, field)}: a command "
                    "line is not faster",
                    field=field,
                )
        self._turns()

    def _turns(self) -> Turns:
        return Turns.of(self.down, self.up, count=self.count)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """That of `route_withdraw`."""
        return RouteWithdraw(self.node, self.prefix, self.neighbor).changes(fabric)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Turns from the start of the storm on, as a flapping link has them."""
        return self._turns().spans(storm, rng)
