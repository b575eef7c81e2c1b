"""Faults as a trace tells them: a CSV file, played with its time compressed. Pure but for `load`.

    start,end,element,fault
    0 h,47.4 h,leaf1--spine1,link_down
    12 h,13 h,spine2,node_down

Times are counted from the start of the trace (`90 s`, `12 h`, `3 d`), or are dates of ISO 8601, and
then the earliest one is its start. A fault may carry fields: `link_down mode=admin end=leaf1`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.experiment_fit import fits, fits_storm
from chaos.fabric import Fabric
from chaos.units import Duration

COLUMNS = ("start", "end", "element", "fault")
#: Rows of one trace; each is held by a process of its own.
MOST = 16
_DAYS = re.compile(r"(\d+(?:\.\d*)?)\s*d")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a trace, in time of the storm.

    Attributes:
        line: Its line in the file, from 1.
        at_ns: When it begins.
        until_ns: When it ends.
        element: What it strikes, as written.
        fault: The fault, with that element.
    """

    line: int
    at_ns: int
    until_ns: int
    element: str
    fault: Any


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, read.

    Attributes:
        file: Its name, for messages.
        compress: How much faster its time goes.
        rows: In the order of the file.
    """

    file: str
    compress: float
    rows: tuple[Row, ...]

    def wrong(self, row: Row, column: str, message: str) -> SpecError:
        """The refusal of one cell."""
        return _wrong(self.file, row.line, column, message)

    def check(self, fabric: Fabric) -> None:
        """Refuse what the fabric lacks, and what does not fit into its time.

        Raises:
            SpecError: with file, line and column.
        """
        for row in self.rows:
            try:
                fits(row.fault, fabric)
                fits_storm(row.fault, Duration(row.until_ns - row.at_ns))
            except SpecError as error:
                column = "element" if repr(row.element) in error.reason else "fault"
                raise self.wrong(row, column, error.reason) from None


Build = Callable[[str, str], Any]


def load(path: Path, compress: float, build: Build) -> Trace:
    """Read a trace from its file.

    Raises:
        SpecError: as `read`; or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"not UTF-8 text (byte {error.start})", file=str(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=str(path)) from None
    return read(text, str(path), compress, build)


def read(text: str, file: str, compress: float, build: Build) -> Trace:
    """Read a trace.

    Args:
        text: CSV with a head of `COLUMNS`; empty lines and lines that begin with `#` are passed
            over.
        file: Its name, for messages.
        compress: How much faster its time goes.
        build: Makes a fault of what stands in the columns `fault` and `element`.

    Raises:
        SpecError: with file, line and column, what was found, and what would be right.
    """
    lines = _lines(text, file)
    line, head = next(lines, (1, []))
    if tuple(cell.lower() for cell in head) != COLUMNS:
        found = ",".join(head) or "nothing"
        raise SpecError(
            f"a head of {','.join(COLUMNS)} expected, got {found}", file=file, line=line
        )
    timed: list[tuple[int, float, float, str, str]] = []
    dated: bool | None = None
    for line, cells in lines:
        if len(cells) != len(COLUMNS):
            raise SpecError(
                f"{len(COLUMNS)} cells expected ({', '.join(COLUMNS)}), got {len(cells)}",
                file=file,
                line=line,
            )
        ends = []
        for column, cell in zip(COLUMNS[:2], cells[:2], strict=True):
            second, is_date = _time(file, line, column, cell)
            dated = is_date if dated is None else dated
            if is_date is not dated:
                kind = "a date" if dated else "a time such as 12 h"
                told = f"{kind} expected, as in the lines before, got {cell!r}"
                raise _wrong(file, line, column, told)
            ends.append(second)
        if ends[1] <= ends[0]:
            told = f"a time after the start ({cells[0]}) expected, got {cells[1]!r}"
            raise _wrong(file, line, "end", told)
        timed.append((line, ends[0], ends[1], cells[2], cells[3]))
    if not timed:
        raise SpecError("no fault in it; a line such as 0 h,2 h,leaf1--spine1,link_down", file=file)
    if len(timed) > MOST:
        raise SpecError(
            f"at most {MOST} faults expected, got {len(timed)}; take a part of it", file=file
        )
    zero = min(one[1] for one in timed) if dated else 0.0
    rows = []
    for line, start, end, element, fault in timed:
        try:
            made = build(fault, element)
        except SpecError as error:
            column = "element" if repr(element) in error.reason else "fault"
            raise _wrong(file, line, column, error.reason) from None
        at, until = (round((one - zero) * 1e9 / compress) for one in (start, end))
        rows.append(Row(line, at, until, element, made))
    return Trace(file, compress, tuple(rows))


def _lines(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        for cells in reader:
            told = [cell.strip() for cell in cells]
            if any(told) and not told[0].startswith("#"):
                yield reader.line_num, told
    except csv.Error as error:
        raise SpecError(f"not CSV: {error}", file=file, line=reader.line_num) from None


def _time(file: str, line: int, column: str, cell: str) -> tuple[float, bool]:
    """Seconds, and whether it was a date."""
    try:
        if found := _DAYS.fullmatch(cell):
            return float(found[1]) * 86400, False
        return Duration.parse(cell).s, False
    except SpecError:
        pass
    try:
        made = datetime.fromisoformat(cell)
    except ValueError:
        told = f"a time such as 90 s, 12 h or 3 d, or a date such as 2026-05-01T10:00, got {cell!r}"
        raise _wrong(file, line, column, told) from None
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp(), True


def _wrong(file: str, line: int, column: str, message: str) -> SpecError:
    number = COLUMNS.index(column) + 1
    return SpecError(message, file=file, line=line, field=f"column {number} ({column})")
