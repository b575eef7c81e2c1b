"""What a platform's table holds: a change as lines of its command line, and how to read answers.

A table is pure: it turns a change into text and text into what it says. Nothing here acts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chaos.change import BgpNeighbour, Change, Hits, LinkState, PacketDrop
from chaos.errors import CapabilityError, FabricError
from chaos.fabric import Fabric, Port

#: `partly`: some of what the change consists of is there and some is not. `unknown`: a successful
#: answer that does not say.
Standing = Literal["in_force", "gone", "partly", "unknown"]


def nothing(answers: Sequence[str]) -> Hits:
    """Acting is not counted."""
    return Hits(None, None)


@dataclass(frozen=True, slots=True)
class Commands:
    """A change written out for one platform.

    Attributes:
        do: Configuration lines that bring it into force.
        undo: Lines that take it back; safe twice, safe when `do` ran half or never.
        look: Commands that print the state it lives in; each succeeds with or without it.
        read: What the answers to `look` say, one each. Only successful answers are read.
        tally: Commands that print how often it acted; empty where that is not counted.
        count: What the answers to `tally` say; `seen` and `hit` since the access list was made.
        flow: `count` counts packets from zero at `do`; otherwise the difference to an earlier
            count is what happened (an interface's flaps).
    """

    do: tuple[str, ...]
    undo: tuple[str, ...]
    look: tuple[str, ...]
    read: Callable[[Sequence[str]], Standing]
    tally: tuple[str, ...] = ()
    count: Callable[[Sequence[str]], Hits] = nothing
    flow: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A commit that the switch itself reverts unless it is confirmed: do and dead-man in one.

    Such a revert puts back the whole configuration of before the commit.

    Attributes:
        stage: (tag, lines) → commands that make the change ready without any effect.
        commit: (tag, seconds) → the one command that makes it effective for so long.
        reject: (tag) → commands that revert it at once and end the timer.
        drop: (tag) → commands that throw away what was staged and not committed.
        plain: (tag, lines) → commands that make lines effective for good.
        pending: Command that tells which commit waits for its confirmation.
        waits: (answer, tag) → whether it is ours; None where another's waits.
        most_s: Longest timer.
    """

    stage: Callable[[str, Sequence[str]], tuple[str, ...]]
    commit: Callable[[str, int], str]
    reject: Callable[[str], tuple[str, ...]]
    drop: Callable[[str], tuple[str, ...]]
    plain: Callable[[str, Sequence[str]], tuple[str, ...]]
    pending: str
    waits: Callable[[str, str], bool | None]
    most_s: int


@dataclass(frozen=True, slots=True)
class Platform:
    """One network operating system.

    Attributes:
        name: Ours.
        title: For people.
        aliases: Values of `ansible_network_os` and device types of Netmiko that mean it.
        device_type: Netmiko's.
        linux: Its login is a Linux shell, so commands have exit statuses and a script can stand
            by on it; otherwise errors are told by `errors`.
        errors: What marks a command as rejected, at the start of a line.
        confirmed: Its commit with a timer; None where a script on its Linux is the dead-man.
        facts: Change → commands whose answers `render` needs.
        render: (change, answers) → commands. Without answers, as far as they are not needed.
        prompt: What follows the name in its prompt, in any mode, at the end of an answer.
        deadman: How it takes changes back by itself, for people.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    device_type: str
    linux: bool
    facts: Callable[[Change], tuple[str, ...]]
    render: Callable[[Change, Sequence[str]], Commands]
    deadman: str
    errors: tuple[str, ...] = ()
    confirmed: Confirmed | None = None
    prompt: str = r"[>#$]\s*$"

    def rejection(self, answer: str) -> str:
        """The line by which its command line rejected a command; empty when it did not."""
        for line in answer.splitlines():
            if any(re.match(pattern, line.strip()) for pattern in self.errors):
                return line.strip()
        return ""


def in_its_words(change: Change, ifname: str) -> Change:
    """A change with a switch's own name of its port, or of the port that names its neighbour.

    Args:
        change: In the words of the fabric.
        ifname: That name; empty leaves the change as it is.

    Examples:
        >>> from chaos.change import Place
        >>> in_its_words(LinkState(Place("leaf1", "eth1")), "Ethernet0").place.port
        'Ethernet0'
    """
    if not ifname:
        return change
    if isinstance(change, BgpNeighbour):
        return replace(change, neighbor=ifname)
    return (
        replace(change, place=replace(change.place, port=ifname)) if change.place.port else change
    )


def refusal(platform: Platform, change: Change) -> str:
    """Why a platform cannot make a change, and what instead; empty when it can.

    Only the change is judged; whether the port or the neighbour exists is asked of the switch.
    """
    try:
        platform.render(change, ())
    except CapabilityError as error:
        return str(error)
    return ""


def port_of(change: LinkState | PacketDrop) -> str:
    """The interface a change is about.

    Raises:
        CapabilityError: it is about the wire, or about no interface.
    """
    place = change.place
    if place.side == "wire":
        told = "take the carrier" if isinstance(change, LinkState) else "drop what the node sends"
        instead = (
            "take the port at the opposite end of the link down (chaos.nos.at_opposite_end)"
            if isinstance(change, LinkState)
            else "drop it at the ingress of the port at the opposite end of the link"
        )
        raise CapabilityError(
            f"a switch cannot {told} at the wire of {place.node}:{place.port}, it has hands only "
            f"on its own ports; {instead}"
        )
    if not place.port:
        raise CapabilityError(f"{place.node}: a port is needed, such as Ethernet1")
    return place.port


def unsupported(title: str, change: Change) -> CapabilityError:
    """The sentence for a kind of change that no switch takes by command line."""
    instead = {
        "process_signal": "name a process of a host instead",
        "process_restart": "name a process of a host instead",
        "node_power": "use the rack's power controller, or take its ports down",
        "load": "load a host instead",
        "device_gone": "name a NIC of a Linux host, or take the port down (mode: carrier)",
        "pause_storm": "no switch sends pause frames when told to; name the end at a Linux host",
        "port_mtu": "name the end at a Linux host, or set it by hand",
        "port_shape": "name the other end, where a Linux host sends",
    }.get(change.kind, "take a port down, shut a BGP neighbour, or drop a flow instead")
    return CapabilityError(
        f"{title}: {change.describe()}: cannot be done by command line; {instead}"
    )


def all_or_nothing(drop: PacketDrop, title: str) -> None:
    """Refuse a share of packets: an access list decides on fields, never by chance.

    Raises:
        CapabilityError: the drop is for less than every packet of its match.
    """
    if drop.millionths < 1_000_000:
        raise CapabilityError(
            f"{title} cannot drop {drop.millionths / 1e4:g} % of a flow: an access list drops all "
            "packets or none; drop all of one flow (a source address, a UDP source port), or drop "
            "the share at the ingress of a Linux host"
        )


def both(standings: Sequence[Standing]) -> Standing:
    """One standing of several parts.

    Examples:
        >>> both(["in_force", "gone"])
        'partly'
    """
    kinds = set(standings)
    if len(kinds) == 1:
        return kinds.pop()
    return "unknown" if kinds <= {"unknown", "gone"} or not kinds else "partly"


def named(text: str, pattern: str, what: str) -> re.Match[str]:
    """Find what a command must have printed.

    Raises:
        FabricError: it did not; the sentence holds what it printed.
    """
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise FabricError(f"{what}; got {' '.join(text.split())[:200]!r}")
    return found


def acl_name(table: str, most: int) -> str:
    """A name for an access list that no other change shares, short enough for a platform.

    The check sum at the end of a change's table name is what tells it from others.

    Examples:
        >>> acl_name("railbreak_packet_loss_leaf1_eth1_0123abcd", 20)
        'railbreak_0123abcd'
    """
    return table if len(table) <= most else f"railbreak_{table[-8:]}"


def at_opposite_end(change: LinkState, fabric: Fabric, switches: Sequence[str]) -> LinkState:
    """The carrier of a node's port, taken by the switch at the other end of its link.

    Args:
        change: A `LinkState` at the wire's side.
        fabric: Where the link is.
        switches: Names of the nodes that are switches.

    Returns:
        A `LinkState` at the node's side of the opposite port.

    Raises:
        CapabilityError: at the other end is no switch.
    """
    here = Port(change.place.node, change.place.port)
    other = fabric.link_at(here).other(here)
    if other.node not in switches:
        raise CapabilityError(
            f"the carrier of {here.id} hangs on {other.id}, and {other.node} is no switch that "
            "can be reached; take the port down at its own side instead"
        )
    return LinkState(type(change.place).at(other))


def neighbour_of(change: BgpNeighbour, known: Sequence[str], title: str) -> str:
    """The neighbour as the switch calls it.

    Raises:
        FabricError: it has no such neighbour; the sentence lists those it has.
    """
    if change.neighbor not in known:
        has = ", ".join(sorted(known)) or "none"
        raise FabricError(
            f"{change.place.node} ({title}) has no BGP neighbor {change.neighbor} in its default "
            f"instance; it has {has}"
        )
    return change.neighbor
