"""Which engine does an action: the first that can do all of it and is there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from chaos.errors import CapabilityError, SpecError, near
from chaos.packets.action import Action
from chaos.packets.how import Delay, Rate
from chaos.units import Bitrate, Duration

Name = Literal["nftables", "netem", "htb", "nfqueue", "worker"]
#: In the order in which they are asked.
ENGINES: tuple[Name, ...] = get_args(Name)
#: What each is, and where.
TOLD: Mapping[Name, str] = {
    "nftables": "the table itself, in the kernel, where packets arrive",
    "netem": "a queue of the kernel for what the table marks: within a cable, or, asked for by "
    "name, where a machine or a lab's node sends",
    "htb": "the same",
    "nfqueue": "a process; packets wait in the kernel's queue where a machine or a lab's node "
    "receives them",
    "worker": "a process that packets take a detour through, within a cable",
}
#: The word for the first that can.
AUTO = "auto"
#: Engines by name → why one is not here, with its cure; empty where it is. One that is not named is
#: not there either. `SEED` tells whether the draws of netem can be repeated.
There = Mapping[str, str]
SEED = "netem seed"
#: Engines that put packets out of the other inner end of a cable.
_QUEUES = ("netem", "htb")
_ACROSS = (*_QUEUES, "worker")
_NO_CABLE = (
    "it puts packets out of the other inner end of a cable, and only the interface is reached that "
    "receives; use the embedded fabric (driver netns)"
)
_NO_STACK = "it holds what a node receives, and a cable passes packets on; use engine worker"

#: What waits in netem when a rule is taken back leaves in its own time.
MOST_DELAY = Duration.parse("1 s")
#: Below it a packet takes a second and more, for which nobody waits when a rule is taken back.
LEAST_SHAPED = Bitrate(16_000)
#: Above it a process per packet would be what is slow, and not the rate.
MOST_CARRIED = Bitrate(200_000_000)
_BY_ITSELF = {
    "drop": "it drops in the kernel, by itself",
    "duplicate": "it sends a copy on in the kernel, by itself",
    "corrupt": "it overwrites bytes in the kernel, by itself",
}
_NOT_BY_NFTABLES = {
    "delay": "nftables cannot hold a packet back",
    "reorder": "nftables cannot hold a packet back",
    "rate": "nftables has no queue",
    "corrupt": "nftables computes no ICRC",
    "forge": "nftables computes no ICRC",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """What does an action.

    Attributes:
        name: `nftables`: the table itself. `netem`, `htb`: the table marks the chosen packets, and
            a queue of ours in the kernel holds them. `nfqueue`, `worker`: the table leads them to a
            process, which holds or rewrites them.
        why: A sentence without its full stop: what the engines before it lack.
    """

    name: Name
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class At(Mapping[str, str]):
    """What is there of engines at a place, by what is reached of it.

    Attributes:
        across: Both inner ends of a cable are reached; else only the interface that receives.
        there: What is there besides; by default all.
        sends: The port that sends is reached as well: a queue that is asked for by its name lies
            there.

    Examples:
        >>> At(across=False)["worker"].partition(",")[0]
        'it puts packets out of the other inner end of a cable'
        >>> At(across=True)["worker"]
        ''
    """

    across: bool
    there: There = field(default_factory=lambda: dict.fromkeys(ENGINES, ""))
    sends: bool = False

    def __getitem__(self, name: str) -> str:
        if name in _ACROSS and not self.across:
            return _NO_CABLE
        return _NO_STACK if name == "nfqueue" and self.across else self.there[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.there)

    def __len__(self) -> int:
        return len(self.there)


def _nftables(then: Action) -> str:
    if then.how is None:
        return ""
    return "nftables makes no packets of its own" if then.answers else _NOT_BY_NFTABLES[then.deed]


def _netem(then: Action) -> str:
    if not isinstance(then.how, Delay):
        return "netem does delay alone"
    reach = {"uniform": 1, "normal": 4, "exponential": 10}[then.how.shape]
    if then.how.of.ns + reach * then.how.jitter.ns > MOST_DELAY.ns:
        return f"netem cannot let go of what it holds, so it holds a packet {MOST_DELAY} at most"
    return ""


def _htb(then: Action) -> str:
    if not isinstance(then.how, Rate):
        return "htb does rate alone"
    if then.how.of < LEAST_SHAPED:
        return f"htb lets go too late of what waits below {LEAST_SHAPED}"
    return ""


def _process(then: Action) -> str:
    if then.how is None:
        return "nftables does it without a process"
    if isinstance(then.how, Rate) and then.how.of > MOST_CARRIED:
        return f"a process per packet carries {MOST_CARRIED} at most"
    return ""


_UNABLE: Mapping[Name, Callable[[Action], str]] = {
    "nftables": _nftables,
    "netem": _netem,
    "htb": _htb,
    "nfqueue": _process,
    "worker": _process,
}


def unable(name: Name, then: Action) -> str:
    """What an engine lacks for an action, wherever it is; empty when it can do all of it.

    Examples:
        >>> unable("htb", Action.parse("rate=10Mbit/s"))
        ''
        >>> unable("htb", Action.parse("delay=1ms"))
        'htb does rate alone'
    """
    return _UNABLE[name](then)


def named(asked: str, then: Action) -> str:
    """The name of an engine as a fault asks for it.

    Raises:
        SpecError: there is none of that name, or it cannot do the action; says which can.
    """
    if asked != AUTO and asked not in ENGINES:
        raise SpecError(f"no engine {asked!r}; {near(asked, (AUTO, *ENGINES))}", field="engine")
    if asked != AUTO and (why := unable(_name(asked), then)):
        can = ", ".join(one for one in ENGINES if not unable(one, then))
        raise SpecError(
            f"engine {asked} cannot do {then}: {why}; leave engine out, or give one that can: "
            f"{can}",
            field="engine",
        )
    return asked


def choose(then: Action, there: There | None = None, asked: str = AUTO) -> Engine:
    """The first engine that can do all of it and is there, and why it is that one.

    Args:
        then: What is to be done.
        there: What is there; None where that is not known: then the first that can.
        asked: An engine's name, or `auto`.

    Raises:
        SpecError: the engine asked for does not exist, or cannot do the action.
        CapabilityError: no engine that can do it is there; says per engine why, and the cure.

    Examples:
        >>> str(choose(Action("ce")))
        'nftables: it overwrites the header in the kernel, by itself'
        >>> here = At(True, {"nftables": "", "netem": "no sch_netem; load it", "worker": ""})
        >>> str(choose(Action.parse("delay=10ms"), here))
        'worker: nftables cannot hold a packet back; netem is not here: no sch_netem'
        >>> choose(Action.parse("delay=10ms"), here, "netem")
        Traceback (most recent call last):
        chaos.errors.CapabilityError: delay=10ms by engine netem: no sch_netem; load it; or leave \
