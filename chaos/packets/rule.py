"""A whole rule: which packets, when, then what; in words, on paper, and as nftables text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from chaos.packets import nft
from chaos.packets.action import DROP, Action
from chaos.packets.schedule import ALWAYS, Psn, Schedule
from chaos.packets.selector import EVERYTHING, Selector
from chaos.packets.view import View, matches

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
        """The selector with what the schedule asks: a schedule by psn is about RoCEv2 packets."""
        by_psn = isinstance(self.when, Psn) and not self.select.is_roce
        return replace(self.select, roce=True) if by_psn else self.select

    def seen(self, frames: Sequence[bytes]) -> tuple[int, ...]:
        """Which of some frames the selector means: what the counter `seen` counts."""
        one, only_ip = self.meant, self.then.rewrites
        return tuple(at for at, frame in enumerate(frames) if matches(one, frame, only_ip=only_ip))

    def hit(self, frames: Sequence[bytes]) -> tuple[int, ...]:
        """Which of some frames are acted on, when they arrive in this order."""
        seen = self.seen(frames)
        psns = [View.of(frames[at]).transport(_PSN_AT, 3) for at in seen]
        chosen = self.when.chosen([-1 if psn is None else psn for psn in psns])
        return tuple(seen[ordinal] for ordinal in chosen)

    def towards(self, direction: int) -> Self:
        """The same for another direction of a link, drawn anew."""
        return replace(self, when=self.when.towards(direction))

    def nft(self, table: str, ifname: str) -> str:
        """nftables text for the ingress of one interface."""
        return nft.table(table, ifname, self.meant, self.when, self.then)

    def __str__(self) -> str:
        return f"{self.then} on {self.when} of {self.select}"
