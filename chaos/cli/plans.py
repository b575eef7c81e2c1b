"""`plan`: what an experiment would do, and whether a driver can; or why not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from chaos import budget, drivers
from chaos import plan as planning
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
    json: Json = False,
) -> None:
    """Print every phase and every command of an experiment, in order. Nothing is touched.

    Says how far the fault would reach at worst (ranks, hosts, links, planes, bisection), and per
    change whether the driver can make it, and if not, why and what to use instead. With
    [bold]--on[/], the plan is made for a fabric that is up or attached.
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
    for line in told:
        out.print(line, markup=False)
    for sentence in blast["refused"]:
        out.print(f"REFUSED    {sentence}", style="red", markup=False)
    out.print(f"\ndriver {making.name}", markup=False)
    for name, text, reason in reach:
        mark = "[red]no [/]" if reason else "[green]yes[/]"
        out.print(f"{mark}  ", Text(f"{text}  ({name})"), sep="")
        if reason:
            out.print(Text(f"     {reason}", style="yellow"))
