"""`doctor`, `up`, `down`, `show`, `exec`: a fabric and this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.panel import Panel
from rich.table import Table

from chaos import drivers, quarantine, topology
from chaos.change import LinkState, Place
from chaos.cli.app import Json, app, err, out, print_json
from chaos.cli.runner import drive
from chaos.doctor import examine
from chaos.driver import Driver
from chaos.errors import FabricError, SpecError, near
from chaos.fabric import Fabric
from chaos.shipped import fabric_names
from chaos.sight import Sight

FabricName = Annotated[
    str, typer.Argument(metavar="FABRIC", help="A *.clab.yml file, or the name of a shipped one.")
]
DriverName = Annotated[
    str,
    typer.Option(
        "--driver", metavar="DRIVER", help="netns (embedded, default), containerlab, or ssh."
    ),
]
Instance = Annotated[
    str,
    typer.Option("--on", metavar="INSTANCE", help="Which running fabric; default: the only one."),
]


@app.command(rich_help_panel="Start here")
def doctor(json: Json = False) -> None:
    """Say what this machine can do; for what it cannot, why, and the cure."""
    found = examine()
    if json:
        print_json(
            [{"name": c.name, "here": c.here, "reason": c.reason, "cure": c.cure} for c in found]
        )
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("", "capability", "why not", "cure"):
            table.add_column(column, overflow="fold")
        for c in found:
            mark = "[green]yes[/]" if c.here else "[red]no[/]"
            table.add_row(mark, c.name, c.reason, c.cure)
        out.print(table)
    needed = {"linux", "root", "netns", "nft", "frr"}
    raise typer.Exit(4 if any(c.name in needed and not c.here for c in found) else 0)


@app.command(rich_help_panel="Fabrics")
def up(
    fabric: FabricName,
    name: Annotated[str, typer.Option(help="Name of this instance; default: the lab's.")] = "",
    driver_name: DriverName = drivers.DEFAULT,
    json: Json = False,
) -> None:
    """Bring a fabric up on this machine, wait until it forwards, and leave it running.

    Every link, namespace and daemon is made inside a folder of its own under /run/railbreak; a
    second copy of the same fabric gets a name of its own. With [bold]--driver containerlab[/] the
    real Containerlab deploys it. Take it down with [bold]down[/].
    """
    plan = drivers.fabric(fabric, driver_name)
    driver = drive(_up(plan, name, driver_name))
    _told_up(driver, json)


@app.command(rich_help_panel="Fabrics")
def attach(
    target: Annotated[
        str,
        typer.Argument(
            metavar="LAB", help="A running lab (its name or *.clab.yml), or an inventory file."
        ),
    ],
    driver_name: Annotated[
        str, typer.Option("--driver", metavar="DRIVER", help="containerlab, or ssh.")
    ] = "containerlab",
    links: Annotated[
        list[str] | None,
        typer.Option(help="How it is cabled: a *.clab.yml of the same fabric, a CSV, or lldp."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of this instance; default: its own.")] = "",
    json: Json = False,
) -> None:
    """Make a lab or machines that are not ours known as a fabric; nothing of them changes.

    Afterwards every verb takes it by name: [bold]run … --on NAME[/], [bold]inject[/],
    [bold]exec[/]. [bold]down[/] lets go of it, and leaves it as it is. Example:
    [bold]railbreak attach hosts.yml --driver ssh --links fabric.clab.yml[/]
    """
    making = drivers.named(driver_name)
    if driver_name == "containerlab":
        _refuse_inventory(Path(target))
    work = making.adopt(
        target, instance=name or None, links=tuple(links or ()), progress=_progress()
    )
    _told_up(drive(work), json)


def _refuse_inventory(file: Path) -> None:
    """Refuse a file of machines where a lab is asked for."""
    if file.suffix == ".json" or not file.is_file():
        return
    if "topology:" not in file.read_text(errors="replace"):
        raise SpecError(
            f"{file} is no topology file of Containerlab; machines of an inventory are attached "
            f"with: railbreak attach {file} --driver ssh"
        )


def _told_up(driver: Driver, json: bool) -> None:
    """What is up now, what is to be known of it, and what can be done with it."""
    plan = driver.fabric
    for warning in driver.warnings:
        err.print(f"note: {warning}", style="yellow", markup=False)
    if json:
        print_json(
            {
                "instance": driver.instance,
                "fabric": plan.name,
                "driver": driver.name,
                "folder": str(driver.folder),
                "namespaces": dict(getattr(driver, "namespaces", dict)()),
                "addresses": dict(driver.addresses()),
                "notes": list(driver.warnings),
            }
        )
        return
    out.print(f"[green]up[/] {driver.instance}: {len(plan.nodes)} nodes, {len(plan.links)} links")
    host = next(iter(driver.addresses()), next(iter(plan.nodes)))
    out.print(f"look:  railbreak exec {host} -- ip addr", style="dim")
    if link := _harmless(driver):
        words = f"railbreak inject {driver.instance} link_down link={link} mode=carrier --for 5s"
        out.print(f"break: {words}", style="dim")
    out.print(f"down:  railbreak down {driver.instance}", style="dim")


def _harmless(driver: Driver) -> str:
    """A link that may be broken for a try: between switches, where there is one; empty for none.

    Without it a host's only link would be named, which isolates the host.
    """
    fabric = driver.fabric
    between = [
        link for link in fabric.links if not any(fabric.node(n).role == "host" for n in link.nodes)
    ]
    for link in (*between, *fabric.links):
        changes = (LinkState(Place.at(port, "wire")) for port in link.ports)
        if len(link.ports) == 2 and not any(driver.refusal(one, fabric) for one in changes):
            return link.id
    return ""


async def _up(plan: Fabric, name: str, driver_name: str) -> Driver:
    progress = _progress()
    making = drivers.named(driver_name)
    driver = await making.up(plan, instance=name or None, progress=progress, linger=True)
    try:
        progress("waiting until the kernel forwards everywhere")
        await driver.wait_ready()
        for finding in (await driver.audit()).findings:
            err.print(f"audit: {finding}", style="yellow")
    except BaseException:
        await driver.down()
        raise
    return driver


def _progress() -> Any:
    return lambda text: err.print(f"  {text}", style="dim")


@app.command(rich_help_panel="Fabrics")
def down(
    instance: Annotated[str, typer.Argument(help="Instance or fabric name.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every fabric of ours here.")] = False,
) -> None:
    """Take a running fabric down: everything we made, and nothing else.

    A lab or machines that were only attached to are let go of; nothing of them changes.
    """
    if every == bool(instance):
        raise SpecError("name one instance, or give --all")
    running = drivers.running()
    chosen = [one.instance for one in running] if every else [pick(instance, stale=True)]
    owned = {one.instance: one.owned for one in running}
    for one in chosen:
        drive(_down(one))
        out.print(f"[green]{'down' if owned.get(one, True) else 'let go of'}[/] {one}")
    quarantine.nodes()  # what went with its fabric is in quarantine no longer
    if not chosen:
        out.print("nothing is up")


async def _down(instance: str) -> None:
    await (await drivers.attach(instance)).down()


def pick(name: str = "", *, stale: bool = False) -> str:
    """The running instance called `name` (instance, fabric name, or file); the only one for none.

    Raises:
        FabricError: none, or more than one; the message lists what runs.
    """
    running = [one for one in drivers.running() if one.alive or stale]
    names = [one.instance for one in running]
    if not name:
        if len(names) == 1:
            return names[0]
        listed = f"running: {', '.join(names)}" if names else "nothing is up"
        raise FabricError(f"name the fabric with --on; {listed}")
    if name in names:
        return name
    matching = [one.instance for one in running if one.fabric == name]
    if not matching and name.endswith((".yml", ".yaml")):
        wanted = topology.load(name).name
        matching = [one.instance for one in running if one.fabric == wanted]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise FabricError(f"{name!r} runs {len(matching)} times: {', '.join(matching)}; name one")
    cure = f"railbreak up {name}" if name in fabric_names() else near(name, names)
    raise FabricError(f"no fabric {name!r} is running; {cure}")


@app.command(rich_help_panel="Look")
def show(fabric: FabricName, json: Json = False) -> None:
    """Show a fabric: nodes by role, planes, links with their ids and rails, what was ignored.

    With --json: the resolved lab, every inherited field in place, as Containerlab resolves it.
    """
    lab = topology.load_lab(fabric)
    if json:
        print_json(topology.lab_json(lab))
        return
    plan = topology.to_fabric(lab)
    out.print(f"[bold]{plan.name}[/]  {len(plan.nodes)} nodes, {len(plan.links)} links")
    for role in sorted(plan.roles, key=_tier):
        boxes = [_box(plan, node.name) for node in plan.with_role(role)]
        out.print(Columns(boxes, title=f"[dim]{role}[/]", align="center", padding=(0, 1)))
    for line in _planes(plan):
        out.print(line, markup=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("link", style="bold")
    table.add_column("roles")
    table.add_column("rail")
    table.add_column("mtu", justify="right")
    for link in plan.links:
        roles = "--".join(plan.nodes[port.node].role for port in link.ports)
        table.add_row(link.id, roles, plan.rail(link), str(link.mtu))
    out.print(table)
    for warning in lab.warnings:
        err.print(f"ignored: {warning}", style="yellow")


def _planes(plan: Fabric) -> list[str]:
    """Each plane, as `planes_left` and `plane_down` mean it: its switches, how many hosts."""
    whole = Sight(plan, (), ())
    place = whole.order.__getitem__
    return [
        f"plane {number}  {', '.join(sorted(group, key=place))}; {len(hosts)} hosts"
        for number, (group, hosts) in enumerate(zip(whole.groups, whole.joined, strict=True), 1)
    ]


_TIERS = ("superspine", "spine", "leaf", "tor", "router", "bridge")


def _tier(role: str) -> int:
    return _TIERS.index(role) if role in _TIERS else len(_TIERS) + (role == "host")


def _box(plan: Fabric, name: str) -> Panel:
    node = plan.nodes[name]
    said = [f"{port} {', '.join(addresses)}" for port, addresses in node.addresses.items()]
    return Panel("\n".join(said) or node.runs, title=f"[bold]{name}[/]", expand=False)


@app.command(rich_help_panel="Fabrics", context_settings={"ignore_unknown_options": True})
def exec(
    node: Annotated[str, typer.Argument(help="Node of the running fabric.")],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run.")],
    on: Instance = "",
) -> None:
    """Run a command in a node of a running fabric; its output and its exit status are ours."""
    raise typer.Exit(drive(_exec(pick(on), node, command)))


async def _exec(instance: str, node: str, command: Sequence[str]) -> int:
    driver = await drivers.attach(instance)
    driver.fabric.node(node)
    piped = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    done = await driver.exec(node, command, stdin=piped, deadline_s=3600)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(done.stderr)
    return done.code
