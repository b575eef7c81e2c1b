"""SONiC: its `config` commands, an access list in CONFIG_DB, FRR's `vtysh` to read BGP.

An access list on SONiC is a table bound to ports, with rules; several tables may be bound to one
port, and a packet that one of them drops is lost. L3 is IPv4, L3V6 is IPv6.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from chaos.change import BgpNeighbour, Change, Hits, LinkState, PacketDrop
from chaos.errors import CapabilityError
from chaos.nos import frr
from chaos.nos.match import Match, parse
from chaos.nos.table import (
    Commands,
    Platform,
    Standing,
    acl_name,
    all_or_nothing,
    both,
    neighbour_of,
    port_of,
    unsupported,
)

TITLE = "SONiC"
_RULE = "RULE_1"
_PRIORITY = "9999"


def rows(answer: str) -> list[dict[str, str]]:
    """A table as SONiC prints it: a head, a line of dashes, cells under each run of dashes.

    Examples:
        >>> rows("  Name    Admin\\n------  -------\\n  Eth0       up")
        [{'Name': 'Eth0', 'Admin': 'up'}]
    """
    lines = answer.splitlines()
    at = next((n for n, line in enumerate(lines) if re.fullmatch(r"[- ]*--[- ]*", line)), 0)
    if not at:
        return []
    spans = [found.span() for found in re.finditer(r"-+", lines[at])]
    spans[-1] = (spans[-1][0], 10_000)

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in spans]

    head = cells(lines[at - 1])
    return [dict(zip(head, cells(line), strict=True)) for line in lines[at + 1 :] if line.strip()]


def facts(change: Change) -> tuple[str, ...]:
    """What is asked before a change is rendered."""
    if isinstance(change, BgpNeighbour):
        return (f"sudo {frr.vtysh('show bgp summary json')}",)
    return ()


def render(change: Change, answers: Sequence[str]) -> Commands:
    """A change for SONiC.

    Raises:
        CapabilityError: it cannot be made there.
        FabricError: the neighbour is not there.
    """
    match change:
        case LinkState():
            port = port_of(change)
            return Commands(
                do=(f"sudo config interface shutdown {port}",),
                undo=(f"sudo config interface startup {port}",),
                look=(f"show interfaces status {port}",),
                read=lambda told: admin_down(port, told),
                tally=(f"cat /sys/class/net/{port}/carrier_changes",),
                count=frr.flaps,
            )
        case BgpNeighbour():
            return _neighbour(change, answers)
        case PacketDrop():
            return _drop(change)
    raise unsupported(TITLE, change)


def admin_down(port: str, answers: Sequence[str]) -> Standing:
    """What `show interfaces status` says of a port's column `Admin`."""
    for row in rows(answers[0]):
        if row.get("Interface") == port and row.get("Admin") in ("up", "down"):
            return "in_force" if row["Admin"] == "down" else "gone"
    return "unknown"


def _neighbour(change: BgpNeighbour, answers: Sequence[str]) -> Commands:
    if not re.fullmatch(r"[0-9a-fA-F.:]+", change.neighbor):
        raise CapabilityError(
            f"{TITLE}: 'config bgp shutdown neighbor' takes an address, and {change.neighbor!r} "
            "is none; name the neighbor's address, or take the port down"
        )
    neighbor = change.neighbor
    if answers:
        neighbor = neighbour_of(change, tuple(frr.summary(answers[0])), TITLE)
    return Commands(
        do=(f"sudo config bgp shutdown neighbor {neighbor}",),
        undo=(f"sudo config bgp startup neighbor {neighbor}",),
        look=(f"sudo {frr.vtysh('show bgp summary json')}",),
        read=lambda told: frr.idle_by_admin(neighbor, told),
    )


def _drop(change: PacketDrop) -> Commands:
    all_or_nothing(change, TITLE)
    port, match = port_of(change), parse(change.match)
    if match.dscp is not None:
        raise CapabilityError(
            f"{TITLE} cannot match DSCP: its L3 tables do not have that field on every chip; "
            "select the flow by address or UDP port"
        )
    tables = {acl_name(change.table, 32) + f"_v{one}": one for one in match.families}
    names = tuple(tables)
    do: list[str] = []
    undo: list[str] = []
    for name, family in tables.items():
        rule = {"ACL_RULE": {f"{name}|{_RULE}": _fields(match, family)}}
        kind = "L3" if family == 4 else "L3V6"
        do += [
            f"sudo config acl add table {name} {kind} -p {port} -s ingress",
            f"sudo sonic-cfggen -a {shlex.quote(json.dumps(rule))} --write-to-db",
        ]
        undo += [
            f"sudo sonic-db-cli CONFIG_DB DEL 'ACL_RULE|{name}|{_RULE}'",
            f"sudo config acl remove table {name}",
        ]
    return Commands(
        do=tuple(do),
        undo=tuple(undo),
        look=("show acl rule", "show acl table"),
        read=lambda told: listed(names, told),
        tally=(f"aclshow -a -t {','.join(names)}",),
        count=lambda told: packets(names, told),
        flow=True,
    )


def _fields(match: Match, family: int) -> Mapping[str, str]:
    v6 = "V6" if family == 6 else ""
    found = {"PRIORITY": _PRIORITY, "PACKET_ACTION": "DROP"}
    if match.udp:
        found["NEXT_HEADER" if v6 else "IP_PROTOCOL"] = "17"
    for key, value in (
        (f"SRC_IP{v6}", match.source),
        (f"DST_IP{v6}", match.destination),
        ("L4_SRC_PORT", match.sport),
        ("L4_DST_PORT", match.dport),
    ):
        if value not in ("", None):
            found[key] = str(value)
    return found


def listed(names: Sequence[str], answers: Sequence[str]) -> Standing:
    """What `show acl rule` and `show acl table` say of our tables: there, and active."""
    rules, tables = rows(answers[0]), rows(answers[1])
    found: list[Standing] = []
    for name in names:
        rule = next((row for row in rules if row.get("Table") == name), None)
        bound = any(row.get("Name") == name for row in tables)
        if rule is None and not bound:
            found.append("gone")
        elif rule is None or not bound or rule.get("Status", "Active") not in ("Active", ""):
            found.append("partly")
        else:
            found.append("in_force")
    return both(found)


def packets(names: Sequence[str], answers: Sequence[str]) -> Hits:
    """What `aclshow` counts for our tables; None while a counter reads N/A."""
    told = [row["PACKETS COUNT"] for row in rows(answers[0]) if row.get("TABLE NAME") in names]
    if not told or not all(one.isdecimal() for one in told):
        return Hits(None, None)
    total = sum(map(int, told))
    return Hits(total, total)


SONIC = Platform(
    name="sonic",
    title=TITLE,
    aliases=("sonic", "sonic_ssh", "edgecore_sonic", "edgecore_sonic_ssh", "community.sonic"),
    device_type="linux",
    linux=True,
    facts=facts,
    render=render,
    errors=(r"Error[:!]", r"Usage: config\b", r"Failed\b"),
    deadman="a script on it, started by systemd-run, that holds a lease",
)
