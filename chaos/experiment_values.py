"""`Experiment`: a fabric, faults, probes, phases and what must hold, as a frozen value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from chaos.abort import Abort
from chaos.arrivals import Arrivals
from chaos.document import Document, join
from chaos.errors import SpecError
from chaos.experiment_fit import fits, fits_storm, places
from chaos.experiment_parts import (
    can_be_exposed,
    can_be_judged,
    first_exposed,
    has_its_rank,
    kinds,
)
from chaos.fabric import Fabric
from chaos.limits import UNLIMITED, Limits
from chaos.objectives import Objective, detectors
from chaos.timing import Range, Timing, settle
from chaos.trace import Trace
from chaos.units import Duration

#: Measures that every trial has, whatever its probes.
EVERY_TRIAL = ("detection_first_ms", "localisation_ms", "localisation_right_percent")
SHORTEST, LONGEST = Duration.parse("100 ms"), Duration.parse("1 h")
SHORT, USUAL, LIFE = Duration.parse("1.5 s"), Duration.parse("2 s"), Duration.parse("60 s")
ONCE = Range(SHORT, SHORT)


@dataclass(frozen=True, slots=True)
class Phases:
    """How long each phase of a trial lasts; healing takes as long as it takes.

    Attributes:
        calm: Measured before the fault.
        storm: While the fault is in force.
        after: Measured after healing.
    """

    calm: Duration = USUAL
    storm: Range = ONCE
    after: Duration = USUAL

    def __post_init__(self) -> None:
        for name, low, high in (
            ("calm", self.calm, self.calm),
            ("storm", self.storm.low, self.storm.high),
            ("after", self.after, self.after),
        ):
            if low < SHORTEST or high > LONGEST:
                found = low if low < SHORTEST else high
                raise SpecError(f"a phase lasts 100 ms to 1 h, got {found}", field=name)


@dataclass(frozen=True)
class Experiment:
    """What is broken, what is measured, and what must hold.

    Attributes:
        promise: One sentence to the people who train on this fabric.
        fabric: Name of a shipped fabric, or path of a topology file.
        faults: What is in force during the storm; with no arrivals and no trace either, every
            trial is a placebo.
        timings: When each of the faults is, in their order; none: from the first to the last
            moment of the storm.
        arrivals: Faults that arrive at random, at a rate.
        trace: Faults as a file tells them.
        probes: By label: `flow`, or `flow/a` where one probe occurs twice.
        objectives: What must hold.
        exposed: Label of the probe whose traffic must cross the faulted element; None takes the
            only one that has traffic (a flow before a collective); `none` where there is no fault.
        phases: Lengths of calm, storm and after.
        trials: How many with the fault (without a fault: how many in all).
        placebos: How many more without it, placed among the others by the seed.
        seed: Of everything that is drawn.
        max_life: The fault is taken back after this time whatever happens.
        limits: How far it may reach; beyond that it is refused before anything is touched.
        abort: Conditions that take the fault back at once, and end the run.
        name: Short name; a file's name without its suffix.
        document: The file it was read from, for messages; None when made in Python.
    """

    promise: str
    fabric: str
    faults: tuple[Any, ...] = ()
    probes: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()
    exposed: str | None = None
    phases: Phases = Phases()
    trials: int = 3
    placebos: int | None = None
    seed: int = 1
    max_life: Duration = LIFE
    limits: Limits = UNLIMITED
    abort: tuple[Abort, ...] = ()
    name: str = "experiment"
    document: Document | None = field(default=None, compare=False, repr=False)
    timings: tuple[Timing, ...] = ()
    arrivals: tuple[Arrivals, ...] = ()
    trace: Trace | None = None

    def __post_init__(self) -> None:
        if self.placebos is None:
            object.__setattr__(self, "placebos", 0 if self.placebo else 1)
        self._check_timings()
        if self.exposed is None:
            with self._at():
                chosen = "none" if self.placebo else first_exposed(self.probes)
            object.__setattr__(self, "exposed", chosen)
        self._check_counts()
        with self._at():
            can_be_exposed(str(self.exposed), self.probes, self.placebo)
        for fault, place in self._every_fault():
            with self._at(place):
                has_its_rank(fault, self.probes)
        for at, condition in enumerate(self.abort):
            with self._at(f"abort[{at}]"):
                condition.asked(self.probes)
        for at, one in enumerate(self.objectives):
            with self._at(f"objectives[{at}]"):
                can_be_judged(one, self.probes, self.measures, self.placebo, self.placebos or 0)

    @property
    def placebo(self) -> bool:
        """There is no fault at all."""
        return not (self.faults or self.arrivals or self.trace)

    def rank_places(self, fabric: Fabric) -> tuple[str, ...]:
        """Nodes that the ranks of its job run on, by number; none where it has no job."""
        jobs = (places(probe, fabric) for probe in self.probes.values())
        return next((one for one in jobs if one), ())

    @property
    def timed(self) -> tuple[Timing, ...]:
        """When each of the faults is, counted from the start of the storm."""
        return settle([fault.name for fault in self.faults], self._timings)

    @property
    def _timings(self) -> tuple[Timing, ...]:
        return self.timings or (Timing(),) * len(self.faults)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the measures of single faults carry."""
        return tuple(one.label for one in self.timings if one.label)

    @property
    def measures(self) -> tuple[str, ...]:
        """Every measure that these probes, and the trial itself, can give.

        A probe under a label says which it is: `flow/b` gives `b_flow_lost_packets`. So does a
        fault: `link_down/far` gives `far_flow_lost_packets`, what is felt of that fault alone.
        """
        names = list(EVERY_TRIAL)
        for label, probe in self.probes.items():
            _, slash, word = label.partition("/")
            names += [f"{word}_{name}" if slash else name for name in probe.schema]
        spoken = kinds(self.probes)
        names += [f"detection_{name}_ms" for name, of in detectors().items() if of in spoken]
        names += [f"{label}_{name}" for label in self.labels for name in tuple(names)]
        return tuple(dict.fromkeys(names))

    def wrong(self, message: str, at: str = "") -> SpecError:
        """A refusal of one field, with file and line where they are known."""
        if self.document is not None:
            return self.document.wrong(message, at)
        return SpecError(message, field=at or None)

    def check(self, fabric: Fabric) -> None:
        """Refuse what does not fit the fabric: hosts, links and nodes that are not there.

        Words that are settled by where traffic goes (`in-use`, …) must have a meaning on it.

        Raises:
            SpecError: with file, line and field.
        """
        addresses = {name: "192.0.2.1" for name in fabric.nodes}
        for label, probe in self.probes.items():
            with self._at(f"probes.{label}", probe):
                probe.programs(fabric, addresses)
        for at, (fault, timing) in enumerate(zip(self.faults, self.timed, strict=True)):
            field = self._fault_field(at, fault)
            with self._at(field, fault):
                fits(fault, fabric)
            with self._at(self.place(at)):
                room = timing.room(self.phases.storm.low)
            with self._at(field, fault):
                fits_storm(fault, room)
        for at, drawn in enumerate(self.arrivals):
            with self._at(self.place(at, "arrivals")):
                drawn.check(fabric, self.phases.storm.low, self.rank_places(fabric))
        if self.trace is not None:
            self.trace.check(fabric)

    @contextmanager
    def _at(self, place: str = "", part: Any = None) -> Iterator[None]:
        """Refusals inside, as those of a field within `place`.

        One that names no field is that of the value of `part` which it quotes.
        """
        try:
            yield
        except SpecError as error:
            if error.file is not None:
                raise
            named = fields(part) if part is not None else ()
            values = {item.name: getattr(part, item.name) for item in named}
            inner = error.field or quoted(values, error.reason)
            raise self.wrong(error.reason, join(place, inner)) from None

    def _fault_field(self, at: int, fault: Any) -> str:
        label = self._timings[at].label
        return f"{self.place(at)}.{fault.name}" + (f"/{label}" if label else "")

    def _every_fault(self) -> Iterator[tuple[Any, str]]:
        """Faults that are written, drawn or traced, each with its field."""
        for at, fault in enumerate(self.faults):
            yield fault, self._fault_field(at, fault)
        for row in self.trace.rows if self.trace else ():
            yield row.fault, "trace"
        for at, drawn in enumerate(self.arrivals):
            yield drawn.of, f"{self.place(at, 'arrivals')}.of"

    def place(self, at: int, many: str = "faults") -> str:
        """The field of one of the faults, or of the arrivals, as it is written."""
        lines = self.document.lines if self.document else {}
        if many == "faults" and "fault" in lines:
            return "fault"
        return many if lines and f"{many}[{at}]" not in lines else f"{many}[{at}]"

    def _check_timings(self) -> None:
        if self.timings and len(self.timings) != len(self.faults):
            raise self.wrong(
                f"one timing per fault expected ({len(self.faults)}), got {len(self.timings)}",
                "faults",
            )
        try:
            _ = self.timed
        except SpecError as error:
            index, _, word = (error.field or "[0].").partition(".")
            place = join(self.place(int(index[1:-1])), word)
            raise self.wrong(error.reason, place) from None
        taken = {label.partition("/")[2]: f"probe {label}" for label in self.probes}
        for at, one in enumerate(self.timings):
            if one.label and one.label in taken:
                raise self.wrong(
                    f"the label {one.label} is that of {taken[one.label]}; take another",
                    self._fault_field(at, self.faults[at]),
                )
            taken[one.label] = f"faults[{at}]"

    def _check_counts(self) -> None:
        for name, low in (("trials", 1), ("placebos", 0)):
            found = getattr(self, name)
            if not low <= found <= 10_000:
                raise self.wrong(f"{low} to 10000 expected, got {found}", name)
        if self.placebo and self.placebos:
            raise self.wrong(
                "without a fault every trial is a placebo; give trials alone", "placebos"
            )
        if self.max_life < self.phases.storm.high:
            raise self.wrong(
                f"max_life {self.max_life} is shorter than the storm, {self.phases.storm.high}",
                "max_life",
            )


def quoted(values: Mapping[str, Any], reason: str) -> str:
    """The field whose value a refusal quotes, for refusals that name no field themselves.

    Examples:
        >>> quoted({"source": "host1", "hosts": ("host1", "host9")}, "no node 'host9' in it")
        'hosts[1]'
    """
    for name, value in values.items():
        many = isinstance(value, tuple | list)
        for at, word in enumerate(value if many else (value,)):
            if isinstance(word, str) and word and repr(word) in reason:
                return f"{name}[{at}]" if many else name
    return ""
