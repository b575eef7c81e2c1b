"""What every trial of a run stands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.driver import Driver, Paths
from chaos.experiment import Experiment
from chaos.observe import Observer

#: More than this share of the machine used by others spoils calm.
CALM_FOREIGN_PERCENT = 40.0

Tell = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True)
class Ground:
    """What every trial of a run stands on.

    Attributes:
        experiment: What is promised and how it is tried.
        driver: Reaches the fabric.
        observer: The probes, running.
        tracer: Looks up paths and counters.
        folder: The run's folder: journals.
        tell: Told of phases, hits and aims as they come.
        calm_foreign_percent: More than this share of the machine used by others spoils calm.
    """

    experiment: Experiment
    driver: Driver
    observer: Observer
    tracer: Paths
    folder: Path
    tell: Tell
    calm_foreign_percent: float = CALM_FOREIGN_PERCENT
