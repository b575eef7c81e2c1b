"""Work that processes of ours do: busy processors, background traffic."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError

_KILL = 'pkill -KILL -x "$0"; :'


@dataclass(frozen=True, slots=True)
class Load:
    """Processes that keep something busy while the change is in force.

    They are born waiting when the change is made ready, let go by the deed, and killed by the
    undo; the kernel kills them when the process that bore them ends, however it ends.

    Attributes:
        place: The node whose network they are in; its `port` is the one they send from, if any.
        tag: Name of these processes, as `ps -o comm` shows it; no other change's.
        work: `cpu`: each spins. `udp`: together they send datagrams.
        processes: How many.
        nice: Their nice level, -20 to 19; lower takes more from others.
        target: For `udp`, the address that is sent to; else empty.
        port: Its UDP port.
        size: Bytes of payload in a datagram.
        rate_bps: Payload bits per second of all together; 0 for `cpu`.
    """

    kind: ClassVar[str] = "load"
    own: ClassVar[str] = "tag"
    place: Place
    tag: str
    work: Literal["cpu", "udp"] = "cpu"
    processes: int = 1
    nice: int = 0
    target: str = ""
    port: int = 9
    size: int = 1400
    rate_bps: int = 0

    def __post_init__(self) -> None:
        if not self.tag.isidentifier() or not 1 <= len(self.tag) <= 15:
            raise SpecError(f"a process's name has 1 to 15 letters and digits, got {self.tag!r}")
        for name, low, high in (
            ("processes", 1, 256), ("nice", -20, 19), ("port", 1, 65535), ("size", 1, 65507),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise SpecError(
                    f"{name} must be {low} to {high}, got {getattr(self, name)}", field=name
                )
        if self.work == "udp":
            try:
                ip_address(self.target)
            except ValueError:
                raise SpecError(f"an address to send to expected, got {self.target!r}") from None
            if self.rate_bps <= 0:
                raise SpecError(f"a rate must be above 0, got {self.rate_bps} bit/s", field="rate")

    @property
    def takes_out(self) -> str:
        """Busy processors hurt no cable; background traffic impairs the one it leaves by."""
        return "nothing" if self.work == "cpu" else ""

    def describe(self) -> str:
        """One line for plans and journals."""
        many = f"{self.processes} process{'es' * (self.processes > 1)}, nice {self.nice}"
        at = self.place if self.place.port else self.place.node
        if self.work == "cpu":
            return f"{at}: {many}, busy"
        rate = f"{self.rate_bps / 1e6:g} Mbit/s in datagrams of {self.size} B"
        return f"{at}: {many}, sending {rate} to {self.target} port {self.port}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """Words for the deed, which no command does; a command that ends what is left of it."""
        words = (f"({self.work})", f"name={self.tag}", f"x{self.processes}", f"nice={self.nice}")
        return Steps(
            do=(words,),
            undo=(("sh", "-c", _KILL, self.tag),),
            look=("ps", "-e", "-o", "comm="),
            mark=f"{self.tag}\n",
        )


def tag_of(place: Place, *values: object) -> str:
    """A name of processes that no other place or value shares.

    Examples:
        >>> len(tag_of(Place("host1"), "cpu", 2))
        11
    """
    return f"rb_{zlib.crc32(repr((place, values)).encode()):08x}"
