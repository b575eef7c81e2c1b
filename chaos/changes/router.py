"""What is told to a router's BGP by its own command line: what to announce, and to begin anew."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Argv, Place, Steps, Where
from chaos.changes.route import checked_prefix
from chaos.errors import SpecError

_PEER = re.compile(r"[A-Za-z0-9.:_/-]*")


def vtysh(where: Where, *lines: str) -> Argv:
    """One call of FRR's command line in the node."""
    return (*where.enter, "vtysh", *(word for line in lines for word in ("-c", line)))


def checked_neighbor(text: str) -> None:
    """Refuse what is neither an address nor an interface.

    Raises:
        SpecError: it has other letters.
    """
    if not _PEER.fullmatch(text):
        raise SpecError(
            f"neighbor must be an address or an interface, got {text!r}", field="neighbor"
        )


@dataclass(frozen=True, slots=True)
class BgpWithdraw:
    """Announce one prefix no longer, by an outbound prefix list of our own.

    Attributes:
        place: The router; its `port` is empty.
        prefix: What is withdrawn, exactly so long.
        neighbor: Towards whom: address, interface or peer group of the configuration; empty is
            everybody.
    """

    kind: ClassVar[str] = "bgp_withdraw"
    own: ClassVar[str] = "prefix"
    place: Place
    prefix: str
    neighbor: str = ""

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)
        checked_neighbor(self.neighbor)

    @property
    def family(self) -> str:
        """`ipv4` or `ipv6`."""
        return "ipv6" if ":" in self.prefix else "ipv4"

    @property
    def list_name(self) -> str:
        """Name of our prefix list; no other change has it."""
        return f"railbreak_{zlib.crc32(repr(self).encode()):08x}"

    def describe(self) -> str:
        """One line for plans and journals."""
        whom = self.neighbor or "everybody"
        return f"{self.place.node}: {self.prefix} withdrawn from {whom}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `vtysh`; `saved["neighbors"]` are those of the configuration."""
        whom = saved.get("neighbors") or (self.neighbor or "(each neighbor)",)
        word = "ip" if self.family == "ipv4" else "ipv6"
        rest = "0.0.0.0/0 le 32" if self.family == "ipv4" else "::/0 le 128"
        listed = f"{word} prefix-list {self.list_name}"
        family = ("configure terminal", "router bgp", f"address-family {self.family} unicast")
        filtered = [f"neighbor {one} prefix-list {self.list_name} out" for one in whom]
        return Steps(
            do=(
                vtysh(
                    where,
                    "configure terminal",
                    f"{listed} seq 5 deny {self.prefix}",
                    f"{listed} seq 10 permit {rest}",
                ),
                vtysh(where, *family, *filtered),
            ),
            undo=(
                *(vtysh(where, *family, f"no {line}") for line in filtered),
                vtysh(where, "configure terminal", f"no {listed}"),
            ),
            look=vtysh(where, "show running-config bgpd"),
            mark=self.list_name,
        )


@dataclass(frozen=True, slots=True)
class BgpClear:
    """Reset BGP sessions once. Nothing has to be put back; its undo waits until they are up again.

    Attributes:
        place: The router; its `port` is empty.
        neighbor: Address, or interface for an unnumbered session; empty is every session.
        how: `hard`: the session ends and begins anew. `in`: the neighbour is asked to send all its
            routes again. `out`: all of ours are sent again.
    """

    kind: ClassVar[str] = "bgp_clear"
    own: ClassVar[str] = "neighbor"
    place: Place
    neighbor: str = ""
    how: Literal["hard", "in", "out"] = "hard"

    def __post_init__(self) -> None:
        checked_neighbor(self.neighbor)

    @property
    def takes_out(self) -> str:
        """A session that ends takes its routes along until it is back."""
        return "session" if self.how == "hard" else ""

    def describe(self) -> str:
        """One line for plans and journals."""
        whom = f"with {self.neighbor}" if self.neighbor else "of every neighbor"
        return f"{self.place.node}: BGP session {whom} reset ({self.how})"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `vtysh`; its look prints the counts that a reset raises."""
        soft = "" if self.how == "hard" else f" soft {self.how}"
        return Steps(
            do=(vtysh(where, f"clear bgp {self.neighbor or '*'}{soft}"),),
            undo=(),
            look=vtysh(where, "show bgp neighbors json"),
        )
