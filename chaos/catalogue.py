"""What can be broken, class by class, from the faults' own words: the catalogue and its page."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from chaos import drivers
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.packets.action import ALONE, Action
from chaos.packets.engines import ENGINES, TOLD, unable
from chaos.registry import AREAS, FAULTS, Fault, build, load
from chaos.worded import fields_from

#: The fabric on which the page's examples are planned.
SAMPLE = "clos-2x4x8"
_SECTION = re.compile(r"^(Reach|Needs|Args|Try|Examples|Attributes|Raises): *", re.MULTILINE)
#: An example of each action that needs words.
_THENS = ("dscp=af31", "delay=10ms jitter=2ms", "rate=10Mbit/s", "reorder=3", "corrupt=silent",
          "forge=remote_access_error", "forge=cnp qp=17")  # fmt: skip
_DRIVERS = ("netns", "containerlab", "ssh")


@dataclass(frozen=True, slots=True)
class Example:
    """One way to write a fault, as `railbreak inject FABRIC` takes it.

    Attributes:
        words: Name and `field=value` words.
        fault: What they mean.
    """

    words: str
    fault: Fault

    def on(self, fabric: Fabric) -> tuple[str, ...]:
        """Its changes there, one line each."""
        return tuple(change.describe() for change in self.fault.changes(fabric))


def described(cls: type[Any]) -> dict[str, Any]:
    """A plugin from its own docstring and fields, as plain data."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    return {
        "name": cls.name,
        "area": getattr(cls, "area", ""),
        "summary": doc.split("\n", 1)[0],
        "doc": doc,
        "try": list(_lines(cls)),
        "fields": [
            {
                "name": item.name,
                "type": str(item.type),
                "default": None if item.default is MISSING else str(item.default),
                "required": item.default is MISSING and item.default_factory is MISSING,
            }
            for item in fields(cls)
        ],
        "measures": dict(getattr(cls, "schema", {})),
        "detectors": list(getattr(cls, "detectors", ())),
    }


def sections(cls: type[Any]) -> dict[str, str]:
    """The parts of a plugin's docstring by their titles; what stands before them is `""`.

    Examples:
        >>> class Dark:
        ...     '''Light is lost.
        ...
        ...     Reach: one fibre.
        ...     '''
        >>> sections(Dark)
        {'': 'Light is lost.', 'Reach': 'one fibre.'}
    """
    doc = inspect.cleandoc(cls.__doc__ or "")
    parts = _SECTION.split(doc)
    found = {"": parts[0].strip()}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = inspect.cleandoc(text)
    return found


def _lines(cls: type[Any]) -> Iterator[str]:
    for line in sections(cls).get("Try", "").splitlines():
        if line.strip():
            yield line.strip()


def examples(cls: type[Any]) -> tuple[Example, ...]:
    """The lines under *Try*.

    Raises:
        SpecError: a line is no way to write this fault.
    """
    made = []
    for line in _lines(cls):
        name, *words = shlex.split(line)
        if name != cls.name:
            raise SpecError(f"Try of fault {cls.name}: {line!r} begins with another name")
        made.append(Example(line, build(FAULTS, "fault", name, fields_from(cls, words))))
    return tuple(made)


def reach(example: Example) -> dict[str, str]:
    """Why each driver cannot make an example on the sample fabric; empty where it can."""
    found = {}
    for name in _DRIVERS:
        fabric = _sample(name)
        asked = (drivers.named(name).refusal(one, fabric) for one in _placed(example, fabric))
        found[name] = next((reason for reason in asked if reason), "")
    return found


def _placed(example: Example, fabric: Fabric) -> Iterator[Any]:
    """Its changes; a process that a job will announce is a place that every driver reaches."""
    for change in example.fault.changes(fabric):
        if not change.place.process or change.place.node:
            yield change


def _sample(driver: str) -> Fabric:
    """The sample fabric as a driver has it: for machines, with a login for every node."""
    fabric = drivers.fabric(SAMPLE, driver)
    if driver != "ssh":
        return fabric
    nodes = {
        name: replace(node, settings={**node.settings, "ssh": {"address": name}})
        for name, node in fabric.nodes.items()
    }
    return replace(fabric, nodes=nodes)


