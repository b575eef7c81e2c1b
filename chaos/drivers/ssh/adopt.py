"""An inventory becomes an instance: every machine is checked, and what it said is kept."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos import inventory, nos
from chaos.drivers.ssh.fleet import Fleet, not_ready
from chaos.drivers.ssh.places import interface_of, platform_of, ssh_of, target_of
from chaos.drivers.ssh.rails import with_rails
from chaos.drivers.ssh.target import Target
from chaos.drivers.ssh.together import together
from chaos.errors import FabricError
from chaos.fabric import Fabric, Node, Port
from chaos.inventory.lldp import ARGV, read_neighbours

LLDP = "lldp"


@dataclasses.dataclass(frozen=True, slots=True)
class Adopted:
    """What is kept of an inventory and its machines.

    Attributes:
        fabric: The fabric, with what the machines said of their ports.
        targets: How every node is reached that somebody logs in to.
        details: For the instance's state; no secret.
        warnings: Sentences.
    """

    fabric: Fabric
    targets: Mapping[str, Target]
    details: Mapping[str, Any]
    warnings: tuple[str, ...]


def read(path: str, links: Sequence[str], heard: Mapping[str, Any] | None = None) -> Adopted:
    """The fabric of an inventory and its link files; no machine is asked.

    Raises:
        SpecError: something in them is wrong; file, line, field.
    """
    files = [Path(one) for one in links if one != LLDP]
    found = inventory.load(Path(path), files, heard=heard)
    fabric = inventory.to_fabric(found)
    targets = {}
    for node in fabric.nodes:
        if not ssh_of(fabric, node):
            continue
        targets[node] = target_of(fabric, node)
        if targets[node].platform:
            nos.platform(targets[node].platform)
    details = {"inventory": str(Path(path).resolve()), "links": list(links)}
    return Adopted(fabric, targets, details, tuple(found.warnings))


async def check(
    path: str, links: Sequence[str], progress: Callable[[str], None]
) -> tuple[Adopted, Fleet]:
    """Read it, connect everywhere, check everything; who fails, in one sentence each.

    Raises:
        SpecError: the inventory is wrong.
        FabricError: a machine is not reachable, or lacks something; nothing is left on any.
    """
    progress("reading the inventory")
    adopted = await asyncio.to_thread(read, path, links)
    hosts = {name: one for name, one in adopted.targets.items() if not one.platform}
    if not hosts:
        raise FabricError(f"{path}: no Linux host that can be logged in to; give it one")
    fleet = Fleet(hosts)
    try:
        progress(f"connecting to {len(hosts)} machines")
        failures = await fleet.open()
        if not failures and LLDP in links:
            progress("asking the machines for their LLDP neighbours")
            heard = await _heard(fleet, adopted.fabric)
            adopted = await asyncio.to_thread(read, path, links, heard)
        failures = failures or _wrong(adopted.fabric, fleet)
        if failures:
            raise not_ready(failures, len(hosts))
    except BaseException:
        await fleet.close()
        raise
    return _kept(adopted, fleet), fleet


async def _heard(fleet: Fleet, fabric: Fabric) -> dict[str, Any]:
    """What LLDP tells on every machine, by its name in the inventory."""

    async def one(node: str) -> tuple[str, Any]:
        host = str(ssh_of(fabric, node)["host"])
        done = await fleet[node].connection.run(tuple(ARGV), deadline_s=20)
        if done.code:
            raise FabricError(f"{node}: {' '.join(ARGV)} failed; install lldpd, or give a table")
        return host, read_neighbours(done.stdout.decode(errors="replace"), host, f"LLDP of {node}")

    found = await asyncio.gather(*(one(node) for node in fleet.targets), return_exceptions=True)
    if failed := [said for said in found if isinstance(said, BaseException)]:
        raise together(failed)
    return dict(said for said in found if not isinstance(said, BaseException))


def _wrong(fabric: Fabric, fleet: Fleet) -> dict[str, str]:
    """Machines that are not what the inventory says; one sentence each."""
    failures: dict[str, str] = {}
    seen: dict[tuple[Any, Any], str] = {}
    for name in fleet.targets:
        facts = fleet[name].facts
        same = seen.setdefault((facts["boot"], facts["netns"]), name)
        if same != name:
            failures[name] = f"{name} and {same} are one and the same machine; give it one name"
        absent = [
            interface_of(fabric, port)
            for port in fabric.walk()
            if port.node == name and not named(fleet.interfaces[name], interface_of(fabric, port))
        ]
        if absent and (several := _sharing(fleet.interfaces[name], absent[0])):
            failures[name] = (
                f"{name}: {' and '.join(several)} share the PCI address {absent[0]}; name one"
            )
        elif absent:
            there = ", ".join(sorted(fleet.interfaces[name]))
            failures[name] = f"{name} has no interface {', '.join(absent)}; it has {there}"
    return failures


def named(interfaces: Mapping[str, Any], word: str) -> str:
    """The kernel's name of an interface that is called by name or PCI address; else empty."""
    if word in interfaces:
        return word
    found = _sharing(interfaces, word)
    return found[0] if len(found) == 1 else ""


