"""The storm of one trial: faults armed, brought into force on time, watched, healed, and proved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from chaos import budget, quarantine
from chaos.aim import Aimed
from chaos.change import Change
from chaos.driver import Holder
from chaos.errors import SpecError, near
from chaos.ground import Ground
from chaos.hands import Proof as HandsProof
from chaos.plan import as_text
from chaos.record import Proof
from chaos.registry import InForce
from chaos.timeline import Moment, now_ns
from chaos.units import Duration
from chaos.watch import Tripped, Watch

LEAD_NS = 50_000_000


async def weather(
    ground: Ground,
    number: int,
    aims: Sequence[Aimed],
    storm: Duration,
    rng: random.Random,
    watch: Watch,
) -> tuple[Proof, Moment, Moment, Tripped | None]:
    """Break what is aimed at, for as long as the storm lasts or until a condition holds; heal.

    Args:
        ground: What the run stands on.
        number: Of the trial.
        aims: What is broken; nothing in a placebo.
        storm: How long.
        rng: Of the faults' own schedules.
        watch: Conditions that end it at once.

    Returns:
        The proof, when it took effect, when all was healed, and the condition that ended it.

    Raises:
        BlockedError: it would reach beyond the limits, or a node in quarantine; nothing was broken.
        RailbreakError: it did not come into force; everything was taken back.
    """
    ground.tell("phase.entered", {"name": "storm", "trial": number, "placebo": not aims})
    await ground.observer.say({"cmd": "phase", "name": "storm"})
    if not aims:
        start = now_ns()
        alarm = asyncio.create_task(watch.until(start))
        await asyncio.wait((alarm,), timeout=storm.s)
        end = now_ns()
        return Proof(), Moment(start, start), Moment(end, end), _tripped(alarm)
    fabric, homes = ground.driver.fabric, ground.observer.homes
    placed = [place_processes(aimed.fault.changes(fabric), homes) for aimed in aims]
    await _allow(ground, aims, placed)
    armed: list[tuple[Holder, tuple[InForce, ...]]] = []
    try:
        for at, (aimed, changes) in enumerate(zip(aims, placed, strict=True)):
            spans = aimed.fault.schedule(storm, rng)
            armed.append((await _arm(ground, f"{number}-{at}", changes), spans))
        start_ns = now_ns() + int(getattr(ground.driver, "lead_ns", LEAD_NS))
        alarm = asyncio.create_task(watch.until(start_ns))
        try:
            proofs = await asyncio.gather(
                *(_in_force(ground, hands, start_ns, spans, alarm) for hands, spans in armed)
            )
        finally:
            tripped = _tripped(alarm)
    finally:
        await asyncio.gather(*(hands.close() for hands, _ in armed))
    ground.tell("phase.entered", {"name": "heal", "trial": number})
    events = [done.event for done in proofs if done.event is not None]
    heals = [done.healed for done in proofs if done.healed is not None]
    never = Moment(start_ns, start_ns)
    event = min(events, key=lambda moment: moment.earliest_ns, default=never)
    heal = max(heals, key=lambda moment: moment.latest_ns, default=Moment(now_ns(), now_ns()))
    faults = [as_text(aimed.fault) for aimed in aims]
    every = [span for _, spans in armed for span in spans]
    ended_ns = start_ns + max((span.end_ns for span in every), default=0)
    if tripped is not None and tripped.at_ns >= ended_ns:  # the storm was over by itself
        tripped = None
    return _proof(faults, proofs, every), event, heal, tripped


def _tripped(alarm: asyncio.Task[Tripped]) -> Tripped | None:
    """What an alarm told; one that told nothing is put out."""
    alarm.cancel()
    return alarm.result() if alarm.done() and not alarm.cancelled() else None


async def _allow(ground: Ground, aims: Sequence[Aimed], placed: Sequence[Sequence[Change]]) -> None:
    """Return when what was aimed at, now that it is known, may be broken.

    Raises:
        BlockedError: it is beyond the limits, or on a node in quarantine; nothing was broken.
    """
    experiment, driver = ground.experiment, ground.driver
    every = [change for changes in placed for change in changes]
    await asyncio.to_thread(quarantine.be_free, [one.place.node for one in every], driver)
    budget.hold(
        "; ".join(as_text(aimed.fault) for aimed in aims),
        every,
        driver.fabric,
        experiment.limits,
        driver.fidelity,
        budget.ranks(experiment, driver.fabric),
    )


async def _arm(ground: Ground, name: str, changes: Sequence[Change]) -> Holder:
    return await ground.driver.arm(
        changes,
        journal=ground.driver.folder / f"journal-{ground.folder.name}-{name}.jsonl",
        max_life=ground.experiment.max_life,
        log_dir=ground.folder,
    )


async def _in_force(
    ground: Ground,
    hands: Holder,
    start_ns: int,
    spans: Sequence[InForce],
    alarm: asyncio.Task[Tripped],
) -> HandsProof:
    """Hold one fault for its spans, or until the alarm; then see that it is gone."""
    await hands.start(start_ns, spans)
    waiting = asyncio.create_task(hands.wait())
    either = (waiting, alarm)
    try:
        while not waiting.done() and not alarm.done():
            await asyncio.wait(either, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
            if not alarm.done():
                met = await hands.hits()
                ground.tell("hits.counted", {"hits": {i: asdict(h) for i, h in met.items()}})
        if waiting.done():
            await waiting
    finally:
        waiting.cancel()
        done = await hands.heal()
    return done


def place_processes(changes: Sequence[Change], homes: Mapping[str, str]) -> tuple[Change, ...]:
    """Changes whose process places name the node that the process was announced on.

    Raises:
        SpecError: no such process was announced; those that were are named.
    """
    placed: list[Change] = []
    for change in changes:
        process = change.place.process
        if process and process not in homes:
            raise SpecError(f"no process {process!r} to aim at; {near(process, homes)}")
        if process:
            change = replace(change, place=replace(change.place, node=homes[process]))
        placed.append(change)
    return tuple(placed)


def _too_late(proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Iterator[str]:
    """Actions so late that the fault was not the planned one: by a fifth of the shortest span.

    Lesser lateness does no harm: measures count from what the kernel acknowledged.
    """
    shortest = min((span.end_ns - span.start_ns for span in spans), default=0)
    for action in (a for done in proofs for a in done.actions):
        late = action.before_ns - action.planned_ns
        if late > shortest / 5:
            yield f"{action.kind} of change {action.change} came {late / 1e6:.3g} ms late"


def _proof(faults: Sequence[str], proofs: Sequence[HandsProof], spans: Sequence[InForce]) -> Proof:
    each = [
        {
            "fault": fault,
            "text": one.change.describe(),
            "place": str(one.change.place),
            "in_force": one.in_force,
            "seen": one.seen,
            "hit": one.hit,
            "taken_back": one.taken_back,
            "cure": one.leftover,
        }
        for fault, done in zip(faults, proofs, strict=True)
        for one in done.changes
    ]
    hits = [one.hit for done in proofs for one in done.changes if one.hit is not None]
    seen = [one.seen for done in proofs for one in done.changes if one.seen is not None]
    return Proof(
        in_force=all(done.in_force for done in proofs),
        seen=sum(seen) if seen else None,
        hit=sum(hits) if hits else None,
        taken_back=all(done.taken_back for done in proofs),
        changes=tuple(each),
        actions=tuple(asdict(action) for done in proofs for action in done.actions),
        late=tuple(_too_late(proofs, spans)) + tuple(s for done in proofs for s in done.trouble),
    )