def by_area() -> dict[str, list[type[Any]]]:
    """Every fault, by class of the catalogue, in the order of `AREAS`; others' last."""
    load()
    found: dict[str, list[type[Any]]] = {area: [] for area in AREAS}
    for name in sorted(FAULTS):
        found.setdefault(getattr(FAULTS[name], "area", ""), []).append(FAULTS[name])
    return {area: classes for area, classes in found.items() if classes}


def markdown() -> str:
    """The page `docs/faults.md`."""
    grouped = by_area()
    told = [
        "# What can be broken",
        "",
        "Written by `railbreak faults --markdown`; a test holds it to the code. Each line under",
        f"*Try* goes behind `railbreak inject {SAMPLE}`; in an experiment the same words are YAML:",
        "`fault: {link_down: {link: leaf1--spine1}}`. `railbreak plan EXPERIMENT --driver X` says",
        "for a fabric of yours what can be done there, element by element.",
        "By hand there is no job: a fault of a rank is for experiments.",
        "",
        "| fault | breaks | embedded | containerlab | ssh |",
        "|---|---|---|---|---|",
    ]
    notes: dict[str, int] = {}
    for area, classes in grouped.items():
        told.append(f"| **{AREAS.get(area, 'Of others')}** | | | | |")
        told += [_row(cls, notes) for cls in classes]
    told += ["", *(f"{at}. {reason}" for reason, at in notes.items())]
    told += ["", *_engines()]
    for area, classes in grouped.items():
        told += ["", f"## {AREAS.get(area, 'Of others')}"]
        for cls in classes:
            told += _entry(cls)
    return "\n".join(told) + "\n"


def _engines() -> Iterator[str]:
    """What does each action of `packet_fault`: the engines that can, in the order of asking."""
    yield from ("## Engines of packet rules", "")
    yield "The first that can do all of an action and is there does it: `railbreak doctor` tries"
    yield "each, `railbreak plan` says which and why, and `engine` asks for one by its name."
    yield from ("", "| `then` | engines |", "|---|---|")
    able: dict[str, list[str]] = {}
    for words in (*ALONE, *_THENS):
        can = [one for one in ENGINES if not unable(one, Action.parse(words))]
        able.setdefault(", ".join(can), []).append(f"`{words}`")
    yield from (f"| {', '.join(thens)} | {can} |" for can, thens in able.items())
    yield from ("", "| engine | is |", "|---|---|")
    yield from (f"| {name} | {TOLD[name]} |" for name in ENGINES)


def _row(cls: type[Any], notes: dict[str, int]) -> str:
    """A line of the table: yes, no, or in part, with the number of the reason."""
    cells = []
    found = [reach(example) for example in examples(cls)]
    for driver in _DRIVERS:
        reasons = list(dict.fromkeys(one[driver] for one in found if one[driver]))
        word = "yes" if not reasons else "no" if all(one[driver] for one in found) else "in part"
        marks = [f"[{notes.setdefault(reason, len(notes) + 1)}]" for reason in reasons]
        cells.append(" ".join((word, *marks)))
    name = cls.name
    summary = sections(cls)[""].split("\n", 1)[0]
    return f"| [`{name}`](#{name}) | {summary} | {' | '.join(cells)} |"


def _entry(cls: type[Any]) -> list[str]:
    parts = sections(cls)
    told = ["", f"### {cls.name}", "", parts[""], ""]
    told += [f"**Reach.** {parts.get('Reach', '')}", "", f"**Needs.** {parts.get('Needs', '')}"]
    if fields(cls):
        told += ["", "| field | default | means |", "|---|---|---|", *_fields(cls)]
    lines = list(_lines(cls))
    if lines:
        told += ["", "Try:", "", *(f"    {line}" for line in lines)]
    return told


def _fields(cls: type[Any]) -> Iterator[str]:
    meant = dict(_meanings(sections(cls).get("Args", "")))
    for item in fields(cls):
        default = "" if item.default is MISSING else f"`{item.default}`"
        meaning = meant.get(item.name, "").replace("|", "\\|")
        yield f"| `{item.name}` | {'' if default == '``' else default} | {meaning} |"


def _meanings(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"\n(?=\w+: )", inspect.cleandoc("\n" + text)):
        name, _, meaning = part.partition(": ")
        yield name.strip(), " ".join(meaning.split())
