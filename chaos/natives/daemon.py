"""`DaemonState`: FRR's daemons by their processes, found in the router's network namespace."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.change import DaemonState, Hits, Where
from chaos.changes.daemon import EVERY
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.natives.command import command
from chaos.natives.process import process_state
from chaos.natives.router import asked
from chaos.netns import inode

_KEEPS_ALIVE = "watchfrr"
#: How long a supervisor may take to start what was killed, before we do; it looks every 5 s.
_SUPERVISED_S = 8.0
_ANSWERS_WITHIN_S = 10.0
_DIES_WITHIN_S = 2.0
_OWN = "/proc/self/ns/net"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TERM", "TZ")


@dataclass(slots=True)
class Daemons:
    """`DaemonState`: through pidfds; started again as they were born.

    Attributes:
        saved: `daemons`: name, pid, argv, env, log, nice of each; `config`: what the router's
            running configuration was; `watched`: somebody else starts them again.
        fds: pidfd per process that the next deed is about.
    """

    change: DaemonState
    where: Where
    saved: Mapping[str, Any]
    fds: dict[int, int] = field(default_factory=dict)
    done: bool = False
    killed: int = 0
    started: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: DaemonState, where: Where, saved: Mapping[str, Any] | None) -> Daemons:
        """Find them, and write down how they were started and configured."""
        made = cls(change, where, saved or {})
        if saved is not None:
            return made
        found = made._living()
        node = change.place.node
        if not found:
            what = "FRR" if change.daemon == EVERY else change.daemon
            raise BlockedError(f"{node} runs no {what}")
        config = ""
        if change.how == "kill":
            config = _lines(asked(where, node, "show running-config"))
        elif any(process_state(pid)[0] == "T" for _, pid in found):
            raise BlockedError(f"{change.describe()} already, so doing it again breaks nothing")
        made.saved = {
            "daemons": [_born(name, pid) for name, pid in found],
            "config": config,
            "watched": any(True for _ in _processes(where, (_KEEPS_ALIVE,))),
        }
        made._hold(found)
        return made

    def _living(self) -> list[tuple[str, int]]:
        """Name and pid of each daemon meant, in the order of starting."""
        names = self.change.names
        found = sorted(_processes(self.where, names), key=lambda one: names.index(one[0]))
        return found

    def _hold(self, found: Sequence[tuple[str, int]]) -> None:
        self.close()
        for _, pid in found:
            try:
                self.fds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue

    def do(self) -> None:
        """Signal them; zebra first."""
        if not self.fds or any(map(_ended, self.fds.values())):
            self._hold(self._living())
        if not self.fds:
            raise ApplyError(f"{self.change.describe()}: none of them runs")
        number = signal.SIGKILL if self.change.how == "kill" else signal.SIGSTOP
        self.done = True
        for fd in self.fds.values():
            try:
                signal.pidfd_send_signal(fd, number)
            except OSError as error:
                raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None
        self.killed += len(self.fds)

    def undo(self) -> tuple[str, ...]:
        """Start those that do not run, and wait for their answer; let those that stand go on."""
        killed, self.done = self.done and self.change.how == "kill", False
        if self.change.how == "freeze":
            for _, pid in self._living():
                if process_state(pid)[0] == "T":
                    os.kill(pid, signal.SIGCONT)
            return ()
        if killed:  # one that is only dying would be taken for one that runs
            for fd in self.fds.values():
                select.select([fd], [], [], _DIES_WITHIN_S)
        said = self._started() if self._missing() else ()
        self._hold(self._living())
        return said

    def _missing(self) -> list[Mapping[str, Any]]:
        """Those that do not run, in the order of starting."""
        living = {name for name, _ in self._living()}
        return [one for one in self.saved["daemons"] if one["name"] not in living]

    def _started(self) -> tuple[str, ...]:
        missing = self._missing()
        if self.saved["watched"]:
            until = time.monotonic() + _SUPERVISED_S
            while self._missing() and time.monotonic() < until:
                time.sleep(0.1)
        for one in self._missing():
            _start(self.where, one)
            if not self._answers(one["name"]):
                return (f"{one['name']} was started and does not answer",)
            _as_before(self.where, one)
        for one in missing if self.saved["watched"] else ():  # there is not yet ready
            if not self._answers(one["name"]):
                return (f"{one['name']} was started again and does not answer",)
        self.started += len(missing) - len(self._missing())
        return self._configured()

    def _answers(self, name: str) -> bool:
        until = time.monotonic() + _ANSWERS_WITHIN_S
        argv = (*self.where.enter, "vtysh", "-d", name, "-c", "show version")
        while command(argv)[0]:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _configured(self) -> tuple[str, ...]:
        """Give back lines of the configuration that are missing; those that stay missing."""
        node = self.change.place.node
        for last in (False, True):
            try:
                now = _lines(asked(self.where, node, "show running-config"))
            except FabricError as error:
                return (str(error),)
            lost = Counter(self.saved["config"].splitlines()) - Counter(now.splitlines())
            if not lost:
                return ()
            if not last:
                argv = (*self.where.enter, "vtysh", "-f", "/dev/stdin")
                command(argv, self.saved["config"].encode())
        return (f"{node} lost lines of its configuration: {'; '.join(map(str.strip, lost))}",)

    def in_force(self) -> bool:
        """Killed: one does not run (where a supervisor starts them: the one killed is gone)."""
        if self.change.how == "freeze":
            return any(process_state(pid)[0] == "T" for _, pid in self._living())
        if self.done and self.saved["watched"]:
            return all(map(_ended, self.fds.values()))
        return bool(self._missing())

    def hits(self) -> Hits:
        """`seen`: daemons started again; `hit`: processes killed, or frozen."""
        return Hits(self.started, self.killed)

    def close(self) -> None:
        """Close the pidfds."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


