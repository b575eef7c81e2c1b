"""Quantities that carry their unit: parse, print, refuse.

A number never crosses a function boundary bare: it is one of these types, or its name ends in
its unit (`at_ns`, `rate_pps`). What would round to nothing is refused, with the limit named.
As text a number needs its unit, but for 0: `0.1` of a share is 0.1 % to one and 10 % to another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from chaos.errors import SpecError

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]*)\s*$")


def _parse(text: str | float | int, units: dict[str, float], what: str, example: str) -> float:
    if isinstance(text, bool):
        raise SpecError(f"{what} expected, such as {example}, got {text}")
    if isinstance(text, int | float):
        text = str(text)
    found = _NUMBER.match(text)
    if found is not None and not found[2]:
        if (bare := float(found[1])) == 0:
            return 0
        meant = _meant(bare, units, example)
        raise SpecError(f"{what} expected, {meant}, got {text!r} without a unit")
    if found is None or found[2] not in units:
        raise SpecError(f"{what} expected, such as {example} ({_known(units)}), got {text!r}")
    return float(found[1]) * units[found[2]]


def _known(units: dict[str, float]) -> str:
    return f"units: {', '.join(units)}"


def _meant(bare: float, units: dict[str, float], example: str) -> str:
    """What a number without a unit may have meant."""
    if "%" not in units:
        return f"such as {example} ({_known(units)})"
    return f"{bare:g} % or {bare * 100:g} %" if 0 < bare <= 1 else f"such as {example}"


@dataclass(frozen=True, order=True, slots=True)
class Duration:
    """A span of time in whole nanoseconds, never negative.

    Examples:
        >>> Duration.parse("1.5 s")
        Duration(ns=1500000000)
        >>> str(Duration.parse("250ms"))
        '250 ms'
        >>> Duration.parse("-1 s")
        Traceback (most recent call last):
        chaos.errors.SpecError: a time cannot be negative, got -1000000000 ns
    """

    ns: int

    def __post_init__(self) -> None:
        if self.ns < 0:
            raise SpecError(f"a time cannot be negative, got {self.ns} ns")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `250 ms`, `1.5s`, `2 m`."""
        if isinstance(text, cls):
            return text
        units = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
        value = _parse(text, units, "a time", "250 ms")  # type: ignore[arg-type]
        if 0 < value < 1:
            raise SpecError(f"a time must be at least 1 ns, got {text!r}")
        return cls(round(value))

    @property
    def s(self) -> float:
        """In seconds."""
        return self.ns / 1e9

    @property
    def ms(self) -> float:
        """In milliseconds."""
        return self.ns / 1e6

    def __str__(self) -> str:
        for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
            if self.ns >= size:
                return f"{self.ns / size:g} {unit}"
        return f"{self.ns} ns"


@dataclass(frozen=True, order=True, slots=True)
class Percent:
    """A share of a whole, 0 to 100 %.

    Examples:
        >>> Percent.parse("0.1 %").millionths
        1000
        >>> Percent.parse(0.1)
        Traceback (most recent call last):
        chaos.errors.SpecError: a share expected, 0.1 % or 10 %, got '0.1' without a unit
        >>> Percent.parse("250 %")
        Traceback (most recent call last):
        chaos.errors.SpecError: a share must be 0 to 100 %, got 250 %
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 100:
            raise SpecError(f"a share must be 0 to 100 %, got {self.value:g} %")
        if 0 < self.value < 0.0001:
            raise SpecError(f"a share must be 0 or at least 0.0001 %, got {self.value:g} %")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `10 %`, `0.1%`."""
        if isinstance(text, cls):
            return text
        return cls(_parse(text, {"%": 1}, "a share", "10 %"))  # type: ignore[arg-type]

    @property
    def millionths(self) -> int:
        """Whole parts per million."""
        return round(self.value * 10_000)

    def __str__(self) -> str:
        return f"{self.value:g} %"


@dataclass(frozen=True, order=True, slots=True)
class Size:
    """A number of bytes.

    Examples:
        >>> Size.parse("4 MiB").bytes
        4194304
        >>> str(Size(4194304))
        '4 MiB'
    """

    bytes: int

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise SpecError(f"a size cannot be negative, got {self.bytes} bytes")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `4 MiB`, `1500 B`."""
        if isinstance(text, cls):
            return text
        units = {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
        units |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
        return cls(round(_parse(text, units, "a size", "4 MiB")))  # type: ignore[arg-type]

    def __str__(self) -> str:
        for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if self.bytes >= size and self.bytes % size == 0:
                return f"{self.bytes // size} {unit}"
        return f"{self.bytes} B"


@dataclass(frozen=True, order=True, slots=True)
class Pps:
    """A packet rate in packets per second, above 0.

    Examples:
        >>> Pps.parse("2 kpps").value
        2000.0
    """

    value: float

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise SpecError(f"a packet rate must be above 0, got {self.value:g} pps")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `2 kpps`, `500 pps`."""
        if isinstance(text, cls):
            return text
        units = {"pps": 1, "kpps": 1e3, "Mpps": 1e6}
        return cls(_parse(text, units, "a packet rate", "2 kpps"))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.value / 1e3:g} kpps" if self.value >= 1e3 else f"{self.value:g} pps"


@dataclass(frozen=True, order=True, slots=True)
class Hertz:
    """A repetition rate, above 0.

    Examples:
        >>> str(Hertz.parse("100 Hz"))
        '100 Hz'
    """

    value: float

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise SpecError(f"a frequency must be above 0, got {self.value:g} Hz")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `10 Hz`, `1 kHz`."""
        if isinstance(text, cls):
            return text
        return cls(_parse(text, {"Hz": 1, "kHz": 1e3}, "a frequency", "10 Hz"))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.value:g} Hz"


@dataclass(frozen=True, order=True, slots=True)
class Bitrate:
    """A rate in whole bits per second, above 0.

    Examples:
        >>> Bitrate.parse("100 Mbit/s").bps
        100000000
        >>> str(Bitrate(2_500_000))
        '2.5 Mbit/s'
        >>> Bitrate.parse("10 MB/s")
        Traceback (most recent call last):
        chaos.errors.SpecError: a bit rate expected, such as 100 Mbit/s (units: bit/s, kbit/s, \
Mbit/s, Gbit/s), got '10 MB/s'
    """

    bps: int

    def __post_init__(self) -> None:
        if self.bps <= 0:
            raise SpecError(f"a bit rate must be above 0, got {self.bps} bit/s")

    @classmethod
    def parse(cls, text: str | float | Self) -> Self:
        """Read `100 Mbit/s`, `2.5 Gbit/s`."""
        if isinstance(text, cls):
            return text
        units = {"bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
        return cls(round(_parse(text, units, "a bit rate", "100 Mbit/s")))  # type: ignore[arg-type]

    def __str__(self) -> str:
        for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
            if self.bps >= size:
                return f"{self.bps / size:g} {unit}"
        return f"{self.bps} bit/s"
