"""Experiments made in Python: probes by name, labels given, a sentence for what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

from chaos import topology
from chaos.errors import BlockedError, SpecError
from chaos.experiment import Experiment, find
from chaos.fabric import Fabric
from chaos.objectives import objective
from chaos.registry import PROBES, build
from chaos.registry import load as load_registry


def probe(name: str, **values: Any) -> Any:
    """A probe by its registered name, its fields as text or values.

    Raises:
        SpecError: there is none, or a field is wrong.
    """
    load_registry()
    return build(PROBES, "probe", name, values)


def made(
    first: Any, parts: tuple[Any, ...], values: dict[str, Any], *, fabric: str, name: str, told: str
) -> Experiment:
    """An experiment as a test gives it.

    Args:
        first: An experiment, the name of one, or a fault (None: a placebo).
        parts: After a fault: its probes, and its objectives (values, or as in a file).
        values: Further fields.
        fabric: Where it is meant to run, after a fault.
        name: What the test is called.
        told: The promise, unless the fields have one.

    Raises:
        SpecError: the parts are others, or do not fit each other.
    """
    if isinstance(first, Experiment):
        return first
    if isinstance(first, str):
        return replace(find(first), **values)
    if len(parts) != 2:
        raise SpecError(
            "trial(fault, [probe, …], [objective, …]) expected, or trial(name) of a shipped "
            f"experiment; got {1 + len(parts)} positional values"
        )
    probes, objectives = parts
    return Experiment(
        fabric=fabric,
        faults=() if first is None else (first,),
        probes=labelled(probes),
        objectives=tuple(objective(one) if isinstance(one, dict) else one for one in objectives),
        name=re.sub(r"\W+", "_", name),
        **{"promise": told} | values,
    )


def labelled(probes: Iterable[Any]) -> dict[str, Any]:
    """Probes by label: `flow`, then `flow/b`, `flow/c` where one occurs again."""
    found: dict[str, Any] = {}
    for one in probes:
        again = sum(label.partition("/")[0] == one.name for label in found)
        found[f"{one.name}/{_tail(again)}" if again else one.name] = one
    return found


def _tail(at: int) -> str:
    return chr(ord("a") + at) if at < 26 else str(at + 1)


def be_at_home(made: Experiment, fabric: Fabric) -> None:
    """Return when an experiment fits a fabric.

    Raises:
        BlockedError: it names nodes of its own fabric that this one lacks.
        SpecError: it does not fit for another reason.
    """
    try:
        made.check(fabric)
    except SpecError as error:
        home = topology.load(made.fabric)
        words = (str(one) for part in (*made.probes.values(), *made.faults) for one in _words(part))
        lacking = sorted({word for word in words if word in home.nodes} - {*fabric.nodes})
        if not lacking:
            raise
        raise BlockedError(
            f"experiment {made.name} is written for fabric {made.fabric} and needs "
            f"{', '.join(lacking)}, which fabric {fabric.name} lacks; write one that names its own "
            f"nodes ({error})"
        ) from None


def _words(part: Any) -> Iterator[Any]:
    for item in fields(part):
        value = getattr(part, item.name)
        yield from value if isinstance(value, tuple) else (value,)
