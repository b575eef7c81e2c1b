"""The dead-man of a switch, and what of its changes goes through it.

Where its login is a shell, a script on it holds a lease; elsewhere a commit reverts itself unless
it is confirmed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from chaos.drivers.ssh.console import Console, RejectedError
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.nos import Confirmed, deadman

#: A shell prints it between two answers; by its quotes the echo of the command is no cut.
_CUT = "rb''cut"
_STANDS_WITHIN_S, _AGAIN_S = 2.0, 0.05


class Lease:
    """A script on the switch.

    Args:
        console: The session at the switch, a shell.
        tag: Name of the lease.
        lease_s: How long the lease lasts, in seconds.
        life_s: Longest time in force, in seconds.

    Attributes:
        ready: It is armed.
    """

    def __init__(self, console: Console, tag: str, lease_s: int, life_s: int) -> None:
        self.tag, self.ready = tag, False
        self._console = console
        self._lease_s, self._life_s = lease_s, life_s

    def possible(self) -> None:
        """See whether it can be armed: a script needs root.

        Raises:
            BlockedError: it cannot.
        """
        if self._console.run("id -u").strip() != "0":
            raise BlockedError(
                f"{self._console.told}: the dead-man needs root there; log in as root, or say "
                "ansible_become: true"
            )

    def arm(self, do: Sequence[str], undo: Sequence[str]) -> None:
        """Make it ready before anything is changed, and see that it stands.

        Raises:
            BlockedError: it cannot be, so nothing may be broken.
        """
        self.ready = True
        try:
            for command in deadman.arm(self.tag, undo, self._lease_s):
                self._console.run(command)
            self._await_script()
        except RejectedError as error:
            raise BlockedError(
                f"the dead-man cannot be armed, so nothing was broken: {error}"
            ) from None

    def _await_script(self) -> None:
        until = time.monotonic() + _STANDS_WITHIN_S
        while True:
            time.sleep(_AGAIN_S)
            try:
                self._console.run(deadman.stands(self.tag))
                return
            except RejectedError:
                if time.monotonic() > until:
                    raise

    def stage(self, do: Sequence[str]) -> None:
        """Make the next `do` ready without any effect: a shell needs no such step."""

    def bind(self) -> None:
        """From now on it acts at the end of the maximum life, whatever is renewed."""
        self._console.run(deadman.bound(self.tag, self._life_s))

    def renew(self) -> None:
        """Move the lease on; it never reaches beyond the maximum life.

        Raises:
            FabricError: it could not be; after a `RejectedError` it is over.
        """
        if not self.ready:
            return
        self._console.open()
        try:
            self._console.run(deadman.renew(self.tag, self._lease_s))
        except RejectedError:
            self.ready = False
            raise

    def doing(self, lines: Sequence[str], left_s: int) -> str:
        """The one command that does, which the switch itself refuses with the lease nearly over."""
        return deadman.guarded(self.tag, lines)

    def confirm(self) -> None:
        """See that it guards what was done: it stood before."""

    def undoing(self, tally: Sequence[str], undo: Sequence[str]) -> Sequence[str]:
        """Commands that take everything back; they count in the same breath, to miss nothing."""
        counting = "".join(f"{{ {command}; }} 2>/dev/null; echo {_CUT}; " for command in tally)
        return [counting + "; ".join(f"{{ {line}; }}" for line in undo)]

    def counted(self, text: str) -> list[str]:
        """What each `tally` said, from what `undoing` printed."""
        return text.split(_CUT.replace("'", "") + "\n")[:-1]

    def plain(self, lines: Sequence[str]) -> Sequence[str]:
        """Commands that make lines effective for good."""
        return lines

    def cure(self, undo: Sequence[str]) -> str:
        """What a person types to take a change back."""
        return f"{shlex.join(self._console.target.words)} {shlex.quote('; '.join(undo))}"

    def dropping(self) -> Sequence[str]:
        """Commands that throw away what was staged and never done."""
        return ()

    def end(self, back: bool) -> str:
        """Take it away, but only when all is `back`: else it is what still can heal.

        Returns:
            A sentence about what is left; empty when nothing is.
        """
        if not self.ready:
            return ""
        if not back:
            return (
                f"{self._console.told}: its dead-man was left armed and acts within "
                f"{self._lease_s} s by itself"
            )
        try:
            self._console.run(deadman.disarm(self.tag))
        except FabricError as error:
            return f"the dead-man could not be disarmed: {error}"
        self.ready = False
        return ""


class Commit:
    """A commit with a timer: do and dead-man in one. Its methods are those of `Lease`.

    Args:
        console: The session at the switch.
        tag: Name of its session or candidate.
        how: The switch's commands for it.

    Attributes:
        ready: Something is staged that was not committed.
    """

    def __init__(self, console: Console, tag: str, how: Confirmed) -> None:
        self.tag, self.ready = tag, False
        self._console, self._how = console, how

    def _waits(self) -> bool | None:
        return self._how.waits(self._console.run(self._how.pending), self.tag)

    def possible(self) -> None:
        """Another's commit would take ours with it."""
        if self._waits() is not False:
            raise BlockedError(
                f"a commit waits for its confirmation at {self._console.told}, and its revert "
                "would take ours with it; confirm or revert it first"
            )

    def arm(self, do: Sequence[str], undo: Sequence[str]) -> None:
        """The timer comes with the commit: only that is made ready."""
        self.stage(do)

    def stage(self, do: Sequence[str]) -> None:
        """Into a session or a candidate."""
        self.ready = True
        for command in self._how.stage(self.tag, do):
            self._console.run(command)

    def bind(self) -> None:
        """Nothing: the commit says how long it lives."""

    def renew(self) -> None:
        """Nothing: its timer is set once."""

    def doing(self, lines: Sequence[str], left_s: int) -> str:
        """The commit of what was staged."""
        self.ready = False
        return self._how.commit(self.tag, max(1, min(left_s, self._how.most_s)))

    def confirm(self) -> None:
        """See that its timer runs.

        Raises:
            ApplyError: it does not.
        """
        if self._waits() is not True:
            raise ApplyError(f"{self._console.told}: the commit was accepted, yet no timer runs")

    def undoing(self, tally: Sequence[str], undo: Sequence[str]) -> Sequence[str]:
        """The revert at once."""
        return self._how.reject(self.tag)

    def counted(self, text: str) -> list[str]:
        """None: a revert asks nothing first."""
        return []

    def plain(self, lines: Sequence[str]) -> Sequence[str]:
        """With what goes around them."""
        return self._how.plain(self.tag, lines)

    def cure(self, undo: Sequence[str]) -> str:
        """The way in, then lines."""
        return f"{shlex.join(self._console.target.words)}, then: {'; '.join(self.plain(undo))}"

    def dropping(self) -> Sequence[str]:
        """What is still staged."""
        return self._how.drop(self.tag) if self.ready else ()

    def end(self, back: bool) -> str:
        """Nothing: it ends with the revert."""
        return ""


DeadMan = Lease | Commit


def deadman_at(console: Console, tag: str, lease_s: int, life_s: int) -> DeadMan:
    """The one that fits the switch of a session."""
    how = console.platform.confirmed
    return Lease(console, tag, lease_s, life_s) if how is None else Commit(console, tag, how)
