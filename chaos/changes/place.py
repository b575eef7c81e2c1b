"""Where a change bites, how it is written out as commands, and how often it acted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self

from chaos.fabric import Port

Argv = tuple[str, ...]
Side = Literal["node", "wire"]
#: What a change that nobody made ready has written down for its undo.
NOTHING_SAVED: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Where a change bites, in words of the fabric.

    Attributes:
        node: Node name.
        port: Interface of that node; empty for a process.
        side: `node` is the interface as the node owns it. `wire` is the hidden end of the cable
            that faces it: setting that down takes the carrier from the node, and what is dropped
            at its ingress is what the node sent.
        process: Name of a process a probe or driver announced, such as `rank2`; empty for a port.
    """

    node: str
    port: str = ""
    side: Side = "node"
    process: str = ""

    @classmethod
    def at(cls, port: Port, side: Side = "node") -> Self:
        """The place of a fabric's port."""
        return cls(port.node, port.name, side)

    def __str__(self) -> str:
        if self.process:
            return f"{self.node}/{self.process}"
        return f"{self.node}:{self.port}" + ("~wire" if self.side == "wire" else "")


@dataclass(frozen=True, slots=True)
class Where:
    """A place resolved by a driver, good on this machine until its inode changes.

    Attributes:
        netns: Path that opens the network namespace; empty for a process, and on another machine
            for its own.
        inode: Inode of that namespace when resolved; a later mismatch means it was replaced.
        ifname: Kernel's interface name in it.
        ifindex: Kernel's interface index in it.
        pid: Process id; 0 for an interface.
        started: Start time of the process in clock ticks (`/proc/PID/stat` field 22), so that a
            reused pid is never signalled.
        host: Name of the machine that the rest is true on; empty for this one.
        enter: Words before a command that make it run inside the node; for changes made by command.
        across: Interface in the same namespace out of which goes what arrives at this one; empty
            where that is not known, or goes up the stack. The same as `ifname` where packets are
            met as they leave.
        power: Commands for a node as a whole, by what they do (`stop`, `unstop`, `pause`,
            `unpause`, `look`), as far as the driver has them.
    """

    netns: str = ""
    inode: int = 0
    ifname: str = ""
    ifindex: int = 0
    pid: int = 0
    started: int = 0
    host: str = ""
    enter: Argv = ()
    across: str = ""
    power: Mapping[str, Argv] = field(default_factory=dict)

    @property
    def leaving(self) -> bool:
        """Packets are met as they leave the interface."""
        return bool(self.ifname) and self.across == self.ifname

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made."""
        power = {word: tuple(argv) for word, argv in data.get("power", {}).items()}
        return cls(**{**data, "enter": tuple(data.get("enter", ())), "power": power})


@dataclass(frozen=True, slots=True)
class Steps:
    """A change written out as commands, inside the node's namespace.

    Attributes:
        do: Bring the change into force, in order.
        undo: Take it back; safe twice, safe when `do` never ran or ran half. A command that puts
            back what is there already fails with "File exists", which is as good as success.
        look: Prints the state the change lives in; exits 0 with or without the change.
        mark: Text that `look` prints exactly while the change is in force.
        unless: Where it is given, `mark` is empty: text that `look` prints exactly while the
            change is *not* in force.
        tally: Prints how often it acted; empty where acting cannot be counted.
    """

    do: tuple[Argv, ...]
    undo: tuple[Argv, ...]
    look: Argv
    mark: str = ""
    unless: str = ""
    tally: Argv = ()

    def holds(self, looked: str) -> bool:
        """Whether what a successful `look` printed says that the change is in force.

        Examples:
            >>> Steps((), (), look=("ip", "link"), unless=",UP").holds("2: eth1: <BROADCAST> mtu")
            True
        """
        return self.unless not in looked if self.unless else self.mark in looked


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a change was met and acted.

    Attributes:
        seen: Packets (or times) that the change looked at.
        hit: Packets (or times) that it acted on; None where it cannot be counted.
    """

    seen: int | None
    hit: int | None
