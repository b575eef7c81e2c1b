"""A process that is stopped, killed, or told something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where


@dataclass(frozen=True, slots=True)
class ProcessSignal:
    """Stop a process (SIGSTOP, undone by SIGCONT), kill it, or tell it something.

    SIGKILL is undone by nothing. SIGUSR1 means what the process makes of it, once, and is only
    sent to one that listens: it would end any other.
    """

    kind: ClassVar[str] = "process_signal"
    own: ClassVar[str] = ""
    place: Place
    signal: Literal["STOP", "KILL", "USR1"] = "STOP"

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: SIG{self.signal}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `kill`; `look` prints the state letter of the process."""
        pid = str(where.pid)
        look = ("ps", "-o", "pid=,stat=", "-p", f"{pid},1")  # 1 is always there, so ps exits 0
        if self.signal == "KILL":
            return Steps(do=(("kill", "-KILL", pid),), undo=(), look=look, unless=f" {pid} ")
        if self.signal == "USR1":
            return Steps(do=(("kill", "-USR1", pid),), undo=(), look=look, mark=f"{pid} ")
        return Steps(
            do=(("kill", "-STOP", pid),), undo=(("kill", "-CONT", pid),), look=look, mark=f"{pid} T"
        )
