"""Nodes with a leftover: nothing more is broken there until it is taken back, or given up.

The list is one file, `quarantine.json` in the state folder, and outlives runs and their processes.
It is written when an undo failed, and when a journal has a change that nobody holds any more. An
entry is lifted when its journal says that the change was taken back or forgotten, and when the
place itself is no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import recover
from chaos.driver import Driver
from chaos.errors import BlockedError, SpecError
from chaos.journal import Entry, boot_id, open_changes
from chaos.netns import inode
from chaos.recover import Status

SCHEMA = "railbreak.quarantine/1"
NAME = "quarantine.json"


@dataclass(frozen=True, slots=True)
class Held:
    """One change that was left on a node.

    Attributes:
        node: Name of the node.
        instance: Fabric it is a node of; the name of the journal's folder.
        host: Name of the machine, where it is another one.
        change: The change, as text.
        journal: Its journal.
        id: Of the change in that journal.
        cure: Commands that take it back by hand.
        since: When it was put here; wall clock, ISO 8601, UTC.
        netns: Path of its network namespace here; empty for a process or another machine.
        inode: Of that namespace.
        boot: Boot of this machine in which it was made.
    """

    node: str
    instance: str
    host: str
    change: str
    journal: str
    id: str
    cure: str
    since: str
    netns: str = ""
    inode: int = 0
    boot: str = ""

    def sentence(self) -> str:
        """Where, since when, what, and the ways out; by hand, where its journal is gone."""
        where = self.node if self.host in ("", self.node) else f"{self.node} ({self.host})"
        left = (
            f"{where} of {self.instance} is in quarantine since {self.since}: {self.change} is, or "
            "may be, still in force there; "
        )
        if not Path(self.journal).exists():
            return f"{left}take it back by hand ({self.cure}), then railbreak forget {self.journal}"
        by_hand = f" (by hand: {self.cure})" if self.cure else ""
        return (
            f"{left}take it back with railbreak undo {self.journal}{by_hand}, or give it up with "
            f"railbreak forget {self.journal}"
        )


def look(folder: Path | None = None) -> tuple[Held, ...]:
    """Bring the list up to date with the journals of one fabric, or of all; what is on it.

    Args:
        folder: Of the fabric whose journals are asked; none asks every one.
    """
    paths = recover.journals() if folder is None else sorted(folder.glob("journal*.jsonl"))
    standing: list[Status] = []
    for path in paths:
        with contextlib.suppress(SpecError):  # a torn journal; railbreak status names it
            standing += recover.in_force([path])
    return note(standing)


def note(standing: Iterable[Status]) -> tuple[Held, ...]:
    """Put every change that nobody holds on the list, and lift what is over; what is on it."""
    left = [one.entry for one in standing if not one.held and one.in_force is not False]
    with _locked() as path:
        before = _read(path) if path is not None else ()
        known = {(one.journal, one.id): one for one in before if not _over(one)}
        for entry in left:
            made = _held(entry)
            known.setdefault((made.journal, made.id), made)
        after = tuple(known.values())
        if path is not None and after != before:
            _write(path, after)
    return after


def nodes() -> tuple[Held, ...]:
    """What is on the list, without what is over."""
    return note(())


def listed(journal: Path) -> tuple[Held, ...]:
    """What of one journal is on the list."""
    return tuple(one for one in nodes() if one.journal == str(journal.absolute()))


def lift(journal: Path) -> tuple[Held, ...]:
    """Take everything of one journal off the list, also where that journal is gone; what it was."""
    wanted = str(journal.absolute())
    with _locked() as path:
        before = _read(path) if path is not None else ()
        lifted = tuple(one for one in before if one.journal == wanted)
        if path is not None and lifted:
            _write(path, tuple(one for one in before if one.journal != wanted))
    return lifted


def be_free(names: Iterable[str], driver: Driver) -> None:
    """Return when none of these nodes of a fabric is in quarantine.

    A machine that is reached over the network is the same one under another instance's name.

    Raises:
        BlockedError: one is; says what was left there and how it is taken back.
    """
    wanted = set(names)
    for one in look(driver.folder):
        same = one.instance == driver.instance or (one.host and driver.fidelity == "hardware")
        if one.node in wanted and same:
            raise BlockedError(one.sentence())


def _held(entry: Entry) -> Held:
    place, where = entry.change.place, entry.where
    return Held(
        node=place.node,
        instance=entry.journal.parent.name,
        host=where.host,
        change=entry.change.describe(),
        journal=str(entry.journal.absolute()),
        id=entry.id,
        cure=entry.cure,
        since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        netns=where.netns,
        inode=where.inode,
        boot=entry.boot,
    )


def _over(one: Held) -> bool:
    """The journal closed it, or its place is no more.

    What was left on another machine, or on a node that outlives its instance, stays on the list
    when the instance and its journal are gone.
    """
    if not one.host and one.boot != boot_id():
        return True
    if not one.host and one.netns and inode(one.netns) != one.inode:
        return True
    try:
        return one.id not in {entry.id for entry in open_changes(Path(one.journal))}
    except SpecError:  # it is gone, or cannot be read; a process ends with its fabric
        return not Path(one.journal).exists() and not one.host and not one.netns


@contextlib.contextmanager
def _locked() -> Iterator[Path | None]:
    """The file of the list, for one process at a time; None where there is no state folder."""
    folder = recover.state_folder()
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder / NAME
    finally:
        os.close(fd)


def _read(path: Path) -> tuple[Held, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BlockedError(f"quarantine list {path} cannot be read: {error.strerror}") from None
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, expected {SCHEMA}")
        return tuple(Held(**one) for one in data["nodes"])
    except (ValueError, KeyError, TypeError) as error:
        raise BlockedError(
            f"quarantine list {path} cannot be read ({error}), so nobody knows which nodes are "
            "faulted; look with railbreak status after moving it away"
        ) from None


def _write(path: Path, held: Sequence[Held]) -> None:
    """Replace the list in one step; an empty one is no file."""
    try:
        if not held:
            path.unlink(missing_ok=True)
            return
        data = {"schema": SCHEMA, "nodes": [asdict(one) for one in held]}
        part = path.with_name(f".{NAME}.{os.getpid()}")
        part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise BlockedError(f"quarantine list {path} cannot be written: {error.strerror}") from None
