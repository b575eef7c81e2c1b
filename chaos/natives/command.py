"""`BgpNeighbour`, `NodePower`: what only a command can do."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.change import BgpNeighbour, Hits, NodePower, Steps, Where
from chaos.errors import ApplyError, BlockedError, FabricError

_COMMAND_S = 60


@dataclass(slots=True)
class Commanded:
    """`BgpNeighbour`, `NodePower`: what only a command can do."""

    change: BgpNeighbour | NodePower
    steps: Steps
    acted: int = 0
    saved: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def open(
        cls, change: BgpNeighbour | NodePower, where: Where, saved: Mapping[str, Any] | None
    ) -> Commanded:
        """Look once, so that what is missing shows before the deed."""
        made = cls(change, change.steps(where))
        if made.in_force() and saved is None:
            raise BlockedError(
                f"{change.describe()} already, so doing it again breaks nothing "
                "(a leftover: railbreak undo takes it back)"
            )
        return made

    def do(self) -> None:
        """Run the commands."""
        for argv in self.steps.do:
            code, said = command(argv)
            if code:
                raise ApplyError(f"{self.change.describe()}: {shlex.join(argv)}: {said}")

    def undo(self) -> tuple[str, ...]:
        """Run the commands that take it back; nothing where it is not in force."""
        if not self.in_force():
            return ()
        self.acted += 1
        answers = [(argv, *command(argv)) for argv in self.steps.undo]
        return tuple(f"{shlex.join(argv)}: {said}" for argv, code, said in answers if code)

    def in_force(self) -> bool:
        """Whether the look, which succeeded, says so."""
        code, said = command(self.steps.look)
        if code:
            raise FabricError(
                f"{self.change.place.node}: {shlex.join(self.steps.look)}: {said or code}"
            )
        return self.steps.holds(said)

    def hits(self) -> Hits:
        """How many times it was seen in force."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Nothing is held."""


def command(argv: Sequence[str], stdin: bytes = b"") -> tuple[int, str]:
    """Exit status of a command, and what it said; 127 where it cannot be started."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, timeout=_COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, f"not over after {_COMMAND_S} s"
    except OSError as error:
        return 127, str(error.strerror)
    said = done.stdout if not done.returncode else done.stderr or done.stdout
    return done.returncode, said.decode(errors="replace")
