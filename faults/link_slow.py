"""A link that carries less than its name says."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Place, PortShape, aimed
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link
from chaos.registry import fault
from chaos.units import Bitrate, Duration, Size

HEADER = 18  # bytes of an Ethernet header with a VLAN tag
JUMBO = 9216  # bytes of the longest packet where nothing says a link's MTU
BURST, LATENCY = Size(1 << 18), Duration(20_000_000)


@fault("link_slow", area="link")
@dataclass(frozen=True, slots=True)
class LinkSlow:
    """Let what an end of a link sends go no faster than a rate, as a link that trained down.

    A token bucket (tbf): `burst` may go at once, what waits longer than `latency` is dropped. Below
    the rate nothing changes, and neither interface shows a lower speed.

    Reach: what the kernel sends over that link. In the embedded fabric the bucket is on the hidden
    wire, so the sender feels it as a slow wire and not as its own full queue; elsewhere it is at
    the sending port, where a local TCP sender is told of drops. RDMA of a NIC that bypasses the
    kernel is not slowed. Packets that wait when it is taken back are lost. In `burst` bytes the
    bucket is as fast as ever, so a job in short bursts feels less than the rate says.

    Needs: CAP_NET_ADMIN, sch_tbf, and a port without a queueing discipline of somebody's own.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        rate: Bits per second.
        end: Whose packets are slow: `both`, a node at the link, or `near`/`far`.
        burst: What may go at once; at least the link's largest packet.
        latency: Longest wait in the queue.

    Try:
        link_slow link=leaf1--spine1 rate=100Mbit/s
        link_slow link=leaf1--spine1 rate=1Gbit/s end=leaf1 latency=5ms

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> slow = LinkSlow("leaf1--spine1", Bitrate.parse("100 Mbit/s"), end="leaf1")
        >>> [one.describe() for one in slow.changes(fabric)]
        ['spine1:eth1~wire: sends at most 100 Mbit/s, 262144 B at once, 512144 B waiting']
    """

    link: str
    rate: Bitrate
    end: str = "both"
    burst: Size = BURST
    latency: Duration = LATENCY

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One bucket per direction, where the packets of the named end leave the wire."""
        waiting = self.rate.bps * self.latency.ns // 8_000_000_000
        return shaped(fabric, self.link, self.end, self.rate, self.burst.bytes, waiting)


def longest_of(link: Link) -> int:
    """Bytes of a link's longest packet with its header."""
    return (link.mtu or JUMBO) + HEADER


def shaped(
    fabric: Fabric, link: str, end: str, rate: Bitrate, burst: int, waiting: int
) -> tuple[Change, ...]:
    """Buckets for what the ends named send; `burst` and `waiting` in bytes.

    Raises:
        SpecError: no such link or end, or the longest packet would never pass.
    """
    found, ends = aimed(fabric, link, end)
    if len(found.ports) < 2:
        raise SpecError(f"link {found.id} has one end only; there is no cable to be slow")
    longest = longest_of(found)
    if burst < longest:
        raise SpecError(
            f"burst must be at least {longest} B, the longest packet of {found.id}, or it would "
            f"never pass; got {burst} B",
            field="burst",
        )
    bps = rate.bps // 8 * 8
    places = (Place.at(found.other(port), "wire") for port in ends)
    return tuple(PortShape(place, bps, burst, burst + waiting) for place in places)