engine out, then worker does it
    """
    if named(asked, then) != AUTO:
        return _asked(then, there, _name(asked))
    passed: list[str] = []
    for name in ENGINES:
        if why := unable(name, then):
            if _NEAR[name](then):
                passed.append(why)
            continue
        if there is not None and (why := _not_there(name, there)):
            if why not in (_NO_CABLE, _NO_STACK):
                passed.append(f"{name} is not here: {why.partition(';')[0]}")
            continue
        if name == "nftables":
            why = _BY_ITSELF.get(then.deed, "it overwrites the header in the kernel, by itself")
            return Engine(name, why)
        return Engine(name, "; ".join((*passed, *_notes(name, then, there))))
    assert there is not None
    raise CapabilityError(f"no engine here can do {then}: {'; '.join(_refused(then, there))}")


#: Which engines are worth a word where they are passed over: those that hold what is to be held.
_NEAR: Mapping[Name, Callable[[Action], bool]] = {
    "nftables": lambda then: True,
    "netem": lambda then: isinstance(then.how, Delay),
    "htb": lambda then: False,
    "nfqueue": lambda then: False,
    "worker": lambda then: True,
}


def _asked(then: Action, there: There | None, name: Name) -> Engine:
    if there is not None and (why := _not_there(name, _by_name(name, there))):
        others = (one for one in ENGINES if not unable(one, then) and not _not_there(one, there))
        instead = next((f"; or leave engine out, then {one} does it" for one in others), "")
        raise CapabilityError(f"{then} by engine {name}: {why}{instead}")
    return Engine(name, "; ".join(("it was asked for", *_notes(name, then, there))))


def _by_name(name: Name, there: There) -> There:
    """Where one that is asked for is looked for: a queue may lie at the port that sends."""
    return there.there if isinstance(there, At) and there.sends and name in _QUEUES else there


def _notes(name: Name, then: Action, there: There | None) -> Iterator[str]:
    """What is to be known of an engine that does it."""
    if there is None:
        later = ENGINES[ENGINES.index(name) + 1 :]
        others = [one for one in later if not unable(one, then)]
        if others:
            yield f"where it has none, {' or '.join(others)} does it"
        return
    drawn = name == "netem" and isinstance(then.how, Delay) and then.how.jitter.ns
    if drawn and (why := there.get(SEED, "")):
        yield f"its draws differ from run to run: {why}"


def _not_there(name: Name, there: There) -> str:
    return there.get(name, f"nobody looked for {name} here")


def _refused(then: Action, there: There) -> Iterator[str]:
    for name in ENGINES:
        if why := unable(name, then):
            if _NEAR[name](then):
                yield why
        elif (lacks := _not_there(name, there)) not in (_NO_CABLE, _NO_STACK):
            yield f"{name}: {lacks}"


def _name(asked: str) -> Name:
    return next(one for one in ENGINES if one == asked)


def away(then: Action) -> str:
    """Why an action can only be done within a cable, and what instead; empty where it cannot.

    Where only an interface that receives is reached, what arrives goes up the stack of its node:
    it can be held there, but not sent a second time.
    """
    if then.deed != "duplicate":
        return ""
    return (
        f"{then} needs both inner ends of a cable, to put a packet out of the other a second time; "
        "use the embedded fabric (driver netns), or tc netem duplicate on the port that sends"
    )
