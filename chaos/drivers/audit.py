"""What routing believes against what the kernel does.

FRR can believe in legs that the kernel lost (its trouble with nexthop groups), so neither is taken
for the other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chaos import netlink as nl
from chaos.driver import Audit
from chaos.drivers.fib import Network, read_fib
from chaos.drivers.local import is_router
from chaos.drivers.ready import Reach
from chaos.netns import inside

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_KERNELS_OWN = ("connected", "local", "kernel")


async def compare(reach: Reach, cabling: Sequence[str]) -> Audit:
    """Audit a running fabric; reads only.

    Args:
        reach: The driver.
        cabling: What it found wrong with its cables.
    """
    routers = [name for name, node in reach.fabric.nodes.items() if node.runs == "frr"]
    compared = await asyncio.gather(*(_routes(reach, name) for name in routers))
    findings = [sentence for sentences, _ in compared for sentence in sentences]
    findings += cabling
    return Audit(
        tuple(findings),
        {
            "routers": len(routers),
            "prefixes": sum(count for _, count in compared),
            "links": len(reach.fabric.links),
        },
    )


async def _routes(reach: Reach, name: str) -> tuple[list[str], int]:
    path = reach.namespaces()[name]
    names = {index: facts.name for index, facts in inside(path, read_interfaces).items()}
    findings: list[str] = []
    count = 0
    answers = await reach.vtysh(name, "show ip route json", "show ipv6 route json")
    if len(answers) != 2:
        return [f"{name}: zebra does not answer; its routes cannot be compared"], 0
    for version, answer in zip((4, 6), answers, strict=True):
        rib = rib_legs(answer)
        kernel = {
            prefix: sorted(names.get(leg.ifindex, str(leg.ifindex)) for leg in legs)
            for prefix, legs in inside(path, partial(read_fib, version)).items()
        }
        count += len(rib)
        findings += differences(name, rib, kernel)
    return findings, count


def rib_legs(answer: Mapping[str, Any]) -> dict[Network, list[str]]:
    """Interfaces of the legs that FRR says it installed, per prefix that it selected.

    Connected ones are the kernel's own doing and left out.
    """
    found: dict[Network, list[str]] = {}
    for text, routes in answer.items():
        prefix = ipaddress.ip_network(text)
        for route in routes:
            if not route.get("selected") or route.get("protocol") in _KERNELS_OWN:
                continue
            legs = [hop for hop in route.get("nexthops", ()) if hop.get("fib")]
            named = [hop["interfaceName"] for hop in legs if "interfaceName" in hop]
            if any(hop.get("reject") or hop.get("blackhole") for hop in legs):
                continue
            found[prefix] = sorted(named)
    return found


def differences(
    node: str, rib: Mapping[Network, list[str]], kernel: Mapping[Network, list[str]]
) -> list[str]:
    """One sentence per prefix that FRR and the kernel do not agree on.

    Examples:
        >>> net = ipaddress.ip_network("10.0.8.0/24")
        >>> differences("leaf1", {net: ["up1", "up2"]}, {net: ["up1"]})
        ['leaf1: 10.0.8.0/24: FRR believes in 2 legs (up1, up2), the kernel has 1 (up1)']
    """
    return [
        f"{node}: {prefix}: FRR believes in {len(legs)} leg{'s' * (len(legs) != 1)} "
        f"({', '.join(legs)}), the kernel has {len(kernel.get(prefix, ()))}"
        + (f" ({', '.join(kernel[prefix])})" if kernel.get(prefix) else "")
        for prefix, legs in rib.items()
        if kernel.get(prefix, []) != legs
    ]


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as the kernel has it; `peer` is the index of a veth's other end."""

    name: str
    mac: str
    mtu: int
    peer: int


def read_interfaces() -> dict[int, Interface]:
    """Interfaces of the calling thread's network namespace, by index."""
    kernel = nl.Netlink.open()
    try:
        found = {}
        for got in kernel.dump(nl.RTM_GETLINK, nl.ifinfo()):
            (index,) = struct.unpack_from("=i", got.body, 4)
            attrs = nl.attrs(got.body, 16)
            found[index] = Interface(
                attrs[_IFLA_IFNAME].rstrip(b"\0").decode(),
                attrs.get(_IFLA_ADDRESS, b"").hex(":"),
                struct.unpack("=I", attrs[_IFLA_MTU])[0],
                struct.unpack("=I", attrs.get(_IFLA_LINK, bytes(4)))[0],
            )
        return found
    finally:
        kernel.close()


def shared_indexes(own: Mapping[str, Mapping[int, Interface]]) -> list[str]:
    """Veth ends with the index of their own peer: their carrier events come late or never."""
    return [
        f"{node}:{facts.name} has the same interface index as its peer ({index}); "
        "carrier events will be late or lost"
        for node, interfaces in own.items()
        for index, facts in interfaces.items()
        if index != 1 and facts.peer == index
    ]


def shared_seeds(reach: Reach) -> list[str]:
    """Routers that share a hash seed: they choose the same leg at every tier."""
    nodes: dict[str, list[str]] = {}
    for name, path in reach.namespaces().items():
        if is_router(reach.fabric.nodes[name]):
            nodes.setdefault(inside(path, _seed), []).append(name)
    return [
        f"{', '.join(names)} share the hash seed {seed}: flows will polarise"
        for seed, names in nodes.items()
        if seed and len(names) > 1
    ]


def _seed() -> str:
    try:
        with open("/proc/sys/net/ipv4/fib_multipath_hash_seed", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
