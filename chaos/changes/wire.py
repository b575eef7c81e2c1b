"""A cable that ends at another port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError


@dataclass(frozen=True, slots=True)
class WireTo:
    """Lead what a node sends into one cable to another port than the cable's own other end.

    Attributes:
        place: The port that sends, at the wire's side.
        table: Name of the nftables table; ours alone, and unique per change in force.
        to: Id of the port where it arrives, such as `leaf1:eth2`.
    """

    kind: ClassVar[str] = "wire_to"
    own: ClassVar[str] = "table"
    takes_out: ClassVar[str] = "link"
    place: Place
    table: str
    to: str

    def __post_init__(self) -> None:
        if self.place.side != "wire" or ":" not in self.to:
            raise SpecError(f"{self.place} to {self.to!r}: a wire is led to a port, node:port")

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: what it sends arrives at {self.to}"

    def ruleset(self, ifname: str, across: str = "") -> str:
        """nftables text; `across` is the hidden end that faces `to`."""
        return "\n".join(
            (
                f"table netdev {self.table} {{",
                "  counter seen { }",
                "  counter hit { }",
                "  chain ingress {",
                f"    type filter hook ingress device {ifname} priority -100; policy accept;",
                f"    counter name seen counter name hit fwd to {across or f'({self.to})'}",
                "  }",
                "}",
                "",
            )
        )

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through the `nft` command."""
        table = self.table
        return Steps(
            do=(("nft", self.ruleset(where.ifname, where.across)),),
            undo=(("nft", f"add table netdev {table}; delete table netdev {table}"),),
            look=("nft", "list", "tables", "netdev"),
            mark=f"table netdev {table}\n",
            tally=("nft", "-j", "list", "counters", "table", "netdev", table),
        )
