"""A dirty or dying optic: frames lost by a bit error rate, the longer the likelier."""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p

from chaos.change import Change, PacketDrop, Place, aimed, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault

HEADER = 18  # bytes of a frame beside its packet: Ethernet header and check sequence
JUMBO = 9216  # bytes of the longest packet where nothing says a link's MTU
#: Classes of packets by their greatest length, and the length that their share is worked out for
#: (None: the link's MTU). Acknowledgements, mid-sized messages, full packets, jumbo packets.
CLASSES: tuple[tuple[int, int | None], ...] = ((255, 128), (1023, 640), (2047, 1500), (65535, None))


def lost_share(ber: float, packet: int) -> float:
    """Share of frames with a packet of so many bytes that hold at least one wrong bit.

    Examples:
        >>> round(lost_share(1e-7, 1500), 6)
        0.001214
    """
    return -expm1(8 * (packet + HEADER) * log1p(-ber))


@fault("dirty_optic", area="link")
@dataclass(frozen=True, slots=True)
class DirtyOptic:
    """Lose what an end of a link sends, packet by packet, as bits go wrong at a given rate.

    A frame of n bytes passes when all its 8 n bits are right, so it is lost with probability
    1 - (1 - ber)^(8 n), n being the packet and 18 bytes. Long packets are lost, short ones are not:
    at 1e-7 it is 0.12 % of 1500-byte packets and 0.012 % of acknowledgements. Packets fall into
    four classes by length, each with the share of its typical length, and which ones are lost is
    fixed by the seed (see `packet_loss`).

    Reach: what the kernel carries over the link. The rate is the one *after* error correction:
    RS(544,514) makes 1e-12 of a 2.4e-4 before it. Real bit errors come in bursts once the code is
    overcome; these are single. A NIC drops such frames by their check sequence before anyone sees
    them, so they are lost here too. The 2^-32 of them that would pass, and frames spoilt behind the
    check (a switch's memory), which arrive with a bad ICRC, are not made: `packet_fault` with
    `then: corrupt` makes them, at a share of all packets whatever their length. No counter of FCS
    errors rises. Where a sender uses segmentation offload one
    packet here is up to 64 kB of the stream, and counts as the link's longest.

    Needs: nftables with family netdev, CAP_NET_ADMIN.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        ber: Share of bits that arrive wrong, such as 1e-8.
        end: Whose laser: `both`, a node at the link, or `near`/`far`.
        seed: Of the pattern.

    Try:
        dirty_optic link=leaf1--spine1 ber=1e-7 end=leaf1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"), mtu=9500)
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> for one in DirtyOptic("leaf1--spine1", 1e-8, "leaf1").changes(fabric):
        ...     print(one.describe())
        leaf1:eth1~wire: drop 0.0012 % of meta length 0-255 at ingress
        leaf1:eth1~wire: drop 0.0053 % of meta length 256-1023 at ingress
        leaf1:eth1~wire: drop 0.0121 % of meta length 1024-2047 at ingress
        leaf1:eth1~wire: drop 0.0761 % of meta length 2048-65535 at ingress
    """

    link: str
    ber: float
    end: str = "both"
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.ber <= 0.01:
            raise SpecError(
                f"ber is a share of bits, above 0 and at most 0.01, got {self.ber:g}", field="ber"
            )

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One drop per direction and class of length, where a millionth or more is lost."""
        link, ends = aimed(fabric, self.link, self.end)
        made: list[Change] = []
        for port in ends:
            place, least = Place.at(port, "wire"), 0
            for most, typical in CLASSES:
                share = lost_share(self.ber, typical or link.mtu or JUMBO)
                match, least = f"meta length {least}-{most}", most + 1
                if lost := _allowed(share):
                    table = table_name("dirty_optic", place, self, most)
                    made.append(PacketDrop(place, table, match, lost, self.seed * 16 + len(made)))
        if not made:
            least_ber = 1e-6 / (8 * ((link.mtu or JUMBO) + HEADER))
            raise SpecError(
                f"at a ber of {self.ber:g} less than one in a million of the longest packets of "
                f"{link.id} is lost; the least is {least_ber:.1g}",
                field="ber",
            )
        return tuple(made)


def _allowed(share: float) -> int:
    """Millionths, in the steps that a pattern of drops can have."""
    millionths = round(share * 1e6)
    return millionths if millionths <= 5000 else round(millionths, -2)
