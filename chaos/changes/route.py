"""A route of ours in a kernel, which outdoes the one that its routing daemons put there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, ClassVar, Literal, get_args

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError, near

#: Of FRR's own range (its test daemon `sharp`), so that zebra takes it for FRR's and lets it be; a
#: foreign number would enter the RIB, and zebra would take its own route out of the kernel.
PROTOCOL = 194
#: FRR's routes are at 20; routes of the kernel (an interface's own prefix) are at 0 and win.
METRIC = 5
NOWHERE = ("blackhole", "unreachable", "prohibit")

To = Literal["blackhole", "unreachable", "prohibit", "leg", "as-is"]


@dataclass(frozen=True, slots=True)
class OwnRoute:
    """Send a prefix elsewhere in one kernel, behind the back of the daemons that own its routes.

    Attributes:
        place: The node; with a port where `to` is `leg`.
        prefix: What is sent elsewhere. Longest prefix first, then the least metric, is the
            kernel's order: a prefix that an interface of the node has itself is beaten only by a
            longer one.
        to: `blackhole`: dropped without a word. `unreachable`, `prohibit`: dropped, and the sender
            told by ICMP. `leg`: out of the port at the place, to the next hop that the kernel's own
            routes have there. `as-is`: by the legs of now, whatever becomes of them.
    """

    kind: ClassVar[str] = "own_route"
    own: ClassVar[str] = "prefix"
    place: Place
    prefix: str
    to: To = "blackhole"

    def __post_init__(self) -> None:
        checked_prefix(self.prefix)
        if self.to not in get_args(To):
            raise SpecError(f"a route cannot lead to {self.to!r}; {near(self.to, get_args(To))}")
        if (self.to == "leg") is not bool(self.place.port):
            raise SpecError(
                f"a route to {self.to} {'needs a' if self.to == 'leg' else 'takes no'} port, "
                f"got {self.place}"
            )

    @property
    def family(self) -> int:
        """4 or 6."""
        return ip_network(self.prefix).version

    def describe(self) -> str:
        """One line for plans and journals."""
        how = {
            "leg": f"out of {self.place.port}",
            "as-is": "by the legs that it has now",
        }.get(self.to, self.to)
        return f"{self.place.node}: {self.prefix} routed {how}, in the kernel only"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `ip route`; `saved["command"]` has the next hops once they are known."""
        family = f"-{self.family}"
        ours = (self.prefix, "proto", str(PROTOCOL), "metric", str(METRIC))
        kind = (self.to,) if self.to in NOWHERE else ()
        hop = () if kind else (f"(next hop on {self.place.port or 'each leg of now'})",)
        command = saved.get("command") or ("ip", family, "route", "add", *kind, *ours, *hop)
        return Steps(
            do=(tuple(command),),
            undo=(("ip", family, "route", "flush", "exact", *ours),),
            look=("ip", family, "route", "show", "exact", *ours[:3]),
            mark=f"metric {METRIC}",
        )


def checked_prefix(text: str) -> str:
    """The prefix itself.

    Raises:
        SpecError: it is none, or has host bits.

    Examples:
        >>> checked_prefix("10.0.8.0/31")
        '10.0.8.0/31'
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        raise SpecError(
            f"prefix must be a network such as 10.0.8.0/31: {error}", field="prefix"
        ) from None
    if str(network) != text:
        raise SpecError(f"prefix {text!r} is written {network}", field="prefix")
    return text
