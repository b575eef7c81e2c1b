"""A link on which BFD alone is lost."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, PacketDrop, Place, aimed, table_name
from chaos.fabric import Fabric
from chaos.registry import fault

#: Control packets, echoes, and control packets over several hops.
BFD = "udp dport { 3784, 3785, 4784 }"


@fault("bfd_down", area="switch")
@dataclass(frozen=True, slots=True)
class BfdDown:
    """Lose the BFD packets that an end of a link sends; everything else passes.

    The detector fails and the link is well: sessions that hang on BFD fall, and traffic leaves a
    link that could have carried it.

    Reach: BFD over IPv4 and IPv6, control and echo, that the kernel carries over the link. BGP
    without BFD does not notice. BFD in hardware bypasses the kernel.

    Needs: nftables with family netdev, CAP_NET_ADMIN.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        end: Whose packets are lost: `both`, a node at the link, or `near`/`far`.

    Try:
        bfd_down link=leaf1--spine1
        bfd_down link=leaf1--spine1 end=spine1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> BfdDown("leaf1--spine1", "leaf1").changes(fabric)[0].describe()
        'leaf1:eth1~wire: drop udp dport { 3784, 3785, 4784 } at ingress'
    """

    link: str
    end: str = "both"

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One drop per direction."""
        _, ends = aimed(fabric, self.link, self.end)
        places = [Place.at(port, "wire") for port in ends]
        return tuple(PacketDrop(one, table_name("bfd_down", one, self), BFD) for one in places)
