"""The changes that one injector holds: made ready and written down, done, proved, taken back.

When something is due is the injector's business; here is what is done then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from chaos.change import Hits
from chaos.errors import ApplyError, FabricError
from chaos.held import GONE_WITHIN_NS, Held
from chaos.journal import Journal, State
from chaos.timeline import now_ns

_AGAIN_S = 0.02  # a route may wait for a carrier, an address for its link


class Grip:
    """Every change of one injector, in order; none before `make_ready`.

    Args:
        owner: The process that holds them: pid and start time.
        say: Says one line, of every `do` and `undo` once nothing else waits.

    Attributes:
        trouble: Sentences about what went wrong and stopped nothing.
        healed: Everything was taken back, as far as it could be; nothing is done any more.
    """

    def __init__(self, owner: tuple[int, int], say: Callable[..., None]) -> None:
        self.held: list[Held] = []
        self.trouble: list[str] = []
        self.healed = False
        self._owner, self._say = owner, say
        self._journal: Journal | None = None

    def make_ready(
        self, changes: Sequence[dict[str, Any]], wheres: Sequence[dict[str, Any]], journal: Path
    ) -> None:
        """Open all that every change needs and write it down; nothing is changed yet.

        Raises:
            BlockedError: the journal cannot be written, or a change is in force already.
            ApplyError: a change cannot be made.
            FabricError: a place is gone.
        """
        for at, (change, where) in enumerate(zip(changes, wheres, strict=True)):
            id = f"{self._owner[0]}.{self._owner[1]}-{at}"
            self.held.append(Held.ready(at, id, change, where))
        self._journal = Journal(journal)
        for one in self.held:
            self._journal.intended(
                one.id,
                one.change,
                one.where,
                saved=one.native.saved,
                cure=one.cure,
                owner=self._owner,
            )
            one.written = True

    def let_go(self) -> None:
        """Hold nothing, where nothing was done: no line in the journal is left open."""
        for one in self.held:
            if one.written:
                self._note("taken_back", one)
            one.native.close()
        self.held.clear()

    def act(self, kind: Literal["do", "undo"], planned: int) -> str:
        """Do every change, or undo every one, last first; a sentence where one was refused."""
        done, failure = [], ""
        for one in self.held if kind == "do" else reversed(self.held):
            before = now_ns()
            try:
                if kind == "do":
                    one.do()
                else:
                    one.undo()
            except ApplyError as error:
                failure = str(error)
                break
            done.append((one.at, before, now_ns()))
        for at, before, after in done:
            self._tell(at, kind, planned, before, after)
        return failure

    def prove(self, until_ns: int | None) -> str:
        """Look once per change that it came into force; a sentence when one did not.

        Args:
            until_ns: Looking must not go on after this, where something is due.
        """
        for one in self.held:
            if one.in_force:
                continue
            soon = now_ns() + GONE_WITHIN_NS
            try:
                one.in_force = one.awaited(True, soon if until_ns is None else min(soon, until_ns))
            except FabricError as error:
                return str(error)
            if not one.in_force:
                return f"{one.change.describe()}: accepted, yet not in force"
            self._note("in_force", one)
        return ""

    def look_again(self) -> None:
        """Note what is no longer in force though nobody here took it back."""
        for one in self.held:
            if one.in_force and one.begun and not one.holds():
                self.trouble.append(
                    f"{one.change.describe()}: no longer in force before it was taken back; "
                    "somebody else undid it"
                )

    def living(self) -> list[Callable[[], bool]]:
        """How to ask what is in force only as long as a process of its own lives."""
        if self.healed:
            return []
        able = (getattr(one.native, "lives", None) for one in self.held if one.begun)
        return [lives for lives in able if lives is not None]

    def hits(self) -> list[Hits]:
        """How often each change acted so far."""
        return [one.counted() for one in self.held]

    def heal(self) -> bool:
        """Take everything back, last first, and look that it is gone; whether it is."""
        self.healed = True
        until = now_ns() + GONE_WITHIN_NS
        while left := [one for one in reversed(self.held) if not one.taken_back]:
            for one in left:
                self._take_back(one)
            if now_ns() >= until:
                break
            if any(one.refused for one in left):
                time.sleep(_AGAIN_S)
        for one in self.held:
            self._close(one)
        return all(one.taken_back for one in self.held)

    def _take_back(self, one: Held) -> None:
        """Undo what is not undone, count, and look until it is gone."""
        if not one.begun or one.native.lasting:
            one.hits = one.counted() if one.begun else one.hits
            one.taken_back = True
            return
        try:
            if one.pending or one.refused or one.holds():
                before, again = now_ns(), bool(one.refused)
                one.undo()
                if not (again and one.refused):  # the same refusal, every 20 ms, is told once
                    self._tell(one.at, "undo", before, before, now_ns())
            one.see_gone()
        except Exception as error:  # one failed undo must not stop the others
            one.refused = (*one.refused, str(error))

    def _close(self, one: Held) -> None:
        if one.begun:
            self._note("acted", one, seen=one.hits.seen, hit=one.hits.hit)
        if one.taken_back:
            self._note("taken_back", one)
        else:
            self._note("leftover", one, refused=list(one.refused))
        self.trouble += getattr(one.native, "trouble", ())
        one.native.close()

    def _tell(self, at: int, kind: str, planned: int, before: int, after: int) -> None:
        self._say(ev="action", change=at, kind=kind, planned=planned, before=before, after=after)

    def _note(self, state: State, one: Held, **facts: Any) -> None:
        if self._journal is not None:
            self.trouble += self._journal.told(state, one.id, **facts)
