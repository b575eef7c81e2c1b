"""Arista EOS: configuration sessions whose commit carries a timer, access lists with counters.

A pending commit timer blocks every other session's commit, so all changes of one switch share one
session. Its revert puts back the configuration of before the commit, whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

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
    neighbour_of,
    port_of,
    unsupported,
)

TITLE = "Arista EOS"


def facts(change: Change) -> tuple[str, ...]:
    """What is asked before a change is rendered."""
    match change:
        case BgpNeighbour():
            return ("show running-config | section router bgp",)
        case PacketDrop():
            return (f"show running-config interfaces {port_of(change)}",)
    return ()


def render(change: Change, answers: Sequence[str]) -> Commands:
    """A change for EOS.

    Raises:
        CapabilityError: it cannot be made there.
        FabricError: the port or the neighbour is not there.
    """
    match change:
        case LinkState():
            port = port_of(change)
            return Commands(
                do=(f"interface {port}", "shutdown"),
                undo=(f"interface {port}", "no shutdown"),
                look=(f"show interfaces {port} | json",),
                read=lambda told: disabled(port, told),
                tally=(f"show interfaces {port} | json",),
                count=lambda told: link_changes(port, told),
            )
        case BgpNeighbour():
            return _neighbour(change, answers)
        case PacketDrop():
            return _drop(change, answers)
    raise unsupported(TITLE, change)


def _interface(port: str, answer: str) -> dict[str, Any]:
    try:
        found: dict[str, dict[str, Any]] = json.loads(answer)["interfaces"]
        return found.get(port) or next(iter(found.values()))
    except (ValueError, KeyError, StopIteration):
        return {}


def disabled(port: str, answers: Sequence[str]) -> Standing:
    """What `show interfaces X | json` says: `disabled` is shut down by an operator."""
    status = _interface(port, answers[0]).get("interfaceStatus")
    if status is None:
        return "unknown"
    return "in_force" if status == "disabled" else "gone"


def link_changes(port: str, answers: Sequence[str]) -> Hits:
    """How often the link changed its state."""
    counters = _interface(port, answers[0]).get("interfaceCounters", {})
    return Hits(None, counters.get("linkStatusChanges"))


def _neighbour(change: BgpNeighbour, answers: Sequence[str]) -> Commands:
    neighbor, instance = change.neighbor, "router bgp <AS>"
    if answers:
        instance, known = bgp(answers[0])
        neighbor = neighbour_of(change, known, TITLE)
    return Commands(
        do=(instance, f"neighbor {neighbor} shutdown"),
        undo=(instance, f"no neighbor {neighbor} shutdown"),
        look=("show running-config | section router bgp",),
        read=lambda told: shut(neighbor, told),
    )


def bgp(section: str) -> tuple[str, tuple[str, ...]]:
    """The line `router bgp N`, and the neighbours of the default instance.

    Raises:
        FabricError: there is no such line.
    """
    lines = section.splitlines()
    head = next((line.strip() for line in lines if re.match(r"router bgp \S+$", line)), "")
    if not head:
        raise FabricError(
            f"no line 'router bgp' in the running configuration, got "
            f"{' '.join(section.split())[:200]!r}"
        )
    found = re.findall(r"^   neighbor (?:interface )?(\S+) ", section, re.MULTILINE)
    return head, tuple(dict.fromkeys(found))


def shut(neighbor: str, answers: Sequence[str]) -> Standing:
    """What the section `router bgp` says of a neighbour of the default instance."""
    try:
        _, known = bgp(answers[0])
    except FabricError:
        return "unknown"
    if neighbor not in known:
        return "unknown"
    line = rf"^   neighbor {re.escape(neighbor)} shutdown\b"
    return "in_force" if re.search(line, answers[0], re.MULTILINE) else "gone"


def _drop(change: PacketDrop, answers: Sequence[str]) -> Commands:
    all_or_nothing(change, TITLE)
    port, match, name = port_of(change), parse(change.match), acl_name(change.table, 60)
    do: list[str] = []
    bind, unbind, remove = [f"interface {port}"], [f"interface {port}"], []
    for family in match.families:
        ip = "ipv6" if family == 6 else "ip"
        if answers and (other := re.search(rf"^   {ip} access-group (\S+) in", answers[0], re.M)):
            raise CapabilityError(
                f"{change.place} has the access list {other[1]} already, and {TITLE} takes one "
                f"for {ip} at a port; drop the flow at another port of its path, or add the rule "
                "to that list by hand"
            )
        whole = "ipv6" if family == 6 else "ip"
        do += [
            f"{ip} access-list {name}",
            "counters per-entry",
            f"10 deny {_rule(match, family)}",
            f"20 permit {whole} any any",
            "exit",
        ]
        bind.append(f"{ip} access-group {name} in")
        unbind.append(f"no {ip} access-group {name} in")
        remove.append(f"no {ip} access-list {name}")
    lists = tuple(
        f"show {'ipv6' if one == 6 else 'ip'} access-lists {name}" for one in match.families
    )
    return Commands(
        do=(*do, *bind),
        undo=(*unbind, "exit", *remove),
        look=(f"show running-config interfaces {port}",),
        read=lambda told: bound(port, name, match.families, told),
        tally=lists,
        count=packets,
        flow=True,
    )


def _rule(match: Match, family: int) -> str:
    protocol = "udp" if match.udp else ("ipv6" if family == 6 else "ip")
    words = [protocol, _end(match.source, match.sport), _end(match.destination, match.dport)]
    if match.dscp is not None:
        words.append(f"dscp {match.dscp}")
    return " ".join(words)


def _end(prefix: str, port: int | None) -> str:
    address, _, length = prefix.partition("/")
    host = length == ("128" if ":" in prefix else "32")
    words = f"host {address}" if host else prefix or "any"
    return words if port is None else f"{words} eq {port}"


def bound(port: str, name: str, families: Sequence[int], answers: Sequence[str]) -> Standing:
    """What a port's running configuration says of our access list."""
    if not re.search(rf"^interface {re.escape(port)}\s*$", answers[0], re.MULTILINE):
        return "unknown"
    parts: list[Standing] = []
    for family in families:
        ip = "ipv6" if family == 6 else "ip"
        line = rf"^   {ip} access-group {re.escape(name)} in\s*$"
        there = re.search(line, answers[0], re.MULTILINE)
        parts.append("in_force" if there else "gone")
    return both(parts)


