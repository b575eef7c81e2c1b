"""A rule on the packets of a link: which ones, when, and what becomes of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change, PacketRule, Place, aimed, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.packets import Rule, Selector, When
from chaos.packets.action import DROP, Action
from chaos.packets.engines import AUTO, named
from chaos.packets.selector import EVERYTHING
from chaos.packets.when import THROUGHOUT
from chaos.registry import InForce, fault
from chaos.units import Duration


@fault("packet_fault", area="packets")
@dataclass(frozen=True, slots=True)
class PacketFault:
    """Lose, mark, break, hold or forge chosen packets that an end of a link sends, repeatably.

    The packets that `select` means are counted; `when` says on which of them it acts, and the same
    seed means the same ordinals. `docs/packets.md` is the language. The counters `seen`, `hit` and
    `passed` of a direction always add up: seen = hit + passed.

    Reach: what the kernel carries over the link. RoCEv2 of a NIC with hardware offload bypasses the
    kernel of its host and meets no rule there, but does on a software switch. Where a sender uses
    segmentation offload one packet here is up to 64 kB of the stream. Under two VLAN tags nothing
    is recognised as IP. A later fragment has no ports. Rewriting asks for IP, so other frames are
    not seen then. With several CPUs receiving, ordinals follow the order in which they count. Delay
    and rate are done by queues of the kernel (netem, htb) where it has them. What a worker does
    (reorder, silent corruption, forged answers, else delay and rate) costs a process per packet,
    and is for some ten thousand packets per second. On a lab or a machine it acts where the node at
    the other end receives (engine nfqueue): frames that are not IP, and what comes in under a VLAN,
    bond or bridge of that port, are not seen there; with `engine: netem` or `htb` what the node
    sends is held at its own port. `duplicate` needs both inner ends of a cable, which only the
    embedded fabric has.

    Needs: nftables with family netdev, CAP_NET_ADMIN; for queues sch_htb, sch_netem; for a worker
    libnftables, and /dev/net/tun or nfnetlink_queue.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        end: Whose packets are meant: `both`, a node at the link, or `near`/`far`.
        select: Which packets: `family`, `source`, `destination`, `protocol`, `sport`, `dport`,
            `dscp`, `ecn`; RoCEv2: `roce`, `opcode`, `dest_qp`, `psn`, `ack_request`, `syndrome`.
        when: On which of them: `all`, `first`, `after`, `every` and `offset`, `random` and `seed`,
            `psn` (once), `enter`, `leave`, `bad`, `good` and `seed` (bursts). And at which times
            within the fault: `from`, `until`; in turns `on` and `off` (or `frequency`), `count`,
            `jitter`. Each time in force counts its packets from the first.
        then: `drop`, `ce` (mark congestion), `bleach` (take ECN away), `dscp` with a code point,
            `fecn`, `becn`, `corrupt` (a checksum that does not fit; `corrupt=silent`: one that
            does), `duplicate`, `delay` and `jitter`, `reorder` and `within`, `rate` and `queue`,
            `forge` (an answer that nobody gave, or `cnp` and `qp`).
        engine: What does it: `auto`, the first that can and is there; or `nftables`, `netem`,
            `htb`, `nfqueue`, `worker`.

    Try:
        packet_fault link=leaf1--spine1 end=leaf1 select="opcode=nak" when="first=3"
        packet_fault link=leaf1--spine1 select="roce=true" when="random=0.1% seed=3"
        packet_fault link=leaf1--spine1 when="enter=1% leave=20%"
        packet_fault link=leaf1--spine1 when="random=10% from=1s until=3s"
        packet_fault link=leaf1--spine1 when="first=3 on=100ms off=400ms"
        packet_fault link=leaf1--spine1 select="ecn=ect" when="every=100" then=ce
        packet_fault link=leaf1--spine1 select="roce=true" when="random=0.1%" then=corrupt
        packet_fault link=leaf1--spine1 select="roce=true" then="delay=2ms jitter=1ms"
        packet_fault link=leaf1--spine1 select="roce=true" then="rate=1Gbit/s" engine=htb
        packet_fault link=leaf1--spine1 select="opcode=data" when="every=500" then="reorder=3"
        packet_fault link=leaf1--spine1 select="opcode=data" when="psn=1000" then="corrupt=silent"
        packet_fault link=leaf1--spine1 when="first=1" then="forge=remote_access_error"

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> naks = Selector.parse({"opcode": "nak"})
        >>> lost = PacketFault("leaf1--spine1", "leaf1", naks, When.parse({"first": 3}))
        >>> lost.changes(fabric)[0].describe()
        'leaf1:eth1~wire: drop on first=3 of opcode=nak at ingress'
    """

    link: str
    end: str = "both"
    select: Selector = EVERYTHING
    when: When = THROUGHOUT
    then: Action = DROP
    engine: str = AUTO

    def __post_init__(self) -> None:
        named(self.engine, self.then)
        rule = Rule(self.select, self.when.of, self.then)
        rule.nft("t", "i", across="a")  # refuses what cannot be compiled

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One rule per direction; what is drawn is drawn anew for each."""
        _, ends = aimed(fabric, self.link, self.end)
        rule = Rule(self.select, self.when.of, self.then)
        text = f"{self.then} on {self.when} of {self.select}"  # two windows are two tables
        return tuple(
            PacketRule(
                place, table_name("packet_fault", place, text), rule.towards(at), self.engine
            )
            for at, place in enumerate(Place.at(port, "wire") for port in ends)
        )

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """The whole storm, or what `when` says of it."""
        try:
            return self.when.spans(storm, rng)
        except SpecError as error:
            raise SpecError(error.reason, field=f"when{error.field}") from None
