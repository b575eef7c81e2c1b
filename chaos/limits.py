"""How far a fault may reach: limits of an experiment or of the command line. Pure data.

`chaos.budget` compares them with the blast radius before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from chaos.errors import SpecError, near
from chaos.fields import convert, schema, shown
from chaos.registry import field_type
from chaos.units import Percent

#: The word that lifts a limit which would stand otherwise.
ANY = "any"
Most = int | Literal["any"] | None
Share = Percent | Literal["any"] | None


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the changes in force together may reach; what is not given is not limited.

    `any` lifts a limit that would stand otherwise, such as the default for real machines.

    Attributes:
        hosts_isolated: At most this many hosts without a way to most of the others.
        ranks: At most this many ranks whose process, node or cable is changed.
        ranks_lost: At most this many ranks that stand still or are cut off from their job.
        links: At most this many links out.
        host_ports: At most this share of any host's ports out.
        bisection_left: At least this share of what can flow between two halves of the hosts.
        planes_left: At least this many planes (rails) left for every host.

    Examples:
        >>> Limits.parse({"hosts_isolated": 0, "bisection_left": "50%"}).text()
        'hosts_isolated at most 0, bisection_left at least 50 %'
    """

    hosts_isolated: Most = None
    ranks: Most = None
    ranks_lost: Most = None
    links: Most = None
    host_ports: Share = None
    bisection_left: Share = None
    planes_left: Most = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int) and value < 0:
                raise SpecError(f"a limit is 0 or more, got {value}", field=item.name)

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Read a mapping of names to limits.

        Raises:
            SpecError: no mapping, an unknown name (near names offered), or a wrong value.
        """
        if not isinstance(values, Mapping):
            raise SpecError(
                f"limits by name expected, such as hosts_isolated: 0; got {shown(values)}"
            )
        return cls(**{str(name): cls._read(str(name), one) for name, one in values.items()})

    @classmethod
    def said(cls, words: Sequence[str]) -> Self:
        """Read `NAME=VALUE` words of a command line.

        Raises:
            SpecError: as `parse`; a word without `=`, or a name given twice.
        """
        values: dict[str, Any] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise SpecError(f"NAME=VALUE expected, such as hosts_isolated=0, got {word!r}")
            if name in values:
                raise SpecError(f"{name} is given twice", field=name)
            values[name] = int(value) if value.isdecimal() else value
        return cls.parse(values)

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        names = [item.name for item in fields(cls)]
        if name not in names:
            raise SpecError(f"no limit {name!r}; {near(name, names)}", field=name)
        if value is None:
            raise SpecError(f"a limit expected, got nothing; {ANY} lifts one", field=name)
        if value == ANY:
            return ANY
        kind: Any = Percent if field_type(cls, name) == Share else int
        try:
            return convert(kind, value)
        except SpecError as error:
            raise SpecError(f"{error.reason}; {ANY} lifts a limit", field=name) from None

    def over(self, other: Limits) -> Limits:
        """These limits, and of the other's those that are not given here."""
        mine = {item.name: getattr(self, item.name) for item in fields(self)}
        return Limits(**{n: getattr(other, n) if v is None else v for n, v in mine.items()})

    def given(self) -> dict[str, int | Percent]:
        """What is limited, by name; what `any` lifted is not."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if value not in (None, ANY)}

    def text(self) -> str:
        """All on one line; `none` where nothing is limited."""
        told = (f"{name} at {bound(name)} {value}" for name, value in self.given().items())
        return ", ".join(told) or "none"

    def as_json(self) -> dict[str, Any]:
        """Plain data; shares as text."""
        return {n: v if isinstance(v, int) else str(v) for n, v in self.given().items()}

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """What `parse` accepts, as JSON schema."""
        lifted = {"const": ANY}
        count = {"anyOf": [{"type": "integer", "minimum": 0}, lifted]}
        share = {"anyOf": [schema(Percent), lifted]}
        kinds = {n.name: share if field_type(cls, n.name) == Share else count for n in fields(cls)}
        properties = {name: dict(kind) for name, kind in kinds.items()}
        return {"type": "object", "additionalProperties": False, "properties": properties}


def bound(name: str) -> str:
    """`least` for what must be left, else `most`."""
    return "least" if name.endswith("_left") else "most"


UNLIMITED = Limits()
#: What holds on real machines unless stated otherwise: one element and its like, never a host.
HARDWARE = Limits(
    hosts_isolated=0, ranks_lost=1, links=2, bisection_left=Percent(50), planes_left=1
)


def defaults(fidelity: str) -> Limits:
    """What is limited where nothing is stated, by a driver's fidelity label.

    Examples:
        >>> defaults("namespace").text()
        'none'
        >>> defaults("hardware").links
        2
    """
    return HARDWARE if fidelity == "hardware" else UNLIMITED
