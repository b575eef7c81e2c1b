"""NVIDIA Cumulus Linux by NVUE: `nv set`, and `nv config apply --confirm` that reverts itself.

All changes of one switch are one pending revision. A revert puts back the revision of before.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from chaos.change import BgpNeighbour, Change, Hits, LinkState, PacketDrop
from chaos.errors import BlockedError, FabricError
from chaos.nos import frr
from chaos.nos.match import Match, parse
from chaos.nos.sonic import rows
from chaos.nos.table import (
    Commands,
    Confirmed,
    Platform,
    Standing,
    acl_name,
    all_or_nothing,
    both,
    neighbour_of,
    port_of,
    unsupported,
)

TITLE = "NVIDIA Cumulus Linux"
_APPLIED = "nv config show -o commands"


def facts(change: Change) -> tuple[str, ...]:
    """What is asked before a change is rendered: nothing else may be waiting to be applied."""
    asked = ("nv config diff",)
    if isinstance(change, BgpNeighbour):
        return (*asked, f"sudo {frr.vtysh('show bgp summary json')}")
    return asked


def render(change: Change, answers: Sequence[str]) -> Commands:
    """A change for Cumulus Linux.

    Raises:
        CapabilityError: it cannot be made there.
        FabricError: the neighbour is not there.
        BlockedError: the user has changes of their own waiting to be applied.
    """
    if answers and answers[0].strip() not in ("", "{}", "[]"):
        raise BlockedError(
            f"{change.place.node} has configuration that waits to be applied, and it would be "
            "applied with ours; apply it or 'nv config detach' it first"
        )
    match change:
        case LinkState():
            port = shlex.quote(port_of(change))
            return Commands(
                do=(f"nv set interface {port} link state down",),
                undo=(f"nv set interface {port} link state up",),
                look=(f"ip -o link show dev {port}",),
                read=frr.admin_down,
                tally=(f"cat /sys/class/net/{port}/carrier_changes",),
                count=frr.flaps,
            )
        case BgpNeighbour():
            return _neighbour(change, answers)
        case PacketDrop():
            return _drop(change)
    raise unsupported(TITLE, change)


def _neighbour(change: BgpNeighbour, answers: Sequence[str]) -> Commands:
    neighbor = change.neighbor
    if answers:
        neighbor = neighbour_of(change, tuple(frr.summary(answers[1])), TITLE)
    at = f"nv set vrf default router bgp neighbor {neighbor} shutdown"
    return Commands(
        do=(f"{at} on",),
        undo=(f"{at} off",),
        look=(f"sudo {frr.vtysh('show bgp summary json')}",),
        read=lambda told: frr.idle_by_admin(neighbor, told),
    )


def _drop(change: PacketDrop) -> Commands:
    all_or_nothing(change, TITLE)
    port, match, base = port_of(change), parse(change.match), acl_name(change.table, 24)
    do: list[str] = []
    undo: list[str] = []
    names = tuple(f"{base}_v{family}" for family in match.families)
    for name, family in zip(names, match.families, strict=True):
        do += [
            f"nv set acl {name} type ipv{family}",
            *(f"nv set acl {name} rule 10 match ip {words}" for words in _rule(match)),
            f"nv set acl {name} rule 10 action deny",
            f"nv set interface {port} acl {name} inbound",
        ]
        undo += [f"nv unset interface {port} acl {name}", f"nv unset acl {name}"]
    return Commands(
        do=tuple(do),
        undo=tuple(undo),
        look=(_APPLIED,),
        read=lambda told: applied(port, names, told),
        tally=("nv show interface acl-statistics",),
        count=lambda told: packets(port, names, told),
        flow=True,
    )


def _rule(match: Match) -> list[str]:
    words = ["protocol udp"] if match.udp else []
    words += [f"source-ip {match.source}"] if match.source else []
    words += [f"dest-ip {match.destination}"] if match.destination else []
    words += [f"udp source-port {match.sport}"] if match.sport is not None else []
    words += [f"udp dest-port {match.dport}"] if match.dport is not None else []
    return words + ([f"dscp {match.dscp}"] if match.dscp is not None else [])


def applied(port: str, names: Sequence[str], answers: Sequence[str]) -> Standing:
    """What `nv config show -o commands` says of our access lists: bound to the port, or left.

    NVUE joins interfaces that share a line (`swp1-2`), so only the list's name is looked for.
    """
    if not re.search(r"^nv set ", answers[0], re.MULTILINE):
        return "unknown"
    parts: list[Standing] = []
    for name in names:
        there = re.search(rf"^nv set acl {name} rule 10 action deny\s*$", answers[0], re.MULTILINE)
        bound = re.search(
            rf"^nv set interface \S+ acl {name} inbound\s*$", answers[0], re.MULTILINE
        )
        parts.append("in_force" if there and bound else "partly" if there or bound else "gone")
    return both(parts)


def packets(port: str, names: Sequence[str], answers: Sequence[str]) -> Hits:
    """What `nv show interface acl-statistics` counts for our access lists."""
    found: list[int] = []
    for row in rows(answers[0]):
        if row.get("Interface") == port and row.get("ACL Name") in names:
            told = row.get("In Packets", "")
            if not told.isdecimal():
                return Hits(None, None)
            found.append(int(told))
    return Hits(sum(found), sum(found)) if found else Hits(None, None)


def waits(answer: str, tag: str) -> bool | None:
    """Whether `nv config revision -o json` has a revision in state `confirm`.

    NVUE lets one revision wait at a time and names no owner, so the one that waits is taken for
    ours.
    """
    try:
        told = json.loads(answer)
        return any(one.get("state") == "confirm" for one in told.values())
    except (ValueError, AttributeError):
        raise FabricError(f"expected JSON, got {' '.join(answer.split())[:200]!r}") from None


CUMULUS = Platform(
    name="cumulus",
    title=TITLE,
    aliases=("cumulus", "cumulus_linux", "cumulus_linux_ssh", "nvidia.nvue", "cvx", "nvue"),
    device_type="linux",
    linux=True,
    facts=facts,
    render=render,
    errors=(r"Error\b", r"Failed\b", r"Invalid\b"),
    deadman="nv config apply --confirm: it reverts to the revision of before",
    confirmed=Confirmed(
        stage=lambda tag, lines: tuple(lines),
        commit=lambda tag, left: f"nv config apply --confirm {left}s -y",
        reject=lambda tag: ("nv config apply --confirm-no",),
        drop=lambda tag: ("nv config detach",),
        plain=lambda tag, lines: (*lines, "nv config apply -y"),
        pending="nv config revision -o json",
        waits=waits,
        most_s=24 * 3600,
    ),
)
