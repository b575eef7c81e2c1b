"""What really happened to changes: every action with its instants, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from chaos.change import Change
from chaos.timeline import Moment, now_ns

LATE_NS = 1_000_000  # an action that begins this much after it was due is reported


@dataclass(frozen=True, slots=True)
class Action:
    """One change brought into force or taken back, with its times in CLOCK_MONOTONIC ns.

    Attributes:
        planned_ns: When it was due; equal to `before_ns` where healing came unplanned.
        before_ns: Just before the kernel was asked.
        acknowledged_ns: When the kernel had answered.
        kind: `do` or `undo`.
        change: Index of the change.
    """

    planned_ns: int
    before_ns: int
    acknowledged_ns: int
    kind: Literal["do", "undo"]
    change: int

    @property
    def moment(self) -> Moment:
        """From before the kernel was asked to its answer."""
        return Moment(self.before_ns, self.acknowledged_ns)


@dataclass(frozen=True, slots=True)
class ChangeProof:
    """What is known of one change.

    Attributes:
        change: What.
        in_force: It was seen in force, by a successful answer.
        seen: Packets or times it was met; None where unknown.
        hit: Packets or times it acted; None where unknown.
        taken_back: It was seen to be gone.
        leftover: The commands that take it back by hand; empty when it is gone.
    """

    change: Change
    in_force: bool
    seen: int | None
    hit: int | None
    taken_back: bool
    leftover: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What really happened, per change and per action.

    Attributes:
        changes: In the order they were armed.
        actions: In the order they were done.
        event: First `do`, from before it was asked to its acknowledgement.
        healed: Last `undo`, likewise. Where nothing was done (no actions), both are the instant of
            this proof.
        late: A sentence per action that came late.
        trouble: Sentences about anything else that went wrong.
    """

    changes: tuple[ChangeProof, ...]
    actions: tuple[Action, ...]
    event: Moment
    healed: Moment
    late: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        changes: Iterable[ChangeProof],
        actions: Iterable[Action],
        *,
        late: Iterable[str] = (),
        trouble: Iterable[str] = (),
    ) -> Self:
        """The proof for changes and what was done, in the order it was done."""
        acts, idle = tuple(actions), Moment(now_ns(), now_ns())
        return cls(
            changes=tuple(changes),
            actions=acts,
            event=next((one.moment for one in acts if one.kind == "do"), idle),
            healed=next((one.moment for one in reversed(acts) if one.kind == "undo"), idle),
            late=tuple(late),
            trouble=tuple(trouble),
        )

    @property
    def in_force(self) -> bool:
        """Every change was seen in force."""
        return all(one.in_force for one in self.changes)

    @property
    def taken_back(self) -> bool:
        """Every change was seen to be gone."""
        return all(one.taken_back for one in self.changes)

    @property
    def leftovers(self) -> tuple[str, ...]:
        """A sentence with its cure per change that is still in force."""
        return tuple(
            f"{one.change.describe()}: still in force; cure: {one.leftover}"
            for one in self.changes
            if not one.taken_back
        )


def late(
    actions: Sequence[Action], changes: Sequence[Change], *, in_turn: bool = True
) -> tuple[str, ...]:
    """A sentence per action that began late.

    Args:
        actions: In the order they were done.
        changes: What their indices name.
        in_turn: One process did them all, so each had to wait for the answer to the one before.
    """
    sentences, free_ns = [], 0
    for one in actions:
        late_ns = one.before_ns - max(one.planned_ns, free_ns)
        free_ns = one.acknowledged_ns if in_turn else 0
        if late_ns > LATE_NS:
            what = "brought into force" if one.kind == "do" else "taken back"
            told = changes[one.change].describe()
            sentences.append(f"{told}: {what} {late_ns / 1e6:.1f} ms late")
    return tuple(sentences)