def _sharing(interfaces: Mapping[str, Any], word: str) -> list[str]:
    """Interfaces of the device at a PCI address."""
    short = word.removeprefix("pci-").lower()
    return [
        name
        for name, facts in interfaces.items()
        if facts["pci"] and facts["pci"].lower() in (short, f"0000:{short}")
    ]


def _kept(adopted: Adopted, fleet: Fleet) -> Adopted:
    """With what the machines said: interfaces, addresses, RDMA devices."""
    nodes: dict[str, Node] = {}
    for name, node in adopted.fabric.nodes.items():
        nodes[name] = node
        if name not in fleet.targets:
            continue
        ports = [port for port in adopted.fabric.walk() if port.node == name]
        nodes[name] = _with_facts(adopted.fabric, node, ports, fleet.interfaces[name])
        if fleet[name].facts["frr"]:
            nodes[name] = dataclasses.replace(nodes[name], runs="frr")
    details = {
        **adopted.details,
        "targets": {name: one.to_json() for name, one in adopted.targets.items()},
        "own": {name: sorted(found) for name, found in fleet.own.items()},
    }
    fabric, rails = with_rails(dataclasses.replace(adopted.fabric, nodes=nodes))
    unguarded = [
        f"{name}: which interface carries our own connection cannot be told; take care"
        for name, found in fleet.own.items()
        if not found
    ]
    switches = [name for name in adopted.targets if platform_of(fabric, name)]
    notes = [f"{', '.join(switches)}: asked when a change is made there"] if switches else []
    warnings = (*adopted.warnings, *unguarded, *notes, *rails)
    return Adopted(fabric, adopted.targets, details, warnings)


def _with_facts(
    fabric: Fabric, node: Node, ports: Sequence[Port], interfaces: Mapping[str, Any]
) -> Node:
    kernel = {port.name: named(interfaces, interface_of(fabric, port)) for port in ports}
    said = {port: interfaces[name] for port, name in kernel.items()}
    ssh = {
        **node.settings["ssh"],
        "kernel": {port: [name, said[port]["index"]] for port, name in kernel.items()},
        "rdma": {port: list(facts["rdma"]) for port, facts in said.items() if facts["rdma"]},
        "pci": {port: facts["pci"] for port, facts in said.items() if facts["pci"]},
        "driver": {port: facts["driver"] for port, facts in said.items() if facts["driver"]},
        "pfc": {
            **node.settings["ssh"].get("pfc", {}),
            **{port: facts["pfc"] for port, facts in said.items() if facts["pfc"] is not None},
        },
    }
    addresses = {port: tuple(facts["addresses"]) for port, facts in said.items()}
    return dataclasses.replace(node, addresses=addresses, settings={**node.settings, "ssh": ssh})
