"""An interface that is down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where


@dataclass(frozen=True, slots=True)
class LinkState:
    """Set one interface down; its undo sets it up and puts back what the kernel dropped with it.

    At a node's side this is *admin down*: the kernel drops the routes over the link, permanent
    neighbours and global IPv6 addresses; they are saved before the deed and put back after it.
    At the wire's side it is *carrier loss* at the node, which stays admin-up.
    """

    kind: ClassVar[str] = "link_state"
    own: ClassVar[str] = ""
    place: Place

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: " + ("no carrier" if self.place.side == "wire" else "admin down")

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """Commands that do the same; `saved["commands"]` restore what the kernel drops."""
        name = where.ifname
        return Steps(
            do=(("ip", "link", "set", "dev", name, "down"),),
            undo=(
                ("ip", "link", "set", "dev", name, "up"),
                *(tuple(argv) for argv in saved.get("commands", ())),
            ),
            look=("ip", "-o", "link", "show", "dev", name),
            unless=",UP",
        )
