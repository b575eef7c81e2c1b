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


@dataclass(frozen=True, slots=True)
class ProcessRestart:
    """Kill a process that its parent starts again when told (SIGUSR1), and tell it at the end.

    The parent is the process's supervisor. It knows which of its children it lost; the one meant
    here is the child whose name (`/proc/PID/comm`) is that of the place.
    """

    kind: ClassVar[str] = "process_restart"
    own: ClassVar[str] = ""
    takes_out: ClassVar[str] = "process"
    place: Place

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: SIGKILL, started again at the end"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `pkill`, `kill` and `ps`; `saved["parent"]` is the supervisor's id."""
        parent, name = str(saved.get("parent", 0)), self.place.process
        children = f"ps -o comm= --ppid {parent}"
        until = f"kill -USR1 {parent}; until {children} | grep -qx {name}; do sleep 0.02; done"
        return Steps(
            do=(("pkill", "-KILL", "-x", "-P", parent, name),),
            undo=(("timeout", "10", "sh", "-c", until),),
            look=("ps", "-o", "comm=", "-p", "1", "--ppid", parent),  # 1 is always there
            unless=f"{name}\n",
        )
