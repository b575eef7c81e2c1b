"""Records of one experiment side by side. Pure.

Figures of one fidelity label are compared: two intervals that do not meet are told as different.
Figures of different labels stand beside each other and are never compared: a container's kernel
path, a namespace's and a NIC's are different things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from chaos.errors import SpecError, near
from chaos.record import Record
from chaos.timeline import Measure

#: What is shown when nothing else was asked for, as far as a record has it.
SHOWN = (
    "flow_lost_packets",
    "flow_outage_longest_ms",
    "job_stall_ms",
    "job_recovery_ms",
    "detection_first_ms",
)


@dataclass(frozen=True, slots=True)
class Column:
    """One record: what it was measured on, and what it says.

    Attributes:
        title: Driver and fabric.
        fidelity: Its label.
        verdict: Of the whole run.
        trials: With the fault in force.
        commit: Short commit, with `+` where the tree was dirty.
        started: Wall clock.
    """

    title: str
    fidelity: str
    verdict: str
    trials: int
    commit: str
    started: str


@dataclass(frozen=True, slots=True)
class Row:
    """One measure over all columns; None where a record lacks it.

    Attributes:
        name: Of the measure.
        cells: One per column.
        differs: Pairs of columns of one label whose intervals do not meet.
    """

    name: str
    cells: tuple[Measure | None, ...]
    differs: tuple[tuple[int, int], ...]


def columns(records: Sequence[Record]) -> tuple[Column, ...]:
    """What each record was measured on.

    Raises:
        SpecError: fewer than two records, or records of different experiments.
    """
    if len(records) < 2:
        raise SpecError(f"two records or more expected, got {len(records)}")
    names = {str(record.experiment.get("name")) for record in records}
    if len(names) > 1:
        raise SpecError(
            f"records of different experiments ({', '.join(sorted(names))}) have nothing to compare"
        )
    return tuple(_column(record) for record in records)


def _column(record: Record) -> Column:
    commit = record.comparability.get("commit") or {}
    short = str(commit.get("id") or commit.get("version") or "?")[:12]
    return Column(
        title=f"{record.fabric.get('driver')}: {record.fabric.get('name')}",
        fidelity=str(record.fabric.get("fidelity")),
        verdict=record.verdict,
        trials=sum(not trial.placebo for trial in record.trials),
        commit=short + "+" * bool(commit.get("dirty")),
        started=str(record.comparability.get("started", "")),
    )


def rows(records: Sequence[Record], names: Sequence[str] = ()) -> tuple[Row, ...]:
    """The measures asked for, in that order; by default `SHOWN` and every detector.

    Raises:
        SpecError: a measure that no record has.
    """
    found = [{one.name: one for one in record.measures} for record in records]
    known = sorted({name for measures in found for name in measures})
    wanted = tuple(names) or tuple(
        name
        for name in (*SHOWN, *(n for n in known if n.startswith("detection_")))
        if name in known
    )
    for name in wanted:
        if name not in known:
            raise SpecError(f"no record has a measure {name!r}; {near(name, known)}")
    labels = [record.fabric.get("fidelity") for record in records]
    made = []
    for name in dict.fromkeys(wanted):
        cells = tuple(measures.get(name) for measures in found)
        pairs = combinations(range(len(records)), 2)
        same = ((a, b) for a, b in pairs if labels[a] == labels[b])
        made.append(Row(name, cells, tuple((a, b) for a, b in same if apart(cells[a], cells[b]))))
    return tuple(row for row in made if any(cell and cell.n for cell in row.cells) or names)


def apart(one: Measure | None, other: Measure | None) -> bool:
    """Whether two intervals do not meet; a measure without data differs from none.

    Examples:
        >>> apart(Measure("x", 2, 1, 3), Measure("x", 5, 4, 6))
        True
        >>> apart(Measure("x", 2, 1, 3), Measure("x", None))
        False
    """
    first, second = _interval(one), _interval(other)
    if first is None or second is None:
        return False
    return first[0] > second[1] or second[0] > first[1]


def _interval(measure: Measure | None) -> tuple[float, float] | None:
    """From lowest to highest; None where there is no value."""
    if measure is None or measure.value is None:
        return None
    low = measure.value if measure.low is None else measure.low
    return low, measure.value if measure.high is None else measure.high


def cell(measure: Measure | None) -> str:
    """A measure as one short text: value, interval, sample.

    Examples:
        >>> cell(Measure("x", 124.5585, 123.99, 125.48, n=10))
        '125 [124, 125], n=10'
        >>> cell(None)
        '–'
    """
    if measure is None or measure.value is None:
        return "–" if measure is None or not measure.note else f"– ({measure.note})"
    text = number(measure.value)
    if measure.low is not None and measure.high is not None:
        text += f" [{number(measure.low)}, {number(measure.high)}]"
    return f"{text}, n={measure.n}" + (", censored" if measure.censored else "")


def number(value: float) -> str:
    """Three figures, and whole numbers whole.

    Examples:
        >>> [number(v) for v in (0.06620, 1.2345, 124.5585, 2000.0)]
        ['0.0662', '1.23', '125', '2000']
    """
    return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def labels(made: Sequence[Column]) -> str:
    """The sentence on what may be compared here."""
    found = tuple(dict.fromkeys(column.fidelity for column in made))
    if len(found) == 1:
        return f"all figures carry the label {found[0]}: intervals that do not meet are marked ≠"
    return (
        f"figures of different labels ({', '.join(found)}) stand side by side and are not compared"
    )


def markdown(made: Sequence[Column], lines: Sequence[Row]) -> str:
    """The table for a document."""
    head = ["measure", *(f"{column.title} ({column.fidelity})" for column in made)]
    body = [
        ["verdict", *(f"{column.verdict}, {column.trials} trials" for column in made)],
        *([row.name + " ≠" * bool(row.differs), *map(cell, row.cells)] for row in lines),
    ]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(one)} |" for one in (head, rule, *body)) + "\n"
