"""The storm of one trial: faults armed, brought into force on time, watched, healed, and proved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from chaos import budget, quarantine
from chaos.aim import Aimed
from chaos.change import Change
from chaos.collide import together
from chaos.driver import Holder
from chaos.errors import SpecError, near
from chaos.expose import look
from chaos.ground import Ground
from chaos.proof import Proof as HandsProof
from chaos.record import Proof
from chaos.registry import InForce
from chaos.strike import Strike, as_text
from chaos.timeline import Moment, now_ns
from chaos.units import Duration
from chaos.watch import Tripped, Watch

LEAD_NS = 50_000_000
JOBLESS = "no job runs here; a fault of a rank needs an experiment with the probe collective"


@dataclass(frozen=True, slots=True)
class Falling:
    """One strike as it is about to fall.

    Attributes:
        strike: What and when, every word concrete.
        aimed: The same with what it breaks.
        exposed: Whether the exposed traffic met it in calm; None where that is not asked.
        sentence: What was found.
    """

    strike: Strike
    aimed: Aimed
    exposed: bool | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Fallen:
    """What became of one strike.

    Attributes:
        event: When it took effect; None where the storm was over before.
        heal: When it was gone.
        exposed: Whether the exposed traffic met it: in calm, or just before it struck; None where
            that is not asked.
        sentence: What was found.
    """

    event: Moment | None
    heal: Moment
    exposed: bool | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Weathered:
    """A storm that is over.

    Attributes:
        proof: Of everything that was broken.
        event: When the first strike took effect.
        heal: When all was healed.
        tripped: The condition that ended it.
        fallen: One per strike.
    """

    proof: Proof
    event: Moment
    heal: Moment
    tripped: Tripped | None = None
    fallen: tuple[Fallen, ...] = ()


async def weather(
    ground: Ground, number: int, falling: Sequence[Falling], storm: Duration, watch: Watch
) -> Weathered:
    """Let everything fall in its time, until all is over or a condition holds; heal.

    Args:
        ground: What the run stands on.
        number: Of the trial.
        falling: What is broken; nothing in a placebo.
        storm: How long.
        watch: Conditions that end it at once.

    Raises:
        BlockedError: it would reach beyond the limits, or a node in quarantine; nothing was broken.
        RailbreakError: it did not come into force; everything was taken back.
    """
    ground.tell("phase.entered", {"name": "storm", "trial": number, "placebo": not falling})
    await ground.observer.say({"cmd": "phase", "name": "storm"})
    if not falling:
        start = now_ns()
        alarm = asyncio.create_task(watch.until(start))
        await asyncio.wait((alarm,), timeout=storm.s)
        end = now_ns()
        return Weathered(Proof(), Moment(start, start), Moment(end, end), _tripped(alarm))
    fabric, homes = ground.driver.fabric, ground.observer.homes
    placed = [place_processes(one.strike.fault.changes(fabric), homes) for one in falling]
    await _allow(ground, [one.strike for one in falling], placed)
    armed: list[Holder] = []
    try:
        for at, changes in enumerate(placed):
            armed.append(await _arm(ground, f"{number}-{at}", changes))
        start_ns = now_ns() + int(getattr(ground.driver, "lead_ns", LEAD_NS))
        alarm = asyncio.create_task(watch.until(start_ns))
        looks = [asyncio.create_task(_look(ground, one, start_ns)) for one in falling]
        try:
            proofs = await asyncio.gather(
                *(
                    _in_force(ground, hands, start_ns, one.strike.spans, alarm)
                    for hands, one in zip(armed, falling, strict=True)
                )
            )
        finally:
            tripped = _tripped(alarm)
            for task in looks:
                task.cancel()
            seen = await asyncio.gather(*looks, return_exceptions=True)
    finally:
        await asyncio.gather(*(hands.close() for hands in armed))
    ground.tell("phase.entered", {"name": "heal", "trial": number})
    fallen = tuple(
        Fallen(_event(done), done.healed, *_exposure(one, found))
        for done, one, found in zip(proofs, falling, seen, strict=True)
    )
    events = [one.event for one in fallen if one.event is not None]
    never = Moment(start_ns, start_ns)
    event = min(events, key=lambda moment: moment.earliest_ns, default=never)
    heal = max((one.heal for one in fallen), key=lambda moment: moment.latest_ns)
    every = [span for one in falling for span in one.strike.spans]
    ended_ns = start_ns + max((span.end_ns for span in every), default=0)
    if tripped is not None and tripped.at_ns >= ended_ns:  # the storm was over by itself
        tripped = None
    return Weathered(_proof(falling, fallen, proofs), event, heal, tripped, fallen)


def _event(done: HandsProof) -> Moment | None:
    return done.event if any(action.kind == "do" for action in done.actions) else None


def _tripped(alarm: asyncio.Task[Tripped]) -> Tripped | None:
    """What an alarm told; one that told nothing is put out."""
    alarm.cancel()
    return alarm.result() if alarm.done() and not alarm.cancelled() else None


async def _look(ground: Ground, one: Falling, start_ns: int) -> tuple[bool, str] | None:
    """Where the exposed traffic goes just before a strike; None where calm told already."""
    if one.exposed is not False:
        return None
    return await look(ground, one.aimed, start_ns + one.strike.at_ns)


def _exposure(
    one: Falling, found: tuple[bool, str] | BaseException | None
) -> tuple[bool | None, str]:
    """What is known in the end of whether the exposed traffic met a strike."""
    if isinstance(found, tuple):
        return found
    return one.exposed, one.sentence


async def _allow(
    ground: Ground, falling: Sequence[Strike], placed: Sequence[Sequence[Change]]
) -> None:
    """Return when what was aimed at, now that it is known, may be broken.

    Raises:
        BlockedError: it is beyond the limits, or on a node in quarantine; nothing was broken.
    """
    experiment, driver = ground.experiment, ground.driver
    every = [change for changes in placed for change in changes]
    await asyncio.to_thread(quarantine.be_free, [one.place.node for one in every], driver)
    for group in together(falling):
        budget.hold(
            "; ".join(as_text(falling[at].fault) for at in group),
            [change for at in group for change in placed[at]],
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
            known = near(process, homes) if homes else JOBLESS
            raise SpecError(f"no process {process!r} to aim at; {known}")
        if process:
            change = replace(change, place=replace(change.place, node=homes[process]))
        placed.append(change)
    return tuple(placed)


def _too_late(done: HandsProof, spans: Sequence[InForce]) -> Iterator[str]:
    """Actions so late that the fault was not the planned one: by a fifth of its shortest span.

    Lesser lateness does no harm: measures count from what the kernel acknowledged.
    """
    shortest = min((span.end_ns - span.start_ns for span in spans), default=0)
    for action in done.actions:
        late = action.before_ns - action.planned_ns
        if late > shortest / 5:
            yield f"{action.kind} of change {action.change} came {late / 1e6:.3g} ms late"


def _proof(
    falling: Sequence[Falling], fallen: Sequence[Fallen], proofs: Sequence[HandsProof]
) -> Proof:
    each: list[dict[str, Any]] = []
    actions: list[dict[str, Any]] = []
    late: list[str] = []
    for at, (one, met, done) in enumerate(zip(falling, fallen, proofs, strict=True)):
        first = len(each)  # actions count the changes of one fault, a record those of all
        actions += [{**asdict(a), "change": first + a.change} for a in done.actions]
        late += [*_too_late(done, one.strike.spans), *done.trouble]
        each += [
            {
                "fault": as_text(one.strike.fault),
                "strike": at,
                "exposed": met.exposed,
                "text": change.change.describe(),
                "place": str(change.change.place),
                "in_force": change.in_force,
                "seen": change.seen,
                "hit": change.hit,
                "taken_back": change.taken_back,
                "cure": change.leftover,
            }
            for change in done.changes
        ]
    hits = [one["hit"] for one in each if one["hit"] is not None]
    seen = [one["seen"] for one in each if one["seen"] is not None]
    return Proof(
        in_force=all(done.in_force for done in proofs),
        seen=sum(seen) if seen else None,
        hit=sum(hits) if hits else None,
        taken_back=all(done.taken_back for done in proofs),
        changes=tuple(each),
        actions=tuple(actions),
        late=tuple(late),
    )
