"""`Experiment`: a fabric, faults, probes, phases and what must hold, as a frozen value."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from chaos.abort import Abort
from chaos.document import Document, join
from chaos.errors import SpecError, near
from chaos.experiment_fit import fits, fits_storm
from chaos.fabric import Fabric
from chaos.fields import convert
from chaos.limits import UNLIMITED, Limits
from chaos.objectives import (
    Bound,
    DetectedBy,
    FalseAlarms,
    Named,
    Objective,
    UndetectedBy,
    detectors,
)
from chaos.registry import PROBES
from chaos.units import Duration

#: Measures that every trial has, whatever its probes.
EVERY_TRIAL = ("detection_first_ms", "localisation_ms", "localisation_right_percent")
#: Of probes that send traffic, those of which one is taken as the exposed one first, in this order.
TRAFFIC = ("flow", "collective")
SHORTEST, LONGEST = Duration.parse("100 ms"), Duration.parse("1 h")
SHORT, USUAL, LIFE = Duration.parse("1.5 s"), Duration.parse("2 s"), Duration.parse("60 s")


@dataclass(frozen=True, slots=True)
class Range:
    """A length of time, fixed or drawn log-uniformly between two limits.

    Examples:
        >>> Range.parse("1.5 s").fixed
        True
        >>> Range.parse({"from": "900 ms", "to": "1.4 s"}).draw(random.Random(7)).ms < 1400
        True
    """

    low: Duration
    high: Duration

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise SpecError(f"from {self.low} is longer than to {self.high}", field="from")

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `1.5 s`, or a mapping of `from` and `to`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            one = convert(Duration, value)
            return cls(one, one)
        ends = []
        for key in value:
            if key not in ("from", "to"):
                raise SpecError(f"no field {key!r} in a range; it has from, to", field=key)
        for key in ("from", "to"):
            if key not in value:
                raise SpecError(f"a range needs from and to; {key} is missing")
            try:
                ends.append(convert(Duration, value[key]))
            except SpecError as error:
                raise SpecError(error.reason, field=key) from None
        return cls(*ends)

    @property
    def fixed(self) -> bool:
        """Nothing is drawn."""
        return self.low == self.high

    def draw(self, rng: random.Random) -> Duration:
        """One length; log-uniform, so that short and long outages are met equally often."""
        if self.fixed:
            return self.low
        low, high = math.log(max(self.low.ns, 1)), math.log(self.high.ns)
        return Duration(
            min(self.high.ns, max(self.low.ns, round(math.exp(rng.uniform(low, high)))))
        )

    def __str__(self) -> str:
        return str(self.low) if self.fixed else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Phases:
    """How long each phase of a trial lasts; healing takes as long as it takes.

    Attributes:
        calm: Measured before the fault.
        storm: While the fault is in force.
        after: Measured after healing.
    """

    calm: Duration = USUAL
    storm: Range = Range(SHORT, SHORT)
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
        faults: What is in force during the storm; none makes every trial a placebo.
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

    def __post_init__(self) -> None:
        if self.placebos is None:
            object.__setattr__(self, "placebos", 1 if self.faults else 0)
        if self.exposed is None:
            object.__setattr__(self, "exposed", self._only_traffic())
        self._check_counts()
        self._check_exposed()
        self._check_ranks()
        for at, condition in enumerate(self.abort):
            self._check_abort(f"abort[{at}]", condition)
        for at, one in enumerate(self.objectives):
            self._check_objective(f"objectives[{at}]", one)

    @property
    def placebo(self) -> bool:
        """There is no fault at all."""
        return not self.faults

    @property
    def measures(self) -> tuple[str, ...]:
        """Every measure that these probes, and the trial itself, can give.

        A probe under a label says which it is: `flow/b` gives `b_flow_lost_packets`.
        """
        names = list(EVERY_TRIAL)
        for label, probe in self.probes.items():
            _, slash, word = label.partition("/")
            names += [f"{word}_{name}" if slash else name for name in probe.schema]
        names += [f"detection_{name}_ms" for name, of in detectors().items() if of in self._kinds]
        return tuple(dict.fromkeys(names))

    @property
    def _kinds(self) -> set[str]:
        """Registered names of the probes, labels left out."""
        return {label.partition("/")[0] for label in self.probes}

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
            self._try(f"probes.{label}", probe, lambda one: one.programs(fabric, addresses))
        for at, fault in enumerate(self.faults):
            field = self._fault_field(at, fault)
            self._try(field, fault, lambda one: fits(one, fabric))
            self._try(field, fault, lambda one: fits_storm(one, self.phases.storm.low))

    def _try(self, at: str, part: Any, ask: Any) -> None:
        try:
            ask(part)
        except SpecError as error:
            if error.file is not None:
                raise
            values = {item.name: getattr(part, item.name) for item in fields(part)}
            inner = error.field or quoted(values, error.reason)
            raise self.wrong(error.reason, join(at, inner)) from None

    def _fault_field(self, at: int, fault: Any) -> str:
        lines = self.document.lines if self.document else {}
        outer = "fault" if "fault" in lines else f"faults[{at}]"
        return f"{outer}.{fault.name}"

    def _only_traffic(self) -> str:
        if not self.faults:
            return "none"
        senders = [label for label, probe in self.probes.items() if hasattr(probe, "streams")]
        ours = [[one for one in senders if one.partition("/")[0] == kind] for kind in TRAFFIC]
        others = [one for one in senders if one.partition("/")[0] not in TRAFFIC]
        for labels in (*ours, others):
            if len(labels) > 1:
                raise self.wrong(
                    f"name as exposed the probe whose traffic must cross the fault: "
                    f"{' or '.join(labels)}",
                    "probes",
                )
            if labels:
                return labels[0]
        kinds = dict.fromkeys((*TRAFFIC, *(n for n in PROBES if hasattr(PROBES[n], "streams"))))
        raise self.wrong(
            f"a fault needs a probe with traffic ({' or '.join(kinds)}) to prove that it was met",
            "probes",
        )

    def _check_counts(self) -> None:
        for name, low in (("trials", 1), ("placebos", 0)):
            found = getattr(self, name)
            if not low <= found <= 10_000:
                raise self.wrong(f"{low} to 10000 expected, got {found}", name)
        if not self.faults and self.placebos:
            raise self.wrong(
                "without a fault every trial is a placebo; give trials alone", "placebos"
            )
        if self.max_life < self.phases.storm.high:
            raise self.wrong(
                f"max_life {self.max_life} is shorter than the storm, {self.phases.storm.high}",
                "max_life",
            )

    def _check_exposed(self) -> None:
        if self.exposed == "none":
            if self.faults:
                raise self.wrong("none is for experiments without a fault", "exposed")
        elif self.exposed not in self.probes:
            raise self.wrong(
                f"no probe {self.exposed!r}; {near(self.exposed or '', self.probes)}", "exposed"
            )
        elif not hasattr(self.probes[str(self.exposed)], "streams"):
            raise self.wrong(f"probe {self.exposed} sends no traffic of its own", "exposed")

    def _check_ranks(self) -> None:
        """A rank is a rank of one job; two jobs both have a rank 0."""
        jobs = [label for label in self.probes if label.partition("/")[0] == "collective"]
        for at, fault in enumerate(self.faults):
            if any(item.name == "rank" for item in fields(fault)) and len(jobs) != 1:
                found = f"both {' and '.join(jobs)} have ranks" if jobs else "there is none"
                raise self.wrong(
                    f"a fault of a rank needs exactly one collective job among the probes; {found}",
                    self._fault_field(at, fault),
                )

    def _check_abort(self, at: str, condition: Abort) -> None:
        try:
            condition.asked(self.probes)
        except SpecError as error:
            raise self.wrong(error.reason, join(at, error.field or "")) from None

    def _check_objective(self, at: str, one: Objective) -> None:
        needed: tuple[str, ...] = ()
        if isinstance(one, Bound) and one.measure not in (known := self.measures):
            raise self.wrong(
                f"no measure {one.measure!r} from these probes; {near(one.measure, known)}",
                join(at, "measure"),
            )
        if isinstance(one, DetectedBy | UndetectedBy | Named) and not self.faults:
            raise self.wrong(
                f"{one.key} needs a fault; for placebo trials use false_alarms", join(at, one.key)
            )
        if isinstance(one, DetectedBy):
            needed = (one.detector,)
        if isinstance(one, UndetectedBy):
            needed = one.detectors
        if isinstance(one, FalseAlarms) and self.faults and not self.placebos:
            raise self.wrong("needs placebo trials, and placebos is 0", join(at, one.key))
        if isinstance(one, FalseAlarms | Named) and not self._kinds & set(detectors().values()):
            raise self.wrong(
                "no probe of this experiment has a detector, so nothing could ever speak; add one, "
                f"such as {' or '.join(dict.fromkeys(detectors().values()))}",
                join(at, one.key),
            )
        for word in needed:
            probe = detectors()[word]
            if probe not in self._kinds:
                raise self.wrong(
                    f"detector {word} is reported by probe {probe}, which is not among the probes",
                    join(at, one.key),
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
