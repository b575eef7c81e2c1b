"""Changes: the closed set of small reversible values that every fault is made of.

A change says *what*, at which `Place`; it never acts. A driver resolves a place to a `Where` (a
namespace on this machine and an interface in it, or a process). Each kind renders as `argv`
(`steps`: for printing, SSH, containers, timers on a target), and `chaos.native` prebuilds the same
change as netlink and libnftables messages. One test body compares the state that both leave.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from chaos.changes.command import BgpNeighbour, NodePower
from chaos.changes.daemon import DaemonState
from chaos.changes.device import DeviceGone
from chaos.changes.link import LinkState
from chaos.changes.load import Load, tag_of
from chaos.changes.packets import PacketDrop, PacketRule
from chaos.changes.pause import PauseStorm
from chaos.changes.place import Argv, Hits, Place, Side, Steps, Where
from chaos.changes.port import PortMtu
from chaos.changes.process import ProcessRestart, ProcessSignal
from chaos.changes.route import OwnRoute
from chaos.changes.router import BgpClear, BgpWithdraw
from chaos.changes.setting import Setting
from chaos.changes.shaping import PortShape
from chaos.changes.wire import WireTo
from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link, Port
from chaos.packets import Rule

__all__ = [
    "KINDS",
    "Argv",
    "AtRouter",
    "BgpClear",
    "BgpNeighbour",
    "BgpWithdraw",
    "Change",
    "DaemonState",
    "DeviceGone",
    "Hits",
    "LinkState",
    "Load",
    "NodePower",
    "OwnRoute",
    "PacketDrop",
    "PacketRule",
    "PauseStorm",
    "Place",
    "PortMtu",
    "PortShape",
    "ProcessRestart",
    "ProcessSignal",
    "Setting",
    "Side",
    "Steps",
    "Where",
    "WireTo",
    "aimed",
    "from_json",
    "identity",
    "refuse_in_use",
    "table_name",
    "tag_of",
    "to_json",
]

#: Those that are made by the command line, or among the daemons, of a router.
AtRouter = BgpNeighbour | BgpWithdraw | BgpClear | DaemonState
Change = (
    LinkState
    | PacketDrop
    | PacketRule
    | ProcessSignal
    | ProcessRestart
    | BgpNeighbour
    | NodePower
    | OwnRoute
    | Setting
    | BgpWithdraw
    | BgpClear
    | DaemonState
    | PortMtu
    | PortShape
    | Load
    | WireTo
    | DeviceGone
    | PauseStorm
)
KINDS: dict[str, type[Change]] = {
    kind.kind: kind
    for kind in (
        *(LinkState, PacketDrop, PacketRule, ProcessSignal, BgpNeighbour, NodePower),
        *(OwnRoute, Setting, BgpWithdraw, BgpClear, DaemonState),
        *(PortMtu, PortShape, Load, WireTo, ProcessRestart, DeviceGone, PauseStorm),
    )
}


def to_json(change: Change) -> dict[str, Any]:
    """A change as plain data, for journals and pipes.

    Examples:
        >>> change = LinkState(Place("leaf1", "eth1"))
        >>> from_json(to_json(change)) == change
        True
    """
    data = {"kind": change.kind, **asdict(change)}
    if isinstance(change, PacketRule):
        data["rule"] = change.rule.plain()
    return data


def from_json(data: Mapping[str, Any]) -> Change:
    """Read what `to_json` wrote; an unknown kind is refused."""
    values = dict(data)
    kind = KINDS.get(str(values.pop("kind", "")))
    if kind is None:
        raise SpecError(f"no change of kind {data.get('kind')!r}; known: {', '.join(KINDS)}")
    values["place"] = Place(**values["place"])
    if kind is PacketRule:
        values["rule"] = Rule.parse(values["rule"])
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def identity(change: Change) -> str:
    """Two changes with one identity could not be told apart when taking them back.

    That is their kind, their place, and the field that a kind names as its `own`, where it has one.
    """
    own = getattr(change, change.own) if change.own else change.kind
    return json.dumps([change.kind, asdict(change.place), own])


def aimed(fabric: Fabric, link: str, end: str) -> tuple[Link, tuple[Port, ...]]:
    """The link and the ends that a fault's fields `link` and `end` mean.

    Args:
        fabric: What exists.
        link: Selector of exactly one link.
        end: `both`, a node name, or a port id (for a link from a node to itself).

    Raises:
        SpecError: an `in-use` selector, or `near` or `far`, was not yet replaced by what it stands
            for; no such link; no such end.
    """
    refuse_in_use("link", link)
    if end in ("near", "far"):
        raise SpecError(
            f"end {end!r} is relative to the measured traffic; it is known only on a running "
            "fabric (name a node to plan without one)",
            field="end",
        )
    found = fabric.link(link)
    if end == "both":
        return found, found.ports
    for port in found.ports:
        if end in (port.node, port.id):
            return found, (port,)
    known = ("both", "near", "far", *found.nodes)
    raise SpecError(f"link {found.id} has no end {end!r}; {near(end, known)}", field="end")


def refuse_in_use(field: str, value: str) -> None:
    """Refuse a selector that only a running fabric can resolve.

    Raises:
        SpecError: `value` is `in-use` or begins with it.
    """
    if value.split()[:1] == ["in-use"]:
        raise SpecError(
            f"{field} {value!r} stands for an element that the measured traffic crosses; it is "
            f"known only on a running fabric (name a {field} to plan without one)",
            field=field,
        )


def at_node(fabric: Fabric, node: str) -> Place:
    """The node that a fault's field `node` means, as the place of a change.

    Raises:
        SpecError: an `in-use` selector that was not yet replaced; no such node.
    """
    refuse_in_use("node", node)
    return Place(fabric.node(node).name)


def table_name(fault: str, place: Place, *values: object) -> str:
    """A table name that no other fault, place or value shares, readable in `nft list tables`.

    Examples:
        >>> table_name("packet_loss", Place("leaf1", "eth1"), "1 %")[:-8]
        'railbreak_packet_loss_leaf1_eth1_'
    """
    told = re.sub(r"[^A-Za-z0-9]+", "_", f"{fault}_{place.node}_{place.port}")[:64]
    return f"railbreak_{told}_{zlib.crc32(repr((fault, place, values)).encode()):08x}"
