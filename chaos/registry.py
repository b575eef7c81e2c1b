"""The catalogue of faults and probes: names checked at import, refused early.

Ours are found in the packages `faults` and `probes`; others' arrive through the entry-point groups
`railbreak.faults` and `railbreak.probes` (each entry names a module that registers on import).
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_type_hints, runtime_checkable

from chaos.change import Change
from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Stream
from chaos.fields import convert
from chaos.timeline import Measure, Readings, Windows
from chaos.turns import InForce as InForce
from chaos.units import Duration


@runtime_checkable
class Fault(Protocol):
    """A frozen value that describes what goes wrong."""

    name: ClassVar[str]

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """What must be true of which places while the fault is in force; pure."""
        ...

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """When, within a storm of that length; pure, seeded by `rng`."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """One observing process of a probe.

    It is started as `python -m MODULE`, reads one JSON line from standard input
    (`{"config": …, "namespaces": {node: path}}`), then prints one JSON object per line on standard
    output: first `{"ev": "ready", "t": ns}`, then its records, each with `t` in CLOCK_MONOTONIC ns.
    Further input lines are commands (`{"cmd": "stop"}`); end of input means stop and exit.

    Attributes:
        name: Unique within the probe, such as `sender`.
        module: Python module to run.
        config: Plain JSON values.
        node: Node whose network namespace the process is born in; empty: the machine's own.
        span: How a program without a node reaches several. `one`: it enters their namespaces by
            path, so they must be on this machine. `copies`: the same; where nodes are other
            machines, one copy runs on each (`namespaces` is `{node: ""}`, `config["nodes"]` names
            it) and their records are merged. `calls`: it asks the driver for processes on nodes
            (`chaos.drivers.ssh.reach`).
    """

    name: str
    module: str
    config: Mapping[str, Any]
    node: str = ""
    span: Literal["one", "copies", "calls"] = "one"


@runtime_checkable
class Probe(Protocol):
    """A frozen value that says what to run and how to read and measure what it printed.

    It may also have `available()`, called before anything is started: it raises `CapabilityError`
    when the probe cannot work on this machine, and the run is refused (in pytest: skipped) with
    that sentence. And `lasting: ClassVar[frozenset[str]]`, the kinds of its records (`ev`) that
    stay true for a program's whole life, and so are given to `read` in every trial; it takes the
    place of `chaos.observe.LASTING`.
    """

    name: ClassVar[str]
    schema: ClassVar[Mapping[str, str]]

    def programs(self, fabric: Fabric, addresses: Mapping[str, str]) -> tuple[Program, ...]:
        """Processes to run; `addresses` gives the address that carries traffic, per node."""
        ...

    def read(self, records: Mapping[str, list[dict[str, Any]]]) -> Readings:
        """Records per program -> readings; pure."""
        ...

    def measures(self, readings: Readings, windows: Windows) -> tuple[Measure, ...]:
        """Numbers of one trial; pure. A quantity without data is a Measure of value None."""
        ...


@runtime_checkable
class Traffic(Protocol):
    """What a probe also has when its traffic can be exposed to a fault."""

    def streams(
        self, addresses: Mapping[str, str], records: Mapping[str, list[dict[str, Any]]]
    ) -> tuple[Stream, ...]:
        """The 5-tuples that carry its traffic now, largest first; pure."""
        ...


#: Classes of the catalogue, with their titles.
AREAS = {
    "link": "Link and optics",
    "nic": "NIC and host",
    "packets": "Packets",
    "switch": "Switch and control plane",
    "job": "Job",
}
FAULTS: dict[str, type[Any]] = {}
PROBES: dict[str, type[Any]] = {}
T = TypeVar("T")
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


def _register(table: dict[str, type[Any]], what: str, name: str, cls: type[T]) -> type[T]:
    where = f"{what} {name!r} ({cls.__module__}.{cls.__qualname__})"
    if not _NAME.match(name):
        raise SpecError(f"{where}: a name is lower case words joined by _")
    if name in table:
        other = table[name]
        raise SpecError(f"{where}: name taken by {other.__module__}.{other.__qualname__}")
    if not is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise SpecError(f"{where}: must be a frozen dataclass (put the decorator above @dataclass)")
    doc = cls.__doc__ or ""
    missing = [word for word in ("Reach:", "Needs:", "Examples:") if word not in doc]
    if what == "probe":
        missing = [word for word in ("Needs:", "Examples:") if word not in doc]
    if missing:
        raise SpecError(f"{where}: its docstring lacks {', '.join(missing)}")
    cls.name = name  # type: ignore[attr-defined]
    table[name] = cls
    return cls


def fault(name: str, area: str = "") -> Callable[[type[T]], type[T]]:
    """Register a fault: a frozen dataclass with `changes`, *Reach*, *Needs* and an example.

    Args:
        name: As experiments write it.
        area: Its class in the catalogue, one of `AREAS`; empty for one that fits none.
    """
    if area and area not in AREAS:
        raise SpecError(f"fault {name!r}: area {area!r}; {near(area, AREAS)}")

    def decorate(cls: type[T]) -> type[T]:
        if not callable(getattr(cls, "changes", None)):
            raise SpecError(f"fault {name!r}: has no changes(fabric)")
        if not callable(getattr(cls, "schedule", None)):
            cls.schedule = _whole_storm  # type: ignore[attr-defined]
        cls.area = area  # type: ignore[attr-defined]
        return _register(FAULTS, "fault", name, cls)

    return decorate


def _whole_storm(self: Any, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
    """In force from the first to the last moment of the storm."""
    return (InForce(0, storm.ns),)


def probe(name: str) -> Callable[[type[T]], type[T]]:
    """Register a probe: a frozen dataclass with `programs`, `read`, `measures`, `schema`."""

    def decorate(cls: type[T]) -> type[T]:
        for needed in ("programs", "read", "measures", "schema"):
            if not hasattr(cls, needed):
                raise SpecError(f"probe {name!r}: has no {needed}")
        return _register(PROBES, "probe", name, cls)

    return decorate


@cache
def load() -> None:
    """Import every fault and probe: ours, then those of entry points."""
    for package in ("faults", "probes"):
        module = importlib.import_module(package)
        for found in pkgutil.iter_modules(module.__path__):
            if not found.ispkg:
                importlib.import_module(f"{package}.{found.name}")
    for group in ("railbreak.faults", "railbreak.probes"):
        for entry in entry_points(group=group):
            entry.load()


def build(table: dict[str, type[Any]], what: str, name: str, values: Mapping[str, Any]) -> Any:
    """A fault or probe from its name and fields as a spec gives them.

    A field whose type has a `parse` (the units) is parsed by it; text for numbers is refused.

    Raises:
        SpecError: unknown name or field (near names offered), a missing field, a wrong value; the
            message names the field.
    """
    cls = table.get(name)
    if cls is None:
        raise SpecError(f"no {what} {name!r}; {near(name, table)}")
    known = {item.name: item for item in fields(cls)}
    for key in values:
        if key not in known:
            raise SpecError(f"no field {key!r} in {what} {name}; {near(key, known)}", field=key)
    missing = [
        item.name
        for item in known.values()
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values
    ]
    if missing:
        raise SpecError(f"{what} {name} needs {', '.join(missing)}", field=missing[0])
    made = {key: _typed(cls, key, value) for key, value in values.items()}
    return cls(**made)


def _typed(cls: type[Any], key: str, value: Any) -> Any:
    try:
        return convert(field_type(cls, key), value)
    except SpecError as error:
        raise SpecError(error.reason, field=key + (error.field or "")) from None


def field_type(cls: type[Any], key: str) -> Any:
    """The resolved annotation of one dataclass field."""
    return get_type_hints(cls)[key]
