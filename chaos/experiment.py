"""Experiment YAML → `Experiment`: a fabric, a fault, probes, phases and what must hold.

The keys under `fault` and `probes` are registered names and their fields are the dataclass's own,
so there is no second schema to keep in step. `docs/experiments.md` describes the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from chaos.abort import Abort
from chaos.document import Document, read
from chaos.errors import SpecError, near
from chaos.experiment_faults import arrivals, built, converted, faults, trace
from chaos.experiment_values import Experiment, Phases
from chaos.fields import shown
from chaos.limits import Limits
from chaos.objectives import Objective, objective
from chaos.registry import PROBES
from chaos.registry import load as load_registry
from chaos.shipped import experiment_names, experiment_path
from chaos.timing import Range
from chaos.units import Duration

__all__ = ["Experiment", "Phases", "Range", "load", "loads"]

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
    made["faults"], made["timings"] = faults(document, top)
    if "arrivals" in top:
        made["arrivals"] = arrivals(document, top["arrivals"])
    if top.get("trace") is not None:
        made["trace"] = trace(document, top["trace"])
    kinds: dict[str, Any] = {"seed": int, "trials": int, "placebos": int}
    kinds |= {"max_life": Duration, "exposed": str}
    for name, kind in kinds.items():
        if name in top:
            made[name] = converted(document, kind, top[name], name)
    if "limits" in top:
        made["limits"] = _limits(document, top["limits"])
    if "abort" in top:
        made["abort"] = _aborts(document, top["abort"])
    if "phases" in top:
        made["phases"] = _phases(document, top["phases"])
    return Experiment(**made, name=Path(file).stem, document=document)


def _words(document: Document, top: Mapping[str, Any], name: str) -> str:
    text = " ".join(str(converted(document, str, top[name], name)).split())
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
        made[label] = built(document, PROBES, "probe", name, values, at)
    return made


def _phases(document: Document, value: Any) -> Phases:
    known = {item.name: item for item in fields(Phases)}
    given = document.mapping(value, "phases", known, "phases")
    made = {}
    for name, length in given.items():
        kind = Range if name == "storm" else Duration
        made[name] = converted(document, kind, length, f"phases.{name}")
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
