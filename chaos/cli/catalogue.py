"""`faults`, `probes`, `experiments`, `schema`: what there is and how to write it."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer
from rich.table import Table

from chaos.cli.app import Json, app, out, print_json
from chaos.errors import SpecError, near
from chaos.experiment import load
from chaos.experiment_schema import json_schema
from chaos.registry import FAULTS, PROBES
from chaos.registry import load as load_registry
from chaos.shipped import experiment_names, experiment_path

Name = Annotated[str, typer.Argument(help="Show this one in full.")]


@app.command(rich_help_panel="Look")
def faults(name: Name = "", json: Json = False) -> None:
    """List what can be broken; with a NAME: fields, reach, needs, example."""
    load_registry()
    _show("fault", FAULTS, name, json)


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
    described = {key: describe(cls) for key, cls in chosen.items()}
    if json:
        print_json(described[name] if name else described)
    elif name:
        _one(described[name])
    else:
        listing = Table(box=None, pad_edge=False)
        listing.add_column(what, style="bold")
        listing.add_column("what")
        listing.add_column("fields", style="dim")
        for key, said in described.items():
            listing.add_row(key, said["summary"], ", ".join(f["name"] for f in said["fields"]))
        out.print(listing)
        out.print(f"\nrailbreak {what}s NAME shows one in full.", style="dim")


def describe(cls: type[Any]) -> dict[str, Any]:
    """A plugin from its own docstring and fields."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    return {
        "name": cls.name,
        "summary": doc.split("\n", 1)[0],
        "doc": doc,
        "fields": [
            {
                "name": item.name,
                "type": str(item.type),
                "default": None if item.default is MISSING else str(item.default),
                "required": item.default is MISSING and item.default_factory is MISSING,
            }
            for item in fields(cls)
        ],
        "measures": dict(getattr(cls, "schema", {})),
        "detectors": list(getattr(cls, "detectors", ())),
    }


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
