"""One change while an injector holds it: made ready, done, looked at, undone, counted."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from chaos.change import Argv, Change, Hits, Where, from_json
from chaos.errors import FabricError
from chaos.native import Native, build
from chaos.timeline import now_ns

GONE_WITHIN_NS = 2_000_000_000  # how long a taken-back change may take to be gone


def undoing(change: Change, where: Where, saved: Mapping[str, Any]) -> tuple[Argv, ...]:
    """The commands that take a change back, from the machine's own namespace."""
    undo = change.steps(where, saved).undo
    enter = ("nsenter", f"--net={where.netns}") if where.netns else ()
    return tuple((*enter, *argv) for argv in undo)


@dataclass(slots=True)
class Held:
    """One change.

    Attributes:
        at: Its place in the order of changes.
        id: Its name in the journal.
        undo_by_hand: The commands of its undo.
        written: It stands in the journal.
        begun: Its `do` was begun at least once.
        pending: No `undo` has followed the last `do` yet.
        refused: What the last `undo` could not do.
    """

    at: int
    id: str
    change: Change
    where: Where
    native: Native
    undo_by_hand: tuple[Argv, ...]
    written: bool = False
    begun: bool = False
    pending: bool = False
    in_force: bool = False
    refused: tuple[str, ...] = ()
    hits: Hits = field(default_factory=lambda: Hits(None, None))
    taken_back: bool = False

    @classmethod
    def ready(cls, at: int, id: str, change: dict[str, Any], where: dict[str, Any]) -> Self:
        """Open all that it needs; nothing is changed yet.

        Raises:
            BlockedError, ApplyError, FabricError: as `chaos.native.build`.
        """
        made, place = from_json(change), Where.from_json(where)
        native = build(made, place)
        made = getattr(native, "change", made)  # by the engine that was found here
        return cls(at, id, made, place, native, undoing(made, place, dict(native.saved)))

    @property
    def cure(self) -> str:
        """Its undo as one line, for a person."""
        return "; ".join(shlex.join(argv) for argv in self.undo_by_hand)

    def do(self) -> None:
        """Bring it into force.

        Raises:
            ApplyError: the kernel refused.
        """
        self.begun = self.pending = True  # before the deed: half done is undone too
        self.native.do()

    def undo(self) -> None:
        """Take it back; what that could not do is in `refused`."""
        self.refused = self.native.undo()
        self.pending = False

    def holds(self) -> bool:
        """In force, or impossible to tell: then it is treated as if it were."""
        try:
            return self.native.in_force()
        except FabricError:
            return True

    def awaited(self, wanted: bool, until_ns: int) -> bool:
        """Look until it is in the wanted state or time is up; whether it is.

        Raises:
            FabricError: it cannot be told.
        """
        while self.native.in_force() is not wanted:
            if now_ns() >= until_ns:
                return False
            time.sleep(0.0005)
        return True

    def see_gone(self) -> None:
        """Count it for the last time, and look until it is gone; once where its undo was refused.

        Raises:
            FabricError: it cannot be told.
        """
        self.hits = self.counted()
        gone = self.awaited(False, now_ns() + (0 if self.refused else GONE_WITHIN_NS))
        self.taken_back = gone and not self.refused

    def counted(self) -> Hits:
        """How often it acted so far, as far as that can be told."""
        if self.taken_back:
            return self.hits
        try:
            return self.native.hits()
        except (FabricError, OSError):
            return self.hits

    def told(self) -> dict[str, Any]:
        """What became of it, as plain data."""
        return {
            "in_force": self.in_force,
            "hits": [self.hits.seen, self.hits.hit],
            "taken_back": self.taken_back,
            "cure": "" if self.taken_back else self.cure,
            "refused": list(self.refused),
        }
