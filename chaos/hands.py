"""The owner's side of the injector: arm, start, wait, heal, and the proof of what happened."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, Self

from chaos import recover
from chaos.change import Change, Hits, Place, Where, from_json, identity, to_json
from chaos.child import Child
from chaos.errors import (
    ApplyError,
    BlockedError,
    CapabilityError,
    FabricError,
    RailbreakError,
    SpecError,
)
from chaos.proof import Action, ChangeProof, Proof, late
from chaos.registry import InForce
from chaos.units import Duration

_KINDS: dict[str, type[RailbreakError]] = {
    kind.__name__: kind
    for kind in (ApplyError, BlockedError, CapabilityError, FabricError, SpecError)
}


class Wire(Protocol):
    """An injector process, wherever it runs."""

    @property
    def pid(self) -> int:
        """Its process id, there."""
        ...

    @property
    def over(self) -> bool:
        """It has ended, or can no longer be heard."""
        ...

    async def send(self, line: bytes) -> None:
        """Write one line; what cannot be sent shows as the end of `lines`."""
        ...

    def lines(self) -> AsyncIterator[bytes]:
        """What it says, line by line, until its end."""
        ...

    async def close(self) -> None:
        """Close its input, upon which it heals, and wait for its end."""
        ...


class Hands:
    """Holds changes through an injector process that heals even when this process dies.

    Examples:
        hands = await Hands.arm(changes, wheres, journal=…, max_life=…, log_dir=…)
        await hands.start(now_ns() + 50_000_000, fault.schedule(storm, rng))
        await hands.wait()
        proof = await hands.heal()
        await hands.close()
    """

    def __init__(self, wire: Wire, changes: Sequence[Change], journal: Path) -> None:
        self.changes = tuple(changes)
        self.journal = journal
        self.fifo = False
        self._wire = wire
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._done = asyncio.Event()
        self._failure: RailbreakError | None = None
        self._actions: list[Action] = []
        self._healed: dict[str, Any] | None = None
        self._proof: Proof | None = None
        self._turn = asyncio.Lock()
        self._reader = asyncio.create_task(self._read(), name="injector")

    @classmethod
    async def arm(
        cls,
        changes: Sequence[Change],
        wheres: Mapping[Place, Where],
        *,
        journal: Path,
        max_life: Duration,
        log_dir: Path,
    ) -> Self:
        """Start an injector and make everything ready; nothing is changed yet.

        Args:
            changes: What, in order.
            wheres: Every place of the changes, resolved.
            journal: Write-ahead journal; lines are appended.
            max_life: The changes are taken back this long after the start of their schedule, come
                what may.
            log_dir: Folder for `injector.log`.

        Raises:
            SpecError: two changes could not be told apart when taking them back.
            BlockedError: the journal cannot be written, or a change is in force already.
            ApplyError: a change cannot be made.
            FabricError: a place is gone.
        """
        distinct(changes)
        missing = [str(one.place) for one in changes if one.place not in wheres]
        if missing:
            raise FabricError(f"no such place on the running fabric: {', '.join(missing)}")
        hands = cls(await Child.start(log_dir / "injector.log"), changes, journal)
        try:
            ready = await hands._ask(
                cmd="arm",
                changes=[to_json(one) for one in changes],
                wheres=[asdict(wheres[one.place]) for one in changes],
                journal=str(journal),
                max_life_ns=max_life.ns,
            )
        except BaseException:
            await hands.close()
            raise
        hands.settle(ready)
        return hands

    def settle(self, ready: Mapping[str, Any]) -> None:
        """Take over what was found where the changes act, such as the engine of a rule."""
        self.fifo = bool(ready["fifo"])
        self.changes = tuple(from_json(one["change"]) for one in ready["changes"])

    @property
    def pid(self) -> int:
        """Process id of the injector."""
        return self._wire.pid

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done so far."""
        return tuple(self._actions)

    async def start(self, t0_ns: int, spans: Sequence[InForce]) -> None:
        """Hand over the schedule, relative to `t0_ns`; returns at once.

        Raises:
            BlockedError: it would outlast the maximum life, or everything was healed already.
        """
        await self._ask(
            cmd="start", t0_ns=t0_ns, spans=[(one.start_ns, one.end_ns) for one in spans]
        )

    async def hits(self) -> dict[int, Hits]:
        """How often each change acted so far, by index."""
        answer = await self._ask(cmd="hits")
        return {at: Hits(*pair) for at, pair in enumerate(answer["hits"])}

    async def wait(self) -> None:
        """Return when the last span has ended.

        Raises:
            ApplyError: a change did not come into force; everything was taken back.
            FabricError: the injector ended before the schedule did.
        """
        await self._done.wait()
        if self._failure is not None:
            raise self._failure

    async def heal(self) -> Proof:
        """Take back what is still in force, see that it is gone, and prove it; repeatable."""
        if self._proof is None:
            with contextlib.suppress(FabricError):
                await self._ask(cmd="heal")
            self._proof = await self._prove()
        return self._proof

    async def close(self) -> None:
        """Heal if that is not done, and end the injector."""
        await self._wire.close()
        await self._reader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _ask(self, **command: Any) -> dict[str, Any]:
        """Send one command; its answer."""
        async with self._turn:
            if not self._wire.over and not self._reader.done():
                await self._wire.send(json.dumps(command).encode())
            answer = await self._answers.get()
        if answer["ev"] == "refused":
            raise _KINDS.get(answer["kind"], FabricError)(answer["message"])
        if answer["ev"] == "ended":
            self._answers.put_nowait(answer)  # so is every later question answered
            raise FabricError(answer["message"])
        return answer

    async def _read(self) -> None:
        """Sort what the injector says until it ends."""
        async for raw in self._wire.lines():
            said = json.loads(raw)
            match said["ev"]:
                case "action":
                    self._actions.append(
                        Action(
                            said["planned"],
                            said["before"],
                            said["after"],
                            said["kind"],
                            said["change"],
                        )
                    )
                case "done":
                    self._done.set()
                case "failed":
                    self._failure = ApplyError(f"{said['message']}; everything was taken back")
                    self._done.set()
                case "healed":
                    self._healed = said
                case _:
                    self._answers.put_nowait(said)
        healed = self._healed or {}
        message = f"the injector ended: {healed.get('why') or 'it died'}"
        if healed and all(one["taken_back"] for one in healed["changes"]):
            message += "; everything was taken back"
        if not self._done.is_set():
            self._failure = FabricError(message)
            self._done.set()
        self._answers.put_nowait({"ev": "ended", "message": message})

    async def _prove(self) -> Proof:
        told: dict[str, Any] | None = self._healed
        trouble: list[str] = []
        if told is None:
            told, trouble = await self._recovered()
        return Proof.of(
            (
                ChangeProof(
                    change,
                    one["in_force"],
                    seen=one["hits"][0],
                    hit=one["hits"][1],
                    taken_back=one["taken_back"],
                    leftover=one["cure"],
                )
                for change, one in zip(self.changes, told["changes"], strict=True)
            ),
            self._actions,
            late=late(self._actions, self.changes),
            trouble=(*trouble, *told["trouble"]),
        )

    async def _recovered(self) -> tuple[dict[str, Any], list[str]]:
        """The injector died without healing: take back what the journal says, in its place."""
        found = await asyncio.to_thread(recover.undo, [self.journal])
        left = {one.entry.change: one for one in found if one.leftover}
        begun = {self.changes[one.change] for one in self._actions if one.kind == "do"}
        changes = [
            {
                "in_force": one in begun,
                "hits": [None, None],
                "taken_back": one not in left,
                "cure": left[one].entry.cure if one in left else "",
            }
            for one in self.changes
        ]
        sentence = "the injector died before it healed; the journal was replayed in its place"
        return {"changes": changes, "trouble": []}, [sentence]


def distinct(changes: Sequence[Change]) -> None:
    """Refuse changes that one undo could not tell apart.

    Raises:
        SpecError: two are alike.
    """
    known: dict[str, Change] = {}
    for one in changes:
        key = identity(one)
        if key in known:
            raise SpecError(
                f"two changes could not be told apart when taking them back: "
                f"{known[key].describe()}, and {one.describe()}"
            )
        known[key] = one
