"""One holder over many: the same instant on every machine, healed as one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chaos.change import Change, Hits, PacketRule
from chaos.driver import Holder
from chaos.errors import FabricError, RailbreakError
from chaos.proof import Action, Proof
from chaos.registry import InForce

#: Sentences of machines that are told in one; the rest is counted.
_TOLD = 8


class Together:
    """Holds what several holders hold (`chaos.driver.Holder`).

    Args:
        asked: The changes of the plan.
        parts: Holders, with the indices into `made` of what each holds, in its order.
        index: Per asked change, the index of the one that is made for it.
    """

    def __init__(
        self,
        asked: Sequence[Change],
        parts: Sequence[tuple[Holder, Sequence[int]]],
        index: Sequence[int],
    ) -> None:
        self.changes = tuple(asked)
        self._parts, self._index = tuple(parts), tuple(index)
        self._proof: Proof | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done so far, in the order of time."""
        first = {made: asked for asked, made in reversed(list(enumerate(self._index)))}
        found = [
            replace(action, change=first[mine[action.change]])
            for holder, mine in self._parts
            for action in holder.actions
        ]
        return tuple(sorted(found, key=lambda action: action.before_ns))

    async def start(self, t0_ns: int, spans: Sequence[InForce]) -> None:
        """Hand the schedule to every machine.

        Raises:
            RailbreakError: one has refused it, or is gone; all are healed.
        """
        await self._everywhere([holder.start(t0_ns, spans) for holder, _ in self._parts])

    async def hits(self) -> Mapping[int, Hits]:
        """How often each change acted so far, by index."""
        told = await asyncio.gather(*(holder.hits() for holder, _ in self._parts))
        made = {
            mine[at]: hits
            for (_, mine), found in zip(self._parts, told, strict=True)
            for at, hits in found.items()
        }
        return {asked: made[at] for asked, at in enumerate(self._index) if at in made}

    async def wait(self) -> None:
        """Return when the last span has ended everywhere.

        Raises:
            RailbreakError: it went wrong on machines, which are named; the others were healed at
                once.
        """
        await self._everywhere([holder.wait() for holder, _ in self._parts])

    async def _everywhere(self, work: Sequence[Coroutine[Any, Any, None]]) -> None:
        """All to their end; where one fails all are healed, and who failed by then is told."""
        tasks = [asyncio.ensure_future(one) for one in work]
        failed: list[BaseException] = []
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failed = [why for task in tasks if task.done() and (why := task.exception())]
        finally:
            whole = all(task.done() for task in tasks) and not failed
            for task in tasks:
                task.cancel()
            if not whole:
                await self.heal()
        if failed:
            lost = [name for holder, _ in self._parts if (name := getattr(holder, "lost", ""))]
            raise _lost(lost, len(self._parts)) if len(lost) > 1 else together(failed)

    async def heal(self) -> Proof:
        """Take back everywhere at once, and prove it; repeatable."""
        if self._proof is None:
            proofs = await asyncio.gather(*(holder.heal() for holder, _ in self._parts))
            self._proof = self._joined(proofs)
        return self._proof

    def _joined(self, proofs: Sequence[Proof]) -> Proof:
        made = {
            at: one
            for (_, mine), proof in zip(self._parts, proofs, strict=True)
            for at, one in zip(mine, proof.changes, strict=True)
        }
        begun = [one for one in proofs if any(a.kind == "do" for a in one.actions)] or proofs
        return Proof(
            changes=tuple(
                replace(made[at], change=_by(asked, made[at].change))
                for asked, at in zip(self.changes, self._index, strict=True)
            ),
            actions=self.actions,
            event=min((one.event for one in begun), key=lambda moment: moment.earliest_ns),
            healed=max((one.healed for one in proofs), key=lambda moment: moment.latest_ns),
            late=tuple(sentence for one in proofs for sentence in one.late),
            trouble=tuple(sentence for one in proofs for sentence in one.trouble),
        )

    async def close(self) -> None:
        """Heal if that is not done, and end everywhere."""
        found = await asyncio.gather(
            *(holder.close() for holder, _ in self._parts), return_exceptions=True
        )
        for error in found:
            if isinstance(error, BaseException):
                raise error

    async def __aenter__(self) -> Together:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _by(asked: Change, made: Change) -> Change:
    """What was asked for, by the engine that did it."""
    if isinstance(asked, PacketRule) and isinstance(made, PacketRule):
        return replace(asked, engine=made.engine)
    return asked


def together(errors: Sequence[BaseException]) -> BaseException:
    """One error for several that came at one time: the first, with what the others say."""
    strange = next((one for one in errors if not isinstance(one, RailbreakError)), None)
    said = list(dict.fromkeys(str(one) for one in errors))
    if strange is not None or len(said) < 2:
        return strange or errors[0]
    more = f"; and {len(said) - _TOLD} more" if len(said) > _TOLD else ""
    return type(errors[0])("; ".join(said[:_TOLD]) + more)


def _lost(names: Sequence[str], count: int) -> FabricError:
    """The sentence for machines that were cut off in mid-fault."""
    return FabricError(
        f"{len(names)} of {count} machines were lost while a fault was in force: "
        f"{', '.join(names)}; the others were healed at once, these were asked anew, and one that "
        "does not answer heals by itself (railbreak status asks it)"
    )


async def closed(holders: Sequence[Holder]) -> None:
    """Close all at once, whatever each says; for the way out of a failure."""
    found = await asyncio.gather(*(one.close() for one in holders), return_exceptions=True)
    for error in found:
        if isinstance(error, BaseException) and not isinstance(error, RailbreakError):
            raise error
