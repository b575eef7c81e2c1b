"""Nokia SR Linux: a private candidate, `commit confirmed` that reverts itself, acl-filters.

Access lists as of release 24.3 (`acl acl-filter … type …`). All changes of one switch are one
candidate; while it waits for its confirmation nobody else can commit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chaos.change import BgpNeighbour, Change, Hits, LinkState, PacketDrop
from chaos.errors import CapabilityError, FabricError
from chaos.nos.match import Match, parse
from chaos.nos.table import (
    Commands,
    Confirmed,
    Platform,
    Standing,
    acl_name,
    all_or_nothing,
    both,
    port_of,
    unsupported,
)

TITLE = "Nokia SR Linux"
_BGP = "network-instance default protocols bgp"


def facts(change: Change) -> tuple[str, ...]:
    """What is asked before a change is rendered."""
    match change:
        case BgpNeighbour():
            return (f"info from state / {_BGP} neighbor {change.neighbor} admin-state",)
        case LinkState():
            return (f"info from state / interface {port_of(change)} admin-state",)
    return ()


def render(change: Change, answers: Sequence[str]) -> Commands:
    """A change for SR Linux.

    Raises:
        CapabilityError: it cannot be made there.
        FabricError: the port or the neighbour is not there.
    """
    match change:
        case LinkState():
            port = port_of(change)
            return _admin(
                f"interface {port}",
                answers,
                tally=(f"info from state / interface {port} statistics carrier-transitions",),
            )
        case BgpNeighbour():
            return _admin(f"{_BGP} neighbor {change.neighbor}", answers)
        case PacketDrop():
            return _drop(change)
    raise unsupported(TITLE, change)


def _admin(path: str, answers: Sequence[str], tally: tuple[str, ...] = ()) -> Commands:
    if answers and admin_state(answers) == "unknown":
        raise FabricError(f"{TITLE} has no admin-state at / {path}; is it configured?")
    return Commands(
        do=(f"set / {path} admin-state disable",),
        undo=(f"set / {path} admin-state enable",),
        look=(f"info from state / {path} admin-state",),
        read=admin_state,
        tally=tally,
        count=transitions,
    )


def admin_state(answers: Sequence[str]) -> Standing:
    """What `info from state … admin-state` says; the line may stand alone or in its context."""
    found = re.search(r"^\s*admin-state (enable|disable)\s*$", answers[0], re.MULTILINE)
    if found is None:
        return "unknown"
    return "in_force" if found[1] == "disable" else "gone"


def transitions(answers: Sequence[str]) -> Hits:
    """How often the port lost or got its carrier."""
    found = re.search(r"carrier-transitions (\d+)", answers[0]) if answers else None
    return Hits(None, int(found[1]) if found else None)


def _drop(change: PacketDrop) -> Commands:
    all_or_nothing(change, TITLE)
    port, match, base = port_of(change), parse(change.match), acl_name(change.table, 200)
    if match.dscp is not None:
        raise CapabilityError(
            f"{TITLE}: how its acl-filter matches DSCP differs between releases; select the flow "
            "by address or UDP port"
        )
    name, _, sub = port.partition(".")
    sub = sub or "0"
    at = f"acl interface {name}.{sub}"
    do: list[str] = []
    unbind: list[str] = []
    remove: list[str] = []
    kinds = tuple(f"{base} type ipv{family}" for family in match.families)
    for kind, family in zip(kinds, match.families, strict=True):
        do += [
            f"set / acl acl-filter {kind} statistics-per-entry true",
            *(f"set / acl acl-filter {kind} entry 10 match {w}" for w in _rule(match, family)),
            f"set / acl acl-filter {kind} entry 10 action drop",
            f"set / acl acl-filter {kind} entry 65535 action accept",
            f"set / {at} interface-ref interface {name}",
            f"set / {at} interface-ref subinterface {sub}",
            f"set / {at} input acl-filter {kind}",
        ]
        unbind.append(f"delete / {at} input acl-filter {kind}")
        remove.append(f"delete / acl acl-filter {kind}")
    return Commands(
        do=tuple(do),
        undo=(*unbind, *remove),
        look=("info from running / acl",),
        read=lambda told: bound(f"{name}.{sub}", kinds, told),
        tally=tuple(f"info from state / acl acl-filter {k} entry 10 statistics" for k in kinds),
        count=packets,
        flow=True,
    )


def _rule(match: Match, family: int) -> list[str]:
    ip = f"ipv{family}"
    words = [f"{ip} {'next-header' if family == 6 else 'protocol'} udp"] if match.udp else []
    words += [f"{ip} source-ip prefix {match.source}"] if match.source else []
    words += [f"{ip} destination-ip prefix {match.destination}"] if match.destination else []
    words += [f"transport source-port value {match.sport}"] if match.sport is not None else []
    words += [f"transport destination-port value {match.dport}"] if match.dport is not None else []
    return words


def block(text: str, head: str) -> str | None:
    """What stands between the braces after a line; None where there is no such line."""
    found = re.search(rf"^( *){re.escape(head)} \{{\n(.*?)^\1\}}", text, re.MULTILINE | re.DOTALL)
    return found[2] if found else None


def bound(interface: str, kinds: Sequence[str], answers: Sequence[str]) -> Standing:
    """What `info from running / acl` says: our filters, and whether the port's input has them."""
    text = answers[0].replace("\r", "")
    if text.strip() and "{" not in text:
        return "unknown"
    input_ = block(block(text, f"interface {interface}") or "", "input") or ""
    parts: list[Standing] = []
    for kind in kinds:
        there = (
            block(text.replace(input_, "") if input_ else text, f"acl-filter {kind}") is not None
        )
        held = re.search(rf"^ *acl-filter {re.escape(kind)} \{{", input_, re.MULTILINE) is not None
        parts.append("in_force" if there and held else "partly" if there or held else "gone")
    return both(parts)


def packets(answers: Sequence[str]) -> Hits:
    """Packets that the first entry of each filter matched."""
    found = [re.search(r"matched-packets (\d+)", answer) for answer in answers]
    if not all(found):
        return Hits(None, None)
    total = sum(int(one[1]) for one in found if one)
    return Hits(total, total)


def waits(answer: str, tag: str) -> bool | None:
    """Whether `info from state / system configuration commit *` has one that is unconfirmed."""
    return re.search(r"\bstatus unconfirmed\b", answer) is not None


SRLINUX = Platform(
    name="srlinux",
    title=TITLE,
    aliases=("srlinux", "srl", "nokia_srl", "nokia.srlinux.srlinux", "nokia_srlinux"),
    device_type="nokia_srl",
    linux=False,
    facts=facts,
    render=render,
    errors=(r"Error\b", r"Parsing error", r"Failed\b", r"Path '.*' (is not|does not)"),
    deadman="commit confirmed: it reverts to the configuration of before",
    prompt=r"#\s*$",
    confirmed=Confirmed(
        stage=lambda tag, lines: (f"enter candidate private name {tag}", "/", *lines),
        commit=lambda tag, left: f"commit confirmed timeout {left}",
        reject=lambda tag: (
            "/tools system configuration confirmed-reject",
            f"enter candidate private name {tag}",
            "discard now",
        ),
        drop=lambda tag: (f"enter candidate private name {tag}", "discard now"),
        plain=lambda tag, lines: (
            f"enter candidate private name {tag}-undo",
            *lines,
            "commit now",
        ),
        pending="info from state / system configuration commit *",
        waits=waits,
        most_s=86400,
    ),
)
