"""Which engine does an action: the first that can do all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.packets.action import Action

Name = Literal["nftables", "worker"]

#: In the order in which they are asked.
ENGINES: tuple[Name, ...] = ("nftables", "worker")
_BY_ITSELF = {
    "drop": "it drops in the kernel, by itself",
    "duplicate": "it sends a copy on in the kernel, by itself",
    "corrupt": "it overwrites bytes in the kernel, by itself",
}
_NOT_BY_NFTABLES = {
    "delay": "nftables cannot hold a packet back",
    "reorder": "nftables cannot hold a packet back",
    "rate": "nftables has no queue",
    "corrupt": "nftables computes no ICRC",
    "forge": "nftables computes no ICRC",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """What does an action.

    Attributes:
        name: `nftables`: the table itself. `worker`: the table leads the chosen packets to a
            process, which holds or rewrites them and puts them back.
        why: A sentence without its full stop.
    """

    name: Name
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def engine_of(then: Action) -> Engine:
    """The first engine that can do all of it.

    Examples:
        >>> str(engine_of(Action("ce")))
        'nftables: it overwrites the header in the kernel, by itself'
        >>> str(engine_of(Action.parse("delay=10ms")))
        'worker: nftables cannot hold a packet back'
    """
    if then.how is None:
        why = _BY_ITSELF.get(then.deed, "it overwrites the header in the kernel, by itself")
        return Engine("nftables", why)
    if then.answers:
        return Engine("worker", "nftables makes no packets of its own")
    return Engine("worker", _NOT_BY_NFTABLES[then.deed])


def away(then: Action) -> str:
    """Why an action can only be done within a cable, and what instead; empty where it cannot.

    Where only an interface that receives is reached, what arrives goes up the stack of its node,
    and there is nowhere to put a packet back.
    """
    if then.how is None and then.deed != "duplicate":
        return ""
    instead = {
        "delay": "tc netem delay on that port",
        "reorder": "tc netem reorder on that port",
        "duplicate": "tc netem duplicate on that port",
        "rate": "tc tbf on that port",
        "corrupt": "then: corrupt, which a receiver notices",
        "forge": "then: drop of the acknowledgements (select: opcode=ack)",
    }[then.deed]
    return (
        f"{then} needs both inner ends of a cable, to take a packet from one and put it out of the "
        f"other; use the embedded fabric (driver netns), or {instead}"
    )
