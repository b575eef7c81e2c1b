"""Which strikes are in force at one time, and which of them could not be told apart. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from chaos.change import (
    BgpNeighbour,
    Change,
    DeviceGone,
    LinkState,
    PacketRule,
    Place,
    PortShape,
    ProcessRestart,
    ProcessSignal,
    identity,
)
from chaos.changes.queue import QUEUES
from chaos.errors import SpecError
from chaos.experiment_fit import meanings
from chaos.fabric import Fabric, Port
from chaos.strike import ARRIVAL, Strike, as_text

#: What strikes an element again must leave this long after what struck it before: the first must be
#: seen gone.
APART_NS = 250_000_000
#: How long what was healed still counts as broken for limits: routing needs its time to use it.
HEALING_NS = 1_000_000_000


def together(strikes: Sequence[Strike]) -> tuple[tuple[int, ...], ...]:
    """Indices of strikes that are in force at one time, for each greatest such set.

    One that begins within `HEALING_NS` of another's end counts as together with it.
    """
    sets = {
        frozenset(
            at
            for at, other in enumerate(strikes)
            if other.at_ns <= one.at_ns <= other.until_ns + HEALING_NS
        )
        for one in strikes
    }
    greatest = [one for one in sets if not any(one < other for other in sets)]
    return tuple(sorted(tuple(sorted(one)) for one in greatest))


def overlap(one: Strike, other: Strike) -> bool:
    """Whether two are in force at one time, or so close that the first may not be gone.

    What nothing takes back (a killed process) never is.
    """
    return one.at_ns < _gone_ns(other) and other.at_ns < _gone_ns(one)


def _gone_ns(one: Strike) -> float:
    return math.inf if getattr(one.fault, "lasting", False) else one.until_ns + APART_NS


def collision(
    one: Strike, other: Strike, fabric: Fabric, mine: Sequence[Change], theirs: Sequence[Change]
) -> str:
    """What two strikes share so that they could not be told apart; empty when they can.

    They overlap, and one undo would take back both, or both act on the state of one cable, one
    session, one process or the one root of a port's queues, so that neither's effect nor healing is
    its own.
    """
    if not overlap(one, other):
        return ""
    if gone := _beneath(mine, theirs, fabric) or _beneath(theirs, mine, fabric):
        return gone
    touched = _touched(mine, fabric)
    shared = touched.keys() & _touched(theirs, fabric).keys()
    found = min((touched[key] for key in shared), default="")
    return found or _one_root(mine, theirs, fabric) or _one_root(theirs, mine, fabric)


def _one_root(shaping: Sequence[Change], ruling: Sequence[Change], fabric: Fabric) -> str:
    """The root of queues that a shaped port and a rule's queue would both be; empty for none.

    Rules share a root. One that a worker does needs none.
    """
    shaped = {_sender(one.place, fabric) for one in shaping if isinstance(one, PortShape)}
    for one in ruling if shaped else ():
        if isinstance(one, PacketRule) and one.settled(None).engine in QUEUES:
            place = one.place
            here = Port(place.node, place.port)
            if (here if place.side == "wire" else _far(here, fabric)) in shaped:
                return f"the queues behind {here} (a rule by engine: worker needs none)"
    return ""


def _sender(place: Place, fabric: Fabric) -> Port | None:
    """The port whose packets a shaped place sends on."""
    here = Port(place.node, place.port)
    return _far(here, fabric) if place.side == "wire" else here


def _far(here: Port, fabric: Fabric) -> Port | None:
    link = next((one for one in fabric.links if here in one.ports), None)
    return link.other(here) if link is not None and len(link.ports) == 2 else None


def _beneath(mine: Sequence[Change], theirs: Sequence[Change], fabric: Fabric) -> str:
    """A device that goes from under a port that something else acts on; empty for none."""
    far = {port: link.other(port) for link in fabric.links for port in link.ports}
    acted = {Port(one.place.node, one.place.port): one.place.side for one in theirs}
    acted |= {far[port]: "node" for port, side in acted.items() if side == "wire" and port in far}
    for one in mine:
        if isinstance(one, DeviceGone):
            for name in (one.place.port, *one.takes):
                if (port := Port(one.place.node, name)) in acted:
                    return f"the device behind {port}"
    return ""


def _touched(changes: Sequence[Change], fabric: Fabric) -> dict[str, str]:
    """What changes act on: what tells it from everything else, and in words."""
    cables = {port: link.id for link in fabric.links for port in link.ports}
    found = {}
    for change in changes:
        place = change.place
        key, words = identity(change), change.describe()
        if isinstance(change, LinkState):
            port = Port(place.node, place.port)
            key = words = f"the state of {cables.get(port, port.id)}"
        elif isinstance(change, ProcessSignal | ProcessRestart):
            key = words = f"the process {place.process}"
        elif isinstance(change, BgpNeighbour):
            key = words = f"the session at {place}"
        found[key] = words
    return found


def _always(one: Strike, other: Strike, fabric: Fabric) -> str:
    """What two strikes share whatever traffic makes of their words; empty when they need not."""
    if not overlap(one, other):
        return ""
    pairs = _meant(one.fault, other.fault, fabric)
    shared = ""
    for a, b in pairs:
        try:
            changes = a.changes(fabric), b.changes(fabric)
        except SpecError:
            continue  # a meaning that this fabric cannot have
        shared = collision(replace(one, fault=a), replace(other, fault=b), fabric, *changes)
        if not shared:
            return ""
    return shared


def _meant(a: Any, b: Any, fabric: Fabric) -> Iterator[tuple[Any, Any]]:
    """What traffic could make of the words of two faults; equal words are settled alike."""
    same = [w for w in ("link", "node") if getattr(a, w, None) == getattr(b, w, None) is not None]
    if "link" in same and getattr(a, "end", None) == getattr(b, "end", None) is not None:
        same.append("end")
    for x, y in product(meanings(a, fabric), meanings(b, fabric)):
        if all(getattr(x, word) == getattr(y, word) for word in same):
            yield x, y


def separate(strikes: Sequence[Strike], fabric: Fabric) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Indices of the strikes that can be told apart, and why the others are left out.

    An arrival on what is broken already is left out: a link that is down cannot fail again.

    Raises:
        SpecError: two that are not drawn collide, whatever traffic makes of their words.
    """
    kept: list[int] = []
    left: list[str] = []
    in_order = sorted(range(len(strikes)), key=lambda at: (strikes[at].origin == ARRIVAL, at))
    for at in in_order:
        one = strikes[at]
        met = ((strikes[other], _always(strikes[other], one, fabric)) for other in kept)
        first, shared = next(((other, what) for other, what in met if what), (one, ""))
        if shared and one.origin != ARRIVAL and getattr(first.fault, "lasting", False):
            raise SpecError(
                f"{as_text(first.fault)} ends {shared} for good, and {as_text(one.fault)} would "
                "strike it again; strike something else"
            )
        if shared and one.origin != ARRIVAL:
            raise SpecError(
                f"{as_text(first.fault)} and {as_text(one.fault)} cannot be told apart: both "
                f"change {shared} within {APART_NS / 1e6:g} ms of each other; leave more time "
                "between them, or strike something else"
            )
        if shared:
            left.append(f"left out: {one.text}; {as_text(first.fault)} changes {shared} then")
        else:
            kept.append(at)
    return tuple(sorted(kept)), tuple(left)
