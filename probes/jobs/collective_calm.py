"""Thresholds learned in calm and frozen before the fault. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: Fewer iterations carry no threshold.
LEAST = 30
#: Learning ends by itself after this many iterations and this long.
MOST, LONGEST_MS = 200, 10_000.0


def quantile(ordered: list[float], share: float) -> float:
    """Nearest-rank quantile of ascending values.

    Examples:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0], 0.999)
        (2.0, 2.0)
    """
    if not ordered:
        raise ValueError("a quantile needs at least one value")
    rank = -(-len(ordered) * share // 1)
    return ordered[min(len(ordered) - 1, max(0, int(rank) - 1))]


def threshold(values: list[float], floor: float) -> float:
    """max(floor, 3 x p99.9, 1.5 x max): what calm never came near."""
    ordered = sorted(values)
    return max(floor, 3 * quantile(ordered, 0.999), 1.5 * ordered[-1])


@dataclass(slots=True)
class Baseline:
    """What calm looks like on one rank, in milliseconds, and the limits that follow from it.

    Attributes:
        gaps: Time from one completed iteration to the next.
        ages: Time inside the operation.
        heard_ms: Longest silence of any peer's heartbeat.
        retransmits: Most timeouts in a row on any connection.
        repeats: Most segments sent again within a second.
        frozen: No longer learning.
    """

    gaps: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    heard_ms: float = 0.0
    retransmits: int = 0
    repeats: int = 0
    frozen: bool = False
    stall_floor_ms: float = 200.0
    age_floor_ms: float = 250.0
    silence_floor_ms: float = 80.0
    limits: dict[str, float] = field(default_factory=dict)

    def learn(self, gap_ms: float, age_ms: float) -> None:
        """One more calm iteration; one that would raise an alarm even now is no calm."""
        limits = self.alarms()
        if self.frozen or (limits and gap_ms > limits["stall_ms"]):
            return
        self.gaps.append(gap_ms)
        self.ages.append(age_ms)
        if len(self.gaps) >= MOST and sum(self.gaps) >= LONGEST_MS:
            self.freeze()

    def alarms(self) -> dict[str, float]:
        """Limits beyond which to raise an alarm: three times as wide while still learning."""
        if self.frozen:
            return self.limits
        return {name: 3 * value for name, value in self.limits.items()}

    def settle(self) -> bool:
        """Derive the limits from what was seen so far; False while that is too little."""
        if self.frozen or len(self.gaps) < LEAST:
            return bool(self.limits)
        self.limits = {
            "stall_ms": threshold(self.gaps, self.stall_floor_ms),
            "age_ms": threshold(self.ages, self.age_floor_ms),
            "silence_ms": max(self.silence_floor_ms, 1.5 * self.heard_ms),
            "retransmits": self.retransmits + 1,
            "repeats": max(20, 3 * self.repeats + 1),
        }
        return True

    def freeze(self) -> None:
        """No more learning: the fault may come."""
        self.settle()
        self.frozen = True

    def relearn(self) -> None:
        """Learn anew from here; the limits stay until enough was seen."""
        self.gaps, self.ages = [], []
        self.heard_ms, self.retransmits, self.repeats = 0.0, 0, 0
        self.frozen = False

    def record(self) -> dict[str, Any]:
        """The fields of a `baseline` record."""
        ordered = sorted(self.gaps)
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
        found: dict[str, Any] = {"count": len(ordered), "limits": self.limits}
        if ordered:
            middle = quantile(ordered, 0.5)
            found |= {f"{name}_ms": quantile(ordered, share) for name, share in shares.items()}
            found["mad_ms"] = quantile(sorted(abs(gap - middle) for gap in ordered), 0.5)
        found["rule"] = "stall: max(200 ms, 3 x p99.9, 1.5 x max)"
        return found
