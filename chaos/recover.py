"""Takes back what journals say is open, when whoever held it is gone; tells what is in force.

Journals lie under `$RAILBREAK_STATE` (`/run/railbreak`), one folder per running fabric. What lies
on another machine is undone there: the driver of the fabric knows how to reach it, and that machine
keeps the truth.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from chaos.change import Load, PauseStorm, ProcessSignal, to_json
from chaos.errors import FabricError, RailbreakError
from chaos.journal import Entry, Journal, boot_id, open_changes
from chaos.native import build, process_state
from chaos.netns import inode

GONE_WITHIN_S = 2.0  # how long an undo is tried
HEALS_WITHIN_MS = 10_000  # how long a living injector may take when asked to heal

Outcome = Literal["taken_back", "gone", "leftover", "forgotten"]


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of one open change.

    Attributes:
        entry: The change as the journal has it.
        outcome: `gone`: its namespace, process or boot is no more, and the change with it.
        reason: A sentence.
    """

    entry: Entry
    outcome: Outcome
    reason: str

    @property
    def leftover(self) -> bool:
        """It is, or may be, still in force."""
        return self.outcome == "leftover"

    @property
    def cure(self) -> str:
        """Commands that take a leftover back by hand; empty when nothing is left."""
        return self.entry.cure if self.outcome in ("leftover", "forgotten") else ""


@dataclass(frozen=True, slots=True)
class Status:
    """One open change, as it is now.

    Attributes:
        entry: The change as the journal has it.
        in_force: What the machine says; None where it cannot be told.
        held: A living injector holds it and will take it back.
        reason: A sentence where `in_force` is None or the place is gone; else empty.
    """

    entry: Entry
    in_force: bool | None
    held: bool
    reason: str = ""


class Afar(Protocol):
    """What the driver of a fabric has for changes that lie on other machines."""

    def undo(self, entries: Sequence[Entry]) -> list[Undone]:
        """Take them back there, the first given first; one outcome each, never raises."""
        ...

    def status(self, entries: Sequence[Entry]) -> list[Status]:
        """Ask the machines; one answer each, never raises."""
        ...


def _afar(journal: Path) -> Afar | str:
    """The way to the machines of a journal's fabric; a sentence where there is none."""
    try:
        state = json.loads((journal.parent / "state.json").read_text(encoding="utf-8"))
        name = str(state["driver"])
        found = next(one for one in entry_points(group="railbreak.drivers") if one.name == name)
        reach: Callable[[Path], Afar] = found.load().afar
        return reach(journal.parent)
    except (OSError, ValueError, KeyError, StopIteration, AttributeError, RailbreakError) as error:
        return f"how to reach its machine is not known any more ({type(error).__name__}: {error})"


def _undo_afar(path: Path, entries: Sequence[Entry]) -> list[Undone]:
    if not entries:
        return []
    afar = _afar(path)
    if isinstance(afar, str):
        found = [Undone(one, "leftover", afar) for one in entries]
    else:
        found = afar.undo(entries)
    _write_down(path, found)
    return found


