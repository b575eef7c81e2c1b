"""When a rule acts: on which packets, and from when to when, in a stretch or in turns.

A rule is in force for the whole fault, from `from` to `until`, or in turns of `on` and `off` within
that. Each time it comes into force it counts its packets from 0: the first three are the first
three of that turn, and what is drawn is drawn alike in each.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from chaos import fields as typed
from chaos.errors import SpecError
from chaos.packets import plain
from chaos.packets.schedule import ALWAYS, KINDS, Schedule
from chaos.turns import NO_JITTER, InForce, Turns
from chaos.units import Duration, Hertz, Percent

FASTEST_HZ = 50  # a worker takes 3 ms to let go of its packets
#: The kernel reads a pattern in 5 to 15 us per stretch; a turn should be mostly behind that.
_STRETCH_NS = 40_000
_MOST_TURNS = 1_000_000
_START = Duration(0)
#: Words of time, as they are written, with the field that holds them and its type.
TIMES: Mapping[str, tuple[str, Any]] = {
    "from": ("start", Duration),
    "until": ("until", Duration),
    "on": ("on", Duration),
    "off": ("off", Duration),
    "frequency": ("frequency", Hertz),
    "count": ("count", int),
    "jitter": ("jitter", Percent),
}


@dataclass(frozen=True, slots=True)
class When:
    """A schedule of packets, and the times within the fault at which its rule is in force.

    Attributes:
        of: On which of the packets it acts, counted from the beginning of each time in force.
        start: The rule comes into force so long after the fault began.
        until: And is taken back so long after the fault began; None: when the fault ends.
        on: Time in force in each turn; with `off`.
        off: Time not in force in each turn.
        frequency: Turns per second, half on and half off; instead of `on` and `off`.
        count: Number of turns; 0 is as many as there is time for.
        jitter: Each time of a turn is longer or shorter by up to this share.
    """

    of: Schedule = ALWAYS
    start: Duration = _START
    until: Duration | None = None
    on: Duration | None = None
    off: Duration | None = None
    frequency: Hertz | None = None
    count: int = 0
    jitter: Percent = NO_JITTER

    def __post_init__(self) -> None:
        if self.until is not None and self.until <= self.start:
            raise SpecError(
                f"a time after from ({self.start}) expected, got {self.until}", field=".until"
            )
        if turns := self.turns():
            self._be_read_within(turns.on, "frequency" if self.frequency else "on")
        elif self.until is not None:
            self._be_read_within(Duration(self.until.ns - self.start.ns), "until")

    def _be_read_within(self, time: Duration, word: str) -> None:
        many = sum(len(gate.through.spans) for gate in self.of.gates())
        if time.ns < many * _STRETCH_NS:
            raise SpecError(
                f"{Duration(many * _STRETCH_NS)} in force at least expected, since a pattern of "
                f"{many} stretches is long to load, got {time}",
                field=f".{word}",
            )

    def turns(self) -> Turns | None:
        """The train; None for one stretch.

        Raises:
            SpecError: it is none.
        """
        if self.on is None and self.off is None and self.frequency is None:
            for word in ("count", "jitter"):
                if getattr(self, word) not in (0, NO_JITTER):
                    raise SpecError("turns need on and off, or frequency", field=f".{word}")
            return None
        try:
            return Turns.of(
                self.on,
                self.off,
                self.frequency,
                self.count,
                self.jitter,
                words=("on", "off"),
                fastest_hz=FASTEST_HZ,
            )
        except SpecError as error:
            raise SpecError(error.reason, field=f".{error.field}") from None

    def spans(self, time: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """When the rule is in force, within a fault that lasts `time`.

        Raises:
            SpecError: it does not fit, with the word as its field.

        Examples:
            >>> when = When.parse("first=3 from=1s on=100ms off=400ms count=2")
            >>> spans = when.spans(Duration.parse("2 s"), random.Random(1))
            >>> [one.start_ns // 10**6 for one in spans]
            [1000, 1500]
        """
        if self.until is not None and self.until > time:
            raise SpecError(
                f"{time} at most expected, as long as the fault lasts, got {self.until}; "
                "a longer storm, or for, gives it more",
                field=".until",
            )
        if self.start >= time:
            raise SpecError(
                f"less than {time} expected, as long as the fault lasts, got {self.start}",
                field=".from",
            )
        room = Duration((self.until or time).ns - self.start.ns)
        turns = self.turns()
        try:
            found = (InForce(0, room.ns),) if turns is None else turns.spans(room, rng)
        except SpecError as error:
            raise SpecError(error.reason, field=f".{error.field or 'on'}") from None
        begin = self.start.ns
        return tuple(InForce(begin + one.start_ns, begin + one.end_ns) for one in found)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what `Schedule.parse` reads, with words of time among the others or alone.

        Raises:
            SpecError: with the word as its field.

        Examples:
            >>> str(When.parse({"random": "1 %", "until": "3 s"}))
            'random=1% until=3s'
            >>> When.parse("every=100 from=2s until=1s")
            Traceback (most recent call last):
            chaos.errors.SpecError: .until: a time after from (2 s) expected, got 1 s
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Schedule) or value == "all":
            return cls(Schedule.parse(value))
        said = (
            value.split() if isinstance(value, str) else value if isinstance(value, Mapping) else ()
        )
        if any(str(word).partition("=")[0] == "all" for word in said):
            raise SpecError(
                "all has no value and stands alone; leave it out beside from, until, on, …: "
                "without another form they mean all",
                field=".all",
            )
        given = plain.words(_by_name(value), "when", "all, or first=3")
        known = (word for kind in KINDS.values() for word in kind.words())
        plain.refuse_unknown(given, dict.fromkeys((*known, *TIMES, "all")), "when")
        made = {TIMES[key][0]: _read(key, one) for key, one in given.items() if key in TIMES}
        rest = {key: one for key, one in given.items() if key not in TIMES}
        return cls(Schedule.parse(rest) if rest or not made else ALWAYS, **made)

    def plain(self) -> Any:
        """As YAML has it."""
        times = self._times()
        if not times:
            return self.of.plain()
        return times if self.of == ALWAYS else {**self.of.plain(), **times}

    def __str__(self) -> str:
        words = [f"{key}={str(one).replace(' ', '')}" for key, one in self._times().items()]
        if self.of != ALWAYS or not words:
            words.insert(0, str(self.of))
        return " ".join(words)

    def _times(self) -> dict[str, Any]:
        """The words of time that say something."""
        given = {key: getattr(self, name) for key, (name, _) in TIMES.items()}
        return {
            key: one if isinstance(one, int) else str(one)
            for key, one in given.items()
            if one not in (None, 0, _START, NO_JITTER)
        }

    @staticmethod
    def schema() -> Mapping[str, Any]:
        """What `parse` accepts, as JSON schema."""
        times = {key: typed.schema(kind) for key, (_, kind) in TIMES.items()}
        text, *kinds = Schedule.schema()["anyOf"]
        made = [{**one, "properties": {**one["properties"], **times}} for one in kinds]
        alone = {"type": "object", "additionalProperties": False, "properties": times}
        return {"anyOf": [text, *made, {**alone, "minProperties": 1}]}


def _by_name(value: Any) -> Any:
    """What readers of YAML 1.1 make of the keys `on` and `off`, undone."""
    if not isinstance(value, Mapping):
        return value
    names = {True: "on", False: "off"}
    return {names[key] if isinstance(key, bool) else key: one for key, one in value.items()}


def _read(key: str, value: Any) -> Any:
    wanted = TIMES[key][1]
    if wanted is int:
        return plain.whole(value, key, 0, _MOST_TURNS)
    return plain.typed(wanted, value, key)


THROUGHOUT = When()
