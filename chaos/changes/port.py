"""What one sets on an interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError

#: Below it the kernel takes IPv4 from an interface, addresses and all.
LEAST_MTU = 68
#: Below it the kernel takes IPv6 from an interface: addresses, routes, neighbours, settings.
LEAST_MTU_OF_IPV6 = 1280


@dataclass(frozen=True, slots=True)
class PortMtu:
    """Give one interface another MTU; its undo gives the old one back, and what went with it.

    Below 1280 bytes the kernel takes IPv6 from the interface, and a VLAN on top follows its MTU
    down and never up: both are saved before the deed and put back after it.

    Attributes:
        place: The interface.
        mtu: Bytes of the largest packet, without the Ethernet header.
    """

    kind: ClassVar[str] = "port_mtu"
    own: ClassVar[str] = ""
    place: Place
    mtu: int

    def __post_init__(self) -> None:
        if not LEAST_MTU <= self.mtu <= 65535:
            raise SpecError(
                f"an MTU must be {LEAST_MTU} to 65535 bytes, got {self.mtu}", field="mtu"
            )

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: MTU {self.mtu}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `ip`; `saved` has the old MTU and the commands that restore the rest."""
        name = where.ifname
        return Steps(
            do=(("ip", "link", "set", "dev", name, "mtu", str(self.mtu)),),
            undo=(
                ("ip", "link", "set", "dev", name, "mtu", str(saved.get("mtu", "BEFORE"))),
                *(tuple(argv) for argv in saved.get("commands", ())),
            ),
            look=("ip", "-o", "link", "show", "dev", name),
            mark=f" mtu {self.mtu} ",
            tally=("ip", "-s", "-s", "link", "show", "dev", name),
        )
