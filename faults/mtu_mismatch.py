"""A link whose ends disagree on the largest packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from chaos.change import Change, Place, PortMtu, aimed
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault
from chaos.units import Size

USUAL = Size(1500)


@fault("mtu_mismatch", area="link")
@dataclass(frozen=True, slots=True)
class MtuMismatch:
    """Give one end of a link a smaller MTU than the other.

    Small packets pass, so links, BFD, BGP and ping stay up. What the other end sends beyond the new
    MTU is dropped as it arrives, and nobody is told. What this end has to send beyond it is cut, or
    refused: a router tells the sender (ICMP too big), a host's own TCP sends less at once.

    Below 1280 bytes the kernel also takes IPv6 from the interface, and with it sessions that run
    over link-local addresses (BGP unnumbered). The undo puts back addresses, routes, neighbours and
    settings; a daemon puts back what is its own.

    Reach: packets longer than the MTU. Between virtual interfaces a TCP segment that the sender's
    segmentation offload left whole passes whatever its length (checksum offload is off in the
    embedded fabric, and there such segments are cut before). A NIC in hardware may take some
    hundred bytes more than its MTU, may lose its carrier for a moment when it is set, and RDMA
    takes the next smaller of 256, 512, 1024, 2048, 4096.

    Needs: CAP_NET_ADMIN.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        end: The end that gets it: a node at the link, or `near`/`far`.
        mtu: Its new MTU, at least 68 B and less than the link's.

    Try:
        mtu_mismatch link=leaf1--spine1 end=leaf1
        mtu_mismatch link=host1--leaf1 end=host1 mtu=1000B

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"), mtu=9500)
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> [one.describe() for one in MtuMismatch("leaf1--spine1", "leaf1").changes(fabric)]
        ['leaf1:eth1: MTU 1500']
    """

    #: It bites what either end sends.
    mode: ClassVar[str] = "both ways"

    link: str
    end: str
    mtu: Size = USUAL

    def __post_init__(self) -> None:
        if self.end == "both":
            raise SpecError("two ends with one MTU are no mismatch; name one end", field="end")
        PortMtu(Place("any", "any"), self.mtu.bytes)  # refuses what no interface can have

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One MTU, at the end named."""
        link, ends = aimed(fabric, self.link, self.end)
        if 0 < link.mtu <= self.mtu.bytes:  # 0: nothing says it
            raise SpecError(
                f"mtu must be less than that of {link.id}, {link.mtu} B, got {self.mtu}",
                field="mtu",
            )
        return tuple(PortMtu(Place.at(port), self.mtu.bytes) for port in ends)
