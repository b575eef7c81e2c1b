"""Random packet loss on a link, per direction, by an nftables rule on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chaos.change import Change, PacketDrop, Place, aimed, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault
from chaos.units import Percent

ROCE = "udp dport 4791"
_PLAIN = re.compile(r"^[A-Za-z0-9_ .:/@!=<>,&|-]*$")


@fault("packet_loss", area="packets")
@dataclass(frozen=True, slots=True)
class PacketLoss:
    """Lose a share of the packets that an end of a link sends.

    Which ones is random with a seed: the n-th packet that the match meets is lost or not by `seed`
    alone, so a run can be repeated packet by packet. Exactly the asked share of every ten thousand
    (at most 0.5 %: of every million) is lost; within that stretch losses are as random as a draw
    without replacement. Another direction gets another draw.

    Reach: what the kernel carries over the link. Where a sender uses segmentation offload (TSO,
    GSO) one packet here is up to 64 kB of the stream. With `roce`, routing protocols, BFD and ping
    are untouched: no control plane will notice.

    Needs: nftables with family netdev, CAP_NET_ADMIN.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        end: Whose packets are lost: `both`, a node at the link, or `near`/`far`.
        share: Share lost: 0.0001 % to 100 %; above 0.5 % in steps of 0.01 %.
        roce: Only RoCEv2 (UDP destination port 4791).
        match: Further nftables expression, such as `ip saddr 10.0.0.1`.
        seed: Of the pattern.

    Try:
        packet_loss link=leaf1--spine1 share=1%
        packet_loss link=leaf1--spine1 share=100% roce=true end=leaf1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> loss = PacketLoss("leaf1--spine1", share=Percent(1), end="leaf1", roce=True)
        >>> loss.changes(fabric)[0].describe()
        'leaf1:eth1~wire: drop 1 % of udp dport 4791 at ingress'
    """

    link: str
    share: Percent
    end: str = "both"
    roce: bool = False
    match: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.share.millionths == 0:
            raise SpecError(f"a lost share must be at least 0.0001 %, got {self.share}")
        if not _PLAIN.match(self.match):
            raise SpecError(
                f"match must be one nftables expression without braces, quotes, ; or line breaks, "
                f"got {self.match!r}"
            )
        self._drop(Place("any", "any", "wire"), 0)  # refuses a share that no pattern can have

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One drop per direction."""
        _, ends = aimed(fabric, self.link, self.end)
        return tuple(self._drop(Place.at(port, "wire"), at) for at, port in enumerate(ends))

    def _drop(self, place: Place, at: int) -> PacketDrop:
        match = " ".join(filter(None, (ROCE if self.roce else "", self.match.strip())))
        table = table_name("packet_loss", place, self)
        return PacketDrop(place, table, match, self.share.millionths, self.seed * 2 + at)