def packets(answers: Sequence[str]) -> Hits:
    """Packets that the first rule of each list matched: `[match N packets, … ago]`."""
    total = 0
    for answer in answers:
        rule = re.search(r"^\s+10 deny .*$", answer, re.MULTILINE)
        if rule is None:
            return Hits(None, None)
        found = re.search(r"\[match (\d+) packets?\b", rule[0])
        total += int(found[1]) if found else 0
    return Hits(total, total)


def waits(answer: str, tag: str) -> bool | None:
    """Whether our session is the one that `show configuration sessions detail` has pending."""
    try:
        told = json.loads(answer)
    except ValueError:
        raise FabricError(f"expected JSON, got {' '.join(answer.split())[:200]!r}") from None
    pending = [
        name
        for name, one in told.get("sessions", {}).items()
        if "pendingCommitTimer" in str(one.get("state"))
    ]
    if told.get("commitTimerSessionName"):
        pending.append(told["commitTimerSessionName"])
    return True if tag in pending else None if pending else False


def _hms(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


EOS = Platform(
    name="eos",
    title=TITLE,
    aliases=("eos", "arista.eos.eos", "arista_eos", "ceos", "arista_ceos"),
    device_type="arista_eos",
    linux=False,
    facts=facts,
    render=render,
    errors=(r"% (?!Warning)", r"Cannot commit"),
    deadman="configure session … commit timer: it reverts to the configuration of before",
    prompt=r"(?:\([^)\r\n]*\))*[>#]\s*$",
    confirmed=Confirmed(
        stage=lambda tag, lines: (f"configure session {tag}", *lines, "end"),
        commit=lambda tag, left: f"configure session {tag} commit timer {_hms(left)}",
        reject=lambda tag: (f"configure session {tag} abort",),
        drop=lambda tag: (f"configure session {tag} abort",),
        plain=lambda tag, lines: ("configure terminal", *lines, "end"),
        pending="show configuration sessions detail | json",
        waits=waits,
        most_s=24 * 3600 - 1,
    ),
)
