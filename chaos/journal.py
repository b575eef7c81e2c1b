"""The write-ahead journal: what was intended before it was done, and what became of it.

One JSON object per line, one `write` per line. `intended` lines are on disk before anything
changes; they hold all that another process needs to take the change back.

    intended ─▶ in_force ─▶ acted ─▶ taken_back
                                  └▶ leftover ─▶ taken_back | gone | forgotten
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from chaos.change import Change, Where, from_json, to_json
from chaos.errors import BlockedError, SpecError

SCHEMA = "railbreak-journal/1"
State = Literal["intended", "in_force", "acted", "taken_back", "leftover", "gone", "forgotten"]
#: States in which nothing of the change is left to be taken back.
CLOSED = frozenset({"taken_back", "gone", "forgotten"})
_TORN = b" ~torn"


def boot_id() -> str:
    """What tells this boot of the machine from another: a reboot takes every change back."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change in a journal.

    Attributes:
        id: Unique in the journal.
        change: What.
        where: Where it was.
        saved: What its undo puts back (`chaos.native`).
        cure: Commands that take it back by hand, one line.
        state: Last known state.
        owner: Process that holds it: pid and start time in clock ticks.
        boot: Boot in which it was done.
        journal: The file.
    """

    id: str
    change: Change
    where: Where
    saved: Mapping[str, Any]
    cure: str
    state: State
    owner: tuple[int, int]
    boot: str
    journal: Path
    history: tuple[str, ...] = field(default=())


class Journal:
    """An append-only journal, open for writing.

    Args:
        path: The file; made with its folder if absent.

    Raises:
        BlockedError: it cannot be opened, so nothing may be broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o644)
            if _torn(path):
                os.write(self._fd, _TORN + b"\n")
        except OSError as error:
            raise _blocked(path, error) from None

    def intended(
        self,
        id: str,
        change: Change,
        where: Where,
        *,
        saved: Mapping[str, Any],
        cure: str,
        owner: tuple[int, int],
        boot: str = "",
    ) -> None:
        """Write down a change before it is made; returns once it is on disk.

        `owner` and `boot` are those of the machine that the change is on; by default of this one.

        Raises:
            BlockedError: it could not be written in full.
        """
        line = {
            "schema": SCHEMA,
            "state": "intended",
            "id": id,
            "at_ns": time.monotonic_ns(),
            "wall_ns": time.time_ns(),
            "boot": boot or boot_id(),
            "owner": list(owner),
            "change": to_json(change),
            "where": asdict(where),
            "saved": dict(saved),
            "cure": cure,
        }
        try:
            self._append(line)
            os.fsync(self._fd)
        except OSError as error:
            raise _blocked(self.path, error) from None

    def note(self, state: State, id: str, **facts: Any) -> None:
        """Write down what became of a change.

        Raises:
            OSError: it could not be written; the change itself is as it is.
        """
        self._append({"state": state, "id": id, "at_ns": time.monotonic_ns(), **facts})

    def told(self, state: State, id: str, **facts: Any) -> tuple[str, ...]:
        """Write down what became of a change; a sentence where that fails, for nothing stops."""
        try:
            self.note(state, id, **facts)
        except OSError as error:
            return (f"journal {self.path}: {error.strerror} ({state})",)
        return ()

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if os.write(self._fd, data) != len(data):
            raise OSError(28, "no space left for a whole line")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _torn(path: Path) -> bool:
    """Whether the last writer died within its last line."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _blocked(path: Path, error: OSError) -> BlockedError:
    return BlockedError(
        f"journal {path} cannot be written ({error.strerror}); nothing was broken, since without "
        "it nobody could take the fault back"
    )


def read(path: Path) -> tuple[Entry, ...]:
    """Every change of a journal with its last state, in the order of intention.

    A torn line (its writer died in it) is passed over: what it told had not yet happened.

    Raises:
        SpecError: another line, or the file, cannot be read; the message names it.
    """
    entries: dict[str, Entry] = {}
    try:
        *lines, _unfinished = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SpecError(f"journal cannot be read: {error.strerror}", file=str(path)) from None
    for number, raw in enumerate(lines, 1):
        if not raw.strip() or raw.endswith(_TORN):
            continue
        try:
            _apply(entries, json.loads(raw), path)
        except (ValueError, KeyError, TypeError, SpecError) as error:
            raise SpecError(
                f"not a journal line of {SCHEMA}: {error!r}", file=str(path), line=number
            ) from None
    return tuple(entries.values())


def _apply(entries: dict[str, Entry], line: dict[str, Any], path: Path) -> None:
    if line["state"] == "intended":
        if line["schema"] != SCHEMA:
            raise SpecError(f"schema {line['schema']!r}, expected {SCHEMA}")
        entries[line["id"]] = Entry(
            id=line["id"],
            change=from_json(line["change"]),
            where=Where.from_json(line["where"]),
            saved=line["saved"],
            cure=line["cure"],
            state="intended",
            owner=(line["owner"][0], line["owner"][1]),
            boot=line["boot"],
            journal=path,
            history=("intended",),
        )
        return
    old = entries[line["id"]]
    state = line["state"]
    entries[old.id] = replace(old, state=state, history=(*old.history, state))


def open_changes(path: Path) -> tuple[Entry, ...]:
    """The changes that were not taken back, in the order of intention."""
    return tuple(entry for entry in read(path) if entry.state not in CLOSED)
