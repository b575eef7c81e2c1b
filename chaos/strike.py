"""One fault as it falls in one storm: what, from when to when; as text, and as plain data. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from chaos.registry import FAULTS, InForce, build
from chaos.units import Duration

#: Where a strike comes from.
WRITTEN, ARRIVAL, TRACE = "written", "arrival", "trace"


def as_text(fault: Any, but: str = "") -> str:
    """A fault as one line: its name and the fields that are not at their default, but one.

    Examples:
        >>> from faults.node_down import NodeDown
        >>> as_text(NodeDown(node="spine1"))
        'node_down(node=spine1)'
    """
    said = [
        f"{item.name}={getattr(fault, item.name)}"
        for item in fields(fault)
        if getattr(fault, item.name) != item.default and item.name != but
    ]
    return f"{fault.name}({', '.join(said)})"


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault in one storm.

    Attributes:
        fault: The fault; its words may still be `in-use`.
        at_ns: From when, since the start of the storm.
        until_ns: Until when.
        spans: When it is in force, within that.
        label: What its measures carry; empty for none.
        origin: `written`, `arrival` or `trace`.
    """

    fault: Any
    at_ns: int
    until_ns: int
    spans: tuple[InForce, ...]
    label: str = ""
    origin: str = WRITTEN

    @property
    def text(self) -> str:
        """When and what, as one line."""
        when = f"{self.at_ns / 1e6:g}–{self.until_ns / 1e6:g} ms"
        return f"{when} {self.label + ': ' if self.label else ''}{as_text(self.fault)}"


def strike(
    fault: Any,
    at_ns: int,
    until_ns: int,
    rng: random.Random,
    label: str = "",
    origin: str = WRITTEN,
) -> Strike:
    """A fault with its own schedule laid into its time.

    Raises:
        SpecError: its schedule does not fit.
    """
    spans = fault.schedule(Duration(until_ns - at_ns), rng)
    moved = tuple(InForce(one.start_ns + at_ns, one.end_ns + at_ns) for one in spans)
    return Strike(fault, at_ns, until_ns, moved, label, origin)


def as_json(one: Strike) -> dict[str, Any]:
    """A strike as plain data, from which `from_json` makes it again."""
    return {
        "fault": one.fault.name,
        "fields": {
            item.name: _plain(getattr(one.fault, item.name))
            for item in fields(one.fault)
            if getattr(one.fault, item.name) != item.default
        },
        "label": one.label,
        "origin": one.origin,
        "at_ns": one.at_ns,
        "until_ns": one.until_ns,
        "spans": [[span.start_ns, span.end_ns] for span in one.spans],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.plain() if hasattr(value, "plain") else str(value)


def from_json(data: Mapping[str, Any]) -> Strike:
    """Read what `as_json` wrote.

    Raises:
        SpecError: a fault or field that this installation does not have.
    """
    fault = build(FAULTS, "fault", data["fault"], data["fields"])
    spans = tuple(InForce(start, end) for start, end in data["spans"])
    return Strike(fault, data["at_ns"], data["until_ns"], spans, data["label"], data["origin"])
