"""`BgpWithdraw`, `BgpClear`: a router's command line, told what its configuration was."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chaos.change import BgpClear, BgpWithdraw, Hits, Where
from chaos.changes.router import vtysh
from chaos.errors import ApplyError, BlockedError, CapabilityError, FabricError
from chaos.natives.command import command

#: How long an undo waits for sessions that a reset ended; a neighbour may retry once a second.
_BACK_WITHIN_S = 8.0


def asked(where: Where, node: str, line: str) -> str:
    """What a router answers to one line.

    Raises:
        FabricError: it could not be asked.
    """
    argv = vtysh(where, line)
    code, said = command(argv)
    if code:
        raise FabricError(f"{node}: {shlex.join(argv)}: {said.strip() or code}")
    return said


@dataclass(slots=True)
class Withdrawn:
    """`BgpWithdraw`: a prefix list of ours, named at the neighbours of the configuration."""

    change: BgpWithdraw
    where: Where
    saved: Mapping[str, Any]
    acted: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: BgpWithdraw, where: Where, saved: Mapping[str, Any] | None) -> Withdrawn:
        """Look once at what is announced, and to whom."""
        node = change.place.node
        if saved is None:
            config = asked(where, node, "show running-config bgpd")
            if change.list_name in config:
                raise BlockedError(
                    f"{change.describe()} already, so doing it again breaks nothing "
                    "(a leftover: railbreak undo takes it back)"
                )
            table = asked(where, node, f"show bgp {change.family} unicast {change.prefix} json")
            if not json.loads(table or "{}").get("paths"):
                raise BlockedError(
                    f"{node} does not announce {change.prefix}: its BGP knows no such prefix"
                )
            saved = {"neighbors": _neighbours(change, config)}
        return cls(change, where, saved)

    def do(self) -> None:
        """Write the list, then name it."""
        for argv in self.change.steps(self.where, self.saved).do:
            code, said = command(argv)
            if code or "% " in said:
                raise ApplyError(f"{self.change.describe()}: {shlex.join(argv)}: {said.strip()}")

    def undo(self) -> tuple[str, ...]:
        """Take every line of ours out of the configuration."""
        if self.change.list_name not in self._config():
            return ()
        self.acted += self.in_force()
        answers = []
        for argv in self.change.steps(self.where, self.saved).undo:
            code, said = command(argv)
            answers.append(f"{shlex.join(argv)}: {said.strip() or code}")
        return tuple(answers) if self.change.list_name in self._config() else ()

    def in_force(self) -> bool:
        """Whether a neighbour has our list."""
        return f"prefix-list {self.change.list_name} out" in self._config()

    def _config(self) -> str:
        return asked(self.where, self.change.place.node, "show running-config bgpd")

    def hits(self) -> Hits:
        """How many times it was seen in force."""
        times = self.acted + self.in_force()
        return Hits(times, times)

    def close(self) -> None:
        """Nothing is held."""


def _neighbours(change: BgpWithdraw, config: str) -> list[str]:
    """Neighbours and peer groups that the list must be named at.

    Raises:
        FabricError: the configuration has no such neighbour.
        CapabilityError: one has an outbound list already, whose place ours would take.
    """
    node = change.place.node
    lines = re.findall(r"^ +neighbor (\S+) (.+)$", config, re.M)
    groups = [name for name, rest in lines if rest == "peer-group"]
    members = {
        name for name, rest in lines if re.fullmatch(r"(interface )?peer-group \S+", rest)
    } - set(groups)
    every = list(dict.fromkeys(name for name, _ in lines))
    if change.neighbor and change.neighbor not in every:
        raise FabricError(
            f"{node} has no BGP neighbor {change.neighbor}; it has {', '.join(every) or 'none'}"
        )
    whom = [change.neighbor] if change.neighbor else [one for one in every if one not in members]
    taken = {
        name: rest
        for name, rest in lines
        if re.fullmatch(r"(prefix|distribute)-list \S+ out", rest)
    }
    for name in whom:
        if name in taken:
            raise CapabilityError(
                f"{node}: neighbor {name} has {taken[name]} already, and BGP takes one such list; "
                "shut the session (bgp_down), or name another neighbor"
            )
    if not whom:
        raise FabricError(f"{node} has no BGP neighbor to withdraw {change.prefix} from")
    return whom


#: What a reset raises in `show bgp neighbors json`, by its kind.
_COUNT = {"hard": "connectionsDropped", "in": "routeRefreshSent", "out": "updatesSent"}


@dataclass(slots=True)
class Cleared:
    """`BgpClear`: seen by the counts that it raises; over when the sessions are up again."""

    change: BgpClear
    where: Where
    saved: Mapping[str, Any]
    over: bool
    done: int = 0
    lasting: bool = False

    @classmethod
    def open(cls, change: BgpClear, where: Where, saved: Mapping[str, Any] | None) -> Cleared:
        """Count once, so that the reset shows."""
        made = cls(change, where, saved or {}, over=saved is not None)
        if saved is None:
            known = made._peers()
            wanted = {name for name, (up, _) in known.items() if up}
            if not wanted:
                whom = change.neighbor or "any neighbor"
                raise BlockedError(
                    f"{change.place.node} has no BGP session with {whom} that is up; its "
                    f"neighbors: {', '.join(made._peers(every=True)) or 'none'}"
                )
            made.saved = {"counts": {name: count for name, (up, count) in known.items() if up}}
        return made

    def do(self) -> None:
        """Reset."""
        self.over = False
        self.done += 1
        for argv in self.change.steps(self.where).do:
            code, said = command(argv)
            if code or "% " in said:
                raise ApplyError(f"{self.change.describe()}: {shlex.join(argv)}: {said.strip()}")

    def undo(self) -> tuple[str, ...]:
        """Wait for the sessions that were up before."""
        self.over = True
        until = time.monotonic() + _BACK_WITHIN_S
        while self.in_force() and time.monotonic() < until:
            time.sleep(0.1)
        return ()

    def in_force(self) -> bool:
        """Before the undo: whether a session was reset. After it: whether one is not yet back."""
        if not self.over:
            return self._resets() > 0
        if self.change.how != "hard":
            return False
        now = self._peers()
        return not all(now.get(name, (False, 0))[0] for name in self.saved["counts"])

    def hits(self) -> Hits:
        """Sessions reset, by the router's counts; collisions of a new start are no resets."""
        times = self._resets()
        return Hits(times, times)

    def _resets(self) -> int:
        counts = self.saved["counts"]
        now = self._peers()
        more = (now.get(name, (False, 0))[1] - was for name, was in counts.items())
        return sum(min(self.done, max(0, one)) for one in more)

    def _peers(self, *, every: bool = False) -> dict[str, tuple[bool, int]]:
        """Up or not, and the count that a reset raises, per neighbour that is meant."""
        said = asked(self.where, self.change.place.node, "show bgp neighbors json")
        found = {}
        for name, one in json.loads(said or "{}").items():
            if isinstance(one, dict) and (every or self.change.neighbor in ("", name)):
                counts = {**one.get("messageStats", {}), **one}
                up = one.get("bgpState") == "Established"
                found[name] = (up, int(counts.get(_COUNT[self.change.how], 0)))
        return found

    def close(self) -> None:
        """Nothing is held."""
