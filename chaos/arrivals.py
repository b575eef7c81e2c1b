"""Faults that arrive at random, at a published or stated rate. Values and their draws; pure.

Arrivals are a Poisson process: each element fails at a constant rate, whatever the others do. Time
is compressed, since a fabric of eight hosts would wait years for its next loss of a cable.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from chaos.errors import SpecError, near
from chaos.experiment_fit import fits, fits_storm
from chaos.fabric import Fabric
from chaos.timing import Range
from chaos.units import Duration

#: Arrivals of one storm; each is held by a process of its own.
MOST = 16
HOURS = {"hour": 1.0, "day": 24.0, "month": 365.25 * 2, "year": 365.25 * 24}
COUNTED = ("gpu", "link", "node")
#: What is drawn: the field of a fault that says what it strikes.
DRAWN = ("link", "node", "rank")
_RATE = re.compile(
    r"(\d+(?:\.\d*)?(?:e-?\d+)?)\s*(%)?\s+per\s+(?:([\d,_]+)\s+)?([a-z]+?)s?-([a-z]+?)s?", re.I
)

#: Name -> rate as it is written, and who published it.
PUBLISHED: dict[str, tuple[str, str]] = {
    "hpn-nic-link": (
        "0.057 % per link-month",
        "Alibaba HPN, SIGCOMM 2024: share of NIC-ToR links that fail in a month",
    ),
    "hpn-tor": (
        "0.051 % per node-month",
        "Alibaba HPN, SIGCOMM 2024: share of ToR switches that crash in a month",
    ),
    "llama3-switch-cable": (
        "0.040 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 35 interruptions by switch or cable in 54 days on at "
        "most 16384 GPUs",
    ),
    "llama3-nic": (
        "0.0079 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 7 interruptions by NIC in 54 days on at most 16384 "
        "GPUs",
    ),
    "llama3-gpu": (
        "0.167 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 148 interruptions by a faulty GPU in 54 days on at "
        "most 16384 GPUs",
    ),
    "llama3-hbm": (
        "0.081 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 72 interruptions by a GPU's memory in 54 days on at "
        "most 16384 GPUs",
    ),
    "llama3-software": (
        "0.061 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 54 interruptions by a software bug in 54 days on at "
        "most 16384 GPUs",
    ),
    "llama3-any": (
        "0.474 per 1000 gpu-days",
        "Llama 3, arXiv 2407.21783, table 5: 419 unplanned interruptions in 54 days on at most "
        "16384 GPUs",
    ),
    "rsc-1-node": (
        "6.50 per 1000 node-days",
        "Meta's Research SuperCluster 1, arXiv 2410.21680: failures of jobs by their nodes "
        "(as a secondary text has it; not compared with the paper)",
    ),
}


@dataclass(frozen=True, slots=True)
class Rate:
    """How often one thing fails.

    Attributes:
        per_hour: Failures of one of them per hour.
        of: What is counted: `gpu`, `link` or `node`.
        text: As it was written; a published one with its source.

    Examples:
        >>> Rate.parse("0.040 per 1000 gpu-days").of
        'gpu'
        >>> round(Rate.parse("0.57 per 1000 link-months").per_hour * HOURS["month"], 6)
        0.00057
    """

    per_hour: float
    of: str
    text: str

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `0.040 per 1000 gpu-days`, `0.057 % per link-month`, or the name of a published one.

        Raises:
            SpecError: neither; published names are offered.
        """
        if isinstance(value, cls):
            return value
        text = value if isinstance(value, str) else repr(value)
        written, source = PUBLISHED.get(text.strip(), (text, ""))
        found = _RATE.fullmatch(written.strip())
        what, span = (found[4].lower(), found[5].lower()) if found else ("", "")
        if found is None or what not in COUNTED or span not in HOURS:
            raise SpecError(
                f"a rate such as 0.040 per 1000 gpu-days expected (of {', '.join(COUNTED)}; per "
                f"{', '.join(HOURS)}), or a published one; got {text!r}; {near(text, PUBLISHED)}"
            )
        many = float((found[3] or "1").replace(",", "").replace("_", ""))
        number = float(found[1]) / (100 if found[2] else 1)
        if number <= 0 or many <= 0:
            raise SpecError(f"a rate must be above 0, got {text!r}")
        told = f"{text} ({written}; {source})" if source else text
        return cls(number / many / HOURS[span], what, told)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Faults of one kind that arrive at random over some elements.

    Attributes:
        of: The fault and its fields; its link, node or rank is drawn, so it is left out.
        over: What it may strike: `links`, a role pair such as `leaf--spine` or any other selector
            of links; for a fault of a node `nodes`, or a role; for a fault of a rank `ranks`, one
            of them as `rank3`, or the node or role that they run on.
        rate: `0.040 per 1000 gpu-days`, `0.057 % per link-month`, or the name of a published rate.
        compress: How much faster time goes: 1e6 makes 1 s of the storm of 11.6 days.
        length: How long each lasts, in time of the storm; a range is drawn from log-uniformly.
        population: How many GPUs (links, nodes) fail at that rate; left out for links and nodes:
            as many as `over` means on the fabric. For ranks at a rate of GPUs: one each.
    """

    of: Any
    over: str
    rate: Rate
    compress: float
    length: Range
    population: int | None = None

    def __post_init__(self) -> None:
        drawn = element(self.of)
        if not 1 <= self.compress <= 1e12:
            raise SpecError(
                f"time is compressed 1 to 1e12 times, got {self.compress:g}", field="compress"
            )
        told = {"gpu": "GPUs"}.get(self.rate.of, f"{self.rate.of}s")
        if self.population is None and (drawn == "rank") is not (self.rate.of == "gpu"):
            raise SpecError(f"how many {told}? give population, such as 16384", field="population")
        if self.population is not None and self.population < 1:
            raise SpecError(f"at least 1 expected, got {self.population}", field="population")

    def elements(self, fabric: Fabric, ranks: Sequence[str] = ()) -> tuple[str, ...]:
        """Ids of the links, names of the nodes, or `rank0`, …, that may be struck.

        Args:
            fabric: Where.
            ranks: Nodes that the ranks of the job run on, by number.

        Raises:
            SpecError: there are none on this fabric.
        """
        if element(self.of) == "rank":
            return self._ranks(fabric, ranks)
        if element(self.of) == "link":
            links = fabric.links if self.over == "links" else fabric.select_links(self.over)
            return tuple(link.id for link in links if len(link.ports) == 2)
        found = [
            node.name
            for node in fabric.nodes.values()
            if self.over in ("nodes", node.role, node.name)
        ]
        if not found:
            known = ("nodes", *fabric.roles, *fabric.nodes)
            raise SpecError(
                f"no role or node {self.over!r} in fabric {fabric.name}; {near(self.over, known)}",
                field="over",
            )
        return tuple(found)

    def _ranks(self, fabric: Fabric, ranks: Sequence[str]) -> tuple[str, ...]:
        found = [
            f"rank{number}"
            for number, name in enumerate(ranks)
            if self.over in ("ranks", f"rank{number}", name, fabric.nodes[name].role)
        ]
        if not found:
            roles = dict.fromkeys(fabric.nodes[name].role for name in ranks)
            known = ("ranks", *(f"rank{n}" for n in range(len(ranks))), *roles, *ranks)
            raise SpecError(
                f"no rank {self.over!r} among the {len(ranks)} of the job, and none runs there; "
                f"{near(self.over, dict.fromkeys(known))}",
                field="over",
            )
        return tuple(found)

    def check(self, fabric: Fabric, shortest: Duration, ranks: Sequence[str] = ()) -> None:
        """Refuse what the fabric lacks, and what does not fit into its time.

        Raises:
            SpecError: with the field.
        """
        try:
            names = self.elements(fabric, ranks)
        except SpecError as error:
            raise SpecError(error.reason, field="over") from None
        try:
            fits(self.struck(names[0]), fabric)
            fits_storm(self.of, self.length.low)
        except SpecError as error:
            raise SpecError(error.reason, field=f"of.{self.of.name}") from None
        if self.length.high >= shortest:
            raise SpecError(
                f"one that lasts {self.length.high} does not fit into a storm of {shortest}",
                field="for",
            )

    def expected(self, storm_ns: int, fabric: Fabric, ranks: Sequence[str] = ()) -> float:
        """How many arrive in a storm of that length, on average."""
        return self._per_ns(len(self.elements(fabric, ranks))) * max(0, self._window(storm_ns))

    def draw(
        self, storm_ns: int, fabric: Fabric, rng: random.Random, ranks: Sequence[str] = ()
    ) -> list[Arrival]:
        """Those of one storm, in order of time.

        Each lasts its full length, so none arrives later than the longest before the storm ends.

        Raises:
            SpecError: the storm is too short for one, or more arrive than can be held.
        """
        window, names = self._window(storm_ns), self.elements(fabric, ranks)
        if window <= 0:
            raise SpecError(
                f"one that lasts {self.length.high} does not fit into a storm of "
                f"{storm_ns / 1e9:g} s",
                field="for",
            )
        mean = self.expected(storm_ns, fabric, ranks)
        drawn: list[Arrival] = []
        at = rng.expovariate(1) / mean
        while at < 1:
            start = round(at * window)
            drawn.append(Arrival(start, start + self.length.draw(rng).ns, rng.choice(names)))
            if len(drawn) > MOST:
                raise SpecError(
                    f"more than {MOST} arrive in one storm ({mean:.3g} expected); compress time "
                    "less, or make the storm shorter",
                    field="compress",
                )
            at += rng.expovariate(1) / mean
        return drawn

    def struck(self, name: str) -> Any:
        """The fault with the element that was drawn."""
        drawn = element(self.of)
        value = int(name.removeprefix("rank")) if drawn == "rank" else name
        return replace(self.of, **{drawn: value})

    def _window(self, storm_ns: int) -> int:
        return storm_ns - self.length.high.ns

    def _per_ns(self, elements: int) -> float:
        many = elements if self.population is None else self.population
        return self.rate.per_hour * many * self.compress / 3600e9


@dataclass(frozen=True, slots=True)
class Arrival:
    """One drawn arrival: from when to when of the storm, and on what."""

    at_ns: int
    until_ns: int
    element: str


def element(fault: Any) -> str:
    """The field of a fault that says what it strikes: `link`, `node` or `rank`.

    Raises:
        SpecError: it has none of them.
    """
    names = {item.name for item in fields(fault)}
    for name in DRAWN:
        if name in names:
            return name
    raise SpecError(f"fault {fault.name} has no link, node or rank that could be drawn", field="of")


def undrawn(cls: type[Any], values: Mapping[str, Any], over: str) -> dict[str, Any]:
    """Fields of a fault whose element is to be drawn; until then `over` stands for it, or rank 0.

    Raises:
        SpecError: the element was given.
    """
    names: Sequence[str] = [item.name for item in fields(cls)]
    drawn = next((name for name in DRAWN if name in names), None)
    if drawn in values:
        raise SpecError(f"{drawn} is drawn from over ({over}); leave it out", field=drawn)
    return {**values, drawn: 0 if drawn == "rank" else over} if drawn else dict(values)
