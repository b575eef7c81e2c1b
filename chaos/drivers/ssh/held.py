"""One switch and the changes held at it; blocking, in one thread of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.change import Change, Hits, Where
from chaos.drivers.ssh.console import Console, RejectedError
from chaos.drivers.ssh.deadmen import deadman_at
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.journal import Journal, State
from chaos.nos import Commands, Standing, in_its_words
from chaos.proof import Action
from chaos.timeline import now_ns

TAKES_HOLD_S = 10.0  # a switch may be slow to program what it accepted
GONE_WITHIN_S = 20.0  # how long healing is tried
_AGAIN_S = 0.2
_SPIN_NS = 200_000
_QUIET_NS = 500_000_000


@dataclass(slots=True)
class Held:
    """One change at a switch.

    Attributes:
        id: Its name in the journal.
        index: Its place in the list of changes.
        change: In the words of the fabric.
        where: `ifname` is what the switch calls the port, or the neighbour that is named by one.
        answers: What the switch said when the table asked it for facts.
        begun: Its `do` was begun at least once.
        pending: No `undo` has followed the last `do` yet.
        refused: What the last `undo` could not do.
        base: What was counted before the first `do`.
    """

    id: str
    index: int
    change: Change
    where: Where
    commands: Commands = field(default_factory=lambda: Commands((), (), (), lambda told: "unknown"))
    answers: tuple[str, ...] = ()
    cure: str = ""
    begun: bool = False
    pending: bool = False
    in_force: bool = False
    refused: tuple[str, ...] = ()
    base: Hits = field(default_factory=lambda: Hits(None, None))
    hits: Hits = field(default_factory=lambda: Hits(None, None))
    taken_back: bool = False
    written: bool = False

    @property
    def spoken(self) -> Change:
        """The change in the switch's own words."""
        return in_its_words(self.change, self.where.ifname)


