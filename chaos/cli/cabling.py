"""`fabric verify`: declared cabling against what LLDP hears."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from chaos import drivers, topology
from chaos.cli.app import Json, app, err, out, print_json
from chaos.cli.fabrics import Instance, pick
from chaos.cli.runner import drive
from chaos.driver import Driver
from chaos.errors import CapabilityError, FabricError, SpecError
from chaos.inventory import (
    MANAGEMENT,
    Comparison,
    Inventory,
    Neighbour,
    compare,
    load,
    of_fabric,
    read_heard,
    read_names,
    read_neighbours,
)
from chaos.inventory.lldp import ARGV

LIVE = "live"
_AT_ONCE = 32
_DIFFER, _UNSURE = 1, 2

fabric_app = typer.Typer(
    name="fabric", no_args_is_help=True, help="Cabling: what is declared, and what is plugged."
)
app.add_typer(fabric_app, rich_help_panel="Fabrics")


@fabric_app.callback()
def fabric() -> None:
    """Cabling: what is declared, and what is plugged."""


@fabric_app.command()
def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FABRIC_OR_INVENTORY",
            help="A *.clab.yml, a shipped fabric, or an inventory (Ansible, Nornir, Containerlab).",
        ),
    ],
    links: Annotated[
        list[Path] | None,
        typer.Option(help="How it is cabled: a *.clab.yml of the same fabric, or a CSV."),
    ] = None,
    lldp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER|FILE|live",
            help="Outputs of lldpcli -f json0 show neighbors, one HOST.json each; or live.",
        ),
    ] = None,
    on: Instance = "",
    names: Annotated[
        Path | None, typer.Option(help="YAML of NAME: HOST, for names of the link files.")
    ] = None,
    role: Annotated[
        list[str] | None, typer.Option(metavar="GROUP=ROLE", help="Role of a group's hosts.")
    ] = None,
    form: Annotated[
        str, typer.Option(help="The inventory's form, where its content could be two.")
    ] = "",
    json: Json = False,
) -> None:
    """Compare the declared cabling with what LLDP hears, and say what differs.

    Exit status: 0 when every cable was heard where it is declared, 1 when the cabling differs, 2
    when nothing differs but a cable could not be judged, as neither end was asked.

    [bold]railbreak fabric verify hosts.yml --links fabric.clab.yml --lldp outputs/[/]

    [bold]railbreak fabric verify rails-2x4 --lldp live --on rails-2x4[/]
    """
    found = _declared(target, links or [], names, role or [], form)
    sources = [one for one in lldp or [] if one != LIVE]
    if on or LIVE in (lldp or []) or not sources:
        heard, silent = drive(_live(found, pick(on)))
    else:
        heard, silent = {}, {}
    for source in sources:
        for host, words in read_heard(Path(source), found.hosts).items():
            if host in heard:
                raise SpecError(f"found a second output of {host}; give one each", file=source)
            heard[host] = words
    outcome = compare(found, heard, silent, MANAGEMENT)
    if json:
        print_json(_plain(found, outcome))
    else:
        _print(found, outcome)
    raise typer.Exit(_DIFFER if outcome.differs else 0 if outcome.complete else _UNSURE)


def _declared(
    target: str, links: Sequence[Path], names: Path | None, roles: Sequence[str], form: str
) -> Inventory:
    """The inventory or fabric of that name, with its cables."""
    path = Path(target)
    if not path.exists() or (not form and _is_topology(path)):
        if links or names or roles:
            raise SpecError("--links, --names and --role go with an inventory", file=target)
        found = of_fabric(topology.load(target))
    else:
        known: dict[str, str] = {}
        for word in roles:
            group, equals, value = word.partition("=")
            if not equals or not group or not value:
                raise SpecError(f"found {word!r}, wanted GROUP=ROLE", field="--role")
            known[group] = value
        named = read_names(names) if names else {}
        found = load(path, links, form=form, roles=known, named=named)
    if not found.cables:
        raise SpecError("found no cable; name a *.clab.yml or a CSV with --links", file=target)
    return found


def _is_topology(path: Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.clab.y*ml"))
    return path.name.endswith((".clab.yml", ".clab.yaml"))


async def _live(
    found: Inventory, instance: str
) -> tuple[dict[str, tuple[Neighbour, ...]], dict[str, str]]:
    """What the nodes of a running fabric hear; for those that cannot be asked, why."""
    driver = await drivers.attach(instance)
    by_node = {host.node or name: name for name, host in found.hosts.items()}
    nodes = [node for node in driver.fabric.nodes if node in by_node]
    if not nodes:
        raise SpecError(f"{instance} has none of the hosts of {found.source or found.name}")
    gate = asyncio.Semaphore(_AT_ONCE)
    answers = await asyncio.gather(*(_asked(driver, gate, node) for node in nodes))
    heard: dict[str, tuple[Neighbour, ...]] = {}
    silent: dict[str, str] = {}
    for node, (text, reason) in zip(nodes, answers, strict=True):
        if reason:
            silent[by_node[node]] = reason
        else:
            heard[by_node[node]] = read_neighbours(text, by_node[node], f"lldpcli on {node}")
    if not heard:
        told = "; ".join(f"{node}: {reason}" for node, reason in silent.items())
        raise CapabilityError(
            f"no node of {instance} answers {' '.join(ARGV)} ({told}); start lldpd on those that "
            "can be reached"
        )
    return heard, silent


async def _asked(driver: Driver, gate: asyncio.Semaphore, node: str) -> tuple[str, str]:
    """The output, or the reason why there is none."""
    async with gate:
        try:
            done = await driver.exec(node, ARGV, deadline_s=30)
        except FabricError as error:
            return "", str(error)
    text = done.stdout.decode(errors="replace")
    if done.code == 0 and text.strip():
        return text, ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return "", said[-1] if said else f"lldpcli ended with {done.code}"


def _plain(found: Inventory, outcome: Comparison) -> dict[str, Any]:
    every = [
        {**asdict(one), "where": [str(port) for port in one.where]} for one in outcome.differences
    ]
    return {
        "fabric": found.name,
        "equal": not outcome.differs and outcome.complete,
        "declared": outcome.declared,
        "confirmed": outcome.confirmed,
        "unverified": outcome.unverified,
        "asked": list(outcome.asked),
        "differences": [one for one in every if one["counts"]],
        "warnings": [one for one in every if not one["counts"]],
        "notes": list(found.warnings),
    }


def _print(found: Inventory, outcome: Comparison) -> None:
    for warning in found.warnings:
        err.print(f"warning: {warning}", style="yellow", markup=False)
    _table([one for one in outcome.differences if one.counts])
    for one in outcome.differences:
        style = "bold red" if one.counts else "yellow"
        out.print(one.sentence, style=style, markup=False)
    told = f"{outcome.confirmed} of {outcome.declared} declared cables are plugged as declared"
    asked = f"{len(outcome.asked)} of {len(found.hosts)} hosts asked"
    if outcome.differs:
        word = "[red]differs[/]"
    else:
        word = "[green]equal[/]" if outcome.complete else "[yellow]not judged[/]"
    out.print(f"{word} {found.name}: {told}, {outcome.unverified} not judged; {asked}")


def _table(differences: Iterable[Any]) -> None:
    rows = list(differences)
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("difference", "declared", "plugged"):
        table.add_column(column, overflow="fold")
    for one in rows:
        table.add_row(one.kind, one.declared.replace(", ", "\n"), one.found.replace(", ", "\n"))
    out.print(table)
