"""Linux with FRR: `ip` for links, `vtysh` for BGP, nftables for what arrives.

Its shell is the command line. Drops bite what its kernel receives; a switch chip that forwards
past the kernel (switchdev, SONiC) is not met by them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from chaos.change import BgpNeighbour, Change, Hits, LinkState, PacketDrop, Where
from chaos.errors import CapabilityError, FabricError
from chaos.nos.table import Commands, Platform, Standing, neighbour_of, port_of, unsupported

TITLE = "Linux with FRR"
_LINE = 3500  # characters; a terminal takes 4095
#: Kernel routes that somebody set by hand; those of daemons come back by themselves.
_BY_HAND = re.compile(r"^(?!.* proto (?!static\b|boot\b)).+$")
_PASSING = re.compile(r" (linkdown|dead|onlink|pref \S+)\b")


def summary(answer: str) -> dict[str, dict[str, Any]]:
    """Neighbours of the default instance as `show bgp summary json` tells them, any family.

    Raises:
        FabricError: that is not what was printed.
    """
    try:
        told = json.loads(answer[answer.index("{") :])
        families = [one for one in told.values() if isinstance(one, dict) and "peers" in one]
        if not families and told.get("peers") is not None:
            families = [told]
        return {
            name: {**peer, "local_as": one.get("as")}
            for one in families
            for name, peer in one["peers"].items()
        }
    except (ValueError, AttributeError, TypeError):
        raise FabricError(
            f"expected 'show bgp summary json', got {' '.join(answer.split())[:200]!r}"
        ) from None


def vtysh(*lines: str) -> str:
    """One `vtysh` command line.

    Examples:
        >>> vtysh("show bgp summary json")
        "vtysh -c 'show bgp summary json'"
    """
    return shlex.join(("vtysh", *(word for line in lines for word in ("-c", line))))


def admin_down(answers: Sequence[str]) -> Standing:
    """What `ip -o link show dev X` says: administratively down or not."""
    found = re.search(r"^\d+: [^ ]+ <([A-Z0-9_,-]*)>", answers[0], re.MULTILINE)
    if found is None:
        return "unknown"
    return "gone" if "UP" in found[1].split(",") else "in_force"


def flaps(answers: Sequence[str]) -> Hits:
    """What `/sys/class/net/X/carrier_changes` says."""
    told = answers[0].strip()
    return Hits(None, int(told) if told.isdecimal() else None)


def idle_by_admin(neighbor: str, answers: Sequence[str]) -> Standing:
    """Whether `show bgp summary json` says that a neighbour is shut down."""
    peer = summary(answers[0]).get(neighbor)
    if peer is None or "state" not in peer:
        return "unknown"
    return "in_force" if peer["state"] == "Idle (Admin)" else "gone"


def facts(change: Change) -> tuple[str, ...]:
    """What is asked before a change is rendered."""
    match change:
        case LinkState():
            port = shlex.quote(port_of(change))
            return (
                f"ip -o -6 address show dev {port} scope global",
                f"ip -4 route show dev {port}",
                f"ip -6 route show dev {port}",
            )
        case BgpNeighbour():
            return (vtysh("show bgp summary json"),)
        case PacketDrop():
            return (f"ip -o link show dev {shlex.quote(port_of(change))}",)
    return ()


def render(change: Change, answers: Sequence[str]) -> Commands:
    """A change for FRR on Linux.

    Raises:
        CapabilityError: it cannot be made there.
        FabricError: the port or the neighbour is not there.
    """
    match change:
        case LinkState():
            return _link(change, answers)
        case BgpNeighbour():
            return _neighbour(change, answers)
        case PacketDrop():
            return _drop(change)
    raise unsupported(TITLE, change)


def _link(change: LinkState, answers: Sequence[str]) -> Commands:
    name = shlex.quote(port_of(change))
    return Commands(
        do=(f"ip link set dev {name} down",),
        undo=(f"ip link set dev {name} up", *(_put_back(name, answers) if answers else ())),
        look=(f"ip -o link show dev {name}",),
        read=admin_down,
        tally=(f"cat /sys/class/net/{name}/carrier_changes",),
        count=flaps,
    )


def _put_back(name: str, answers: Sequence[str]) -> list[str]:
    """What the kernel forgets with a link that goes down: IPv6 addresses, routes set by hand."""
    addresses = re.findall(r" inet6 (\S+) scope global(?! .*dynamic)", answers[0])
    lines = [f"ip -6 address replace {one} dev {name} nodad" for one in addresses]
    for family, routes in (("-4", answers[1]), ("-6", answers[2])):
        for route in map(str.strip, routes.splitlines()):
            if route and _BY_HAND.match(route):
                lines.append(f"ip {family} route replace {_PASSING.sub('', route)} dev {name}")
    return lines


def _neighbour(change: BgpNeighbour, answers: Sequence[str]) -> Commands:
    neighbor, instance = change.neighbor, "router bgp"
    if answers:
        known = summary(answers[0])
        neighbor = neighbour_of(change, tuple(known), TITLE)
        instance += f" {known[neighbor]['local_as']}"

    def configure(line: str) -> str:
        return vtysh("configure terminal", instance, line)

    return Commands(
        do=(configure(f"neighbor {neighbor} shutdown"),),
        undo=(configure(f"no neighbor {neighbor} shutdown"),),
        look=(vtysh("show bgp summary json"),),
        read=lambda told: idle_by_admin(neighbor, told),
    )


def _drop(change: PacketDrop) -> Commands:
    port = port_of(change)
    ruleset = change.ruleset(port).rstrip("\n").replace("\n", "; ")
    if len(ruleset) > _LINE:
        raise CapabilityError(
            f"{TITLE}: the pattern of {change.millionths / 1e4:g} % is longer than a line of a "
            "terminal; drop 5 % or less, or everything of a flow, or reach it as a Linux host "
            "without a platform"
        )
    remove = change.steps(Where(ifname=port)).undo[0]
    return Commands(
        do=(shlex.join(("nft", ruleset)),),
        undo=(shlex.join(remove),),
        look=("nft list tables netdev",),
        read=lambda told: _listed(change.table, told[0]),
        tally=(f"nft -j list counters table netdev {change.table}",),
        count=_packets,
        flow=True,
    )


def _listed(table: str, tables: str) -> Standing:
    lines = [line.strip() for line in tables.splitlines()]
    return "in_force" if f"table netdev {table}" in lines else "gone"


def _packets(answers: Sequence[str]) -> Hits:
    found = json.loads(answers[0][answers[0].index("{") :])["nftables"]
    counters = {
        one["counter"]["name"]: one["counter"]["packets"] for one in found if "counter" in one
    }
    return Hits(counters.get("seen"), counters.get("hit"))


FRR = Platform(
    name="frr",
    title=TITLE,
    aliases=("frr", "linux", "vyos.frr", "frr.frr.frr", "frr_ssh"),
    device_type="linux",
    linux=True,
    facts=facts,
    render=render,
    errors=(r"% ",),
    deadman="a script on it, started by systemd-run or detached by setsid, that holds a lease",
)
