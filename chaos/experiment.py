"""Experiment YAML → `Experiment`: a fabric, a fault, probes, phases and what must hold.

The keys under `fault` and `probes` are registered names and their fields are the dataclass's own,
so there is no second schema to keep in step. `docs/experiments.md` describes the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from chaos.abort import Abort
from chaos.arrivals import Arrivals, Rate, undrawn
from chaos.document import Document, join, read
from chaos.errors import SpecError, near
from chaos.experiment_values import Experiment, Phases, quoted
from chaos.fields import convert, shown
from chaos.limits import Limits
from chaos.objectives import Objective, objective
from chaos.registry import FAULTS, PROBES, build
from chaos.registry import load as load_registry
from chaos.shipped import experiment_names, experiment_path
from chaos.timing import Range, Timing
from chaos.trace import Trace
from chaos.trace import load as load_trace
from chaos.units import Duration
from chaos.worded import fields_from

__all__ = ["Experiment", "Phases", "Range", "load", "loads"]

_LABEL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
#: The fields of an experiment file, in the order in which they read best.
FIELDS = (
    *("promise", "fabric", "seed", "fault", "faults", "arrivals", "trace", "probes", "exposed"),
    *("phases", "trials", "placebos", "max_life", "limits", "abort", "objectives"),
)


def load(path: str | Path) -> Experiment:
    """Read an experiment file.

    Raises:
        SpecError: with file, line, field, what was found and what would be right.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"not UTF-8 text (byte {error.start})", file=str(path)) from None
    except FileNotFoundError:
        beside = [one.name for one in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise SpecError(f"no such file; {near(file.name, beside)}", file=str(path)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"cannot be read: {reason}", file=str(path)) from None
    return loads(text, str(path))


def loads(text: str, file: str = "experiment.yaml") -> Experiment:
    """Read an experiment from text; `file` names it and is what a fabric's path is relative to.

    Raises:
        SpecError: as `load`.
    """
    load_registry()
    document = read(text, file)
    top = document.mapping(document.value, "", FIELDS, "an experiment")
    for name in ("promise", "fabric", "probes", "objectives"):
        if name not in top:
            raise document.wrong(f"an experiment needs {name}")
    made: dict[str, Any] = {
        "promise": _words(document, top, "promise"),
        "fabric": _fabric(document, top),
        "probes": _probes(document, top["probes"]),
        "objectives": _objectives(document, top["objectives"]),
    }
    made["faults"], made["timings"] = _faults(document, top)
    if "arrivals" in top:
        made["arrivals"] = _arrivals(document, top["arrivals"])
    if top.get("trace") is not None:
        made["trace"] = _trace(document, top["trace"])
    kinds: dict[str, Any] = {"seed": int, "trials": int, "placebos": int}
    kinds |= {"max_life": Duration, "exposed": str}
    for name, kind in kinds.items():
        if name in top:
            made[name] = _converted(document, kind, top[name], name)
    if "limits" in top:
        made["limits"] = _limits(document, top["limits"])
    if "abort" in top:
        made["abort"] = _aborts(document, top["abort"])
    if "phases" in top:
        made["phases"] = _phases(document, top["phases"])
    return Experiment(**made, name=Path(file).stem, document=document)


def _converted(document: Document, kind: Any, value: Any, at: str) -> Any:
    try:
        return convert(kind, value)
    except SpecError as error:
        raise document.locate(error, at) from None


def _words(document: Document, top: Mapping[str, Any], name: str) -> str:
    text = " ".join(str(_converted(document, str, top[name], name)).split())
    if not text:
        raise document.wrong("text expected, got nothing", name)
    return text


def _fabric(document: Document, top: Mapping[str, Any]) -> str:
    """A path is made relative to the experiment's file; a bare name is a shipped fabric."""
    name = _words(document, top, "fabric")
    if "/" not in name and not name.endswith((".yml", ".yaml")):
        return name
    path = Path(document.file).parent / name
    if "\0" in name or not path.is_file():
        raise document.wrong(f"no such file {str(path)!r}", "fabric")
    return str(path)


def _faults(
    document: Document, top: Mapping[str, Any]
) -> tuple[tuple[Any, ...], tuple[Timing, ...]]:
    """The faults, and when each of them is; no timings where none is written."""
    if "fault" in top and "faults" in top:
        raise document.wrong("give either fault or faults", "faults")
    many, places = top.get("faults", []), []
    if not isinstance(many, list):
        raise document.wrong(f"a list expected, got {shown(many)}", "faults")
    places = [f"faults[{at}]" for at in range(len(many))]
    if top.get("fault") is not None:
        many, places = [top["fault"]], ["fault"]
    found = [_fault(document, one, at) for one, at in zip(many, places, strict=True)]
    timings = tuple(timing for _, timing in found)
    plain = all(timing == Timing() for timing in timings)
    return tuple(fault for fault, _ in found), () if plain else timings


def _fault(document: Document, value: Any, at: str) -> tuple[Any, Timing]:
    if isinstance(value, str):
        value = {value: {}}
    given = dict(value) if isinstance(value, dict) else {}
    times = {word: given.pop(word) for word in ("at", "for", "after") if word in given}
    if len(given) != 1:
        raise document.wrong(
            f"one fault and its fields expected, such as link_down: {{link: in-use}}; "
            f"got {shown(value)}",
            at,
        )
    ((key, values),) = given.items()
    name, slash, label = key.partition("/")
    if slash and not _LABEL.fullmatch(label):
        raise document.wrong(
            f"a label is lower case letters and digits after /, got {key!r}", join(at, key)
        )
    fault = _built(document, FAULTS, "fault", name, values, join(at, key))
    made: dict[str, Any] = {"label": label}
    for word, kind in (("at", Duration), ("for", Duration), ("after", str)):
        if word in times:
            field = "length" if word == "for" else word
            made[field] = _converted(document, kind, times[word], join(at, word))
    try:
        return fault, Timing(**made)
    except SpecError as error:
        raise document.locate(error, at) from None


def _arrivals(document: Document, value: Any) -> tuple[Arrivals, ...]:
    many = value if isinstance(value, list) else [value]
    made = []
    for index, one in enumerate(many):
        at = f"arrivals[{index}]" if isinstance(value, list) else "arrivals"
        known = ("of", "over", "rate", "compress", "for", "population")
        given = document.mapping(one, at, known, "arrivals")
        for word in known[:-1]:
            if word not in given:
                raise document.wrong(f"arrivals need {word}", at)
        over = _converted(document, str, given["over"], f"{at}.over")
        fields_ = {
            "rate": _converted(document, Rate, given["rate"], f"{at}.rate"),
            "compress": _converted(document, float, given["compress"], f"{at}.compress"),
            "length": _converted(document, Range, given["for"], f"{at}.for"),
        }
        if "population" in given:
            fields_["population"] = _converted(
                document, int, given["population"], f"{at}.population"
            )
        fault = _drawn(document, given["of"], over, f"{at}.of")
        try:
            made.append(Arrivals(fault, over, **fields_))
        except SpecError as error:
            raise document.locate(error, at) from None
    return tuple(made)


def _drawn(document: Document, value: Any, over: str, at: str) -> Any:
    """A fault whose element is drawn; `over` stands where it will be."""
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise document.wrong(
            f"one fault and its fields expected, such as link_down: {{mode: carrier}}; "
            f"got {shown(value)}",
            at,
        )
    ((name, values),) = value.items()
    if name in FAULTS and isinstance(values, dict):
        try:
            values = undrawn(FAULTS[name], values, over)
        except SpecError as error:
            raise document.locate(error, join(at, name)) from None
    return _built(document, FAULTS, "fault", name, values, join(at, name))


def _trace(document: Document, value: Any) -> Trace:
    given = document.mapping(value, "trace", ("file", "compress"), "a trace")
    for word in ("file", "compress"):
        if word not in given:
            raise document.wrong(f"a trace needs {word}", "trace")
    name = _converted(document, str, given["file"], "trace.file")
    compress = _converted(document, float, given["compress"], "trace.compress")
    if not 0 < compress <= 1e12:
        raise document.wrong(
            f"above 0 and at most 1e12 expected, got {compress:g}", "trace.compress"
        )
    path = Path(document.file).parent / name
    if "\0" in name or not path.is_file():
        raise document.wrong(f"no such file {str(path)!r}", "trace.file")
    return load_trace(path, compress, _traced)


def _traced(text: str, element: str) -> Any:
    """A fault of a trace: its name and fields in one cell, and what it strikes in another."""
    name, *words = text.split() or [""]
    cls = FAULTS.get(name)
    values = fields_from(cls, words)
    known = set() if cls is None else {item.name for item in fields(cls)}
    for word in ("link", "node", "rank"):
        if word in known:
            tail = element.removeprefix("rank")
            if word == "rank" and not tail.isdecimal():
                raise SpecError(f"a rank such as rank3 expected, got {element!r}")
            values[word] = int(tail) if word == "rank" else element
            break
    return build(FAULTS, "fault", name, values)


def _probes(document: Document, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise document.wrong(
            f"probes by name expected, such as flow: {{source: host1, target: host8}}; "
            f"got {shown(value)}",
            "probes",
        )
    made = {}
    for label, values in value.items():
        at = f"probes.{label}"
        name, slash, tail = label.partition("/")
        if slash and not tail.replace("-", "").replace("_", "").isalnum():
            raise document.wrong(f"a label is letters and digits after /, got {label!r}", at)
        made[label] = _built(document, PROBES, "probe", name, values, at)
    return made


def _built(
    document: Document, table: dict[str, Any], what: str, name: str, values: Any, at: str
) -> Any:
    values = {} if values is None else values
    try:
        if name in table and not isinstance(values, dict):
            raise SpecError(f"fields of {what} {name} expected, got {shown(values)}")
        return build(table, what, name, values)
    except SpecError as error:
        inner = error.field or quoted(values if isinstance(values, dict) else {}, error.reason)
        raise document.wrong(error.reason, join(at, inner)) from None


def _phases(document: Document, value: Any) -> Phases:
    known = {item.name: item for item in fields(Phases)}
    given = document.mapping(value, "phases", known, "phases")
    made = {}
    for name, length in given.items():
        kind = Range if name == "storm" else Duration
        made[name] = _converted(document, kind, length, f"phases.{name}")
    try:
        return Phases(**made)
    except SpecError as error:
        raise document.locate(error, "phases") from None


def _limits(document: Document, value: Any) -> Limits:
    try:
        return Limits.parse(value)
    except SpecError as error:
        raise document.locate(error, "limits") from None


def _aborts(document: Document, value: Any) -> tuple[Abort, ...]:
    if not isinstance(value, list):
        raise document.wrong(
            f"a list of conditions expected, such as - when: job_dead; got {shown(value)}", "abort"
        )
    made = []
    for index, one in enumerate(value):
        try:
            made.append(Abort.parse(one))
        except SpecError as error:
            raise document.locate(error, f"abort[{index}]") from None
    return tuple(made)


def _objectives(document: Document, value: Any) -> tuple[Objective, ...]:
    if not isinstance(value, list) or not value:
        raise document.wrong(
            f"a list of objectives expected, got {shown(value)}; nothing checked proves nothing",
            "objectives",
        )
    made = []
    for index, one in enumerate(value):
        at = f"objectives[{index}]"
        if not isinstance(one, dict):
            raise document.wrong(f"fields of an objective expected, got {shown(one)}", at)
        try:
            made.append(objective(one))
        except SpecError as error:
            raise document.locate(error, at) from None
    return tuple(made)


def find(name: str) -> Experiment:
    """An experiment by file or shipped name.

    Raises:
        SpecError: no such file or name; near names are offered.
    """
    if Path(name).exists() or name.endswith((".yml", ".yaml")) or "/" in name:
        return load(name)
    path = experiment_path(name)
    if path is None:
        raise SpecError(f"no experiment {name!r}; {near(name, experiment_names())}")
    return load(path)


def varied(
    experiment: Experiment,
    trials: int | None,
    placebos: int | None,
    seed: int | None,
    limits: Limits | None = None,
) -> Experiment:
    """An experiment with other numbers than its file says, where they are given."""
    return replace(
        experiment,
        trials=experiment.trials if trials is None else trials,
        placebos=experiment.placebos if placebos is None else placebos,
        seed=experiment.seed if seed is None else seed,
        limits=experiment.limits if limits is None else limits.over(experiment.limits),
    )
