"""A run again, from its record: the same faults at the same instants on the same elements. Pure."""

from __future__ import annotations

from dataclasses import replace

from chaos.errors import SpecError
from chaos.experiment import Experiment
from chaos.experiment_fit import fits
from chaos.fabric import Fabric
from chaos.record import Record
from chaos.strike import from_json
from chaos.strikes import Planned, Slot, Storm
from chaos.units import Duration


def again(experiment: Experiment, record: Record) -> Experiment:
    """The experiment with the seed and the trials of a record of it.

    Raises:
        SpecError: the record is of another experiment.
    """
    name = record.experiment.get("name")
    if name != experiment.name:
        raise SpecError(f"the record is of experiment {name!r}, not {experiment.name!r}")
    if not record.trials:
        raise SpecError("the record has no trial that could be run again")
    sham = sum(trial.placebo for trial in record.trials)
    if experiment.placebo:
        return replace(experiment, seed=record.seed, trials=len(record.trials))
    real = len(record.trials) - sham
    if not real:
        raise SpecError("every trial of the record is a placebo; there is nothing to break again")
    return replace(experiment, seed=record.seed, trials=real, placebos=sham)


def recorded(record: Record, fabric: Fabric) -> Planned:
    """What falls in each trial, as the record tells it; words that traffic settled stay settled.

    Raises:
        SpecError: the record tells no storms, or what struck then is not on this fabric.
    """
    made = []
    for trial in record.trials:
        if trial.storm_ns is None:
            raise SpecError(
                f"trial {trial.number} of the record tells no storm, so it is from before replays; "
                f"--seed {record.seed} repeats it as far as a seed does"
            )
        fallen = tuple(map(from_json, trial.strikes))
        for one in fallen:
            fits(one.fault, fabric)
        slot = Slot(trial.number, trial.placebo, trial.seed)
        made.append((slot, Storm(Duration(trial.storm_ns), fallen, trial.left_out)))
    return tuple(made)
