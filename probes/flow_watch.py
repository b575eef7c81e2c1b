"""What of a flow can be told while it runs: the loss of the last half second, and silence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WATCHED: Mapping[str, str] = {
    "loss_percent": "share of what was sent last that did not arrive, all flows together",
    "silent_ms": "how long nothing has arrived, although packets were sent",
}
TRANSIT_NS = (
    50_000_000  # a packet sent this long before the receiver's last word had time to arrive
)
FEWEST = 20  # of fewer packets no share is told


def watch(
    records: Mapping[str, list[dict[str, Any]]], since_ns: int, over_ns: int
) -> dict[str, float]:
    """Loss and silence over the last stretch of time that both ends have told of.

    Args:
        records: What `sender` and `receiver` said last, in order.
        since_ns: Nothing sent before this counts.
        over_ns: How far back to look.

    Returns:
        `loss_percent`, absent where fewer than 20 packets were sent; `silent_ms`.
    """
    sent = [one for one in records.get("sender", ()) if one["ev"] == "sent"]
    got = [one for one in records.get("receiver", ()) if one["ev"] == "got"]
    if not sent or not got:
        return {}
    until = got[-1]["until"] - TRANSIT_NS
    start = max(since_ns, until - over_ns)
    arrived = {slot for one in got for slot in one["slots"]}
    offered = [
        (slot, one["t"] + offset)
        for one in sent
        for slot, offset in enumerate(one["at"], one["first"])
        if offset >= 0 and start <= one["t"] + offset <= until
    ]
    told: dict[str, float] = {}
    if len(offered) >= FEWEST:
        lost = sum(slot not in arrived for slot, _ in offered)
        told["loss_percent"] = 100 * lost / len(offered)
    if offered:
        last = max((at for slot, at in offered if slot in arrived), default=start)
        told["silent_ms"] = (max(at for _, at in offered) - last) / 1e6
    return told
