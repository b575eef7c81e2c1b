"""The record of a run: everything that is needed to judge, draw and repeat it, as plain JSON.

The schema is versioned (`SCHEMA`). A record is written once the run ended and never edited;
`railbreak report` rebuilds the page from it, and re-judges it without running anything.
What was not measured is null, never 0.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.fields import shown
from chaos.timeline import Event, Measure, Moment, Series, Span, Windows

SCHEMA = "railbreak.record/1"


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged sentence: *what: expected …, got …*.

    Attributes:
        sentence: The whole sentence, both sides with units.
        objective: The objective it answers, or the rule (`in force`, `exposure`, `residue`, …).
        verdict: `pass`, `inconclusive`, `fail`, or `blocked`.
        because: Why the objective has that bound; empty for rules.
        trial: Number of the trial it belongs to; None for the run as a whole.
    """

    sentence: str
    objective: str
    verdict: str
    because: str = ""
    trial: int | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """That the fault was there, that it acted, and that it is gone.

    Attributes:
        in_force: Every change was seen in force; None for a placebo.
        seen: Packets that met the changes; None where uncountable.
        hit: Packets (or carrier changes, signals) on which they acted; None where uncountable.
        taken_back: Every change was seen gone after healing; None for a placebo.
        residue: Differences between the state before and after, one sentence each; None where
            the two were never compared.
        changes: One entry per change: fault, strike (which of the trial's), exposed, text, place,
            in_force, seen, hit, taken_back, cure.
        actions: Planned, actual and acknowledged time of every action, CLOCK_MONOTONIC ns.
        late: Sentences on actions later than tolerated.
    """

    in_force: bool | None = None
    seen: int | None = None
    hit: int | None = None
    taken_back: bool | None = None
    residue: tuple[str, ...] | None = None
    changes: tuple[Mapping[str, Any], ...] = ()
    actions: tuple[Mapping[str, Any], ...] = ()
    late: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exposure:
    """Whether the measured traffic crossed what was broken.

    Attributes:
        exposed: True, False, or None where it was not asked (placebo, process faults).
        sentence: What was found, naming the path that was taken.
        path: Links crossed, in order, per stream.
        packets: Packets counted at the faulted element during calm, per port.
        others: Whether the traffic of each other probe crossed it too, by label; what a probe
            measured whose traffic avoided it proves nothing about the fault.
    """

    exposed: bool | None = None
    sentence: str = ""
    path: tuple[str, ...] = ()
    packets: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: calm, storm, heal, after.

    Attributes:
        number: From 1.
        placebo: The fault was left out.
        seed: Seed of this trial.
        verdict: The worst of its findings.
        fault: The fault as it was aimed, as text; empty for a placebo.
        element: What was broken: link id, node, or `rank2`; empty for a placebo.
        truth: Every name (link, ports, node, rank) that would localise the fault rightly.
        windows: Phases as they really were; None when it did not get that far.
        measures: Numbers of this trial.
        proof: That the fault acted and is gone.
        exposure: Whether the traffic crossed it.
        events: On CLOCK_MONOTONIC.
        series: Goodput, arrivals.
        spans: Outages, stalls.
        trouble: Sentences that make the data doubtful.
        disturbed: Attempts at calm that something disturbed before this one, one sentence each.
        findings: Judged sentences of this trial.
        extra: What probes left for the page (job fate, RTO ladder).
        load: Host load during the trial.
        aborted: Where an abort condition held: why (`sentence`, `when`, `of`, `value`, `above`,
            `below`), when it was seen (`at_ns`), and how long until all was healed (`healed_ns`,
            `to_healed_ms`); None where none did.
        storm_ns: How long the storm was planned to last; None in records from before it was told.
        strikes: What was planned to fall in the storm, and what became of it, in order of time:
            `fault` and `fields` (with the element that was struck), `text`, `label`, `origin`
            (`written`, `arrival`, `trace`), `at_ns`, `until_ns` and `spans` since the start of the
            storm; then `element`, `truth`, `exposed`, `sentence`, and when it took effect and was
            gone (`event_ns`, `heal_ns`: earliest and latest; null where it did not).
        left_out: Arrivals that found their element broken already, one sentence each.
    """

    number: int
    placebo: bool
    seed: int
    verdict: str = "inconclusive"
    fault: str = ""
    element: str = ""
    truth: tuple[str, ...] = ()
    windows: Windows | None = None
    measures: tuple[Measure, ...] = ()
    proof: Proof = field(default_factory=Proof)
    exposure: Exposure = field(default_factory=Exposure)
    events: tuple[Event, ...] = ()
    series: tuple[Series, ...] = ()
    spans: tuple[Span, ...] = ()
    trouble: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    aborted: Mapping[str, Any] | None = None
    storm_ns: int | None = None
    strikes: tuple[Mapping[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one experiment.

    Attributes:
        experiment: Name, file, promise, and the experiment as plain data.
        fabric: Name, driver, fidelity, instance, nodes, links, and what the driver noted.
        seed: The run's seed.
        verdict: The worst of the findings; `inconclusive` when nothing was checked.
        findings: Over the whole run, then those of trials that are not a pass.
        measures: Over all fault trials: median, order-statistic bounds, number, censored.
        trials: Every trial, placebos among them.
        plan: The dry run's lines.
        comparability: Commit, command, kernel, versions, host, fidelity, started (wall clock).
    """

    experiment: Mapping[str, Any]
    fabric: Mapping[str, Any]
    seed: int
    verdict: str = "inconclusive"
    findings: tuple[Finding, ...] = ()
    measures: tuple[Measure, ...] = ()
    trials: tuple[Trial, ...] = ()
    plan: tuple[str, ...] = ()
    comparability: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA


