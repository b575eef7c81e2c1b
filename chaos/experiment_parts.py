"""Whether the parts of an experiment fit each other; a refusal names the field within its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from chaos.errors import SpecError, near
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

#: Of probes that send traffic, those of which one is taken as the exposed one first, in this order.
TRAFFIC = ("flow", "collective")


def kinds(probes: Mapping[str, Any]) -> set[str]:
    """Registered names of probes, labels left out."""
    return {label.partition("/")[0] for label in probes}


def first_exposed(probes: Mapping[str, Any]) -> str:
    """Label of the probe whose traffic must cross a fault, where none is named.

    Raises:
        SpecError: none sends traffic, or more than one could be meant.
    """
    senders = [label for label, probe in probes.items() if hasattr(probe, "streams")]
    ours = [[one for one in senders if one.partition("/")[0] == kind] for kind in TRAFFIC]
    others = [one for one in senders if one.partition("/")[0] not in TRAFFIC]
    for labels in (*ours, others):
        if len(labels) > 1:
            raise SpecError(
                f"name as exposed the probe whose traffic must cross the fault: "
                f"{' or '.join(labels)}",
                field="probes",
            )
        if labels:
            return labels[0]
    known = dict.fromkeys((*TRAFFIC, *(n for n in PROBES if hasattr(PROBES[n], "streams"))))
    raise SpecError(
        f"a fault needs a probe with traffic ({' or '.join(known)}) to prove that it was met",
        field="probes",
    )


def can_be_exposed(label: str, probes: Mapping[str, Any], placebo: bool) -> None:
    """Return when a probe has traffic that can cross a fault; `none` goes without a fault.

    Raises:
        SpecError: it has none, or is not there.
    """
    if label == "none":
        if not placebo:
            raise SpecError("none is for experiments without a fault", field="exposed")
    elif label not in probes:
        raise SpecError(f"no probe {label!r}; {near(label, probes)}", field="exposed")
    elif not hasattr(probes[label], "streams"):
        raise SpecError(f"probe {label} sends no traffic of its own", field="exposed")


def has_its_rank(fault: Any, probes: Mapping[str, Any]) -> None:
    """Return when a fault of a rank has one job that it is a rank of; two both have a rank 0.

    Raises:
        SpecError: there is none, or more, or it runs in a mode that such a fault says nothing of.
    """
    jobs = [label for label in probes if label.partition("/")[0] == "collective"]
    if any(item.name == "rank" for item in fields(fault)) and len(jobs) != 1:
        found = f"both {' and '.join(jobs)} have ranks" if jobs else "there is none"
        raise SpecError(
            f"a fault of a rank needs exactly one collective job among the probes; {found}"
        )
    modes = getattr(fault, "job_modes", ())
    mode = getattr(probes[jobs[0]], "mode", "") if jobs else ""
    if modes and mode not in modes:
        raise SpecError(
            f"{fault.name} needs a job in mode {' or '.join(modes)}, and {jobs[0]} is in mode "
            f"{mode}"
        )


def can_be_judged(
    one: Objective,
    probes: Mapping[str, Any],
    measures: Sequence[str],
    placebo: bool,
    placebos: int,
) -> None:
    """Return when the trials can give what an objective asks.

    Args:
        one: What must hold.
        probes: By label.
        measures: All that the trials measure.
        placebo: There is no fault at all.
        placebos: How many trials go without the fault.

    Raises:
        SpecError: they cannot.
    """
    if isinstance(one, Bound) and one.measure not in measures:
        raise SpecError(
            f"no measure {one.measure!r} from these probes; {near(one.measure, measures)}",
            field="measure",
        )
    if isinstance(one, DetectedBy | UndetectedBy | Named) and placebo:
        raise SpecError(
            f"{one.key} needs a fault; for placebo trials use false_alarms", field=one.key
        )
    if isinstance(one, FalseAlarms) and not placebo and not placebos:
        raise SpecError("needs placebo trials, and placebos is 0", field=one.key)
    if isinstance(one, FalseAlarms | Named) and not kinds(probes) & set(detectors().values()):
        raise SpecError(
            "no probe of this experiment has a detector, so nothing could ever speak; add one, "
            f"such as {' or '.join(dict.fromkeys(detectors().values()))}",
            field=one.key,
        )
    needed: tuple[str, ...] = ()
    if isinstance(one, DetectedBy):
        needed = (one.detector,)
    if isinstance(one, UndetectedBy):
        needed = one.detectors
    for word in needed:
        probe = detectors()[word]
        if probe not in kinds(probes):
            raise SpecError(
                f"detector {word} is reported by probe {probe}, which is not among the probes",
                field=one.key,
            )
