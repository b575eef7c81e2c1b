"""A queueing discipline of ours at the root of an interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError

#: The handle of our root queueing disciplines; by it we know them, and touch no other.
HANDLE = 0x7261
_MARK = f" {HANDLE:x}: root"
_MOST = (1 << 32) - 1
#: Deletes ours and nothing else, and is content when ours is not there.
_DELETE = (
    f'tc qdisc show dev "$0" | grep -q "^qdisc tbf{_MARK}" || exit 0; '
    f'exec tc qdisc del dev "$0" root handle {HANDLE:x}:'
)


@dataclass(frozen=True, slots=True)
class PortShape:
    """Let one interface send no faster than a rate, by a token bucket (tbf) at its root.

    At the wire's side it is what *arrives* at the node that is slow, and nothing in either node
    changes: there the far node's packets leave the hidden end that faces this one.

    Attributes:
        place: The interface that sends.
        rate_bps: Bits per second, a whole number of bytes.
        burst: Bytes that may go at once; a packet longer than this never goes.
        limit: Bytes that may wait; what comes beyond it is dropped.
    """

    kind: ClassVar[str] = "port_shape"
    own: ClassVar[str] = ""
    place: Place
    rate_bps: int
    burst: int
    limit: int

    def __post_init__(self) -> None:
        if self.rate_bps < 8 or self.rate_bps % 8:
            raise SpecError(
                f"a rate must be a whole number of bytes per second, got {self.rate_bps} bit/s",
                field="rate",
            )
        for name, value in (("burst", self.burst), ("limit", self.limit)):
            if not 0 < value <= _MOST:
                raise SpecError(f"{name} must be 1 to {_MOST} bytes, got {value}", field=name)

    def describe(self) -> str:
        """One line for plans and journals."""
        return (
            f"{self.place}: sends at most {self.rate_bps / 1e6:g} Mbit/s, {self.burst} B at once, "
            f"{self.limit} B waiting"
        )

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `tc`."""
        name = where.ifname
        root = ("tc", "qdisc", "add", "dev", name, "root", "handle", f"{HANDLE:x}:")
        bucket = ("tbf", "rate", f"{self.rate_bps}bit", "burst", str(self.burst))
        return Steps(
            do=((*root, *bucket, "limit", str(self.limit)),),
            undo=(("sh", "-c", _DELETE, name),),
            look=("tc", "qdisc", "show", "dev", name),
            mark=_MARK,
            tally=("tc", "-s", "qdisc", "show", "dev", name),
        )
