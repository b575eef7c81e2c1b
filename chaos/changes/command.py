"""What only a command can do: a router's own command line, or whatever runs a node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Argv, Place, Steps, Where
from chaos.errors import SpecError


@dataclass(frozen=True, slots=True)
class BgpNeighbour:
    """Shut one BGP session down administratively, by the router's own command line.

    Attributes:
        place: The router; its `port` is empty.
        neighbor: Address, or interface for an unnumbered session, as in the configuration.
    """

    kind: ClassVar[str] = "bgp_neighbour"
    own: ClassVar[str] = "neighbor"
    place: Place
    neighbor: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9.:_/-]+", self.neighbor):
            raise SpecError(
                f"neighbor must be an address or an interface, got {self.neighbor!r}",
                field="neighbor",
            )

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place.node}: BGP neighbor {self.neighbor} shut down"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through FRR's `vtysh`."""

        def configure(words: str) -> Argv:
            lines = ("configure terminal", "router bgp", words)
            return (*where.enter, "vtysh", *(word for line in lines for word in ("-c", line)))

        shut = f"neighbor {self.neighbor} shutdown"
        return Steps(
            do=(configure(shut),),
            undo=(configure(f"no {shut}"),),
            look=(*where.enter, "vtysh", "-c", "show running-config bgpd"),
            mark=f" {shut}\n",
        )


@dataclass(frozen=True, slots=True)
class NodePower:
    """A whole node stopped or paused by whatever runs it.

    Attributes:
        place: The node; its `port` is empty.
        state: `stop`: its processes end and its links lose their carrier. `pause`: its processes
            stand still, its kernel goes on forwarding.
    """

    kind: ClassVar[str] = "node_power"
    own: ClassVar[str] = ""
    place: Place
    state: Literal["stop", "pause"] = "stop"

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place.node}: " + ("stopped" if self.state == "stop" else "paused")

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The commands of the driver; in a plan without a fabric, words that stand for them."""
        words = {
            word: where.power.get(word, (f"({word})", self.place.node))
            for word in (self.state, f"un{self.state}", "look")
        }
        return Steps(
            do=(words[self.state],),
            undo=(words[f"un{self.state}"],),
            look=words["look"],
            mark="exited" if self.state == "stop" else "paused",
        )
