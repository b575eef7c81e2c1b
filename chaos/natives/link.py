"""`LinkState`: one message down, one message up."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chaos import netlink as nl
from chaos.change import Hits, LinkState, Where
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.netlink import Netlink
from chaos.saved import Saved, put_back, save

_IFNAME, _CARRIER_CHANGES, _CARRIER_DOWN = 3, 35, 48


@dataclass(slots=True)
class Downed:
    """`LinkState`: one message down, one message up, and what the kernel dropped with it."""

    change: LinkState
    where: Where
    link: Netlink
    keep: Saved
    counted: tuple[int, int]
    down: bytes
    up: bytes
    lasting: bool = False

    @classmethod
    def open(cls, change: LinkState, where: Where, saved: Mapping[str, Any] | None) -> Downed:
        """Called inside the namespace."""
        link = Netlink.open()
        try:
            index = where.ifindex
            flags, *counted = _look(link, change, where)
            if saved is not None:
                keep = Saved.from_json(saved)
            elif not flags & nl.IFF_UP:
                raise BlockedError(
                    f"{change.place}: already down, so taking it down breaks nothing"
                )
            else:
                keep = save(link, index) if change.place.side == "node" else Saved()
        except BaseException:
            link.close()
            raise
        down, up = nl.set_updown(index, False), nl.set_updown(index, True)
        return cls(change, where, link, keep, (counted[0], counted[1]), down, up)

    @property
    def saved(self) -> Mapping[str, Any]:
        """What the undo puts back."""
        return self.keep.to_json()

    def do(self) -> None:
        """Set it down."""
        try:
            self.link.send(self.down)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Set it up and put back what was saved."""
        try:
            self.link.send(self.up)
        except OSError as error:
            return (f"set up: {error}",)
        return put_back(self.link, self.keep)

    def in_force(self) -> bool:
        """Whether the interface is down."""
        return not _look(self.link, self.change, self.where)[0] & nl.IFF_UP

    def hits(self) -> Hits:
        """`seen`: carrier changes of the interface; `hit`: those that lost it."""
        _, changes, downs = _look(self.link, self.change, self.where)
        return Hits(changes - self.counted[0], downs - self.counted[1])

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def _look(link: Netlink, change: LinkState, where: Where) -> tuple[int, int, int]:
    """Flags, carrier changes and carrier losses of the very interface that was resolved."""
    try:
        got = link.ask(nl.RTM_GETLINK, nl.ifinfo(where.ifindex))
    except OSError as error:
        raise FabricError(f"{change.place}: {where.ifname} cannot be read: {error}") from None
    found = nl.attrs(got.body, 16)
    name = found[_IFNAME].rstrip(b"\0").decode()
    if name != where.ifname:
        raise FabricError(
            f"{change.place}: interface {where.ifindex} is now {name!r}, expected {where.ifname!r}"
        )
    (flags,) = struct.unpack_from("=I", got.body, 8)
    counts = (found.get(_CARRIER_CHANGES, bytes(4)), found.get(_CARRIER_DOWN, bytes(4)))
    changes, downs = (struct.unpack("=I", one)[0] for one in counts)
    return flags, changes, downs
