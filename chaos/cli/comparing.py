"""`compare`: runs of one experiment side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from chaos import compare as comparing
from chaos import record as records
from chaos.cli.app import Json, app, out, print_json
from chaos.cli.results import Out, record_path


@app.command(rich_help_panel="Look")
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run folders or records of one experiment.")],
    measure: Annotated[
        list[str] | None, typer.Option("--measure", help="Only these; may be repeated.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Json = False,
    folder: Out = Path("runs"),
) -> None:
    """Set runs of one experiment side by side: medians with their intervals.

    Figures of one fidelity label (namespace, container, hardware) are compared: intervals that do
    not meet are marked. Figures of different labels are never compared.
    """
    read = [records.read(record_path(run, folder)) for run in runs]
    columns = comparing.columns(read)
    rows = comparing.rows(read, measure or ())
    if json:
        print_json(
            {
                "columns": [asdict(column) for column in columns],
                "rows": [asdict(row) for row in rows],
                "compared": comparing.labels(columns),
            }
        )
        return
    if markdown:
        out.print(comparing.markdown(columns, rows), end="", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(f"{column.title}\n{column.fidelity}, {column.commit}")
    verdicts = (f"{column.verdict}, {column.trials} trials" for column in columns)
    table.add_row("verdict", *verdicts)
    for row in rows:
        mark = " ≠" if row.differs else ""
        table.add_row(f"{row.name}{mark}", *(Text(comparing.cell(cell)) for cell in row.cells))
    out.print(table)
    out.print(comparing.labels(columns), style="dim", markup=False)
