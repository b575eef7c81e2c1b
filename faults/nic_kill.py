"""A host that loses a NIC: some of its ports at once, or all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from chaos.change import Change, DeviceGone, Place, refuse_in_use
from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link
from chaos.registry import fault
from faults.link_down import LinkDown

Device = Literal["unbind", "remove", "reload"]


@fault("nic_kill", area="nic")
@dataclass(frozen=True, slots=True)
class NicKill:
    """Take every port of one NIC from a node: all its planes and rails at once, or those named.

    *carrier*: the NIC dies or its transceiver does; both ends of each cable go dark, and the ports
    stay admin-up. *admin*: the host shuts its ports; they lose routes, permanent neighbours and
    IPv6 addresses (the undo puts them back), and the other ends go dark.

    On machines also the device itself: *unbind*: its driver lets go of it, as after a fatal error
    of its firmware. *remove*: it leaves the PCI bus, as when it falls off it or is pulled.
    *reload*: devlink starts the driver anew; it is back in a moment, with nothing set. Interfaces
    and RDMA devices go, and with them addresses, routes, neighbours, MTU, MAC address and settings:
    all written down before, put back after, also under another name. `hit`: interfaces that went.

    Reach: as `link_down` of the same mode. *unbind*, *remove* and *reload* reach PCI devices alone,
    so neither the embedded fabric nor labs; and take all ports that lie on the device. What a tool
    of the host set on the NIC beside that (rings, channels, coalescing, offloads, PFC) is the
    driver's default afterwards; sockets bound to the interface and RDMA connections do not come
    back. Where a network manager runs, it may set the interface up before the undo does.

    Needs: CAP_NET_ADMIN, and wires that can be reached: see `link_down`. For the device: root; no
    bond, bridge or VLAN on it, no virtual functions, no qdisc or nftables chain of somebody's on
    it: each is refused by name. *reload*: the tool devlink, and a driver that can (mlx5, ice, …).

    Args:
        node: The host, or `in-use …`.
        ports: Ports of the NIC, as in the topology file; none: every port with a cable.
        mode: `carrier` or `admin`; on machines also `unbind`, `remove` or `reload`.

    Try:
        nic_kill node=host1
        nic_kill node=host1 ports=eth1 mode=admin
        nic_kill node=host1 ports=eth1 mode=remove

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("host1", "eth1"), Port("leaf1", "eth1"))
        >>> fabric = Fabric("f", {"host1": Node("host1"), "leaf1": Node("leaf1")}, (cable,))
        >>> [change.describe() for change in NicKill("host1").changes(fabric)]
        ['host1:eth1~wire: no carrier', 'leaf1:eth1~wire: no carrier']
        >>> [change.describe() for change in NicKill("host1", mode="remove").changes(fabric)]
        ['host1:eth1: its PCI device leaves the bus']
    """

    node: str
    ports: tuple[str, ...] = ()
    mode: Literal["carrier", "admin", "unbind", "remove", "reload"] = "carrier"

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Those of `link_down` at each port, the node's own ends first; or one per device."""
        refuse_in_use("node", self.node)
        cables = [link for link in fabric.links_of(self.node) if len(link.ports) == 2]
        own = {link.port_of(self.node).name: link for link in cables}
        for name in self.ports:
            if name not in own:
                raise SpecError(
                    f"{self.node} has no port {name!r} with a cable; {near(name, own)}",
                    field="ports",
                )
        if not own:
            raise SpecError(f"node {self.node} has no cables, so no NIC that could fail")
        meant = {name: link for name, link in own.items() if name in (self.ports or own)}
        if self.mode in get_args(Device):
            return self._devices(fabric, meant, tuple(own))
        mode = cast(Literal["carrier", "admin"], self.mode)
        end = self.node if mode == "admin" else "both"
        made = [
            change
            for link in meant.values()
            for change in LinkDown(link.id, mode, end).changes(fabric)
        ]
        return tuple(sorted(made, key=lambda change: change.place.node != self.node))

    def _devices(
        self, fabric: Fabric, meant: Mapping[str, Link], every: tuple[str, ...]
    ) -> tuple[Change, ...]:
        """One change per PCI device, as far as the machine told which port lies on which."""
        told = fabric.node(self.node).settings.get("ssh", {}).get("pci", {})
        shared: dict[str, list[str]] = {}
        for name in (*meant, *(name for name in every if name not in meant)):
            shared.setdefault(told.get(name, name), []).append(name)
        return tuple(
            DeviceGone(Place(self.node, ports[0]), cast(Device, self.mode), tuple(ports[1:]))
            for ports in shared.values()
            if ports[0] in meant
        )
