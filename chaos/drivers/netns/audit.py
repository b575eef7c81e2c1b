"""The cabling of an embedded fabric against its plan."""

from __future__ import annotations

from typing import Protocol

from chaos.drivers.audit import Interface, read_interfaces, shared_indexes, shared_seeds
from chaos.drivers.netns.plan import Plan
from chaos.drivers.ready import Reach
from chaos.netns import inside


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
    return findings + shared_indexes(own) + shared_seeds(reach)
