"""A whole rule: which packets, when, then what; in words, on paper, and as nftables text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from chaos.packets import nft
from chaos.packets.action import DROP, Action
from chaos.packets.nft import Detour
from chaos.packets.numbers import Numbers
from chaos.packets.schedule import ALWAYS, Psn, Schedule
from chaos.packets.selector import EVERYTHING, Selector
from chaos.packets.view import View, breakable, matches

_PSN_AT = 17  # from the UDP header


@dataclass(frozen=True, slots=True)
class Rule:
    """Selector, schedule and action.

    Examples:
        >>> rule = Rule.parse({"select": {"opcode": "middle"}, "when": {"every": 3}, "then": "ce"})
        >>> str(rule)
        'ce on every=3 of opcode=middle'
    """

    select: Selector = EVERYTHING
    when: Schedule = ALWAYS
    then: Action = DROP

    @classmethod
    def parse(cls, value: Any) -> Self:
        """From a mapping of `select`, `when`, `then`."""
        if isinstance(value, cls):
            return value
        return cls(
            Selector.parse(value.get("select")),
            Schedule.parse(value.get("when", "all")),
            Action.parse(value.get("then", "drop")),
        )

    def plain(self) -> dict[str, Any]:
        """As YAML has it."""
        return {
            "select": self.select.plain(),
            "when": self.when.plain(),
            "then": self.then.plain(),
        }

    @property
    def meant(self) -> Selector:
        """The selector with what schedule and action ask: some are about RoCEv2 packets alone."""
        one, then = self.select, self.then
        if isinstance(self.when, Psn) and not one.is_roce:
            one = replace(one, roce=True)
        if then.deed in ("fecn", "becn") and not one.is_roce:
            return replace(one, roce=True)
        if then.answers or (then.deed == "corrupt" and then.how):
            return one if one.opcode or one.syndrome else replace(one, opcode=("data",))
        if then.deed == "forge":
            syndrome = one.syndrome or Numbers(((0, 255),))
            return replace(one, opcode=one.opcode or ("ack",), syndrome=syndrome)
        return one

    def seen(self, frames: Sequence[bytes]) -> tuple[int, ...]:
        """Which of some frames the selector means: what the counter `seen` counts."""
        one, then = self.meant, self.then
        able = breakable if then.deed == "corrupt" and not then.how else lambda frame: True
        return tuple(
            at
            for at, frame in enumerate(frames)
            if matches(one, frame, only_ip=then.rewrites) and able(frame)
        )

    def hit(self, frames: Sequence[bytes]) -> tuple[int, ...]:
        """Which of some frames are acted on, when they arrive in this order."""
        seen = self.seen(frames)
        psns = [View.of(frames[at]).transport(_PSN_AT, 3) for at in seen]
        chosen = self.when.chosen([-1 if psn is None else psn for psn in psns])
        return tuple(seen[ordinal] for ordinal in chosen)

    def towards(self, direction: int) -> Self:
        """The same for another direction of a link, drawn anew."""
        when, then = self.when.towards(direction), self.then.towards(direction)
        return replace(self, when=when, then=then)

    def nft(
        self,
        table: str,
        ifname: str,
        *,
        across: str = "",
        tap: str = "",
        lane: str = "",
        queue: str | None = None,
        hook: str = "ingress",
    ) -> str:
        """nftables text for the ingress of one interface.

        Args:
            table: Name of the table.
            ifname: The interface.
            across: The interface out of which packets go on, where the action needs it.
            tap: The interface that leads to a worker, where one does the action.
            lane: The class of a queue that does the action, such as `7262:1`.
            queue: The statement that queues to a worker where nothing is beyond the interface, such
                as `queue num 5 bypass`; empty where that rule is to be appended.
            hook: `egress` where packets are met as they leave.
        """
        detour = self._detour(tap) if tap else None
        if lane:
            ours = f"meta priority {lane.partition(':')[0]}:1-{lane.partition(':')[0]}:ffff"
            detour = Detour(f"meta priority set {lane}", owned=False, taken=ours)
        if queue is not None:
            rest = queue if self.then.deed == "reorder" else ""
            detour = Detour(queue, rest, queued=True)
        return nft.table(table, ifname, self.meant, self.when, self.then, detour, across, hook)

    def _detour(self, tap: str) -> Detour:
        if self.then.answers:
            return Detour(f"dup to {tap}")  # the packet itself stays with the kernel
        rest = f"fwd to {tap}" if self.then.deed == "reorder" else ""
        return Detour(f"fwd to {tap}", rest)

    def __str__(self) -> str:
        return f"{self.then} on {self.when} of {self.select}"
