"""How long an injector far from its controller goes on: as long as words keep coming.

Beside it stands a dead-man (`chaos.deadman`), armed before the deed, which hears of every word and
heals when the injector itself is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from chaos.deadman import Deadman
from chaos.held import Held
from chaos.timeline import now_ns

RENEW_NS = 400_000_000  # the dead-man is told of words at most so often


class Lease:
    """Runs out without a word for `length_ns`; without a length it never does."""

    def __init__(self, length_ns: int = 0, deadman: Deadman | None = None) -> None:
        self._length_ns, self._deadman = length_ns, deadman
        self._heard, self._renewed = now_ns(), 0
        self._phase = "armed"

    @classmethod
    def arm(cls, held: Sequence[Held], folder: Path, *, length_ns: int, life_ns: int) -> Self:
        """Begin one, and arm the dead-man with every undo, last change first.

        Args:
            held: The changes, in order; none is done yet.
            folder: The dead-man's own.
            length_ns: Silence that ends the lease.
            life_ns: So long after the start the dead-man acts whatever it hears.

        Raises:
            BlockedError: the dead-man cannot be written or does not start.
        """
        undo = [argv for one in reversed(held) for argv in one.undo_by_hand]
        # who waits for a driver cannot hear meanwhile, and must not be taken for dead
        slow_s = max(getattr(one.native, "slow_s", 0.0) for one in held)
        lease_s, life_s = length_ns / 1e9 + slow_s, life_ns / 1e9
        return cls(length_ns, Deadman.arm(folder, undo, lease_s=lease_s, life_s=life_s))

    @property
    def ends_ns(self) -> int | None:
        """When it runs out without a further word; None: never."""
        return self._heard + self._length_ns if self._length_ns else None

    @property
    def over(self) -> bool:
        """It has run out."""
        return bool(self._length_ns) and now_ns() - self._heard >= self._length_ns

    def bridge(self, since_ns: int) -> None:
        """Count nobody's silence since then where that was long: we were busy and did not hear."""
        if now_ns() - since_ns > RENEW_NS:
            self._heard = max(self._heard, now_ns())

    def hear(self) -> tuple[str, ...]:
        """A word came. Sentences for what went wrong with telling the dead-man."""
        self._heard = now_ns()
        return self._renew() if self._heard - self._renewed >= RENEW_NS else ()

    def start(self) -> tuple[str, ...]:
        """The schedule runs from now on. Sentences as in `hear`."""
        self._phase = "started"
        return self._renew()

    def _renew(self) -> tuple[str, ...]:
        self._renewed = self._heard
        try:
            if self._deadman is not None:
                self._deadman.renew(self._phase)
        except OSError as error:
            return (f"the dead-man's lease cannot be renewed: {error.strerror}",)
        return ()

    def end(self) -> None:
        """Nothing is left for the dead-man to do; repeatable."""
        if self._deadman is not None:
            self._deadman.disarm()
