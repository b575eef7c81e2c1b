"""Samples, events and measures of a trial, all on one clock: CLOCK_MONOTONIC in nanoseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: Environment variable of programs that run on another machine: what is added to that machine's
#: clock to have the controller's.
OFFSET_VARIABLE = "RAILBREAK_CLOCK_OFFSET_NS"
_OFFSET_NS = int(os.environ.get(OFFSET_VARIABLE) or 0)


def now_ns() -> int:
    """CLOCK_MONOTONIC of the machine that measures, in nanoseconds: the one clock of a run.

    A program that was sent to another machine adds the offset it was given; how well that is known
    is the business of whoever measured it.
    """
    return time.monotonic_ns() + _OFFSET_NS


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant known only to lie in [earliest, latest], both CLOCK_MONOTONIC ns."""

    earliest_ns: int
    latest_ns: int

    @property
    def width_ns(self) -> int:
        """Uncertainty."""
        return self.latest_ns - self.earliest_ns


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, with a time stamp.

    Attributes:
        at_ns: When, CLOCK_MONOTONIC ns.
        source: Which probe (or `injector`) reported it.
        name: `noun.past_participle`, such as `carrier.lost`, `bgp.lost`, `route.changed`.
        node: Node it concerns; empty for none.
        element: Port id, link id, `rank3`, or session; empty for none.
        detector: Name of the detector for which this is a *symptom of trouble* (`carrier`, `bfd`,
            `bgp`, `fib`, `job_stall`, `job_error`, `heartbeat`, `tcp_retransmit`, `op_age`,
            `flow_gap`); empty when it is no symptom (recovery, information).
        blames: The component this symptom names as broken (port id, link id, `rank3`), else empty.
        facts: Anything else, plain JSON values.
    """

    at_ns: int
    source: str
    name: str
    node: str = ""
    element: str = ""
    detector: str = ""
    blames: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error_ns(self) -> int:
        """How far `at_ns` may be off: its `facts["error_us"]`, where a clock had to be turned."""
        return round(float(self.facts.get("error_us", 0)) * 1e3)


def known_to(events: Iterable[Event], records: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Events with the clock error of the machine they were seen on, where records tell of one.

    A record `{"ev": "clock", "node": …, "error_ns": …}` is the driver's, about another machine.
    """
    errors: dict[str, int] = {}
    for record in records:
        if record["ev"] == "clock":
            errors[record["node"]] = max(errors.get(record["node"], 0), record["error_ns"])
    return [
        replace(e, facts={**e.facts, "error_us": (e.error_ns + errors[e.node]) / 1e3})
        if e.node in errors
        else e
        for e in events
    ]


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one quantity over time.

    Attributes:
        name: Ends in its unit, such as `goodput_gbytes_per_s`, `arrived_pps`.
        element: What it belongs to, such as `rank2`, `host1->host8`, `leaf1:eth1`.
        at_ns: Times, CLOCK_MONOTONIC ns, ascending.
        values: One per time.
    """

    name: str
    element: str
    at_ns: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that a probe wants drawn and measured: an outage, a stall."""

    start_ns: int
    end_ns: int
    name: str
    element: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length_ns(self) -> int:
        """How long."""
        return self.end_ns - self.start_ns


@dataclass(frozen=True, slots=True)
class Readings:
    """What one probe brought home from one trial.

    Attributes:
        probe: Name of the probe.
        events: Ascending in time.
        series: One per quantity and element.
        spans: Outages, stalls.
        trouble: Sentences that make the probe's data doubtful (died in mid-trial, records lost);
            any entry makes the trial inconclusive.
        extra: Anything its own `measures` needs.
    """

    probe: str
    events: tuple[Event, ...] = ()
    series: tuple[Series, ...] = ()
    spans: tuple[Span, ...] = ()
    trouble: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Windows:
    """The phases of one trial as they really were.

    Attributes:
        calm_ns: Start and end of the calm phase.
        event: When the fault took effect (first span). A placebo carries the instant at which it
            would have.
        heal: When the last change was taken back.
        end_ns: End of the observation after healing.
        placebo: No fault was injected.
    """

    calm_ns: tuple[int, int]
    event: Moment
    heal: Moment
    end_ns: int
    placebo: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """A number derived from a timeline.

    Attributes:
        name: Ends in its unit: `flow_outage_longest_ms`, `job_stall_ms`, `detection_bfd_ms`.
        value: None when there was nothing to measure; never 0 for absent.
        low: Lower bound of the error (or of the order-statistic interval over trials).
        high: Upper bound.
        n: How many readings carry it.
        censored: The true value is beyond `value` (not recovered within the horizon); without a
            value: there was something, and whose it was cannot be told.
        note: A sentence about it, such as why it is absent.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 1
    censored: bool = False
    note: str = ""
