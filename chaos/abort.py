"""Conditions that end a storm at once: what they are, and of which probe they are asked. Pure data.

`chaos.watch` looks at them while a fault is in force. A probe may tell quantities live, beside its
measures: `watched: ClassVar[Mapping[str, str]]` names them (each name ends in its unit), and
`watch(records, since_ns, over_ns) -> Mapping[str, float]` gives those that can be told, from what
its programs said last, of no time before `since_ns` and over the last `over_ns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from chaos.errors import SpecError, near
from chaos.fields import convert, schema, shown
from chaos.objectives import limit, quantity
from chaos.registry import PROBES
from chaos.units import Duration

#: The condition that needs no number: a job reported its end, or a program of it is gone.
JOB_DEAD = "job_dead"
OVER = Duration.parse("500 ms")


@dataclass(frozen=True, slots=True)
class Abort:
    """One condition that takes the fault back at once, and ends the run after that trial.

    Attributes:
        when: `job_dead`; a quantity that a probe tells live, such as `loss_percent`; or a measure
            of a probe, from the fault on.
        of: Label of the probe that is asked; empty for the only one that can tell, and for
            `job_dead` every job.
        above: It holds above this, in its unit.
        below: It holds below this, in its unit.
        over: How far back a live quantity looks, never before the fault.
    """

    when: str
    of: str = ""
    above: float | None = None
    below: float | None = None
    over: Duration = OVER

    def __post_init__(self) -> None:
        bounds = [name for name in ("above", "below") if getattr(self, name) is not None]
        if self.when == JOB_DEAD:
            if bounds:
                raise SpecError("a job is dead or not; leave the number out", field=bounds[0])
        elif len(bounds) != 1:
            raise SpecError(f"{self.when} needs above or below, and one of them")
        if self.over.ns < 50_000_000:
            raise SpecError(f"over must be at least 50 ms, got {self.over}", field="over")

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Read the fields of one condition.

        Raises:
            SpecError: no mapping, an unknown field (near names offered), or a wrong value.

        Examples:
            >>> Abort.parse({"when": "loss_percent", "of": "flow", "above": "50 %"}).sentence()
            'loss_percent of flow above 50 %'
        """
        if not isinstance(values, Mapping):
            raise SpecError(f"a condition such as when: job_dead expected, got {shown(values)}")
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise SpecError(
                    f"no field {name!r} in a condition; {near(name, known)}", field=name
                )
        if "when" not in values:
            raise SpecError("a condition needs when, such as job_dead")
        made: dict[str, Any] = {}
        for name, value in values.items():
            try:
                if name in ("above", "below"):
                    made[name] = limit(str(values["when"]), value)
                else:
                    made[name] = convert(Duration if name == "over" else str, value)
            except SpecError as error:
                raise SpecError(error.reason, field=name) from None
        return cls(**made)

    def sentence(self) -> str:
        """The condition, on one line."""
        of = f" of {self.of}" if self.of else ""
        if self.above is None and self.below is None:
            return f"{self.when}{of}"
        return f"{self.when}{of} {self.bound}"

    @property
    def bound(self) -> str:
        """`above 50 %`; empty where there is no number."""
        for word, value in (("above", self.above), ("below", self.below)):
            if value is not None:
                return f"{word} {quantity(self.when, value)}"
        return ""

    def holds(self, value: float) -> bool:
        """Whether a value is beyond the bound."""
        over = self.above is not None and value > self.above
        return over or (self.below is not None and value < self.below)

    def asked(self, probes: Mapping[str, Any]) -> tuple[str, ...]:
        """Labels of the probes that this condition is asked of.

        Raises:
            SpecError: there is none that can tell, or no such probe, or it is not said which.
        """
        able = [label for label, probe in probes.items() if tells(probe, self.when)]
        if self.of and self.of not in probes:
            raise SpecError(f"no probe {self.of!r}; {near(self.of, probes)}", field="of")
        if self.of and self.of not in able:
            raise SpecError(f"probe {self.of} does not tell {self.when}", field="of")
        if self.of:
            return (self.of,)
        if not able:
            known = {word for probe in probes.values() for word in told(probe)}
            raise SpecError(
                f"no probe of this experiment tells {self.when}; {near(self.when, known)}",
                field="when",
            )
        if len(able) > 1 and self.when != JOB_DEAD:
            raise SpecError(
                f"{self.when} is told by {' and '.join(able)}; name one as of", field="of"
            )
        return tuple(able)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """What `parse` accepts, as JSON schema."""
        number: dict[str, Any] = {"type": ["number", "string"]}
        return {
            "type": "object",
            "additionalProperties": False,
            "required": ["when"],
            "properties": {
                "when": {"type": "string"},
                "of": {"type": "string"},
                "above": dict(number),
                "below": dict(number),
                "over": schema(Duration),
            },
            "not": {"required": ["above", "below"]},
        }


def told(probe: Any) -> tuple[str, ...]:
    """Every condition that can be asked of a probe."""
    job = (JOB_DEAD,) if callable(getattr(probe, "nodes", None)) else ()
    return (*job, *getattr(probe, "watched", ()), *probe.schema)


def tells(probe: Any, when: str) -> bool:
    """Whether a condition can be asked of a probe."""
    return when in told(probe)


def live() -> dict[str, str]:
    """What the probes of this installation tell live, with words."""
    found: dict[str, str] = {}
    for cls in PROBES.values():
        found |= getattr(cls, "watched", {})
    return found
