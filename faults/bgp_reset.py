"""BGP sessions that end and begin anew, or are told to send everything again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from chaos.change import BgpClear, Change, Place, at_node
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.units import Duration

EVERY = Duration.parse("5 s")
SHORTEST = Duration.parse("1 s")


@fault("bgp_reset", area="switch")
@dataclass(frozen=True, slots=True)
class BgpReset:
    """Reset one session of a router, or all of them, once or several times.

    A hard reset ends the session: both ends drop what they learnt, and learn it again. A soft one
    keeps it and sends the routes again. How many sessions were reset is read from the router's own
    counts. There is nothing to take back; the heal waits until the sessions are up again.

    Reach: routes of those sessions, for as long as they are away. A soft reset costs messages
    alone.

    Needs: FRR whose command line the driver reaches.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        neighbor: Address, or interface of an unnumbered session; empty is every session.
        how: `hard`, `in` (ask the neighbour to send its routes again) or `out` (send ours again).
        count: How often.
        every: Time from one to the next, 1 s or more.

    Try:
        bgp_reset node=leaf1 neighbor=eth1
        bgp_reset node=spine1 how=in

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1", runs="frr")})
        >>> BgpReset("leaf1").changes(fabric)[0].describe()
        'leaf1: BGP session of every neighbor reset (hard)'
    """

    node: str
    neighbor: str = ""
    how: Literal["hard", "in", "out"] = "hard"
    count: int = 1
    every: Duration = EVERY

    def __post_init__(self) -> None:
        BgpClear(Place("any"), self.neighbor, self.how)  # refuses wrong words
        if self.count < 1:
            raise SpecError(f"count must be 1 or more, got {self.count}", field="count")
        if self.every < SHORTEST:
            raise SpecError(f"every must be {SHORTEST} or more, got {self.every}", field="every")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One reset; the schedule repeats it."""
        return (BgpClear(at_node(fabric, self.node), self.neighbor, self.how),)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """The resets; each counts as in force for half the time to the next, or to the end."""
        step = self.every.ns if self.count > 1 else storm.ns
        if self.count * step > storm.ns:
            raise SpecError(
                f"{self.count} resets, one every {self.every}, do not fit into a storm of {storm}"
            )
        held = step // 2 if self.count > 1 else storm.ns
        return tuple(InForce(at * step, at * step + held) for at in range(self.count))
