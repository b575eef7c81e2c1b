"""The cabling of an embedded fabric against its plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from chaos.drivers.audit import Interface, read_interfaces, shared_indexes, shared_seeds
from chaos.drivers.netns.plan import Plan
from chaos.drivers.ready import Reach
from chaos.netns import inside
from chaos.nft import Compiler

_HOOK = re.compile(r'hook ingress device "?(\w+)"? priority ([^;]+);')
_FORWARDED = re.compile(r'fwd to "?(\w+)"?')


class Built(Reach, Protocol):
    """A fabric that was built by plan."""

    @property
    def plan(self) -> Plan:
        """Its interfaces in the kernel."""
        ...


def cabling(reach: Built, wire: str) -> list[str]:
    """One sentence per end that is not as planned; reads only.

    Args:
        reach: The driver.
        wire: Path of the hidden namespace.
    """
    findings = []
    hidden = inside(wire, read_interfaces)
    own = {name: inside(path, read_interfaces) for name, path in reach.namespaces().items()}
    for cable in reach.plan.cables:
        for end in cable.ends:
            here = own[end.port.node].get(end.ifindex)
            wanted = Interface(end.port.name, end.mac, cable.link.mtu, end.wire_ifindex)
            if here != wanted:
                findings.append(f"{end.port}: the file says {wanted}, the kernel has {here}")
            there = hidden.get(end.wire_ifindex)
            if there is None or (there.name, there.peer) != (end.wire_name, end.ifindex):
                findings.append(f"{end.port}: its hidden end {end.wire_name} is {there}")
    findings += misled(reach.plan, inside(wire, _rules))
    return findings + shared_indexes(own) + shared_seeds(reach)


def misled(plan: Plan, ruleset: str) -> Iterator[str]:
    """One sentence per port whose packets arrive elsewhere than at its cable's other end.

    Args:
        plan: What was built.
        ruleset: Rules of the hidden namespace, as `nft list ruleset` prints them.
    """
    ports = {end.wire_name: end.port for cable in plan.cables for end in cable.ends}
    ways: dict[str, tuple[int, str]] = {}
    for chain in ruleset.split("chain ")[1:]:
        hook, found = _HOOK.search(chain), _FORWARDED.search(chain)
        if hook is None or found is None or found[1] not in ports:
            continue
        way = (int(re.sub(r"filter|\s", "", hook[2]) or 0), found[1])
        ways[hook[1]] = min(way, ways.get(hook[1], way))  # the first chain to see it takes it
    for cable in plan.cables:
        for end in cable.ends if len(cable.ends) == 2 else ():
            (other,) = (one for one in cable.ends if one != end)
            _, to = ways.get(end.wire_name, (0, ""))
            if to != other.wire_name:
                where = f"at {ports[to]}" if to else "nowhere"
                yield f"{end.port}: what it sends arrives {where}, the file says at {other.port}"


def _rules() -> str:
    compiler = Compiler()
    try:
        return compiler.run("list ruleset")
    finally:
        compiler.close()
