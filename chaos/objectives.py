"""Objectives: what must hold for an experiment to pass. Pure data; `chaos.judge` decides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from chaos.errors import SpecError, near
from chaos.fields import convert, shown
from chaos.registry import PROBES, field_type
from chaos.units import Duration, Percent, Pps, Size

#: Detector -> the probe that reports it. A probe may add its own as a class variable `detectors`.
DETECTORS: dict[str, str] = {
    "carrier": "kernel_events",
    "fib": "kernel_events",
    "bfd": "routing",
    "bgp": "routing",
    "hold_timer": "routing",
    "flow_gap": "flow",
    "job_stall": "collective",
    "job_error": "collective",
    "heartbeat": "collective",
    "op_age": "collective",
    "tcp_retransmit": "collective",
}

_MEASURE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SHOWN = {"ns": "ns", "us": "µs", "ms": "ms", "s": "s", "percent": "%", "pps": "pps"}
_SHOWN |= {
    "bytes": "B",
    "gbytes_per_s": "GB/s",
    "mbytes_per_s": "MB/s",
    "gbits_per_s": "Gbit/s",
    "packets": "packets",
}
ALL = Percent(100)


def detectors() -> dict[str, str]:
    """Every known detector and the probe that reports it."""
    known = dict(DETECTORS)
    for name, cls in PROBES.items():
        known |= {word: name for word in getattr(cls, "detectors", ())}
    return known


def unit(measure: str) -> str:
    """The unit that a measure's name ends in, as it is printed; empty for a plain count.

    Examples:
        >>> unit("job_stall_ms"), unit("job_wrong_values"), unit("busbw_gbytes_per_s")
        ('ms', '', 'GB/s')
    """
    ends = [end for end in _SHOWN if measure.endswith(f"_{end}")]
    return _SHOWN[max(ends, key=len)] if ends else ""


def quantity(measure: str, value: float) -> str:
    """A value of a measure with its unit.

    Examples:
        >>> quantity("job_stall_ms", 125.0), quantity("job_wrong_values", 0)
        ('125 ms', '0')
    """
    return f"{value:.6g} {unit(measure)}".rstrip()


@dataclass(frozen=True, slots=True)
class Bound:
    """A measure stays at or below, or at or above, a limit.

    Attributes:
        measure: Name of the measure; it ends in its unit.
        at_most: Upper limit, in the measure's unit (`10`, or `10 ms` for a measure in ms).
        at_least: Lower limit, likewise.
        share: Share of the trials in which it must hold.
        because: Why this number is fair.
    """

    key: ClassVar[str] = "measure"
    measure: str
    at_most: float | None = None
    at_least: float | None = None
    share: Percent = ALL
    because: str = ""

    def __post_init__(self) -> None:
        if not _MEASURE.fullmatch(self.measure):
            raise SpecError(
                f"a measure such as flow_outage_longest_ms expected, got {shown(self.measure)}",
                field="measure",
            )
        if self.at_most is None and self.at_least is None:
            raise SpecError(f"{self.measure} needs at_most or at_least")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise SpecError(
                f"at_least {self.at_least:g} is above at_most {self.at_most:g}", field="at_least"
            )
        _above_zero(self.share)

    @property
    def expected(self) -> str:
        """The limit alone: `at most 10 ms`."""
        parts = [
            f"{word} {quantity(self.measure, value)}"
            for word, value in (("at least", self.at_least), ("at most", self.at_most))
            if value is not None
        ]
        return " and ".join(parts) + _in_share(self.share)

    def sentence(self) -> str:
        """What is promised, on one line."""
        return f"{self.measure}: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class DetectedBy:
    """A detector notices the fault.

    Attributes:
        detector: Name of the detector, such as `carrier`.
        within: At the latest after the event; null: at any time before it heals.
        share: Share of the trials in which it must.
        because: Why this is fair.
    """

    key: ClassVar[str] = "detected_by"
    detector: str
    within: Duration | None = None
    share: Percent = ALL
    because: str = ""

    def __post_init__(self) -> None:
        _known(self.detector)
        if self.within is not None and self.within.ns == 0:
            raise SpecError("a detection takes time; within must be above 0", field="within")
        _above_zero(self.share)

    @property
    def expected(self) -> str:
        """`within 50 ms`, or that it happens at all."""
        when = f"within {self.within}" if self.within else "before it heals"
        return when + _in_share(self.share)

    def sentence(self) -> str:
        """What is promised, on one line."""
        return f"detected by {self.detector}: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class UndetectedBy:
    """These detectors stay silent, although the fault is in force.

    Attributes:
        detectors: Names of the detectors.
        because: Why this is expected.
    """

    key: ClassVar[str] = "undetected_by"
    detectors: tuple[str, ...]
    because: str = ""

    def __post_init__(self) -> None:
        if not self.detectors:
            raise SpecError("name at least one detector", field="undetected_by")
        for at, one in enumerate(self.detectors):
            _known(one, f"undetected_by[{at}]")

    @property
    def expected(self) -> str:
        """That nothing is reported."""
        return "no report"

    def sentence(self) -> str:
        """What is promised, on one line."""
        *most, last = self.detectors
        names = f"{', '.join(most)} and {last}" if most else last
        return f"undetected by {names}: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class Named:
    """The first component that any detector blames is the faulted one.

    Attributes:
        right: Always true: that the name is right.
        share: Share of the trials in which it must be.
        because: Why this is fair.
    """

    key: ClassVar[str] = "named"
    right: bool = True
    share: Percent = ALL
    because: str = ""

    def __post_init__(self) -> None:
        if not self.right:
            raise SpecError("named: right expected", field="named")
        _above_zero(self.share)

    @property
    def expected(self) -> str:
        """What the first blame must be."""
        return "the faulted component" + _in_share(self.share)

    def sentence(self) -> str:
        """What is promised, on one line."""
        return f"first blamed: expected {self.expected}"


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """Symptoms that detectors report in placebo trials.

    Attributes:
        at_most: How many, over all placebo trials.
        because: Why this is fair.
    """

    key: ClassVar[str] = "false_alarms"
    at_most: int = 0
    because: str = ""

    def __post_init__(self) -> None:
        if self.at_most < 0:
            raise SpecError(f"a count cannot be negative, got {self.at_most}", field="false_alarms")

    @property
    def expected(self) -> str:
        """The limit alone."""
        return f"at most {self.at_most}"

    def sentence(self) -> str:
        """What is promised, on one line."""
        return f"false alarms in placebo trials: expected {self.expected}"


Objective = Bound | DetectedBy | UndetectedBy | Named | FalseAlarms
KINDS: dict[str, type[Any]] = {
    kind.key: kind for kind in (Bound, DetectedBy, UndetectedBy, Named, FalseAlarms)
}


def objective(values: Mapping[str, Any]) -> Objective:
    """One objective from its fields as a spec gives them.

    Raises:
        SpecError: no or two kinds, an unknown field, a wrong value; `field` is set.

    Examples:
        >>> objective({"detected_by": "carrier", "within": "50 ms"}).sentence()
        'detected by carrier: expected within 50 ms'
    """
    kinds = [key for key in KINDS if key in values]
    if len(kinds) > 1:
        raise SpecError(f"one objective cannot be both {kinds[0]} and {kinds[1]}", field=kinds[1])
    if not kinds:
        tail = near(next(iter(values)), KINDS) if values else ""
        begins = f"an objective is one of {', '.join(KINDS)}"
        got = f"; got {', '.join(values)}" if values else ""
        raise SpecError(begins + got + (f"; {tail}" if tail.startswith("did") else ""))
    cls = KINDS[kinds[0]]
    main = fields(cls)[0].name
    known = {kinds[0], *(item.name for item in fields(cls)[1:])}
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise SpecError(f"no field {key!r} in {kinds[0]}; {near(key, known)}", field=key)
        name = main if key == kinds[0] else key
        made[name] = _field(cls, name, key, value, values)
    return cls(**made)  # type: ignore[no-any-return]


def _field(cls: type[Any], name: str, key: str, value: Any, values: Mapping[str, Any]) -> Any:
    try:
        if cls is Named and key == "named":
            return convert(Literal["right"], value) == "right"
        if cls is Bound and key in ("at_most", "at_least"):
            return limit(str(values["measure"]), value)
        return convert(field_type(cls, name), value)
    except SpecError as error:
        raise SpecError(error.reason, field=key + (error.field or "")) from None


def limit(measure: str, value: Any) -> float:
    """A bound of a measure in its unit: a number, or text with that kind of unit.

    Raises:
        SpecError: neither.

    Examples:
        >>> limit("job_stall_ms", "2 s"), limit("flow_lost_packets", 20)
        (2000.0, 20.0)
    """
    if not isinstance(value, str):
        return float(convert(float, value))
    end = measure.rpartition("_")[2]
    if end in ("ns", "us", "ms", "s"):
        return float(convert(Duration, value).ns / {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[end])
    if end == "percent":
        return float(convert(Percent, value).value)
    if end == "bytes":
        return float(convert(Size, value).bytes)
    if end == "pps":
        return float(convert(Pps, value).value)
    raise SpecError(f"a number expected, got {shown(value)}")


def _known(detector: str, at: str = "detected_by") -> None:
    if detector not in detectors():
        raise SpecError(f"no detector {detector!r}; {near(detector, detectors())}", field=at)


def _above_zero(share: Percent) -> None:
    if share.value == 0:
        raise SpecError("a share of 0 % promises nothing; leave the objective out", field="share")


def _in_share(share: Percent) -> str:
    return "" if share == ALL else f" in at least {share} of the trials"
