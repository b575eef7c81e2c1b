"""`plan`: what an experiment would do, and whether a driver can; or why not."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from chaos import budget, drivers
from chaos import plan as planning
from chaos.abridged import abridged
from chaos.cli.app import Json, app, out, print_json
from chaos.cli.fabrics import DriverName, pick
from chaos.cli.runner import drive
from chaos.experiment import find, varied
from chaos.limits import Limits

ExperimentName = Annotated[
    str,
    typer.Argument(metavar="EXPERIMENT", help="An experiment file, or the name of a shipped one."),
]
Trials = Annotated[int | None, typer.Option(min=1, help="Trials with the fault.")]
Placebos = Annotated[int | None, typer.Option(min=0, help="Trials without it.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")]
On = Annotated[str, typer.Option("--on", metavar="INSTANCE", help="Run on a fabric that is up.")]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="NAME=VALUE", help="How far it may reach, such as hosts_isolated=0."
    ),
]


@app.command(rich_help_panel="Start here")
def plan(
    experiment: ExperimentName,
    trials: Trials = None,
    placebos: Placebos = None,
    seed: Seed = None,
    driver_name: DriverName = drivers.DEFAULT,
    on: On = "",
    limit: Limit = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also print what is too long to be read, whole.")
    ] = False,
    json: Json = False,
) -> None:
    """Print every phase and every command of an experiment, in order. Nothing is touched.

    Says how far the fault would reach at worst (ranks, hosts, links, planes, bisection), and per
    change whether the driver can make it, and if not, why and what to use instead. With
    [bold]--on[/], the plan is made for a fabric that is up or attached. Long lists of packets and
    long scripts are cut, and what is left out is counted; [bold]--full[/] and [bold]--json[/] have
    them whole.
    """
    chosen = varied(find(experiment), trials, placebos, seed, Limits.said(limit or []))
    if on:  # then the experiment's own fabric is not asked for: it may be no file at all
        known = drive(drivers.attach(pick(on)))
        making, fabric = drivers.named(known.name), known.fabric
    else:
        making, fabric = drivers.named(driver_name), drivers.fabric(chosen.fabric, driver_name)
    there = making.engines()
    told = planning.lines(chosen, fabric, making.name, there=there)
    told += budget.lines(chosen, fabric, making.fidelity)
    reach = planning.matrix(chosen, fabric, making, there)
    blast = budget.as_json(chosen, fabric, making.fidelity)
    if json:
        print_json(
            {
                "experiment": chosen.name,
                "driver": making.name,
                "fidelity": making.fidelity,
                "plan": list(told),
                "blast": blast,
                "capabilities": [
                    {"fault": name, "change": text, "can": not reason, "reason": reason}
                    for name, text, reason in reach
                ],
            }
        )
        return
    _print_lines(told, full)
    for sentence in blast["refused"]:
        out.print(f"REFUSED    {sentence}", style="red", markup=False)
    out.print(f"\ndriver {making.name}", markup=False)
    for name, text, reason in reach:
        mark = "[red]no [/]" if reason else "[green]yes[/]"
        out.print(f"{mark}  ", Text(f"{text}  ({name})"), sep="")
        if reason:
            out.print(Text(f"     {reason}", style="yellow"))


def _print_lines(told: Sequence[str], full: bool) -> None:
    """Line by line; on a terminal what is broken is set further in than where it began."""
    shown = told if full else [abridged(line) for line in told]
    for line in shown:
        if out.is_terminal and not full:
            inset = " " * min(max(11, len(line) - len(line.lstrip()) + 5), out.width // 2)
            line = textwrap.fill(
                line,
                out.width,
                subsequent_indent=inset,
                break_long_words=False,
                break_on_hyphens=False,
            )
        out.print(line, markup=False)
    if cut := sum(line != whole for line, whole in zip(shown, told, strict=True)):
        out.print(f"cut short  {cut} lines; whole with --full")
