"""Rails of a fabric: as the inventory labels its cables, else as the NICs of its hosts tell; pure.

A host with several RDMA NICs on the fabric has one per rail, in the order of their PCI addresses.
That is taken for granted only where the cabling bears it out: no switch may see two rails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from chaos.fabric import Fabric, Port


def with_rails(fabric: Fabric) -> tuple[Fabric, tuple[str, ...]]:
    """The fabric with a label `rail` at the cables of every rail, and sentences about it.

    Args:
        fabric: `settings["ssh"]` of its hosts holds `rdma` and `pci` per port.
    """
    said: dict[str, list[str]] = {}
    for link in fabric.links:
        if rail := str(link.labels.get("rail", link.vars.get("rail", ""))):
            said.setdefault(rail, []).append(link.id)
    if said:
        return fabric, (_listed("as the inventory says", said),)
    told = _by_order(fabric)
    at_switch: dict[str, dict[str, str]] = {}
    for port, rail in told.items():
        peer = fabric.link_at(port).other(port)
        at_switch.setdefault(peer.node, {}).setdefault(rail, str(port))
    for switch, rails in at_switch.items():
        if len(rails) > 1:
            ports = " and ".join(f"{port} (NIC {rail})" for rail, port in sorted(rails.items()))
            return fabric, (
                f"no rails told apart: {ports} meet at {switch}; where there are rails, say them "
                "in the inventory: railbreak: {rails: {eth1: 0, eth2: 1}}",
            )
    links = []
    for link in fabric.links:
        rail = next((told[port] for port in link.ports if port in told), "")
        links.append(replace(link, labels={**link.labels, "rail": rail}) if rail else link)
        if rail:
            said.setdefault(rail, []).append(link.id)
    notes = (_listed("by the order of the RDMA NICs on PCI", said),) if said else ()
    return replace(fabric, links=tuple(links)), notes


def _by_order(fabric: Fabric) -> dict[Port, str]:
    """The rail of every port of a host that has several RDMA NICs at cables, all of them on PCI."""
    told: dict[Port, str] = {}
    for node in fabric.with_role("host"):
        known = node.settings.get("ssh", {})
        rdma, pci = known.get("rdma", {}), known.get("pci", {})
        cabled = [
            link.port_of(node.name).name
            for link in fabric.links_of(node.name)
            if len(set(link.nodes)) == 2
        ]
        ports = [name for name in cabled if name in rdma]
        if len(ports) > 1 and all(_order(pci, name) for name in ports):
            ports.sort(key=lambda name: _order(pci, name))
            told |= {Port(node.name, name): str(at) for at, name in enumerate(ports)}
    return told


def _order(pci: Mapping[str, str], port: str) -> tuple[int, ...]:
    """A PCI address as numbers; empty for a port that has none."""
    words = re.fullmatch(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+)", pci.get(port, ""))
    return tuple(int(word, 16) for word in words.groups()) if words else ()


def _listed(how: str, rails: Mapping[str, list[str]]) -> str:
    few = (
        f"{rail} ({', '.join(ids[:2])}{f' and {len(ids) - 2} more' if len(ids) > 2 else ''})"
        for rail, ids in sorted(rails.items())
    )
    return f"rails {how}: {', '.join(few)}"
