"""What actions need to know beyond their name: how long, how many, how fast, in whose name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

from chaos.errors import SpecError, near
from chaos.packets import plain
from chaos.roce import NAKS, Syndrome
from chaos.units import Bitrate, Duration

Shape = Literal["uniform", "normal", "exponential"]
_SEEDS = (0, (1 << 63) - 1)
_MOST_HELD = Duration.parse("10 s")
#: Below it a packet takes minutes; above it a port is hardly ever.
LEAST_RATE, MOST_RATE = Bitrate(1_000), Bitrate(1_000_000_000_000)
#: An RNR NAK without a named wait asks for 10.24 ms, as adapters do by default.
_RNR_MS = Duration.parse("10.24 ms")
_NO_TIME, _WITHIN, _QUEUE = Duration(0), Duration.parse("100 ms"), Duration.parse("50 ms")


@dataclass(frozen=True, slots=True)
class How:
    """Words of one action, the first of them named like it. `of` is that first word's value."""

    word: ClassVar[str]

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """From the words of the action.

        Raises:
            SpecError: with the word as its field.
        """
        known = {item.name: item for item in fields(cls) if item.name != "of"}
        plain.refuse_unknown(given, {cls.word: 0, **known}, f"then {cls.word}")
        made = {
            ("of" if key == cls.word else key): cls.read(key, one) for key, one in given.items()
        }
        return cls(**made)

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """One word's value."""
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """As YAML has it."""
        items = [(item, getattr(self, item.name)) for item in fields(self)]
        return {
            self.word if item.name == "of" else item.name: one if type(one) is int else str(one)
            for item, one in items
            if item.name == "of" or one != item.default
        }

    def towards(self, direction: int) -> Self:
        """The same for another direction of a link: what is drawn is drawn anew."""
        seed = getattr(self, "seed", None)
        if seed is None:
            return self
        return replace(self, **{"seed": seed * 2 + direction})

    def __str__(self) -> str:
        return " ".join(f"{key}={str(one).replace(' ', '')}" for key, one in self.plain().items())


@dataclass(frozen=True, slots=True)
class Delay(How):
    """Every packet comes later, in the order in which it came.

    Attributes:
        of: So much later, at most 10 s.
        jitter: How far that is drawn up and down: the half width of `uniform`, the standard
            deviation of `normal`, the mean of what `exponential` adds. Never below 0 in total.
        shape: Of the draw.
        seed: Of the draw: the n-th packet gets the n-th number.
    """

    word: ClassVar[str] = "delay"
    of: Duration
    jitter: Duration = _NO_TIME
    shape: Shape = "uniform"
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.of.ns <= _MOST_HELD.ns:
            raise SpecError(f"a time up to {_MOST_HELD} expected, got {self.of}", field=".delay")
        if self.jitter.ns > self.of.ns:
            raise SpecError(f"at most the delay, {self.of}, expected, got {self.jitter}",
                            field=".jitter")  # fmt: skip
        if self.shape not in get_args(Shape):
            raise SpecError(f"no shape {self.shape!r}; {near(self.shape, get_args(Shape))}",
                            field=".shape")  # fmt: skip

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """Times, a name, a number."""
        if key == "seed":
            return plain.whole(value, "seed", *_SEEDS)
        return value if key == "shape" else plain.typed(Duration, value, key)

    def draws(self) -> Callable[[], int]:
        """A function that gives the delay of one packet after the other, in nanoseconds."""
        base, spread, rng = self.of.ns, self.jitter.ns, random.Random(self.seed)
        if not spread:
            return lambda: base
        if self.shape == "uniform":
            return lambda: round(rng.uniform(base - spread, base + spread))
        if self.shape == "normal":
            return lambda: max(0, round(rng.gauss(base, spread)))
        return lambda: base + round(rng.expovariate(1 / spread))


@dataclass(frozen=True, slots=True)
class Reorder(How):
    """A packet waits until others have overtaken it.

    Attributes:
        of: How many of the selected packets must pass it, 1 to 10000.
        within: It goes on after so long at the latest.
    """

    word: ClassVar[str] = "reorder"
    of: int
    within: Duration = _WITHIN

    def __post_init__(self) -> None:
        plain.whole(self.of, "reorder", 1, 10_000)
        if not 0 < self.within.ns <= _MOST_HELD.ns:
            raise SpecError(f"a time up to {_MOST_HELD} expected, got {self.within}",
                            field=".within")  # fmt: skip

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """A number, a time."""
        if key == "reorder":
            return plain.whole(value, key, 1, 10_000)
        return plain.typed(Duration, value, key)


