"""Calm: the yardstick of a trial. A calm that was not calm is tried again, and then is doubt."""

from __future__ import annotations

import asyncio
import bisect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos import load, snapshot
from chaos.fabric import Port
from chaos.ground import Ground
from chaos.timeline import Event, Readings, now_ns

ATTEMPTS = 4
CALM_STOLEN_PERCENT = 10.0
BATCH_S = 0.15  # what happened just now is told by the programs at the latest after this


@dataclass(frozen=True, slots=True)
class Calm:
    """A calm phase as it was.

    Attributes:
        before: State of the fabric, to be found again after healing.
        counted: Packets and bytes per port when it began.
        window_ns: Start and end.
        load: How busy the machine was.
        trouble: Why it was not calm; empty when it was.
        disturbed: What disturbed the attempts before this one.
    """

    before: snapshot.Snapshot
    counted: Mapping[Port, Any]
    window_ns: tuple[int, int]
    load: load.Load
    trouble: tuple[str, ...]
    disturbed: tuple[str, ...] = ()


async def be_calm(ground: Ground, rng: random.Random, number: int, *, placebo: bool) -> Calm:
    """Wait out a calm phase of random length; again, up to four times, when it was not calm.

    Nothing is broken yet, so trying again costs time alone: no trial is thrown away, and none is
    kept whose yardstick was bent.
    """
    disturbed: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        facts = {"name": "calm", "trial": number, "placebo": placebo, "attempt": attempt}
        ground.tell("phase.entered", facts)
        calm = replace(await _once(ground, rng), disturbed=tuple(disturbed))
        if not calm.trouble:
            return calm
        disturbed += calm.trouble
        ground.tell("calm.disturbed", {"trial": number, "sentences": calm.trouble})
    return calm


async def _once(ground: Ground, rng: random.Random) -> Calm:
    await ground.observer.say({"cmd": "phase", "name": "calm"})
    before = await ground.driver.snapshot()
    usage, started = ground.driver.load(), now_ns()
    counted = await ground.tracer.counters(ground.driver.fabric.links)
    await asyncio.sleep(ground.experiment.phases.calm.s + rng.uniform(0, 0.5) + BATCH_S)
    window = (started, now_ns())
    used = load.between(usage, ground.driver.load())
    events, doubts = _told(ground, window)
    trouble = (*busy(ground, used), *dict.fromkeys(doubts), *alarms(events))
    return Calm(before, counted, window, used, trouble)


def _told(ground: Ground, window: tuple[int, int]) -> tuple[list[Event], list[str]]:
    """Events and doubts of every probe during calm."""
    found: list[Event] = []
    doubts: list[str] = []
    for label, probe in ground.observer.probes.items():
        try:
            readings = probe.read(ground.observer.since(label, window[0]))
        except (KeyError, ValueError, TypeError, IndexError):
            continue  # the trial's own reading tells of it
        found += clip(readings, *window).events
        doubts += readings.trouble
    return found, doubts


def busy(ground: Ground, used: load.Load, phase: str = "calm") -> tuple[str, ...]:
    """Sentences on a machine that others keep busy: what is then measured is theirs."""
    found = []
    what = "calm was not calm" if phase == "calm" else f"{phase} was disturbed"
    rest = "let it rest, or allow more with --calm-load"
    limits = (
        ("other processes used", used.foreign_percent, ground.calm_foreign_percent, rest),
        ("the hypervisor took", used.stolen_percent, CALM_STOLEN_PERCENT, "try at another time"),
    )
    for who, share, most, cure in limits:
        if share > most:
            found.append(
                f"{what}: {who} {share:.0f} % of this machine (at most {most:.0f} % expected; "
                f"{cure})"
            )
    return tuple(found)


def alarms(events: Sequence[Event]) -> tuple[str, ...]:
    """A sentence on the detectors that spoke although nothing was broken."""
    who = sorted({f"{e.detector} on {e.element or e.node}" for e in events if e.detector})
    if not who:
        return ()
    return (f"calm was not calm: {', '.join(who[:5])} raised an alarm before the fault",)


def clip(readings: Readings, start_ns: int, end_ns: int) -> Readings:
    """Readings of a program's whole life -> those of a stretch of time."""
    inside = [
        (bisect.bisect_left(s.at_ns, start_ns), bisect.bisect_right(s.at_ns, end_ns))
        for s in readings.series
    ]
    return replace(
        readings,
        events=tuple(e for e in readings.events if start_ns <= e.at_ns <= end_ns),
        series=tuple(
            replace(s, at_ns=s.at_ns[a:b], values=s.values[a:b])
            for s, (a, b) in zip(readings.series, inside, strict=True)
        ),
        spans=tuple(s for s in readings.spans if s.end_ns >= start_ns and s.start_ns <= end_ns),
    )
