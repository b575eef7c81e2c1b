"""A host that loses a NIC: some of its ports at once, or all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chaos.change import Change, refuse_in_use
from chaos.errors import SpecError, near
from chaos.fabric import Fabric
from chaos.registry import fault
from faults.link_down import LinkDown


@fault("nic_kill", area="nic")
@dataclass(frozen=True, slots=True)
class NicKill:
    """Take every port of one NIC from a node: all its planes and rails at once, or those named.

    *carrier*: the NIC dies or its transceiver does; both ends of each cable go dark, and the ports
    stay admin-up. *admin*: the host shuts its ports; they lose routes, permanent neighbours and
    IPv6 addresses (the undo puts them back), and the other ends go dark.

    Reach: as `link_down` of the same mode. The interfaces stay: a driver that is unbound or a PCI
    device that is removed takes them away, with their addresses and RDMA devices, and that is not
    what happens here.

    Needs: CAP_NET_ADMIN, and wires that can be reached: see `link_down`.

    Args:
        node: The host, or `in-use …`.
        ports: Ports of the NIC, as in the topology file; none: every port with a cable.
        mode: `carrier` or `admin`.

    Try:
        nic_kill node=host1
        nic_kill node=host1 ports=eth1 mode=admin

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("host1", "eth1"), Port("leaf1", "eth1"))
        >>> fabric = Fabric("f", {"host1": Node("host1"), "leaf1": Node("leaf1")}, (cable,))
        >>> [change.describe() for change in NicKill("host1").changes(fabric)]
        ['host1:eth1~wire: no carrier', 'leaf1:eth1~wire: no carrier']
    """

    node: str
    ports: tuple[str, ...] = ()
    mode: Literal["carrier", "admin"] = "carrier"

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down` at each port, the node's own ends first."""
        refuse_in_use("node", self.node)
        cables = [link for link in fabric.links_of(self.node) if len(link.ports) == 2]
        own = {link.port_of(self.node).name: link for link in cables}
        for name in self.ports:
            if name not in own:
                raise SpecError(
                    f"{self.node} has no port {name!r} with a cable; {near(name, own)}",
                    field="ports",
                )
        end = self.node if self.mode == "admin" else "both"
        made = [
            change
            for name, link in own.items()
            if name in self.ports or not self.ports
            for change in LinkDown(link.id, self.mode, end).changes(fabric)
        ]
        if not made:
            raise SpecError(f"node {self.node} has no cables, so no NIC that could fail")
        return tuple(sorted(made, key=lambda change: change.place.node != self.node))