def _processes(where: Where, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Name and pid of the living processes of these names in the place's network namespace."""
    space = where.inode or inode(_OWN)
    wanted = {name[:15] for name in names}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            with open(f"/proc/{entry.name}/comm", encoding="utf-8") as file:
                name = file.read().rstrip("\n")
            if name not in wanted or os.stat(f"/proc/{entry.name}/ns/net").st_ino != space:
                continue
        except OSError:  # ended meanwhile, or a zombie, which has no namespace
            continue
        if process_state(int(entry.name))[0] not in ("", "Z", "X"):
            yield name, int(entry.name)


def _born(name: str, pid: int) -> dict[str, Any]:
    """How a process was started: its words, what of its environment matters, where it logs."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            argv = [word.decode() for word in file.read().split(b"\0")[:-1]]
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
        log = os.readlink(f"/proc/{pid}/fd/1")
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError as error:
        raise FabricError(f"{name} (process {pid}) cannot be read: {error}") from None
    pairs = [word.partition("=") for word in words]
    kept = {key: value for key, _, value in pairs if key in _ENVIRONMENT or key.startswith("CLAB_")}
    out = log if os.path.isfile(log) else ""
    return {
        "name": name,
        "pid": pid,
        "argv": argv,
        "env": kept,
        "log": out,
        "nice": nice,
        "weight": _weight(pid),
    }


def _weight(pid: int) -> int:
    """Nice value of a process's session, where sessions have one."""
    try:
        with open(f"/proc/{pid}/autogroup", encoding="ascii") as file:
            return int(file.read().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


def _start(where: Where, one: Mapping[str, Any]) -> None:
    """Start a daemon in its node, in a session of its own, its output where it was."""
    argv = (*where.enter, "setsid", "-f", *one["argv"])
    with open(one["log"] or os.devnull, "ab") as out:
        subprocess.run(
            argv,
            env=one["env"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            timeout=30,
            check=False,
        )


def _as_before(where: Where, one: Mapping[str, Any]) -> None:
    """Give a daemon the weight that it had; where that is refused it goes on as it is."""
    for _, pid in _processes(where, (one["name"],)):
        try:
            os.setpriority(os.PRIO_PROCESS, pid, one["nice"])
            with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as file:
                file.write(str(one["weight"]))
        except OSError:
            continue


def _ended(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def _lines(said: str) -> str:
    """A running configuration without the words around it."""
    kept = [line for line in said.splitlines() if line.strip() not in ("", "!", "end")]
    return "\n".join(line for line in kept if not line.endswith((" configuration:", "tion...")))