def _split(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Those on this machine, and those on others."""
    here, afar = list[Entry](), list[Entry]()
    for one in entries:
        (afar if one.where.host else here).append(one)
    return here, afar


def state_folder() -> Path:
    """Where running fabrics keep their state."""
    return Path(os.environ.get("RAILBREAK_STATE", "/run/railbreak"))


def journals(folder: Path | None = None) -> tuple[Path, ...]:
    """Every journal of every fabric on this machine."""
    return tuple(sorted((folder or state_folder()).glob("*/journal*.jsonl")))


def undo(paths: Iterable[Path]) -> list[Undone]:
    """Take back every open change of these journals, the last first; repeatable.

    A living injector is asked to heal first, so that nothing is undone behind its back.

    Raises:
        SpecError: a journal cannot be read.
    """
    found: list[Undone] = []
    for path in paths:
        before, afar = _split(open_changes(path))
        found += _undo_afar(path, afar[::-1])
        for owner in {entry.owner for entry in before}:
            _ask_to_heal(owner)
        left = {entry.id for entry in open_changes(path)}
        by_owner = "taken back by the injector that held it"
        found += [
            Undone(one, "taken_back", by_owner) for one in reversed(before) if one.id not in left
        ]
        found += _undo_one(path)
    return found


def _undo_one(path: Path) -> list[Undone]:
    left = _split(open_changes(path))[0][::-1]
    if not left:
        return []
    found: list[Undone] = []
    until = time.monotonic() + GONE_WITHIN_S
    while True:  # a route may need a carrier, or what a later one puts back
        found = [one for one in found if one.outcome != "leftover"]
        results = [_take_back(entry) for entry in left]
        left = [one.entry for one in results if one.outcome == "leftover"]
        found += results
        if not left or time.monotonic() >= until:
            break
        time.sleep(0.02)
    _write_down(path, found)
    return found


def _write_down(path: Path, found: Sequence[Undone]) -> None:
    journal = Journal(path)
    try:
        for one in found:
            journal.note(one.outcome, one.entry.id, by="recover", reason=one.reason)
    finally:
        journal.close()


def _ask_to_heal(owner: tuple[int, int]) -> None:
    """SIGTERM to a living injector, then wait for its end."""
    if not _alive(owner):
        return
    try:
        fd = os.pidfd_open(owner[0])
    except ProcessLookupError:
        return
    try:
        if process_state(owner[0])[1] == owner[1]:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(HEALS_WITHIN_MS)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _alive(owner: tuple[int, int]) -> bool:
    state, started = process_state(owner[0])
    return started == owner[1] and state not in ("", "Z")


def _gone(entry: Entry) -> str:
    """Why nothing of the change can be left; empty when something may be."""
    if entry.boot != boot_id():
        return "the machine was restarted since"
    where = entry.where
    if isinstance(entry.change, ProcessSignal):
        state, started = process_state(where.pid)
        if started != where.started or state == "Z":
            return f"process {where.pid} has ended"
        return ""
    if isinstance(entry.change, Load | PauseStorm):
        return ""  # its processes are looked for by their ids, wherever they are
    if where.netns and inode(where.netns) != where.inode:
        return f"network namespace {where.netns} is no more"
    return ""


def _take_back(entry: Entry) -> Undone:
    gone = _gone(entry)
    if gone:
        return Undone(entry, "gone", gone)
    try:
        native = build(entry.change, entry.where, entry.saved)
    except RailbreakError as error:
        return Undone(entry, "leftover", str(error))
    try:
        refused = native.undo()
        if refused or (native.in_force() and not native.lasting):
            return Undone(entry, "leftover", "; ".join(refused) or "undone, yet still in force")
        return Undone(entry, "taken_back", "taken back")
    except FabricError as error:
        return Undone(entry, "leftover", str(error))
    finally:
        native.close()


def forget(path: Path) -> list[Undone]:
    """Give up on every open change of a journal; what may be left behind, with its cure.

    Nothing on the machine is touched.
    """
    found = [
        Undone(one, "forgotten", "given up on; it may be in force") for one in open_changes(path)
    ]
    _write_down(path, found)
    return found


def in_force(paths: Iterable[Path] | None = None) -> list[Status]:
    """Every change on this machine that is in force, may be, or is held by a living injector.

    A change that came into force and was never taken back counts, even when somebody else has set
    its interface up meanwhile: what the kernel dropped with it is not yet put back.

    Args:
        paths: Journals; all of `journals()` by default.
    """
    found: list[Status] = []
    for path in journals() if paths is None else paths:
        here, there = _split(open_changes(path))
        found += [look(entry) for entry in here]
        afar = _afar(path) if there else ""
        if isinstance(afar, str):
            found += [Status(one, None, False, afar) for one in there]
        else:
            found += afar.status(there)
    return [one for one in found if one.held or one.in_force is not False]


def look(entry: Entry) -> Status:
    """One open change on this machine, as it is now."""
    held = _alive(entry.owner)
    gone = _gone(entry)
    if gone:
        return Status(entry, False, held, gone)
    try:
        native = build(entry.change, entry.where, entry.saved)
    except RailbreakError as error:
        return Status(entry, None, held, str(error))
    try:
        standing = native.in_force()
    except FabricError as error:
        return Status(entry, None, held, str(error))
    finally:
        native.close()
    if not standing and "in_force" in entry.history and not held:
        return Status(entry, None, held, "somebody undid it, perhaps in part")
    return Status(entry, standing, held)


def sentence(status: Status) -> str:
    """One line about a change in force."""
    words = [status.entry.change.describe()]
    if status.in_force is None:
        words.append(f"cannot be told: {status.reason}")
    if status.held:
        host = f" on {status.entry.where.host}" if status.entry.where.host else ""
        words.append(f"held by process {status.entry.owner[0]}{host}, which heals it")
    else:
        words.append(f"nobody holds it; railbreak undo {status.entry.journal}")
    return "; ".join(words)


def told(one: Undone) -> str:
    """One line about what became of a change."""
    words = {"taken_back": "taken back", "leftover": "LEFT BEHIND"}.get(one.outcome, one.outcome)
    reason = "" if one.reason == words else f" ({one.reason})"
    return f"{words}: {one.entry.change.describe()}{reason}"


def as_json(status: Status) -> dict[str, Any]:
    """A change in force as plain data."""
    entry = status.entry
    return {
        "id": entry.id,
        "change": to_json(entry.change),
        "text": entry.change.describe(),
        "state": entry.state,
        "in_force": status.in_force,
        "held": status.held,
        "reason": status.reason,
        "journal": str(entry.journal),
        "cure": entry.cure,
    }
