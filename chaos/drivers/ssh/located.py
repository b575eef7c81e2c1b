"""Where ports are on their machines, and by which addresses these are reached.

A machine that was asked tells it as it is now; for the others it is as it was when they were
attached to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from chaos.change import Place, Where
from chaos.drivers.ssh import adopt
from chaos.drivers.ssh.fleet import Fleet
from chaos.drivers.ssh.places import interface_of, ssh_of
from chaos.errors import CapabilityError, FabricError, near
from chaos.fabric import Fabric, Port


class Located:
    """The ports of a fabric's machines.

    Args:
        fabric: The fabric, with what the machines said when they were attached to.
        fleet: The hosts.
        own: Interfaces that carried our own connection then, per node.
    """

    def __init__(self, fabric: Fabric, fleet: Fleet, own: Mapping[str, Collection[str]]) -> None:
        self._fabric, self._fleet, self._own = fabric, fleet, own

    def ifname(self, port: Port) -> str:
        """The kernel's name of a port."""
        known = self._fleet.interfaces.get(port.node)
        word = interface_of(self._fabric, port)
        if known is not None:
            return adopt.named(known, word) or word
        kernel = ssh_of(self._fabric, port.node).get("kernel", {})
        return str(kernel[port.name][0]) if port.name in kernel else word

    def where(self, place: Place) -> Where:
        """Where a port is.

        Raises:
            SpecError: the fabric has no such port.
            CapabilityError: it is inside a cable, or carries our own connection.
            FabricError: the machine has no such interface.
        """
        if place.side == "wire":
            raise CapabilityError(
                f"{place} is inside a cable; it is broken at the other end: name that port"
            )
        port = Port(place.node, place.port)
        self._fabric.link_at(port)
        name = self.ifname(port)
        own = self._fleet.own.get(place.node)
        if name in (self._own.get(place.node, ()) if own is None else own):
            raise CapabilityError(
                f"{place} ({name}) carries our own connection to {place.node}: breaking it would "
                "cut us off; reach the machine by another interface, or choose another link"
            )
        return Where(ifname=name, ifindex=self._index(port, name), host=place.node)

    def _index(self, port: Port, name: str) -> int:
        known = self._fleet.interfaces.get(port.node)
        if known is not None:
            if name not in known:
                raise FabricError(f"{port}: {name} is not there; {near(name, known)}")
            return int(known[name]["index"])
        kernel = ssh_of(self._fabric, port.node).get("kernel", {})
        return int(kernel[port.name][1]) if port.name in kernel else 0

    def addresses(self) -> Mapping[str, str]:
        """The first IPv4 (else IPv6) address on a host's links, in their order, per host."""
        found: dict[str, str] = {}
        for node in self._fabric.with_role("host"):
            listed = [
                address.partition("/")[0]
                for link in self._fabric.links_of(node.name)
                for port in link.ports
                if port.node == node.name
                for address in self._addresses_at(port)
            ]
            if listed:
                found[node.name] = min(listed, key=lambda address: ":" in address)
        return found

    def _addresses_at(self, port: Port) -> Sequence[str]:
        known = self._fleet.interfaces.get(port.node, {}).get(self.ifname(port))
        if known is not None:
            return [str(one) for one in known["addresses"]]
        return self._fabric.node(port.node).addresses.get(port.name, ())