def to_json(record: Record) -> dict[str, Any]:
    """Plain data, the schema first; `events` of all trials also stand at the top, by trial."""
    data = asdict(record)
    events = [
        {"trial": trial["number"], **event} for trial in data["trials"] for event in trial["events"]
    ]
    for trial in data["trials"]:
        del trial["events"]
    order = ("schema", "experiment", "fabric", "seed", "verdict", "findings", "measures", "trials")
    return {key: data[key] for key in order} | {
        "events": events,
        "plan": data["plan"],
        "comparability": data["comparability"],
    }


def from_json(data: Mapping[str, Any]) -> Record:
    """Read what `to_json` wrote.

    Raises:
        SpecError: no object, another schema (the message names both), or no name or promise.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a record is a JSON object, got {shown(data)}")
    if data.get("schema") != SCHEMA:
        raise SpecError(f"a record of schema {SCHEMA} expected, got {data.get('schema')!r}")
    for name in ("name", "promise"):
        if not isinstance(data["experiment"].get(name), str):
            raise SpecError(f"its experiment has no {name}", field=f"experiment.{name}")
    events: dict[int, list[Event]] = {}
    for item in data["events"]:
        values = {key: value for key, value in item.items() if key != "trial"}
        events.setdefault(item["trial"], []).append(Event(**values))
    trials = tuple(_trial(item, tuple(events.get(item["number"], ()))) for item in data["trials"])
    return Record(
        experiment=data["experiment"],
        fabric=data["fabric"],
        seed=data["seed"],
        verdict=data["verdict"],
        findings=tuple(Finding(**item) for item in data["findings"]),
        measures=tuple(Measure(**item) for item in data["measures"]),
        trials=trials,
        plan=tuple(data["plan"]),
        comparability=data["comparability"],
    )


def _trial(item: Mapping[str, Any], events: tuple[Event, ...]) -> Trial:
    values = dict(item)
    windows = values["windows"]
    if windows is not None:
        windows = Windows(
            calm_ns=(windows["calm_ns"][0], windows["calm_ns"][1]),
            event=Moment(**windows["event"]),
            heal=Moment(**windows["heal"]),
            end_ns=windows["end_ns"],
            placebo=windows["placebo"],
        )
    proof: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values["proof"].items()
    }
    exposure = dict(values["exposure"])
    exposure["path"] = tuple(exposure["path"])
    series = (
        Series(s["name"], s["element"], tuple(s["at_ns"]), tuple(s["values"]))
        for s in values["series"]
    )
    return Trial(
        **{
            **values,
            "truth": tuple(values["truth"]),
            "windows": windows,
            "measures": tuple(Measure(**m) for m in values["measures"]),
            "proof": Proof(**proof),
            "exposure": Exposure(**exposure),
            "events": events,
            "series": tuple(series),
            "spans": tuple(Span(**s) for s in values["spans"]),
            "trouble": tuple(values["trouble"]),
            "disturbed": tuple(values.get("disturbed", ())),
            "strikes": tuple(values.get("strikes", ())),
            "left_out": tuple(values.get("left_out", ())),
            "findings": tuple(Finding(**f) for f in values["findings"]),
        }
    )


def write(record: Record, path: Path) -> None:
    """Write the record whole or not at all; a path that ends in `.gz` is compressed.

    Raises:
        SpecError: the path cannot be written; nothing was left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(to_json(record), indent=1) + "\n"
        data = text.encode()
        part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SpecError(f"record cannot be written: {error.strerror}", file=str(path)) from None


def read(path: Path) -> Record:
    """Read a record from its file, compressed or not.

    Raises:
        SpecError: no such file, no JSON, or another schema.
    """
    try:
        data = path.read_bytes()
        return from_json(json.loads(gzip.decompress(data) if path.suffix == ".gz" else data))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError(f"record cannot be read: {reason}", file=str(path)) from None
    except (EOFError, zlib.error) as error:
        raise SpecError(f"record cannot be read: damaged gzip: {error}", file=str(path)) from None
    except SpecError as error:
        raise SpecError(error.reason, file=str(path), field=error.field) from None
    except KeyError as error:
        raise SpecError(f"not a record of {SCHEMA}: {error} is missing", file=str(path)) from None
    except (ValueError, AttributeError, TypeError, IndexError, RecursionError) as error:
        raise SpecError(f"not a record of {SCHEMA}: {error}", file=str(path)) from None
