"""`inject`, `status`, `undo`, `forget`: break one thing by hand, and the ways back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chaos import budget, drivers, quarantine, recover, snapshot
from chaos.aim import aim
from chaos.change import Change
from chaos.cli.app import Json, app, err, option, out, print_json
from chaos.cli.fabrics import pick
from chaos.cli.plans import Limit
from chaos.cli.runner import drive
from chaos.driver import Holder
from chaos.errors import LeftoverError, SpecError
from chaos.limits import Limits
from chaos.plan import as_text
from chaos.registry import FAULTS, build
from chaos.registry import load as load_registry
from chaos.storm import LEAD_NS, place_processes
from chaos.timeline import now_ns
from chaos.units import Duration
from chaos.worded import fields_from

TRAFFIC_WORDS = ("in-use", "near", "far")


@app.command(rich_help_panel="Break")
def inject(
    fabric: Annotated[str, typer.Argument(help="A running fabric: instance, name or file.")],
    fault: Annotated[str, typer.Argument(help="Name of a fault; see railbreak faults.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="FIELD=VALUE…")] = None,
    lasting: Annotated[str, typer.Option("--for", help="How long, such as 5s or 250ms.")] = "5s",
    seed: Annotated[int, typer.Option(help="Seed of the fault's own randomness.")] = 1,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """Put one fault on a running fabric for a stated time; show its hits; heal.

    It heals at the end, on Ctrl-C, and when this process dies. Exit status 8 when something is
    still in force, or the fabric is not as it was before. Example:
    [bold]railbreak inject clos-2x4x8 packet_loss link=leaf1:eth1--spine1:eth1 share=10%
    roce=true --for 5s[/]
    """
    load_registry()
    if fault not in FAULTS and "=" in fault and fabric in FAULTS:
        raise SpecError(f"a fabric comes first: railbreak inject FABRIC {fabric} {fault} …")
    length = option("--for", Duration, lasting)
    if length.ns == 0:
        raise SpecError("--for must be above 0")
    made = build(FAULTS, "fault", fault, fields_from(FAULTS.get(fault), values or []))
    _refuse_traffic_words(made)
    limits = Limits.said(limit or [])
    said = drive(_inject(pick(fabric), made, length, seed, limits, quiet=json))
    if json:
        print_json(said)
    if said["leftovers"]:
        raise LeftoverError("\n".join(said["leftovers"]))
    if said["residue"]:
        raise LeftoverError(
            "the fault is gone, but the fabric is not as it was before it:\n"
            + "\n".join(f"  {one}" for one in said["residue"])
            + "\nrailbreak down and railbreak up make it anew"
        )


def _refuse_traffic_words(fault: Any) -> None:
    """Refuse words that only measured traffic can settle; `inject` measures none."""
    for item in fields(fault):
        value = str(getattr(fault, item.name))
        if value.split(" ")[0] in TRAFFIC_WORDS:
            right = "both, or the node at that end" if item.name == "end" else "it by its name"
            raise SpecError(
                f"{value!r} says where measured traffic goes, and inject measures none; give "
                f"{right} (see railbreak show)",
                field=item.name,
            )


async def _inject(
    instance: str, fault: Any, length: Duration, seed: int, limits: Limits, *, quiet: bool
) -> dict[str, Any]:
    driver = await drivers.attach(instance)
    aimed = aim(fault, driver.fabric, ())
    changes = place_processes(aimed.fault.changes(driver.fabric), {})
    await asyncio.to_thread(quarantine.be_free, [one.place.node for one in changes], driver)
    reach = budget.hold(as_text(aimed.fault), changes, driver.fabric, limits, driver.fidelity)
    spans = aimed.fault.schedule(length, random.Random(seed))
    before = await driver.snapshot()
    hands = await driver.arm(
        changes,
        journal=driver.folder / f"journal-inject-{now_ns()}.jsonl",
        max_life=Duration(length.ns + 30 * 10**9),
        log_dir=driver.folder,
    )
    for warning in driver.warnings:
        err.print(f"note: {warning}", style="yellow", markup=False)
    try:
        await hands.start(now_ns() + int(getattr(driver, "lead_ns", LEAD_NS)), spans)
        if not quiet:
            out.print(f"[bold]{as_text(aimed.fault)}[/] on {instance} for {length}")
        await _watch(hands, changes, quiet=quiet)
    finally:
        proof = await hands.heal()
        await hands.close()
        if proof.leftovers:
            await asyncio.to_thread(quarantine.look, driver.folder)
    residue = await snapshot.settled(driver.snapshot, before, deadline_s=20.0)
    if not quiet:
        out.print(_table(changes, dict(enumerate(proof.changes))))
        if not proof.leftovers and not residue:
            out.print("[green]healed[/]: nothing is left of it")
    for sentence in (*proof.late, *proof.trouble):
        err.print(sentence, style="yellow", markup=False)
    return {
        "fault": as_text(aimed.fault),
        "radius": reach.as_json(),
        "in_force": proof.in_force,
        "changes": [
            {"text": change.describe(), "seen": c.seen, "hit": c.hit, "taken_back": c.taken_back}
            for change, c in zip(changes, proof.changes, strict=True)
        ],
        "leftovers": list(proof.leftovers),
        "residue": list(residue),
        "late": list(proof.late),
        "trouble": list(proof.trouble),
    }


async def _watch(hands: Holder, changes: tuple[Change, ...], *, quiet: bool) -> None:
    waiting = asyncio.ensure_future(hands.wait())
    try:
        with Live(console=out, transient=True, auto_refresh=False) as live:
            while not waiting.done():
                await asyncio.wait((waiting,), timeout=0.2)
                if not quiet and out.is_terminal:
                    live.update(_table(changes, await hands.hits()), refresh=True)
        await waiting
    finally:
        waiting.cancel()


def _table(changes: tuple[Change, ...], hits: Mapping[int, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("change", "seen", "hit"):
        table.add_column(column, justify="left" if column == "change" else "right")
    for at, change in enumerate(changes):
        met = hits.get(at)
        counts = ("", "") if met is None else (_count(met.seen), _count(met.hit))
        table.add_row(Text(change.describe()), *counts)
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


@app.command(rich_help_panel="Heal")
def status(json: Json = False) -> None:
    """Say what is up, what is in force, and which nodes are in quarantine.

    Breaks and heals nothing. A fault that nobody holds any more puts its node in quarantine:
    nothing more is broken there until [bold]undo[/] took it back, or [bold]forget[/] gave it up.
    """
    running = drivers.running()
    standing = [one for one in recover.in_force() if one.in_force is not False]
    held = quarantine.note(standing)
    if json:
        print_json(
            {
                "fabrics": [
                    {
                        "instance": r.instance,
                        "fabric": r.fabric,
                        "driver": r.driver,
                        "owned": r.owned,
                        "alive": r.alive,
                        "stale": r.stale,
                    }
                    for r in running
                ],
                "in_force": [recover.as_json(one) for one in standing],
                "quarantine": [asdict(one) for one in held],
            }
        )
    else:
        for one in running:
            owner = "  [yellow](its owner died; railbreak down --all)[/]" if one.stale else ""
            word = "up      " if one.owned else "attached"
            how = "" if one.driver == drivers.DEFAULT else f", by {one.driver}"
            out.print(f"{word}  {one.instance}  ({one.fabric}{how}, {one.age_s:.0f} s){owner}")
        for item in standing:
            out.print("[red]in force[/]  ", end="")
            out.print(recover.sentence(item), markup=False)
        for one_held in held:
            out.print("[red]quarantine[/]  ", end="")
            out.print(one_held.sentence(), markup=False)
        if not running:
            out.print("no fabric is up")
        if not standing and not held:
            out.print("[green]clean[/]: no fault is in force")
    raise typer.Exit(8 if held or any(not one.held for one in standing) else 0)


Journal = Annotated[
    list[Path] | None, typer.Argument(help="Journal files; default with --all: every one here.")
]


@app.command(rich_help_panel="Heal")
def undo(
    journals: Journal = None,
    every: Annotated[bool, typer.Option("--all", help="Whatever is in force anywhere.")] = False,
) -> None:
    """Take back what a journal says is still in force; safe to repeat."""
    if every == bool(journals):
        raise SpecError("name journals, or give --all")
    done = recover.undo(journals or recover.journals())
    quarantine.look()
    for one in done:
        out.print(recover.told(one), style="red" if one.leftover else "green", markup=False)
    if not done:
        out.print("[green]clean[/]: nothing was in force")
    left = [one for one in done if one.leftover]
    if left:
        cures = "\n".join(f"  {one.cure}" for one in left)
        raise LeftoverError(f"{len(left)} changes could not be taken back; cure:\n{cures}")


@app.command(rich_help_panel="Heal")
def forget(
    journals: Annotated[list[Path], typer.Argument(help="Journal files to give up on.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give up on taking back what a journal says is in force; says what it leaves as it is.

    Its nodes are in quarantine no longer.
    """
    gone = [one for one in journals if not one.exists() and quarantine.listed(one)]
    journals = [one for one in journals if one not in gone]
    left = [one for one in recover.in_force(journals) if one.in_force is not False]
    for one in gone:
        for held in quarantine.listed(one):
            err.print("will be left as it is: ", style="yellow", end="")
            err.print(f"{held.change} on {held.node}; cure: {held.cure}", markup=False)
    for item in left:
        err.print("will be left as it is: ", style="yellow", end="")
        err.print(f"{item.entry.change.describe()}; cure: {item.entry.cure}", markup=False)
    if (left or gone) and not yes:
        many = len(left) + sum(len(quarantine.listed(one)) for one in gone)
        typer.confirm(f"Forget {many} changes?", abort=True)
    given_up = [one for one in journals if recover.forget(one) or quarantine.listed(one)]
    for journal in journals:
        if journal not in given_up:
            out.print(f"nothing was in force in {journal}")
    for journal in (*given_up, *gone):
        quarantine.lift(journal)
        out.print(f"forgotten: {journal}")
