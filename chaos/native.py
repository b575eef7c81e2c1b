"""Changes as prebuilt messages on warm sockets: do, undo, in force, hits.

`build` opens everything a change needs inside its namespace and checks that it may be done at all;
afterwards `do` and `undo` are one or a few system calls. Only what is ours is taken back.
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import signal
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chaos import netlink as nl
from chaos.change import (
    BgpNeighbour,
    Change,
    Hits,
    LinkState,
    NodePower,
    PacketDrop,
    PacketRule,
    ProcessSignal,
    Steps,
    Where,
)
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.netlink import Netlink
from chaos.netns import inode, inside
from chaos.nft import Compiler, Tables
from chaos.saved import Saved, put_back, save

_IFNAME, _CARRIER_CHANGES, _CARRIER_DOWN = 3, 35, 48
_COMMAND_S = 60


class Native(Protocol):
    """A change made ready on this machine."""

    @property
    def saved(self) -> Mapping[str, Any]:
        """Plain data that `build` needs to take the change back in another process."""
        ...

    @property
    def lasting(self) -> bool:
        """Nothing can take it back (a killed process)."""
        ...

    def do(self) -> None:
        """Bring it into force.

        Raises:
            ApplyError: the kernel refused.
        """
        ...

    def undo(self) -> tuple[str, ...]:
        """Take it back; repeatable, also when half done. Sentences for what was refused."""
        ...

    def in_force(self) -> bool:
        """Whether it is in force, read from a successful answer.

        Raises:
            FabricError: it cannot be told.
        """
        ...

    def hits(self) -> Hits:
        """How often it acted since it was made ready, over all times it was in force."""
        ...

    def close(self) -> None:
        """Give sockets and handles back; the change stays as it is."""
        ...


def build(change: Change, where: Where, saved: Mapping[str, Any] | None = None) -> Native:
    """Make a change ready; nothing is changed yet.

    Args:
        change: What.
        where: Resolved place; without a namespace it is in the one we are in.
        saved: For taking a change back that another process did: what its journal says.

    Raises:
        FabricError: the place is gone or was replaced.
        BlockedError: it is as if the change were in force already, so its undo would not be ours.
    """
    if where.host:
        raise FabricError(f"{change.place}: it lies on machine {where.host}, not on this one")
    if isinstance(change, ProcessSignal):
        return Signalled.open(change, where)
    if isinstance(change, BgpNeighbour | NodePower):
        return Commanded.open(change, where, saved)
    if not where.netns:
        return _open(change, where, saved)
    if inode(where.netns) != where.inode:
        raise FabricError(f"{change.place}: namespace {where.netns} is gone or was replaced")
    return inside(where.netns, lambda: _open(change, where, saved))


def _open(
    change: LinkState | PacketDrop | PacketRule, where: Where, saved: Mapping[str, Any] | None
) -> Native:
    """Called inside the namespace."""
    if isinstance(change, LinkState):
        return Downed.open(change, where, saved)
    return Dropped.open(change, where, saved)


@dataclass(slots=True)
class Downed:
    """`LinkState`: one message down, one message up, and what the kernel dropped with it."""

    change: LinkState
    where: Where
    link: Netlink
    keep: Saved
    counted: tuple[int, int]
    down: bytes
    up: bytes
    lasting: bool = False

    @classmethod
    def open(cls, change: LinkState, where: Where, saved: Mapping[str, Any] | None) -> Downed:
        """Called inside the namespace."""
        link = Netlink.open()
        try:
            index = where.ifindex
            flags, *counted = _look(link, change, where)
            if saved is not None:
                keep = Saved.from_json(saved)
            elif not flags & nl.IFF_UP:
                raise BlockedError(
                    f"{change.place}: already down, so taking it down breaks nothing"
                )
            else:
                keep = save(link, index) if change.place.side == "node" else Saved()
        except BaseException:
            link.close()
            raise
        down, up = nl.set_updown(index, False), nl.set_updown(index, True)
        return cls(change, where, link, keep, (counted[0], counted[1]), down, up)

    @property
    def saved(self) -> Mapping[str, Any]:
        """What the undo puts back."""
        return self.keep.to_json()

    def do(self) -> None:
        """Set it down."""
        try:
            self.link.send(self.down)
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Set it up and put back what was saved."""
        try:
            self.link.send(self.up)
        except OSError as error:
            return (f"set up: {error}",)
        return put_back(self.link, self.keep)

    def in_force(self) -> bool:
        """Whether the interface is down."""
        return not _look(self.link, self.change, self.where)[0] & nl.IFF_UP

    def hits(self) -> Hits:
        """`seen`: carrier changes of the interface; `hit`: those that lost it."""
        _, changes, downs = _look(self.link, self.change, self.where)
        return Hits(changes - self.counted[0], downs - self.counted[1])

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def _look(link: Netlink, change: LinkState, where: Where) -> tuple[int, int, int]:
    """Flags, carrier changes and carrier losses of the very interface that was resolved."""
    try:
        got = link.ask(nl.RTM_GETLINK, nl.ifinfo(where.ifindex))
    except OSError as error:
        raise FabricError(f"{change.place}: {where.ifname} cannot be read: {error}") from None
    found = nl.attrs(got.body, 16)
    name = found[_IFNAME].rstrip(b"\0").decode()
    if name != where.ifname:
        raise FabricError(
            f"{change.place}: interface {where.ifindex} is now {name!r}, expected {where.ifname!r}"
        )
    (flags,) = struct.unpack_from("=I", got.body, 8)
    counts = (found.get(_CARRIER_CHANGES, bytes(4)), found.get(_CARRIER_DOWN, bytes(4)))
    changes, downs = (struct.unpack("=I", one)[0] for one in counts)
    return flags, changes, downs


