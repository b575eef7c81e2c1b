"""What changes take from a fabric, element by element: cables, nodes, processes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chaos.change import (
    BgpClear,
    BgpNeighbour,
    Change,
    LinkState,
    NodePower,
    PacketDrop,
    ProcessSignal,
)
from chaos.fabric import Fabric, Link, Port

_Session = BgpNeighbour | BgpClear


@dataclass(slots=True)
class Toll:
    """What changes take, element by element."""

    out: set[str] = field(default_factory=set)
    impaired: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    halted: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)


def toll(changes: Iterable[Change], fabric: Fabric) -> Toll:
    """What each change does to cables, nodes and processes.

    A kind of change that is not known here may say what it takes by a class variable `takes_out`:
    `link` (the cable at its place), `session` (the cable that it runs over), `node` (all cables of
    its node), `process`, `nothing`, `spreads` (to all cables of the node at the other end);
    any other kind impairs the cable at its place, or all cables of its node where it names no port.
    Further ports that go with that of its place are in `takes`.
    """
    found = Toll()
    at = {port: link for link in fabric.links for port in link.ports if len(link.ports) == 2}
    cables_of: dict[str, set[str]] = {}
    for port, link in at.items():
        cables_of.setdefault(port.node, set()).add(link.id)
    for change in changes:
        place = change.place
        if place.node:
            found.nodes.add(place.node)
        every = cables_of.get(place.node, set())
        mine = at.get(Port(place.node, place.port))
        cables = ({mine.id} if mine else set()) if place.port else every
        ports = (Port(place.node, name) for name in getattr(change, "takes", ()))
        cables = cables | {at[port].id for port in ports if port in at}
        match _takes_out(change):
            case "link" | "session" if isinstance(change, _Session) and change.neighbor:
                found.out |= _session(change, fabric, at)
            case "link" | "session":
                found.out |= cables
            case "node":
                found.out |= every
                found.halted.add(place.node)
            case "stands still":
                found.halted.add(place.node)
            case "spreads":  # what cannot be sent stands in the way of all that is to follow
                far = mine.other(Port(place.node, place.port)).node if mine else place.node
                found.nodes.add(far)
                found.out |= cables | cables_of.get(far, set())
            case "process":
                found.stopped.add(place.process)
            case "nothing":
                pass  # the ranks of its node are touched all the same
            case _ if not place.process:
                found.impaired |= cables
    found.impaired -= found.out
    return found


def _takes_out(change: Change) -> str:
    said = getattr(change, "takes_out", None)
    if said is not None:
        return str(said)
    if isinstance(change, PacketDrop):
        return "link" if change.millionths == 1_000_000 and not change.match.strip() else ""
    if isinstance(change, NodePower):
        return "node" if change.state == "stop" else "stands still"
    if isinstance(change, ProcessSignal):
        return "nothing" if change.signal == "USR1" else "process"
    return "link" if isinstance(change, LinkState | BgpNeighbour) else ""


def _session(change: _Session, fabric: Fabric, at: Mapping[Port, Link]) -> set[str]:
    """The cable that a routing session runs over, by interface or by the neighbour's address."""
    here = at.get(Port(change.place.node, change.neighbor))
    if here is not None:
        return {here.id}
    return {
        at[port].id
        for node in fabric.nodes.values()
        for name, addresses in node.addresses.items()
        if change.neighbor in {address.partition("/")[0] for address in addresses}
        and (port := Port(node.name, name)) in at
        and change.place.node in at[port].nodes
    }
