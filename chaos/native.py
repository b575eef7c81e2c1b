"""Changes as prebuilt messages on warm sockets: do, undo, in force, hits.

`build` opens everything a change needs inside its namespace and checks that it may be done at all;
afterwards `do` and `undo` are one or a few system calls. Only what is ours is taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chaos.change import (
    AtRouter,
    BgpClear,
    BgpNeighbour,
    BgpWithdraw,
    Change,
    DaemonState,
    DeviceGone,
    Hits,
    LinkState,
    Load,
    NodePower,
    OwnRoute,
    PacketDrop,
    PacketRule,
    PauseStorm,
    PortMtu,
    PortShape,
    ProcessRestart,
    ProcessSignal,
    Setting,
    Where,
    WireTo,
)
from chaos.errors import FabricError
from chaos.natives.command import Commanded
from chaos.natives.daemon import Daemons
from chaos.natives.device import Gone
from chaos.natives.link import Downed
from chaos.natives.load import Busy
from chaos.natives.pause import Storming
from chaos.natives.port import Sized
from chaos.natives.process import Signalled, process_state
from chaos.natives.route import Routed
from chaos.natives.router import Cleared, Withdrawn
from chaos.natives.ruled import ruled
from chaos.natives.setting import Set
from chaos.natives.shaping import Shaped
from chaos.natives.supervised import Restarted
from chaos.natives.tables import Dropped
from chaos.natives.wire import rewired
from chaos.netns import inode, inside

__all__ = ["Native", "build", "process_state"]


class Native(Protocol):
    """A change made ready on this machine."""

    @property
    def saved(self) -> Mapping[str, Any]:
        """Plain data that `build` needs to take the change back in another process."""
        ...

    @property
    def lasting(self) -> bool:
        """Nothing can take it back (a killed process)."""
        ...

    def do(self) -> None:
        """Bring it into force.

        Raises:
            ApplyError: the kernel refused.
        """
        ...

    def undo(self) -> tuple[str, ...]:
        """Take it back; repeatable, also when half done. Sentences for what was refused."""
        ...

    def in_force(self) -> bool:
        """Whether it is in force, read from a successful answer.

        Raises:
            FabricError: it cannot be told.
        """
        ...

    def hits(self) -> Hits:
        """How often it acted since it was made ready, over all times it was in force."""
        ...

    def close(self) -> None:
        """Give sockets and handles back; the change stays as it is."""
        ...


#: How each kind is made ready. All but processes are opened inside the namespace of their place,
#: where it has one.
_OPEN: Mapping[type[Change], Callable[[Any, Where, Mapping[str, Any] | None], Native]] = {
    LinkState: Downed.open,
    PacketDrop: Dropped.open,
    PacketRule: ruled,
    ProcessSignal: Signalled.open,
    ProcessRestart: Restarted.open,
    BgpNeighbour: Commanded.open,
    NodePower: Commanded.open,
    OwnRoute: Routed.open,
    Setting: Set.open,
    BgpWithdraw: Withdrawn.open,
    BgpClear: Cleared.open,
    DaemonState: Daemons.open,
    PortMtu: Sized.open,
    PortShape: Shaped.open,
    Load: Busy.open,
    WireTo: rewired,
    DeviceGone: Gone.open,
    PauseStorm: Storming.open,
}


def build(change: Change, where: Where, saved: Mapping[str, Any] | None = None) -> Native:
    """Make a change ready; nothing is changed yet.

    Args:
        change: What.
        where: Resolved place; without a namespace it is in the one we are in.
        saved: For taking a change back that another process did: what its journal says.

    Raises:
        FabricError: the place is gone or was replaced.
        BlockedError: it is as if the change were in force already, so its undo would not be ours.
    """
    if where.host:
        raise FabricError(f"{change.place}: it lies on machine {where.host}, not on this one")
    opened = _OPEN[type(change)]
    if not where.netns or isinstance(change, AtRouter | NodePower | Load | PauseStorm):
        return opened(change, where, saved)
    if inode(where.netns) != where.inode:
        raise FabricError(f"{change.place}: namespace {where.netns} is gone or was replaced")
    return inside(where.netns, lambda: opened(change, where, saved))