class Switch:
    """A session, the changes at its switch, and their one dead-man.

    Args:
        console: The session.
        held: The changes, in order.
        tag: Name of the dead-man: lease, session or candidate.
        journal: Where is written down what becomes of them; None when taking back after a crash.
        owner: Process that holds them: pid and start time.
        lease_s: How long a lease lasts, in seconds.
        life_s: Longest time in force, in seconds.
    """

    def __init__(
        self,
        console: Console,
        held: Sequence[Held],
        *,
        tag: str,
        journal: Journal | None = None,
        owner: tuple[int, int] = (0, 0),
        lease_s: int = 10,
        life_s: int = 60,
    ) -> None:
        self.console = console
        self.held = tuple(held)
        self.lease_s = lease_s
        self.deadman = deadman_at(console, tag, lease_s, life_s)
        self.deadline_ns = 0
        self.next_ns = 0
        self.actions: list[Action] = []
        self.trouble: list[str] = []
        self._journal = journal
        self._owner = owner
        self._platform = console.platform
        self._unrenewed = False

    # ------------------------------------------------------------------ before

    def look_round(self) -> None:
        """Log in, learn what the changes need, and see that none is in force.

        Raises:
            BlockedError: one is, or cannot be told, or another's commit waits.
            FabricError: something is not there; or a CapabilityError of the table.
        """
        console = self.console
        console.open()
        self.deadman.possible()
        for one in self.held:
            asked = self._platform.facts(one.spoken)
            one.answers = tuple(console.run(command) for command in asked)
            one.commands = self._platform.render(one.spoken, one.answers)
            one.cure = self.deadman.cure(one.commands.undo)
            standing = self._standing(one)
            if standing != "gone":
                what = {
                    "in_force": "is so already",
                    "partly": "is so in part already",
                    "unknown": "cannot be told from what the switch answers",
                }[standing]
                raise BlockedError(f"{one.change.describe()}: {what} at {console.told}")
            if not one.commands.flow:
                with contextlib.suppress(RejectedError):
                    one.base = _counted(one, [console.run(c) for c in one.commands.tally])

    def write_down(self) -> None:
        """Into the journal, before anything is changed."""
        if self._journal is None:
            return
        for one in self.held:
            self._journal.intended(
                one.id,
                one.change,
                one.where,
                saved=self._saved(one),
                cure=one.cure,
                owner=self._owner,
            )
            one.written = True

    def _saved(self, one: Held) -> dict[str, Any]:
        return {
            "platform": self._platform.name,
            "tag": self.deadman.tag,
            "answers": list(one.answers),
            "target": self.console.target.to_json(),
        }

    def make_ready(self) -> None:
        """Arm the dead-man, and see that it stands; where a commit carries it, stage the commit.

        Raises:
            BlockedError: it cannot be armed, so nothing may be broken.
        """
        self.deadman.arm(self._do, self._undo)

    @property
    def _do(self) -> list[str]:
        return [line for one in self.held for line in one.commands.do]

    @property
    def _undo(self) -> list[str]:
        return [line for one in reversed(self.held) for line in one.commands.undo]

    def stage(self) -> None:
        """Make the next commit ready, without any effect."""
        self.deadman.stage(self._do)

    def renew(self) -> None:
        """Move the lease on; it never reaches beyond the maximum life."""
        if 0 < self.next_ns - now_ns() < _QUIET_NS:
            return  # it would make the action late; the next renewal comes in time
        try:
            self.deadman.renew()
        except FabricError as error:
            if not self._unrenewed:
                self.trouble.append(f"the lease could not be renewed: {error}")
            self._unrenewed = True

    # ------------------------------------------------------------------ the deed

    def do(self, planned_ns: int) -> None:
        """Bring every change into force, and see that it is.

        Raises:
            ApplyError: one did not come into force.
        """
        left_s = (self.deadline_ns - max(planned_ns, now_ns())) // 1_000_000_000
        command = self.deadman.doing(self._do, left_s)
        for one in self.held:
            one.begun = one.pending = True
        before, after, refused, _ = self._timed(planned_ns, [command])
        if refused:
            raise ApplyError(refused[0])
        self._told("do", planned_ns, before, after, self.held)
        self.deadman.confirm()
        for one in self.held:
            if not self._awaited(one, "in_force"):
                raise ApplyError(f"{one.change.describe()}: accepted, yet not in force")
            if not one.in_force:
                one.in_force = True
                self._note("in_force", one)

    def before_undo(self) -> None:
        """Count, and see that every change is still in force."""
        self.count()
        for one in self.held:
            if one.in_force and self._standing(one) == "gone":
                self.trouble.append(
                    f"{one.change.describe()}: no longer in force before it was taken back; "
                    "somebody else undid it"
                )

    def undo(self, planned_ns: int) -> None:
        """Take every change back, last first, and see that it is gone.

        Raises:
            FabricError: one is still in force.
        """
        self._take_back(planned_ns)
        for one in self.held:
            if not self._awaited(one, "gone"):
                raise FabricError(f"{one.change.describe()}: taken back, yet still in force")

    def _take_back(self, planned_ns: int) -> None:
        """Undo; a shell counts in the same breath, so that nothing is missed between."""
        mine = tuple(reversed([one for one in self.held if one.begun]))
        asked = [(one, command) for one in mine for command in one.commands.tally]
        before, after, refused, text = self._timed(
            planned_ns,
            self.deadman.undoing(
                [command for _, command in asked],
                [line for one in mine for line in one.commands.undo],
            ),
        )
        if told := self.deadman.counted(text):
            for one in mine:
                counted = zip(asked, told, strict=False)
                self._keep(one, [part for (held, _), part in counted if held is one])
        for one in mine:
            one.refused, one.pending = refused, False
        self._told("undo", planned_ns, before, after, mine)

    def _timed(
        self, planned_ns: int, commands: Sequence[str]
    ) -> tuple[int, int, tuple[str, ...], str]:
        """Run all, whichever is refused: times around, what was refused, what was printed."""
        refused: list[str] = []
        printed: list[str] = []
        _sleep_until(planned_ns)
        before = now_ns()
        for command in commands:
            try:
                printed.append(self.console.run(command))
            except RejectedError as error:
                refused.append(str(error))
                printed.append(error.answer)
        return before, now_ns(), tuple(refused), "".join(printed)

    def _told(self, kind: str, planned: int, before: int, after: int, held: Sequence[Held]) -> None:
        what: Any = kind
        self.actions += [Action(planned, before, after, what, one.index) for one in held]

    # ------------------------------------------------------------------ back

    def heal(self) -> None:
        """Take everything back, see that it is gone, disarm; repeatable, and never raises."""
        if not self.deadman.ready:
            for one in self.held:
                one.taken_back = one.taken_back or not one.begun
        until = time.monotonic() + GONE_WITHIN_S
        while any(not one.taken_back for one in self.held):
            try:
                self.console.open()
                self.return_all()
            except Exception as error:  # one failure must not stop the healing
                for one in self.held:
                    one.refused = (str(error),)
            if time.monotonic() >= until:
                break
            if any(not one.taken_back for one in self.held):
                time.sleep(_AGAIN_S)
        if left := self.deadman.end(all(one.taken_back for one in self.held)):
            self.trouble.append(left)
        for one in self.held:
            self._close(one)

    def return_all(self) -> None:
        """Undo what stands, by the dead-man's way first, then line by line."""
        if staged := self.deadman.dropping():
            self._timed(now_ns(), staged)
            self.deadman.ready = False
        if any(one.begun and one.pending for one in self.held):
            self.count()
            self._take_back(now_ns())
        for one in self.held:
            if one.taken_back or not one.begun:
                one.taken_back = True
                continue
            if not self._awaited(one, "gone"):
                lines = self.deadman.plain(one.commands.undo)
                before, after, one.refused, _ = self._timed(now_ns(), lines)
                self._told("undo", before, before, after, (one,))
            one.taken_back = self._awaited(one, "gone")

    def _close(self, one: Held) -> None:
        if not one.written:
            return
        one.written = False
        if one.begun:
            self._note("acted", one, seen=one.hits.seen, hit=one.hits.hit)
        if one.taken_back:
            self._note("taken_back", one)
        else:
            self._note("leftover", one, refused=list(one.refused))

    # ------------------------------------------------------------------ looking

    def count(self) -> None:
        """Read how often each change acted, while it still can be read."""
        for one in self.held:
            if one.begun and one.pending:
                with contextlib.suppress(FabricError):
                    self._keep(one, [self.console.run(c) for c in one.commands.tally])

    def _keep(self, one: Held, answers: Sequence[str]) -> None:
        """What was counted, since the change came into force."""
        now = _counted(one, answers)
        if now.hit is None:
            return
        if one.commands.flow:
            one.hits = now
        elif one.base.hit is not None:
            one.hits = Hits(None, now.hit - one.base.hit)

    def _standing(self, one: Held) -> Standing:
        return one.commands.read([self.console.run(command) for command in one.commands.look])

    def _awaited(self, one: Held, wanted: Standing) -> bool:
        until = time.monotonic() + TAKES_HOLD_S
        while self._standing(one) != wanted:
            if time.monotonic() >= until:
                return False
            time.sleep(_AGAIN_S)
        return True

    def _note(self, state: State, one: Held, **facts: Any) -> None:
        if self._journal is not None:
            self.trouble += self._journal.told(state, one.id, **facts)


def _counted(one: Held, answers: Sequence[str]) -> Hits:
    try:
        return one.commands.count(answers)
    except (ValueError, KeyError, IndexError, FabricError):
        return Hits(None, None)


def _sleep_until(at_ns: int) -> None:
    left = at_ns - _SPIN_NS - now_ns()
    if left > 0:
        time.sleep(left / 1e9)
    while now_ns() < at_ns:
        pass
