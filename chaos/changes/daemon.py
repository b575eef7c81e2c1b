"""FRR's daemons of a router: killed, or standing still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.errors import SpecError, near

#: In the order of starting, and of being killed: a zebra that outlives bgpd takes its routes out of
#: the kernel, so it goes first.
DAEMONS = (
    *("zebra", "mgmtd", "staticd", "bgpd", "ospfd", "ospf6d", "isisd", "ripd", "ripngd", "pimd"),
    *("pim6d", "ldpd", "nhrpd", "eigrpd", "babeld", "sharpd", "pbrd", "bfdd", "fabricd", "vrrpd"),
    "pathd",
)
EVERY = "all"


@dataclass(frozen=True, slots=True)
class DaemonState:
    """Kill daemons of one router (SIGKILL), or let them stand still (SIGSTOP).

    The undo starts those that do not run with the arguments, environment and configuration that
    they had, and returns once each answers; those that stand still go on.

    Attributes:
        place: The router; its `port` is empty.
        daemon: Such as `bgpd`, or `all`.
        how: `kill` or `freeze`.
    """

    kind: ClassVar[str] = "daemon_state"
    own: ClassVar[str] = "daemon"
    place: Place
    daemon: str
    how: Literal["kill", "freeze"] = "kill"

    def __post_init__(self) -> None:
        if self.daemon not in (EVERY, *DAEMONS):
            raise SpecError(
                f"FRR has no daemon {self.daemon!r}; {near(self.daemon, (EVERY, *DAEMONS))}",
                field="daemon",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The daemons meant, in the order of starting."""
        return DAEMONS if self.daemon == EVERY else (self.daemon,)

    def describe(self) -> str:
        """One line for plans and journals."""
        what = "every FRR daemon" if self.daemon == EVERY else self.daemon
        return f"{self.place.node}: {what} {'killed' if self.how == 'kill' else 'frozen'}"

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `kill`; `saved["daemons"]` are the processes and how they were started.

        A daemon that logs on standard output logs nowhere when started by these commands.
        """
        known = saved.get("daemons", ())
        pids = [str(one["pid"]) for one in known] or [f"(pid of {self.daemon})"]
        look = ("ps", "-o", "pid=,stat=", "-p", ",".join((*pids, "1")))  # 1: so that ps exits 0
        if self.how == "freeze":
            return Steps(
                do=(("kill", "-STOP", *pids),),
                undo=(("kill", "-CONT", *pids),),
                look=look,
                mark=f"{pids[0]} T",
            )
        started = tuple((*where.enter, "setsid", "-f", *one["argv"]) for one in known)
        return Steps(
            do=(("kill", "-KILL", *pids),),
            undo=started or ((*where.enter, "setsid", "-f", f"({self.daemon} as it was)"),),
            look=look,
            unless=f" {pids[0]} ",
        )
