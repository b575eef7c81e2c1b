"""A switch that eats one flow."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from chaos.change import Change, PacketDrop, Place, refuse_in_use, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("acl_drop", area="switch")
@dataclass(frozen=True, slots=True)
class AclDrop:
    """Drop one flow at every port of a switch, as an access list gone wrong does.

    Routing, BFD, ping and every other flow pass, so nothing but that flow notices.

    Reach: packets that enter the switch by its kernel, in one direction. A flow that takes another
    switch is not met: its hits are 0, and the trial says so.

    Needs: nftables with family netdev, CAP_NET_ADMIN in the node; a switch of a known platform has
    its own access lists.

    Args:
        node: The switch, or `in-use …` for one that the measured traffic crosses.
        source: Address that sends.
        destination: Address that receives.
        protocol: `udp` or `tcp`.
        sport: Source port; 0 is any.
        dport: Destination port; 0 is any.

    Try:
        acl_drop node=spine1 source=10.0.1.1 destination=10.0.8.1 sport=49152

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> AclDrop("spine1", "10.0.1.1", "10.0.8.1", dport=4791).changes(fabric)[0].describe()
        'spine1:eth1: drop ip saddr 10.0.1.1 ip daddr 10.0.8.1 udp dport 4791 at ingress'
    """

    node: str
    source: str
    destination: str
    protocol: Literal["udp", "tcp"] = "udp"
    sport: int = 0
    dport: int = 0

    def __post_init__(self) -> None:
        self._match()

    def _match(self) -> str:
        family = {self._address(field).version for field in ("source", "destination")}
        if len(family) > 1:
            raise SpecError("source and destination must be of one family", field="destination")
        ip = "ip" if family == {4} else "ip6"
        words = [f"{ip} saddr {self.source}", f"{ip} daddr {self.destination}"]
        for field in ("sport", "dport"):
            port = getattr(self, field)
            if not 0 <= port <= 65535:
                raise SpecError(f"{field} must be 0 (any) to 65535, got {port}", field=field)
            words += [f"{self.protocol} {field} {port}"] if port else []
        if not self.sport and not self.dport:
            words.append(f"meta l4proto {self.protocol}")
        return " ".join(words)

    def _address(self, field: str) -> IPv4Address | IPv6Address:
        try:
            return ip_address(getattr(self, field))
        except ValueError as error:
            raise SpecError(f"{field} must be one address: {error}", field=field) from None

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One drop per port of the switch, where packets enter it."""
        refuse_in_use("node", self.node)
        ports = [
            port
            for link in fabric.links_of(self.node)
            for port in link.ports
            if port.node == self.node
        ]
        if not ports:
            raise SpecError(f"node {self.node} has no links, so no flow enters it", field="node")
        places = [Place.at(port) for port in ports]
        match = self._match()
        return tuple(PacketDrop(one, table_name("acl_drop", one, self), match) for one in places)
