"""The store that ranks meet through cannot be reached any more."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, PacketDrop, Place, refuse_in_use, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault

TORCHRUN = 29500


@fault("rendezvous_loss", area="job")
@dataclass(frozen=True, slots=True)
class RendezvousLoss:
    """Cut the rendezvous off: drop what is sent to one TCP port of a node, and what it answers.

    Connections stand and fall silent; a job that is in its collectives does not notice. What needs
    the store (a restart, a new group, a keep-alive) waits for its own timeout.

    Reach: packets over the node's links in the fabric, to and from that port. A job whose store is
    on another network is not hit, and neither is a rank on the same node. The job of this
    project's probe `collective` is never hit: its ranks meet through memory or the coordinator.

    Needs: nftables with family netdev, CAP_NET_ADMIN.

    Args:
        node: The node with the store (`MASTER_ADDR`), or `in-use …`.
        port: Its TCP port (`MASTER_PORT`); torchrun's by default.

    Try:
        rendezvous_loss node=host1
        rendezvous_loss node=host1 port=29400

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("host1", "eth1"), Port("leaf1", "eth1"))
        >>> fabric = Fabric("f", {"host1": Node("host1"), "leaf1": Node("leaf1")}, (cable,))
        >>> for change in RendezvousLoss("host1").changes(fabric):
        ...     print(change.describe())
        host1:eth1~wire: drop tcp sport 29500 at ingress
        leaf1:eth1~wire: drop tcp dport 29500 at ingress
    """

    node: str
    port: int = TORCHRUN

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise SpecError(f"a port is 1 to 65535, got {self.port}", field="port")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Two drops per link of the node: what it answers, and what is sent to it."""
        refuse_in_use("node", self.node)
        made: list[Change] = []
        for link in fabric.links_of(self.node):
            if len(link.ports) < 2 or link.a.node == link.b.node:
                continue
            own = link.port_of(self.node)
            for port, words in ((own, "sport"), (link.other(own), "dport")):
                place = Place.at(port, "wire")
                table = table_name("rendezvous_loss", place, self, words)
                made.append(PacketDrop(place, table, f"tcp {words} {self.port}"))
        if not made:
            raise SpecError(f"node {self.node} has no links, so nobody reaches a store on it")
        return tuple(made)
