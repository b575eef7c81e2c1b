"""What every trial of a run stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.driver import Driver
from chaos.experiment import Experiment
from chaos.observe import Observer
from chaos.path import Tracer

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
        known: Trouble of probes that was told of already.
        calm_foreign_percent: More than this share of the machine used by others spoils calm.
    """

    experiment: Experiment
    driver: Driver
    observer: Observer
    tracer: Tracer
    folder: Path
    tell: Tell
    calm_foreign_percent: float = CALM_FOREIGN_PERCENT
    known: set[str] = field(default_factory=set)

    def new(self, trouble: Iterable[str]) -> tuple[str, ...]:
        """Trouble not told of before: what spoilt one trial does not spoil those after it."""
        fresh = tuple(sentence for sentence in dict.fromkeys(trouble) if sentence not in self.known)
        self.known.update(fresh)
        return fresh
