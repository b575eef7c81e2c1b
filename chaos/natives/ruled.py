"""`PacketRule`: by the engine that is asked for, or the first that can and is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chaos.change import PacketRule, Where
from chaos.changes.queue import QUEUES
from chaos.errors import CapabilityError
from chaos.natives.able import Here
from chaos.natives.detour import Detoured
from chaos.natives.queued import Queued
from chaos.natives.tables import Dropped
from chaos.packets.engines import AUTO, At, away


def ruled(
    change: PacketRule, where: Where, saved: Mapping[str, Any] | None
) -> Dropped | Queued | Detoured:
    """Made ready by its engine; the change in it names that engine.

    Raises:
        CapabilityError: what arrives here goes nowhere that a packet could be put back to; or no
            engine that can do it is here.
    """
    then = change.rule.then
    if saved is None and not where.across and (why := away(then)):
        raise CapabilityError(f"{change.place}: {why}")
    if then.how is None and change.engine == AUTO:
        change = change.settled(None)  # nftables says by itself what it lacks
    else:
        across = bool(where.across) and not where.leaving
        at = At(across, Here(), sends=where.leaving)
        change = change.settled(at if saved is None else None)
    if change.engine in QUEUES:
        return Queued.open(change, where, saved)
    kind = Detoured if change.engine in ("nfqueue", "worker") else Dropped
    return kind.open(change, where, saved)
