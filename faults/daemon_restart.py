"""A routing daemon that crashes again and again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.turns import Turns
from chaos.units import Duration
from faults.daemon_kill import DaemonKill

DOWN, UP = Duration.parse("500 ms"), Duration.parse("3 s")
SHORTEST_UP = Duration.parse("2 s")  # a start takes up to a second, its proof included


@fault("daemon_restart", area="switch")
@dataclass(frozen=True, slots=True)
class DaemonRestart:
    """Kill daemons of one router and start them, in turns: a crash loop.

    Reach: as `daemon_kill`. Each start is proved by the daemon's answer before the next turn;
    `hit` counts deaths, `seen` starts. Sessions may not come back between two turns.

    Needs: as `daemon_kill`.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        daemon: `bgpd`, `bfdd`, `zebra`, … or `all`.
        down: Time dead in each turn.
        up: Time alive in each turn, its start included: 2 s or more.
        count: Number of turns; 0 is as many as the storm holds.

    Try:
        daemon_restart node=spine1 daemon=bgpd count=2

    Examples:
        >>> loop = DaemonRestart("spine1", count=2)
        >>> [span.start_ns for span in loop.schedule(Duration.parse("5 s"), random.Random(1))]
        [0, 3500000000]
    """

    node: str
    daemon: str = "all"
    down: Duration = DOWN
    up: Duration = UP
    count: int = 0

    def __post_init__(self) -> None:
        DaemonKill(self.node, self.daemon)
        if self.up < SHORTEST_UP:
            raise SpecError(
                f"up must be {SHORTEST_UP} or more, got {self.up}: a daemon starts in that time",
                field="up",
            )
        self._turns()

    def _turns(self) -> Turns:
        return Turns.of(self.down, self.up, count=self.count)

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """That of `daemon_kill`."""
        return DaemonKill(self.node, self.daemon).changes(fabric)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """Turns from the start of the storm on, as a flapping link has them."""
        return self._turns().spans(storm, rng)
