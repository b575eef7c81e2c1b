"""What a fabric will look like in the kernel, worked out before anything is made. Pure.

Two rules of the kernel are met here. Veth ends that share an ifindex get their carrier events late
or not at all, so every interface of a fabric has an index of its own. And switches that share a
hash seed choose the same leg at every tier, so every node has a seed of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.drivers.local import is_router, seed_of
from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link, Node, Port

#: First interface index handed out; every interface of a fabric gets the next one.
FIRST_IFINDEX = 1000
_NAME_LIMIT = 15


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable: the interface in the node and the hidden end that faces it.

    Attributes:
        port: The fabric's port; an empty node for the far end of a dummy.
        ifindex: Index of the interface in the node.
        mac: Its MAC address.
        wire_name: Name of the hidden end in the wire namespace.
        wire_ifindex: Its index.
    """

    port: Port
    ifindex: int
    mac: str
    wire_name: str
    wire_ifindex: int


@dataclass(frozen=True, slots=True)
class Cable:
    """A link as it will be made: one veth pair per end, joined in the wire namespace."""

    link: Link
    ends: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every interface, address and seed of a fabric.

    Attributes:
        cables: In the order of the fabric's links.
        sysctls: Kernel settings per node, written before its interfaces exist.
        bridges: Interface index of the bridge, per node that runs as one.
        warnings: Fields of the file that have no meaning here, one sentence each.
    """

    cables: tuple[Cable, ...]
    sysctls: Mapping[str, Mapping[str, str]]
    bridges: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def end(self, port: Port) -> End:
        """The end plugged into `port`.

        Raises:
            SpecError: the fabric has no such port; near names are offered.
        """
        ends = {end.port: end for cable in self.cables for end in cable.ends}
        if port not in ends:
            known = (known.id for known in ends)
            raise SpecError(f"no port {port.id!r} in this fabric; {near(port.id, known)}")
        return ends[port]

    def across(self, end: End) -> str:
        """Name of the other hidden end of a cable; empty where it has one end only."""
        (cable,) = (cable for cable in self.cables if end in cable.ends)
        return next((one.wire_name for one in cable.ends if one != end), "")

    def ends_of(self, node: str) -> tuple[End, ...]:
        """Ends at `node`, in the order of the links."""
        return tuple(end for cable in self.cables for end in cable.ends if end.port.node == node)


def mac_of(*words: str) -> str:
    """A MAC address under aa:c1:ab that depends on the words alone.

    Examples:
        >>> mac_of("clos", "leaf1:eth1").startswith("aa:c1:ab:")
        True
    """
    low = seed_of(*words) & 0xFFFFFF
    return f"aa:c1:ab:{low >> 16:02x}:{low >> 8 & 0xFF:02x}:{low & 0xFF:02x}"


def make_plan(fabric: Fabric) -> Plan:
    """Work out a fabric's kernel objects; the same fabric gives the same plan.

    Raises:
        SpecError: an interface name that the kernel cannot hold, or one used twice in a node.
    """
    _check_names(fabric)
    numbers = iter(range(FIRST_IFINDEX, 2**31))
    macs: set[str] = {mac for link in fabric.links for mac in link.macs if mac}
    cables = []
    for count, link in enumerate(fabric.links, 1):
        ends = []
        for letter, port, given in zip("ab", link.ports, link.macs, strict=False):
            mac = given or _fresh_mac(macs, fabric.name, port.id)
            ends.append(End(port, next(numbers), mac, f"w{count}{letter}", next(numbers)))
        cables.append(Cable(link, tuple(ends)))
    bridges = {name: next(numbers) for name, node in fabric.nodes.items() if node.runs == "bridge"}
    warnings: list[str] = []
    sysctls = {name: _sysctls(fabric.name, node, warnings) for name, node in fabric.nodes.items()}
    return Plan(tuple(cables), sysctls, bridges, tuple(warnings))


def _check_names(fabric: Fabric) -> None:
    seen: set[Port] = set()
    for port in fabric.walk():
        where = f"link end {port.id} of fabric {fabric.name}"
        if len(port.name.encode()) > _NAME_LIMIT or "/" in port.name or not port.name:
            raise SpecError(
                f"{where}: an interface name is 1 to {_NAME_LIMIT} bytes without a slash"
            )
        if port in seen:
            raise SpecError(f"{where}: plugged in twice; each interface takes one link")
        seen.add(port)
        if fabric.node(port.node).runs == "bridge" and port.name == port.node:
            raise SpecError(f"{where}: is named like the bridge itself; rename the interface")


def _fresh_mac(taken: set[str], *words: str) -> str:
    mac = mac_of(*words)
    again = 0
    while mac in taken:
        again += 1
        mac = mac_of(*words, str(again))
    taken.add(mac)
    return mac


#: Source and destination address, protocol, source and destination port.
HASH_FIELDS = "55"


def _sysctls(fabric_name: str, node: Node, warnings: list[str]) -> dict[str, str]:
    both = ("all", "default")
    found = {f"net.ipv4.conf.{which}.rp_filter": "0" for which in both}
    found |= {f"net.ipv{v}.conf.{w}.ignore_routes_with_linkdown": "1" for v in "46" for w in both}
    found |= {f"net.ipv6.conf.{which}.disable_ipv6": "0" for which in both}
    found |= {f"net.ipv6.conf.{which}.accept_dad": "0" for which in both}
    found["net.ipv4.ip_forward"] = "1"  # as in a container
    found["net.ipv4.fib_multipath_hash_seed"] = str(seed_of(fabric_name, node.name))
    if is_router(node):
        found |= {f"net.ipv6.conf.{which}.forwarding": "1" for which in both}
        found |= {f"net.ipv{v}.fib_multipath_hash_policy": "1" for v in "46"}
    given: Mapping[str, Any] = node.settings.get("sysctls") or {}
    foreign = [key for key in given if not key.startswith("net.")]
    if foreign:
        warnings.append(
            f"{node.name}: sysctls {', '.join(foreign)} are not of the network; left as they are"
        )
    found |= {key: str(value) for key, value in given.items() if key not in foreign}
    return found | _by_headers(found)


def _by_headers(sysctls: Mapping[str, str]) -> dict[str, str]:
    """Where ports are to be hashed, let the kernel hash the packet's own headers, as a switch does.

    With policy 1 it takes the hash that the sender's socket left on the packet, which outlives the
    way through a veth pair: TCP then takes paths that nobody can predict, and another one after
    every timeout. Policy 3 with the fields of policy 1 looks at addresses, protocol and ports.
    """
    ours = [v for v in "46" if sysctls.get(f"net.ipv{v}.fib_multipath_hash_policy") == "1"]
    return {
        key: value
        for v in ours
        for key, value in (
            (f"net.ipv{v}.fib_multipath_hash_policy", "3"),
            (f"net.ipv{v}.fib_multipath_hash_fields", HASH_FIELDS),
        )
    }
