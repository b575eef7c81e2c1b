"""`WireTo`: a table of ours that takes packets before the cable's own rule does."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from chaos.change import Where, WireTo
from chaos.errors import FabricError
from chaos.natives.tables import Dropped


def rewired(change: WireTo, where: Where, saved: Mapping[str, Any] | None) -> Dropped:
    """Called inside the namespace.

    Raises:
        FabricError: the driver does not say where the hidden end of the other port is.
    """
    try:
        index = socket.if_nametoindex(where.across) if saved is None else 0
    except OSError:
        raise FabricError(
            f"{change.place}: nothing says which hidden end faces {change.to} ({where.across!r})"
        ) from None
    made = Dropped.open(change, where, saved)  # type: ignore[arg-type]  # a table, like a drop's
    # by number: a name would be looked up where the thread is that runs the rules
    made.rules = change.ruleset(where.ifname, str(index))
    return made