@dataclass(slots=True)
class Dropped:
    """`PacketDrop`, `PacketRule`: one transaction adds the table, one message deletes it."""

    change: PacketDrop | PacketRule
    compiler: Compiler
    tables: Tables
    rules: str
    counted: dict[str, int] = field(default_factory=lambda: {"seen": 0, "hit": 0})
    saved: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def open(
        cls, change: PacketDrop | PacketRule, where: Where, saved: Mapping[str, Any] | None
    ) -> Dropped:
        """Called inside the namespace."""
        compiler, tables = Compiler(), Tables.open()
        try:
            if saved is None and change.table in tables.names():
                raise BlockedError(
                    f"{change.place}: nftables table {change.table} is there already: a leftover "
                    "or another run (railbreak undo takes it back)"
                )
        except BaseException:
            compiler.close()
            tables.close()
            raise
        return cls(change, compiler, tables, change.ruleset(where.ifname))

    def do(self) -> None:
        """Add the table."""
        try:
            self.compiler.run(self.rules)
        except ApplyError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Count, then delete the table."""
        try:
            self.counted = self._total()
            self.tables.delete(self.change.table)
        except (OSError, FabricError) as error:
            return (f"delete table netdev {self.change.table}: {error}",)
        return ()

    def in_force(self) -> bool:
        """Whether the table is there."""
        return self.change.table in self.tables.names()

    def hits(self) -> Hits:
        """Packets that the match met, and those it acted on."""
        total = self._total()
        return Hits(total["seen"], total["hit"])

    def _total(self) -> dict[str, int]:
        now = self.tables.counters(self.change.table)
        return {name: before + now.get(name, 0) for name, before in self.counted.items()}

    def close(self) -> None:
        """Close socket and handle."""
        self.compiler.close()
        self.tables.close()


@dataclass(slots=True)
class Signalled:
    """`ProcessSignal`: through a pidfd, so that a reused pid is never signalled."""

    change: ProcessSignal
    where: Where
    fd: int
    acted: int = 0
    saved: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, change: ProcessSignal, where: Where) -> Signalled:
        """Open the process; refuse one that is not the one that was resolved."""
        try:
            fd = os.pidfd_open(where.pid)
        except OSError as error:
            raise FabricError(f"{change.place}: process {where.pid}: {error.strerror}") from None
        state, started = process_state(where.pid)
        if started != where.started or state == "Z":
            os.close(fd)
            raise FabricError(f"{change.place}: process {where.pid} ended before the fault")
        return cls(change, where, fd)

    @property
    def lasting(self) -> bool:
        """A kill stays."""
        return self.change.signal == "KILL"

    def do(self) -> None:
        """Send the signal."""
        try:
            signal.pidfd_send_signal(self.fd, signal.Signals[f"SIG{self.change.signal}"])
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error.strerror}") from None

    def undo(self) -> tuple[str, ...]:
        """Let a stopped process run again."""
        if self.lasting:
            return ()
        self.acted += self.in_force()
        try:
            signal.pidfd_send_signal(self.fd, signal.SIGCONT)
        except OSError as error:
            return () if error.errno == errno.ESRCH else (f"SIGCONT: {error.strerror}",)
        return ()

    def in_force(self) -> bool:
        """Whether it is stopped (for STOP), or gone (for KILL)."""
        if select.select([self.fd], [], [], 0)[0]:  # readable once the process has ended
            return self.lasting
        return not self.lasting and process_state(self.where.pid)[0] in ("T", "t")

    def hits(self) -> Hits:
        """How many times the process was seen stopped or killed."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self.fd)


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
            code, said = _command(argv)
            if code:
                raise ApplyError(f"{self.change.describe()}: {shlex.join(argv)}: {said}")

    def undo(self) -> tuple[str, ...]:
        """Run the commands that take it back; nothing where it is not in force."""
        if not self.in_force():
            return ()
        self.acted += 1
        answers = [(argv, *_command(argv)) for argv in self.steps.undo]
        return tuple(f"{shlex.join(argv)}: {said}" for argv, code, said in answers if code)

    def in_force(self) -> bool:
        """Whether the look, which succeeded, says so."""
        code, said = _command(self.steps.look)
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


def _command(argv: Sequence[str]) -> tuple[int, str]:
    """Exit status of a command, and what it said; 127 where it cannot be started."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_COMMAND_S, check=False)
    except subprocess.TimeoutExpired:
        return 124, f"not over after {_COMMAND_S} s"
    except OSError as error:
        return 127, str(error.strerror)
    said = done.stdout if not done.returncode else done.stderr or done.stdout
    return done.returncode, said.decode(errors="replace")


def process_state(pid: int) -> tuple[str, int]:
    """State letter and start time in clock ticks; empty and 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return after_name[0].decode(), int(after_name[19])
