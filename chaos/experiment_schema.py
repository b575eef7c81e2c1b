"""The JSON schema of an experiment file (draft 2020-12), made from the registered dataclasses.

Editors read it: `# yaml-language-server: $schema=…` as a file's first line brings completion,
descriptions and red underlines. It never accepts less than `chaos.experiment` does.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from itertools import combinations
from typing import Any

from chaos.abort import Abort
from chaos.arrivals import DRAWN, PUBLISHED, Arrivals
from chaos.experiment_values import Experiment, Phases
from chaos.fields import schema
from chaos.limits import Limits
from chaos.objectives import KINDS, Bound, DetectedBy, Named, UndetectedBy, detectors
from chaos.registry import FAULTS, PROBES, field_type
from chaos.registry import load as load_registry
from chaos.timing import Timing
from chaos.units import Duration

_SECTION = re.compile(r"^\s*(?:Args|Attributes):\s*$")
_ENTRY = re.compile(r"^\s*(\w+): (.*)$")


def json_schema() -> dict[str, Any]:
    """What an experiment file may hold, with the faults and probes of this installation."""
    load_registry()
    text = descriptions(Experiment)
    fault = {
        "anyOf": [
            {"enum": sorted(name for name, cls in FAULTS.items() if not _required(cls))},
            _timed(FAULTS),
        ]
    }
    count = {"type": "integer", "minimum": 0}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "railbreak experiment",
        "type": "object",
        "additionalProperties": False,
        "required": ["promise", "fabric", "probes", "objectives"],
        "not": {"required": ["fault", "faults"]},
        "properties": {
            "promise": {"type": "string", "minLength": 1, "description": text["promise"]},
            "fabric": {"type": "string", "minLength": 1, "description": text["fabric"]},
            "seed": {"type": "integer", "description": text["seed"]},
            "fault": {"anyOf": [fault, {"type": "null"}], "description": text["faults"]},
            "faults": {"type": "array", "items": fault, "description": text["faults"]},
            "arrivals": {**_arrivals(), "description": text["arrivals"]},
            "trace": {**_trace(), "description": text["trace"]},
            "probes": {**_labelled(PROBES), "description": text["probes"]},
            "exposed": {"type": "string", "description": text["exposed"]},
            "phases": _phases(),
            "trials": {"type": "integer", "minimum": 1, "description": text["trials"]},
            "placebos": {**count, "description": text["placebos"]},
            "max_life": {**schema(Duration), "description": text["max_life"]},
            "limits": {**_limits(), "description": text["limits"]},
            "abort": {"type": "array", "items": _abort(), "description": text["abort"]},
            "objectives": {
                "type": "array",
                "minItems": 1,
                "items": {"oneOf": [_objective(kind) for kind in KINDS.values()]},
                "description": text["objectives"],
            },
        },
    }


def described(cls: type[Any]) -> dict[str, Any]:
    """The fields of one registered dataclass as a schema."""
    text = descriptions(cls)
    properties = {}
    for item in fields(cls):
        one = schema(field_type(cls, item.name))
        if item.name in text:
            one["description"] = text[item.name]
        if isinstance(item.default, int | float | str | bool):
            one["default"] = item.default
        elif item.default is not MISSING and hasattr(type(item.default), "parse"):
            one["default"] = str(item.default)
        properties[item.name] = one
    made: dict[str, Any] = {"type": "object", "additionalProperties": False}
    made |= {"properties": properties, "description": _summary(cls)}
    if required := _required(cls):
        made["required"] = required
    else:
        made["type"] = ["object", "null"]
    return made


def descriptions(cls: type[Any]) -> dict[str, str]:
    """What a docstring's *Args* or *Attributes* section says about each field.

    Examples:
        >>> descriptions(Phases)["calm"]
        'Measured before the fault.'
    """
    found: dict[str, str] = {}
    inside, name, indent = False, "", 0
    for line in (cls.__doc__ or "").splitlines():
        depth = len(line) - len(line.lstrip())
        if _SECTION.match(line):
            inside, name, indent = True, "", 0
        elif inside and line.strip():
            entry = _ENTRY.match(line)
            if entry and depth <= (indent or depth):
                name, indent = entry[1], depth
                found[name] = entry[2]
            elif name and depth > indent:
                found[name] += f" {line.strip()}"
            else:
                inside = False
    return found


def _summary(cls: type[Any]) -> str:
    return " ".join((cls.__doc__ or "").strip().partition("\n\n")[0].split())


def _required(cls: type[Any]) -> list[str]:
    return [
        item.name
        for item in fields(cls)
        if item.default is MISSING and item.default_factory is MISSING
    ]


def _keyed(table: dict[str, type[Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {name: described(cls) for name, cls in sorted(table.items())},
    }


def _timed(table: dict[str, type[Any]]) -> dict[str, Any]:
    """One fault, perhaps under a label, and perhaps when it is."""
    text, made = descriptions(Timing), _keyed(table)
    times = {
        "at": {**schema(Duration), "description": text["at"]},
        "for": {**schema(Duration), "description": text["length"]},
        "after": {"type": "string", "description": text["after"]},
    }
    labelled = {rf"^{name}/[a-z][a-z0-9_]*$": one for name, one in made["properties"].items()}
    some = [c for n in range(len(times) + 1) for c in combinations(times, n)]
    return made | {
        "properties": {**made["properties"], **times},
        "patternProperties": labelled,
        "minProperties": 1,
        "maxProperties": 1 + len(times),
        "anyOf": [
            {
                "required": list(given),
                "minProperties": 1 + len(given),
                "maxProperties": 1 + len(given),
                "properties": {word: False for word in times if word not in given},
            }
            for given in some
        ],
    }


def _arrivals() -> dict[str, Any]:
    text, time = descriptions(Arrivals), schema(Duration)
    drawn: dict[str, Any] = {}
    for name, cls in sorted(FAULTS.items()):
        one = described(cls)
        if word := next((w for w in DRAWN if w in one["properties"]), ""):
            one["properties"] = {k: v for k, v in one["properties"].items() if k != word}
            one["required"] = [k for k in one.get("required", ()) if k != word]
            drawn[name] = one
    properties: dict[str, dict[str, Any]] = {
        "of": {"anyOf": [{"enum": sorted(drawn)}, {**_keyed({}), "properties": drawn}]},
        "over": {"type": "string"},
        "rate": {"type": "string", "examples": sorted(PUBLISHED)},
        "compress": {"type": "number", "minimum": 1},
        "for": {"anyOf": [time, _range(time)]},
        "population": {"type": "integer", "minimum": 1},
    }
    for name, one in properties.items():
        one["description"] = text["length" if name == "for" else name]
    one = {
        "type": "object",
        "additionalProperties": False,
        "required": ["of", "over", "rate", "compress", "for"],
        "properties": properties,
    }
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _trace() -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "required": ["file", "compress"],
        "properties": {
            "file": {"type": "string", "description": "CSV: start, end, element, fault."},
            "compress": {
                "type": "number",
                "exclusiveMinimum": 0,
                "description": "How much faster its time goes.",
            },
        },
    }


def _range(time: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["from", "to"],
        "properties": {"from": time, "to": time},
        "description": "A length drawn log-uniformly between two limits.",
    }


def _labelled(table: dict[str, type[Any]]) -> dict[str, Any]:
    plain = {name: described(cls) for name, cls in sorted(table.items())}
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": plain,
        "patternProperties": {rf"^{name}/[\w-]+$": one for name, one in plain.items()},
    }


def _phases() -> dict[str, Any]:
    text, time = descriptions(Phases), schema(Duration)
    drawn = _range(time)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "calm": {**time, "description": text["calm"]},
            "storm": {"anyOf": [time, drawn], "description": text["storm"]},
            "after": {**time, "description": text["after"]},
        },
        "description": "Lengths of calm, storm and after.",
    }


def _limits() -> dict[str, Any]:
    made, text = Limits.schema(), descriptions(Limits)
    for name, one in made["properties"].items():
        one["description"] = text[name]
    return made


def _abort() -> dict[str, Any]:
    made, text = Abort.schema(), descriptions(Abort)
    for name, one in made["properties"].items():
        one["description"] = text[name]
    return {**made, "description": _summary(Abort)}


def _objective(cls: type[Any]) -> dict[str, Any]:
    text = descriptions(cls)
    detector = {"enum": sorted(detectors())}
    properties: dict[str, Any] = {}
    for at, item in enumerate(fields(cls)):
        one = schema(field_type(cls, item.name))
        if cls is DetectedBy and at == 0:
            one = dict(detector)
        if cls is UndetectedBy and at == 0:
            one = {"type": "array", "minItems": 1, "items": detector}
        if cls is Named and at == 0:
            one = {"const": "right"}
        if cls is Bound and item.name in ("at_most", "at_least"):
            one = {"type": ["number", "string"]}
        properties[cls.key if at == 0 else item.name] = {
            **one,
            "description": text.get(item.name, ""),
        }
    made: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "required": [cls.key],
        "properties": properties,
        "description": _summary(cls),
    }
    if cls is Bound:
        made["anyOf"] = [{"required": ["at_most"]}, {"required": ["at_least"]}]
    return made
