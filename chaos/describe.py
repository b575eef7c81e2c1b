"""Experiment and fabric as plain data for the record."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from chaos import plan
from chaos.driver import Driver
from chaos.experiment import Experiment


def experiment(made: Experiment) -> dict[str, Any]:
    """What was promised, broken, measured and asked, in the words of the experiment."""
    return {
        "name": made.name,
        "promise": made.promise,
        "file": made.document.file if made.document else None,
        "fabric": made.fabric,
        "faults": [
            {
                "name": fault.name,
                "text": plan.as_text(fault),
                "at": str(timing.at),
                "for": None if timing.length is None else str(timing.length),
                "label": timing.label,
            }
            for fault, timing in zip(made.faults, made.timed, strict=True)
        ],
        "arrivals": [
            {
                "of": plan.as_text(one.of, "rank"),
                "over": one.over,
                "rate": str(one.rate),
                "compress": one.compress,
                "for": str(one.length),
                "population": one.population,
            }
            for one in made.arrivals
        ],
        "trace": made.trace and {"file": made.trace.file, "compress": made.trace.compress},
        "probes": {label: plan.as_text(p) for label, p in made.probes.items()},
        "exposed": made.exposed,
        "phases": {item.name: str(getattr(made.phases, item.name)) for item in fields(made.phases)},
        "trials": made.trials,
        "placebos": made.placebos,
        "max_life": str(made.max_life),
        "limits": made.limits.as_json(),
        "abort": [one.sentence() for one in made.abort],
        "objectives": [
            {"sentence": one.sentence(), "expected": one.expected, "because": one.because}
            for one in made.objectives
        ],
    }


def fabric(driver: Driver) -> dict[str, Any]:
    """Where it was tried."""
    made = driver.fabric
    return {
        "name": made.name,
        "driver": driver.name,
        "fidelity": driver.fidelity,
        "instance": driver.instance,
        "nodes": {node.name: node.role for node in made.nodes.values()},
        "links": [link.id for link in made.links],
        "addresses": dict(driver.addresses()),
        "notes": driver.warnings,  # the list itself: what is noted later is written, too
    }
