"""The command line's tree and what every verb shares."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from chaos.comparability import commit
from chaos.errors import SpecError
from chaos.units import Duration, Percent

Quantity = TypeVar("Quantity", Duration, Percent)

app = typer.Typer(
    name="railbreak",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit status: 0 pass, 1 fail, 2 inconclusive; 3 wrong spec or command line, 4 capability "
        "missing, 5 fabric trouble, 6 blocked before the fault, 7 fault not in force, "
        "8 [bold]still in force or left behind[/] (see railbreak undo), 130 interrupted, "
        "or answered with no."
    ),
)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(data: Any) -> None:
    """Plain JSON on standard output, nothing else."""
    typer.echo(json.dumps(data, indent=1, default=str))


def option(name: str, quantity: type[Quantity], text: str) -> Quantity:
    """What an option says, with its unit.

    Raises:
        SpecError: it is no such quantity; the refusal names the option.
    """
    try:
        return quantity.parse(text)
    except SpecError as error:
        raise SpecError(error.reason, field=name) from None


def _version(value: bool) -> None:
    if value:
        head = commit()
        at = f" ({head['id'][:12]}{', dirty' if head['dirty'] else ''})" if head["id"] else ""
        typer.echo(f"railbreak {head['version'] or 'unknown'}{at}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Break an AI training fabric on purpose, measure what the collective job feels, and judge it.

    Start with [bold]railbreak demo[/]: a routed leaf-spine fabric on this machine, a
    torch.distributed job across it, a link that breaks, a verdict, a page. Then
    [bold]railbreak plan EXPERIMENT[/] shows every command of an experiment without touching
    anything, and [bold]railbreak run EXPERIMENT[/] runs it.
    """


# verbs register themselves; their order here is the order of the panels in --help
from chaos.cli import fabrics, cabling, plans, runs, results, comparing, healing, catalogue  # noqa: E402, I001

__all__ = [
    "app",
    "cabling",
    "catalogue",
    "comparing",
    "fabrics",
    "healing",
    "plans",
    "results",
    "runs",
]
