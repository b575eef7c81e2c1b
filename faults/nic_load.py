"""A NIC, and the links behind it, that somebody else's traffic uses too."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Load, Place, refuse_in_use, tag_of
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import fault
from chaos.units import Bitrate, Size

DATAGRAM = Size(1400)
DISCARD = 9


@fault("nic_load", area="nic")
@dataclass(frozen=True, slots=True)
class NicLoad:
    """Send UDP from one host to another at a given rate, as a backup or another job would.

    Real packets over the fabric, by processes that are born for it and die with whoever started
    them. Nobody has to receive: the target answers the first with *port unreachable*, once a second
    at most. `seen` are the datagrams tried, `hit` those that the sending kernel took.

    Reach: the path that these flows take, one per process, as ECMP decides; it need not be the
    job's. UDP does not slow down, so it takes what TCP leaves and more. It costs processor time at
    the source. One process sends some ten thousand packets per second; `hit` says what went.

    Needs: an address of `to` on `interface` in the topology file or the inventory; the right to
    start processes at `node`.

    Args:
        node: The host that sends, or `in-use …`.
        to: The host that is sent to.
        rate: Payload bits per second, of all processes together.
        interface: The interface of both hosts that carries it.
        processes: How many send; each is a flow of its own.
        size: Payload of a datagram; what is beyond the MTU is cut.
        port: UDP port that is sent to.

    Try:
        nic_load node=host1 to=host8 rate=50Mbit/s
        nic_load node=host1 to=host8 rate=1Gbit/s processes=4 size=8000B

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> nodes = {f"host{n}": Node(f"host{n}", addresses={"eth1": (f"10.0.0.{n}/24",)})
        ...          for n in (1, 2)}
        >>> fabric = Fabric("f", nodes, (Link(Port("host1", "eth1"), Port("host2", "eth1")),))
        >>> load = NicLoad("host1", "host2", Bitrate.parse("50 Mbit/s"))
        >>> [one.describe() for one in load.changes(fabric)]
        ['host1:eth1: 1 process, nice 0, sending 50 Mbit/s in datagrams of 1400 B to 10.0.0.2 \
port 9']
    """

    node: str
    to: str
    rate: Bitrate
    interface: str = "eth1"
    processes: int = 1
    size: Size = DATAGRAM
    port: int = DISCARD

    def __post_init__(self) -> None:
        self._load("any", "192.0.2.1")  # refuses what cannot be sent

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One load at the sending host."""
        refuse_in_use("node", self.node)
        if self.node == self.to:
            raise SpecError(f"{self.to} sends to itself: that crosses no NIC", field="to")
        known = fabric.node(self.to).addresses.get(self.interface, ())
        if not known:
            raise SpecError(
                f"nothing says which address {self.to} has on {self.interface}: the topology file "
                "by exec lines (ip addr add …), or the inventory",
                field="to",
            )
        fabric.node(self.node)
        return (self._load(self.node, known[0].partition("/")[0]),)

    def _load(self, node: str, address: str) -> Load:
        place = Place(node, self.interface)
        return Load(
            place,
            tag_of(place, self),
            "udp",
            self.processes,
            target=address,
            port=self.port,
            size=self.size.bytes,
            rate_bps=self.rate.bps,
        )
