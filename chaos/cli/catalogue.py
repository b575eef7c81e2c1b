"""`faults`, `probes`, `experiments`, `schema`: what there is and how to write it."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from chaos import catalogue
from chaos.cli.app import Json, app, out, print_json
from chaos.errors import SpecError, near
from chaos.experiment import load
from chaos.experiment_schema import json_schema
from chaos.registry import AREAS, FAULTS, PROBES
from chaos.registry import load as load_registry
from chaos.shipped import experiment_names, experiment_path

Name = Annotated[str, typer.Argument(help="Show this one in full.")]


@app.command(rich_help_panel="Look")
def faults(
    name: Name = "",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page docs/faults.md.")
    ] = False,
    json: Json = False,
) -> None:
    """List what can be broken, by class; with a NAME: fields, reach, needs, examples."""
    load_registry()
    if markdown:
        typer.echo(catalogue.markdown(), nl=False)
    elif name or json:
        _show("fault", FAULTS, name, json)
    else:
        for area, classes in catalogue.by_area().items():
            listing = {cls.name: catalogue.described(cls) for cls in classes}
            out.print(_listing(AREAS.get(area, "Of others"), listing))
            out.print()
        out.print("railbreak faults NAME shows one in full.", style="dim")


@app.command(rich_help_panel="Look")
def probes(name: Name = "", json: Json = False) -> None:
    """List what can be measured; with a NAME: fields, measures, needs, example."""
    load_registry()
    _show("probe", PROBES, name, json)


@app.command(rich_help_panel="Look")
def experiments(json: Json = False) -> None:
    """List the shipped experiments and their promises."""
    shipped = {name: load(experiment_path(name) or "") for name in experiment_names()}
    if json:
        print_json(
            {name: {"promise": e.promise, "fabric": e.fabric} for name, e in shipped.items()}
        )
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("experiment", style="bold")
    table.add_column("fabric")
    table.add_column("promise")
    for name, experiment in shipped.items():
        table.add_row(name, experiment.fabric, experiment.promise)
    out.print(table)


@app.command(rich_help_panel="Look")
def schema() -> None:
    """Print the JSON schema of experiment files, for editors.

    Save it and put [bold]# yaml-language-server: $schema=FILE[/] on top of an experiment.
    """
    load_registry()
    print_json(json_schema())


def _show(what: str, table: dict[str, type[Any]], name: str, json: bool) -> None:
    if name and name not in table:
        raise SpecError(f"no {what} {name!r}; {near(name, table)}")
    chosen = {name: table[name]} if name else dict(sorted(table.items()))
    described = {key: catalogue.described(cls) for key, cls in chosen.items()}
    if json:
        print_json(described[name] if name else described)
    elif name:
        _one(described[name])
    else:
        out.print(_listing(what, described))
        out.print(f"\nrailbreak {what}s NAME shows one in full.", style="dim")


def _listing(title: str, described: dict[str, dict[str, Any]]) -> Table:
    listing = Table(box=None, pad_edge=False)
    listing.add_column(title, style="bold", min_width=26)
    listing.add_column("what")
    for key, said in described.items():
        listing.add_row(key, said["summary"])
    return listing


def _one(said: dict[str, Any]) -> None:
    out.print(said["name"], style="bold")
    out.print(said["doc"], markup=False)
    if said["measures"]:
        table = Table(title="Measures", box=None, pad_edge=False, title_justify="left")
        table.add_column("name", style="bold")
        table.add_column("definition")
        for name, meaning in said["measures"].items():
            table.add_row(name, meaning)
        out.print()
        out.print(table)
    if said["detectors"]:
        out.print(f"\nDetectors: {', '.join(said['detectors'])}")
