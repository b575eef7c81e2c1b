"""Schedules that are drawn: by a seed alone, so that a run can be repeated packet by packet."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

from chaos.errors import SpecError
from chaos.packets import plain
from chaos.packets.numbers import Numbers
from chaos.packets.schedule import Gate, Schedule
from chaos.units import Percent

#: Up to this share a random pattern is a million packets long, above it ten thousand.
FINE_MILLIONTHS = 5_000
#: About so many stretches at most: with more the kernel takes long to load a rule.
MOST_STRETCHES = 5_000
_SEEDS = (0, (1 << 63) - 1)
_SURELY, _NEVER = Percent(100), Percent(0)


@dataclass(frozen=True, slots=True)
class Chance(Schedule):
    """A random share with a seed: the n-th packet is acted on or not by the seed alone.

    Exactly the share of every ten thousand packets (at most 0.5 %: of every million), at places the
    seed draws without replacement.
    """

    word: ClassVar[str] = "random"
    of: Percent
    seed: int = 1

    def __post_init__(self) -> None:
        parts = self.of.millionths
        if not parts:
            raise SpecError(f"0.0001 % to 100 % expected, got {self.of}", field=".random")
        if parts > FINE_MILLIONTHS and parts % 100:
            raise SpecError(
                f"above {FINE_MILLIONTHS / 1e4:g} % a multiple of 0.01 % expected, got {self.of}",
                field=".random",
            )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`random`, `seed`."""
        share = plain.typed(Percent, given["random"], "random")
        return cls(share, plain.whole(given.get("seed", 1), "seed", *_SEEDS))

    def pattern(self) -> tuple[int, tuple[int, ...]]:
        """The period, and the ordinals within it."""
        period = 1_000_000 if self.of.millionths <= FINE_MILLIONTHS else 10_000
        many = self.of.millionths * period // 1_000_000
        return period, tuple(sorted(random.Random(self.seed).sample(range(period), many)))

    def gates(self) -> tuple[Gate, ...]:
        """One counter over the pattern."""
        period, those = self.pattern()
        if len(those) == period:
            return ()
        return (Gate(period, Numbers.of((one, one) for one in those)),)

    def acts(self) -> Callable[[int], bool]:
        """By the pattern, again and again."""
        period, those = self.pattern()
        chosen = frozenset(those)
        return lambda ordinal: ordinal % period in chosen


@dataclass(frozen=True, slots=True)
class Bursts(Schedule):
    """Losses that come in bursts: Gilbert and Elliott's two states, drawn packet by packet.

    Before each packet the state changes by chance; then the packet is acted on by the chance of
    the state it is in. A burst lasts 1/`leave` packets on average, and bursts begin 1/`enter`
    packets apart. The pattern is drawn once and repeated after its period: a million packets, or
    less where bursts are frequent.

    Attributes:
        enter: Chance to go from good to bad.
        leave: Chance to go from bad to good.
        bad: Chance to act in the bad state.
        good: Chance to act in the good state.
        seed: Of the draws.
    """

    word: ClassVar[str] = "enter"
    enter: Percent
    leave: Percent
    bad: Percent = _SURELY
    good: Percent = _NEVER
    seed: int = 1

    def __post_init__(self) -> None:
        for key in ("enter", "leave"):
            if not getattr(self, key).value:
                raise SpecError("0.0001 % to 100 % expected, got 0 %", field=f".{key}")
        if self.bad.value <= self.good.value:
            raise SpecError(
                f"a chance above that of the good state, {self.good}, expected, got {self.bad}",
                field=".bad",
            )

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """`enter`, `leave`, `bad`, `good`, `seed`."""
        if "leave" not in given:
            raise SpecError("bursts need leave: the chance to end, such as 20 %", field=".leave")
        keys = [key for key in ("enter", "leave", "bad", "good") if key in given]
        made = {key: plain.typed(Percent, given[key], key) for key in keys}
        return cls(**made, seed=plain.whole(given.get("seed", 1), "seed", *_SEEDS))

    @property
    def period(self) -> int:
        """Packets after which the pattern begins again."""
        enter, leave = self.enter.value / 100, self.leave.value / 100
        bad, good = self.bad.value / 100, self.good.value / 100
        in_bad = enter / (enter + leave)
        edges = in_bad * (leave + bad * (1 - bad)) + (1 - in_bad) * good * (1 - good) + 1e-9
        able = [size for size in (1_000_000, 100_000) if edges * size <= MOST_STRETCHES]
        return able[0] if able else 10_000

    def draw(self) -> Iterator[bool]:
        """One period of it: whether each packet is acted on."""
        rng, bad = random.Random(self.seed), False
        enter, leave = self.enter.value / 100, self.leave.value / 100
        chance = {True: self.bad.value / 100, False: self.good.value / 100}
        for _ in range(self.period):
            bad = rng.random() >= leave if bad else rng.random() < enter
            yield rng.random() < chance[bad]

    def gates(self) -> tuple[Gate, ...]:
        """One counter over the pattern."""
        those = _drawn(self)
        if not those:
            raise SpecError(
                f"with seed {self.seed} no burst begins within {self.period} packets; "
                "give another seed, or a higher enter",
                field=".seed",
            )
        return (Gate(self.period, those),)

    def acts(self) -> Callable[[int], bool]:
        """By the pattern, again and again."""
        pattern = tuple(self.draw())
        return lambda ordinal: pattern[ordinal % len(pattern)]


@lru_cache(maxsize=16)
def _drawn(bursts: Bursts) -> Numbers:
    """What one period acts on; drawing a million packets takes part of a second."""
    return Numbers.of((at, at) for at, acts in enumerate(bursts.draw()) if acts)
