"""Where a change of a plan can be made on machines, why not, and what to use instead; pure.

Between machines there is no hidden end of a cable. What a plan asks of the wire's side of a port is
done at the opposite port: dropping at its ingress loses what this one sent, and setting it down
takes the carrier from this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chaos import nos
from chaos.change import (
    AtRouter,
    BgpNeighbour,
    Change,
    DaemonState,
    DeviceGone,
    LinkState,
    NodePower,
    PacketDrop,
    PacketRule,
    PauseStorm,
    Place,
    PortShape,
    WireTo,
)
from chaos.changes.queue import QUEUES
from chaos.drivers.ssh.target import Target
from chaos.errors import RailbreakError, SpecError
from chaos.fabric import Fabric, Port
from chaos.packets.engines import away

#: What a platform is called that is an ordinary Linux host.
LINUX = frozenset({"", "linux", "host"})


@dataclass(frozen=True, slots=True)
class Moved:
    """The changes that are really made, and which of them stands for each that was asked.

    Attributes:
        changes: What is made.
        index: Per change of the plan, the index into `changes`.
        notes: A sentence per change that is made elsewhere.
    """

    changes: tuple[Change, ...]
    index: tuple[int, ...]
    notes: tuple[str, ...] = ()


def ssh_of(fabric: Fabric, node: str) -> Mapping[str, Any]:
    """What the inventory says of a node; empty for one that nobody logs in to."""
    found: Mapping[str, Any] = fabric.node(node).settings.get("ssh", {})
    return found


def platform_of(fabric: Fabric, node: str) -> str:
    """The network operating system of a node; empty for a Linux host."""
    named = str(ssh_of(fabric, node).get("platform", "")).lower()
    return "" if named in LINUX else named


def target_of(fabric: Fabric, node: str) -> Target:
    """How a node is reached.

    Raises:
        SpecError: it becomes root by a way that is not known here; there is no table for what it
            runs.
    """
    said = ssh_of(fabric, node)
    become = str(said.get("become", ""))
    named = platform_of(fabric, node)
    if named and not nos.platform(named).linux:
        become = ""  # its command line has privilege levels of its own
    elif named and become not in ("", "sudo"):
        raise SpecError(
            f"{node}: become method {become!r}; at a switch whose login is a shell it is sudo",
            field="become",
        )
    if become not in ("", "sudo", "su"):
        raise SpecError(f"{node}: become method {become!r}; known here: sudo, su", field="become")
    user = str(said.get("become_user", "") or "root")
    if become and user != "root":
        raise SpecError(
            f"{node}: become user {user!r}; faults need root: leave it out", field="become_user"
        )
    known = {word: said.get(word, "") for word in ("address", "user", "key_file", "python")}
    files = {word: said.get(word, "") for word in ("known_hosts", "ssh_config", "jump")}
    return Target.from_json(
        {
            **{word: str(value) for word, value in {**known, **files}.items()},
            "name": node,
            "port": int(said.get("port", 0) or 0),
            "platform": named,
            "become": become,
        }
    )


def interface_of(fabric: Fabric, port: Port) -> str:
    """What the machine calls a port (its interface's name, or its PCI address)."""
    return str(ssh_of(fabric, port.node).get("ports", {}).get(port.name, port.name))


def called_there(change: Change, fabric: Fabric) -> str:
    """What a switch calls the port of a change, or the neighbour that one of its ports names."""
    node = change.place.node
    if change.place.port:
        return interface_of(fabric, Port(node, change.place.port))
    if isinstance(change, BgpNeighbour):
        return str(ssh_of(fabric, node).get("ports", {}).get(change.neighbor, ""))
    return ""


def rdma_of(fabric: Fabric, port: Port) -> tuple[str, ...]:
    """RDMA devices behind a port, as far as they were asked for when the machine was attached."""
    found = ssh_of(fabric, port.node).get("rdma", {})
    return tuple(found.get(port.name, ()))


def opposite(change: LinkState | PacketDrop | PacketRule | PortShape, fabric: Fabric) -> Change:
    """The same for a change at the wire's side, made at the other end of the cable.

    The queue of a rule is at the end that sends.
    """
    here = Port(change.place.node, change.place.port)
    if isinstance(change, PacketRule) and change.engine in QUEUES:
        return replace(change, place=Place.at(here))
    return replace(change, place=Place.at(fabric.link_at(here).other(here)))


def moved(changes: Sequence[Change], fabric: Fabric) -> Moved:
    """Where each change is made; what comes to the same is made once.

    Where the carrier of both ends of a cable is asked for, one end is set down and takes it from
    both: that of the router or switch, so that hosts see what a pulled cable shows them.
    """
    dark = {
        (one.place.node, one.place.port)
        for one in changes
        if isinstance(one, LinkState) and one.place.side == "wire"
    }
    made: list[Change] = []
    index: list[int] = []
    notes: list[str] = []
    for change in changes:
        real = change
        if (
            isinstance(change, LinkState | PacketDrop | PacketRule | PortShape)
            and change.place.side == "wire"
        ):
            real = opposite(change, fabric)
            if isinstance(change, LinkState):
                real = LinkState(_one_end(change.place, dark, fabric) or real.place)
            notes.append(f"{change.describe()}: made as {real.describe()}")
        if real not in made:
            made.append(real)
        index.append(made.index(real))
    return Moved(tuple(made), tuple(index), tuple(dict.fromkeys(notes)))


def _one_end(place: Place, dark: set[tuple[str, str]], fabric: Fabric) -> Place | None:
    """The end to set down where both ends of a cable are to lose their carrier."""
    here = Port(place.node, place.port)
    there = fabric.link_at(here).other(here)
    if (there.node, there.name) not in dark:
        return None
    ends = sorted((here, there), key=lambda port: (fabric.node(port.node).role == "host", port))
    return Place.at(ends[0])


def refusal(change: Change, fabric: Fabric, driver: str = "ssh") -> str:
    """Why a change cannot be made on machines, and what instead; empty when it can."""
    place = change.place
    if isinstance(change, NodePower):
        return (
            f"driver {driver} cannot {change.state} {place.node} as a whole: it has no hand on its "
            "power (a PDU or BMC has); node_down cuts it off, rank_stop and rank_kill stop or end "
            "its processes"
        )
    if isinstance(change, WireTo):
        return (
            f"driver {driver} cannot lead the cable at {place.node}:{place.port} elsewhere: "
            "exchange the plugs by hand and ask railbreak fabric verify, or use the embedded fabric"
        )
    if isinstance(change, DaemonState):
        return (
            f"driver {driver} cannot {change.how} a daemon of {place.node}: what supervises it "
            "there (watchfrr, systemd) would start it in its own time, and that could not be "
            "told from ours; bgp_down and bgp_reset end its sessions, route_withdraw its routes"
        )
    if isinstance(change, LinkState | PacketDrop | PacketRule | PortShape) and place.side == "wire":
        here = Port(place.node, place.port)
        link = fabric.link_at(here)
        if len(link.ports) < 2:
            return f"{place}: its cable has no other end in the inventory, where this is done"
        there = link.other(here)
        why = refusal(opposite(change, fabric), fabric, driver)
        if not why:
            return ""
        made = opposite(change, fabric)
        if made.place.node == place.node:
            return f"{place} is slowed where {place.node} sends, and {why}"
        return f"{place} can only be broken at the other end of its cable, and {there}: {why}"
    if not ssh_of(fabric, place.node):
        return f"{place.node} cannot be logged in to: the inventory gives it no address"
    named = platform_of(fabric, place.node)
    if named:
        try:
            spoken = nos.in_its_words(change, called_there(change, fabric))
            return nos.refusal(nos.platform(named), spoken)
        except RailbreakError as error:
            return f"{place.node}: {error}"
    if isinstance(change, AtRouter) and fabric.node(place.node).role == "host":
        return f"{place.node} is a host and runs no routing daemon; name a router"
    if isinstance(change, PacketRule) and (why := away(change.rule.then)):
        return why
    if isinstance(change, DeviceGone):
        return _no_device(change, fabric)
    if isinstance(change, PauseStorm):
        return _no_pause(change, fabric)
    if isinstance(change, PacketDrop | PacketRule | PortShape):
        return _bypassed(change, fabric)
    return ""


def _no_device(change: DeviceGone, fabric: Fabric) -> str:
    """The refusal of a port behind which there is no device, as far as the machine was asked."""
    place, said = change.place, ssh_of(fabric, change.place.node)
    if place.port not in said.get("kernel", {}) or place.port in said.get("driver", {}):
        return ""
    return (
        f"{place} ({said['kernel'][place.port][0]}) is an interface that software made and no PCI "
        "device: it has no driver that could let go of it and no slot; use mode: carrier or admin"
    )


def _no_pause(change: PauseStorm, fabric: Fabric) -> str:
    """The refusal of pause frames to a port that does not obey them, as far as that is known."""
    node, _, name = change.to.partition(":")
    said = ssh_of(fabric, node)
    told: Mapping[str, Sequence[int]] = said.get("pfc", {})
    if name not in told:
        if not said or platform_of(fabric, node):
            called = interface_of(fabric, Port(node, name))
            return (
                f"whether {change.to} honours PFC is not known, and nothing would stop if it does "
                f"not; look there, and say so in the inventory (railbreak: {{pfc: {{{called}: "
                f"{change.priorities[0]}}}}})"
            )
        if name not in said.get("kernel", {}):
            return ""  # nobody has asked that host yet
        driver = said.get("driver", {}).get(name) or "none on a bus"
        return (
            f"{change.to} ({said['kernel'][name][0]}, driver {driver}) honours no PFC: frames "
            "would be sent and nothing would stop; link_slow holds traffic back there"
        )
    deaf = [str(one) for one in change.priorities if one not in told[name]]
    if not deaf:
        return ""
    which = ", ".join(map(str, told[name])) or "none"
    return (
        f"{change.to} honours PFC of priorities {which} and not {', '.join(deaf)}: frames would be "
        "sent and nothing would stop; name those that it honours, or turn them on there "
        "(dcb pfc set)"
    )


def _bypassed(change: PacketDrop | PacketRule | PortShape, fabric: Fabric) -> str:
    """The refusal of a drop or a rate that the traffic it is meant for never meets."""
    port = Port(change.place.node, change.place.port)
    devices = rdma_of(fabric, port)
    if isinstance(change, PacketRule):
        kernel_only = change.rule.select.protocol == "tcp"
    elif isinstance(change, PortShape):
        kernel_only = False
    else:
        kernel_only = "tcp" in change.match or "icmp" in change.match
    if not devices or kernel_only:
        return ""
    past = (
        f"{change.place} is the port of RDMA device {', '.join(devices)}: its RoCE packets (UDP "
        "4791) go past the kernel"
    )
    if isinstance(change, PortShape) or (isinstance(change, PacketRule) and change.leaves):
        return (
            f"{past} and its queues, so a rate there would slow none of them; set the speed of the "
            "switch's port by hand, or take the link down (link_down), which hits them too"
        )
    return (
        f"{past} and its rules, so a drop of what arrives there would lose none of them, and a "
        f"switch drops only what arrives at itself; {_sent_instead(change, port, fabric)}take the "
        "link down (link_down), which hits both ways; see railbreak faults"
    )


def _sent_instead(change: PacketDrop | PacketRule, port: Port, fabric: Fabric) -> str:
    """The other direction of a link, where that can be lost at its far end; or why it cannot."""
    link = next((one for one in fabric.links if port in one.ports), None)
    there = link.other(port) if link is not None and len(link.ports) == 2 else None
    if there is None or rdma_of(fabric, there):
        return ""
    why = refusal(replace(change, place=Place.at(there)), fabric)
    if why:
        return f"what {port.node} sends (end: {port.node}) arrives at {there}, but {why}; or "
    return f"lose what {port.node} sends, which is dropped at {there} (end: {port.node}), or "
