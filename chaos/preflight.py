"""What must hold before a run touches anything; what does not is said at once, with its cure."""

from __future__ import annotations

import asyncio

from chaos import budget, plan, quarantine
from chaos.driver import Driver
from chaos.errors import BlockedError, CapabilityError
from chaos.experiment import Experiment
from chaos.fabric import Fabric


async def be_ready(experiment: Experiment, driver: Driver) -> None:
    """Return when an experiment can be run on a fabric that is up; the fastest question first.

    Raises:
        CapabilityError: the driver cannot make a change or run a probe.
        BlockedError: beyond the limits, in quarantine, or the fabric is not sound.
    """
    be_able(experiment, driver.fabric, type(driver))
    budget.be_within(experiment, driver.fabric, driver.fidelity)
    await asyncio.to_thread(be_free, experiment, driver)
    for probe in experiment.probes.values() if not driver.elsewhere else ():
        getattr(probe, "available", lambda: None)()
    await be_sound(driver)
    be_observable(experiment, driver)


def be_able(experiment: Experiment, fabric: Fabric, driver: type[Driver]) -> None:
    """Return when a driver can make every change of an experiment; nothing is touched.

    Raises:
        CapabilityError: it cannot; says which, why, and what to use instead.
    """
    for fault, _, reason in plan.matrix(experiment, fabric, driver, driver.engines()):
        if reason:
            raise CapabilityError(f"{fault}: {reason}")


def be_free(experiment: Experiment, driver: Driver) -> None:
    """Return when a fault could strike nodes that are not in quarantine.

    Where traffic settles what is struck, it is asked again before that is armed.

    Raises:
        BlockedError: whatever it means, it strikes one that is; says what was left there.
    """
    refused: dict[int, BlockedError | None] = {}
    for one in budget.meant(experiment, driver.fabric):
        try:
            quarantine.be_free(one.nodes, driver)
        except BlockedError as error:
            refused.setdefault(one.group, error)
        else:
            refused[one.group] = None
    for refusal in refused.values():
        if refusal is not None:
            raise refusal


def be_observable(experiment: Experiment, driver: Driver) -> None:
    """Return when a driver can run every program of an experiment's probes; nothing is touched.

    Raises:
        CapabilityError: it cannot; says which, why, and what to do instead.
    """
    for label, probe in experiment.probes.items():
        for program in probe.programs(driver.fabric, driver.addresses()):
            if reason := driver.bars(program):
                raise CapabilityError(f"probe {label}: {reason}")


async def be_sound(driver: Driver, looks: int = 20) -> None:
    """Return when routing daemons and kernels agree: a fabric at odds with itself is no yardstick.

    Raises:
        BlockedError: they still differ after `looks` looks, half a second apart; says how.
    """
    found: tuple[str, ...] = ()
    for look in range(looks):
        await asyncio.sleep(0.5 * bool(look))
        found = (await driver.audit()).findings
        if not found:
            return
    raise BlockedError(f"fabric {driver.instance} is not sound: {'; '.join(found[:3])}")
