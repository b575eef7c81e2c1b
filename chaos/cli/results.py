"""`report`: what runs found, on the terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from chaos import record as records
from chaos.cli.app import Json, app, err, out, print_json
from chaos.errors import SpecError, near
from chaos.experiment import find
from chaos.record import Record
from chaos.report import junit, page
from chaos.run import rejudge

Out = Annotated[Path, typer.Option("--out", help="Folder that run folders are made in.")]


def write(made: Record, folder: Path) -> Path:
    """JUnit XML and the page into a folder; where the page is."""
    data = records.to_json(made)
    (folder / "junit.xml").write_text(junit(data))
    target = folder / "report.html"
    target.write_text(page(data))
    return target


_COLOUR = {"pass": "green", "fail": "red", "inconclusive": "yellow", "blocked": "yellow"}


def summary(made: Record) -> None:
    """Trials, findings and verdict on the terminal."""
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "what", "proof", "verdict"):
        table.add_column(column)
    for trial in made.trials:
        what = "placebo" if trial.placebo else trial.element
        proof = "" if trial.placebo else _proof_words(trial.proof)
        table.add_row(str(trial.number), what, proof, _coloured(trial.verdict))
    out.print(table)
    out.print()
    for finding in made.findings:
        where = f" [dim](trial {finding.trial})[/]" if finding.trial else ""
        out.print(f"{_coloured(finding.verdict)}{where} ", end="")
        out.print(finding.sentence, markup=False)
    colour = _COLOUR[made.verdict]
    out.print(f"\n[bold {colour}]{made.verdict.upper()}[/]  {made.experiment['promise']}")


def _coloured(verdict: str) -> str:
    return f"[{_COLOUR.get(verdict, 'white')}]{verdict.upper():12}[/]"


def _proof_words(proof: records.Proof) -> str:
    if proof.in_force is None:
        return "nothing was broken"
    words = ["in force" if proof.in_force else "NOT in force"]
    if proof.hit is not None:
        words.append(f"hit {proof.hit:,}" + (f" of {proof.seen:,}" if proof.seen else ""))
    words.append("taken back" if proof.taken_back else "NOT taken back")
    if proof.residue is None:
        words.append("residue not compared")
    else:
        words.append(f"{len(proof.residue)} residues" if proof.residue else "no residue")
    return ", ".join(words)


@app.command(rich_help_panel="Look")
def report(
    run: Annotated[str, typer.Argument(help="A run folder or record; default: list them.")] = "",
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge again by today's rules and objectives.")
    ] = False,
    json: Json = False,
    runs: Out = Path("runs"),
) -> None:
    """List the runs, or rebuild one's page from its record without running anything."""
    if not run:
        _list(runs, json)
        return
    path = record_path(run, runs)
    made = records.read(path)
    if judge:
        made = rejudge(made, find(made.experiment["file"] or made.experiment["name"]))
        records.write(made, path)
    if json:
        print_json(records.to_json(made))
        return
    summary(made)
    out.print(f"report  {write(made, _home(path, runs))}", style="dim")


def _home(path: Path, runs: Path) -> Path:
    """The folder of a record's page: a run's own, else one among the runs."""
    if path.name == "record.json":
        return path.parent
    folder = runs / path.name.partition(".")[0]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def record_path(run: str, runs: Path) -> Path:
    """The record of a run: a file, a folder, or a name among the runs.

    Raises:
        SpecError: there is none; near names are offered.
    """
    for candidate in (Path(run), Path(run) / "record.json", runs / run / "record.json"):
        if candidate.is_file():
            return candidate
    known = [path.parent.name for path in runs.glob("*/record.json")]
    raise SpecError(f"no run {run!r}; {near(run, known)}")


def _list(runs: Path, json: bool) -> None:
    rows: list[dict[str, Any]] = []
    for path in sorted(runs.glob("*/record.json")):
        try:
            made = records.read(path)
        except SpecError as error:
            err.print(str(error), style="yellow", markup=False)
            continue
        rows.append(
            {
                "run": path.parent.name,
                "verdict": made.verdict,
                "trials": len(made.trials),
                "promise": made.experiment["promise"],
            }
        )
    if json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "verdict", "trials", "promise"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["run"], _coloured(row["verdict"]), str(row["trials"]), row["promise"])
    out.print(table if rows else f"no runs in {runs}/")