@dataclass(frozen=True, slots=True)
class Rate(How):
    """Packets leave one after the other, no faster than a rate.

    Attributes:
        of: 1 kbit/s to 1000 Gbit/s; from the Ethernet header on, without its checksum.
        queue: A packet that would wait longer than this vanishes, as at a full port.
    """

    word: ClassVar[str] = "rate"
    of: Bitrate
    queue: Duration = _QUEUE

    def __post_init__(self) -> None:
        if not LEAST_RATE <= self.of <= MOST_RATE:
            raise SpecError(f"{LEAST_RATE} to {MOST_RATE} expected, got {self.of}", field=".rate")
        if not 0 < self.queue.ns <= _MOST_HELD.ns:
            raise SpecError(f"a time up to {_MOST_HELD} expected, got {self.queue}", field=".queue")

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """A rate, a time."""
        return plain.typed(Duration if key == "queue" else Bitrate, value, key)


@dataclass(frozen=True, slots=True)
class Corrupt(How):
    """What no check notices: a bit of the payload is another, and the ICRC fits it.

    Attributes:
        of: `silent`.
        seed: Which bit is drawn by it, packet after packet.
    """

    word: ClassVar[str] = "corrupt"
    of: Literal["silent"] = "silent"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.of != "silent":
            raise SpecError(f"corrupt alone, or corrupt=silent, expected, got {self.of!r}",
                            field=".corrupt")  # fmt: skip

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """A word, a number."""
        return plain.whole(value, "seed", *_SEEDS) if key == "seed" else value


@dataclass(frozen=True, slots=True)
class Forge(How):
    """An answer that nobody gave.

    Attributes:
        of: A NAK by its code (`psn_sequence_error`, `invalid_request`, `remote_access_error`,
            `remote_operational_error`, `invalid_rd_request`), `rnr_nak`, or a syndrome's number:
            written into the acknowledgements met. `cnp`: for a packet met, its sender gets a
            congestion notification as well.
        qp: Queue pair of that sender, which no data packet names; for `cnp` alone.
        wait: What an `rnr_nak` asks for.
    """

    word: ClassVar[str] = "forge"
    of: str | int
    qp: int = -1
    wait: Duration = _NO_TIME

    def __post_init__(self) -> None:
        if self.of == "cnp":
            if self.qp < 0:
                raise SpecError(
                    "forge=cnp needs qp: the queue pair of the sender, which its data packets do "
                    "not name (ibv_devinfo, rdma resource show qp)",
                    field=".qp",
                )
        elif self.qp >= 0:
            raise SpecError(f"qp is for forge=cnp, not for {self.of}", field=".qp")
        if self.wait.ns and self.of != "rnr_nak":
            raise SpecError(f"wait is for forge=rnr_nak, not for {self.of}", field=".wait")
        if self.of != "cnp":
            _ = self.syndrome

    @classmethod
    def read(cls, key: str, value: Any) -> Any:
        """A name or a number."""
        if key == "qp":
            text = int(value, 16) if isinstance(value, str) and value[:2] == "0x" else value
            return plain.whole(text, "qp", 0, (1 << 24) - 1)
        if key == "wait":
            return plain.typed(Duration, value, key)
        try:
            return int(value, 0) if isinstance(value, str) else value
        except ValueError:
            return value

    @property
    def syndrome(self) -> int:
        """The byte that is written into an AETH."""
        if self.of == "rnr_nak":
            return Syndrome.rnr(self.wait if self.wait.ns else _RNR_MS).write()
        if isinstance(self.of, str):
            if self.of not in NAKS:
                known = near(self.of, (*NAKS, "rnr_nak", "cnp"))
                raise SpecError(f"no answer {self.of!r}; {known}", field=".forge")
            return Syndrome.nak(self.of).write()
        if isinstance(self.of, bool) or not 0 <= self.of < 256:
            raise SpecError(f"a syndrome must be 0 to 255, got {self.of}", field=".forge")
        return self.of


#: Actions that have words of their own, by name.
HOWS: dict[str, type[How]] = {one.word: one for one in (Delay, Reorder, Rate, Corrupt, Forge)}
