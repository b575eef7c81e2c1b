"""A port that pauses its peer without end: frames of priority flow control, each before the last
has run out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from chaos.change import Change, PauseStorm, Place, aimed, tag_of
from chaos.errors import SpecError
from chaos.fabric import Fabric
from chaos.registry import InForce, fault
from chaos.units import Bitrate, Duration

USUAL = Duration.parse("10 s")
LONGEST = Duration.parse("60 s")
#: A sender that the undo is late for is not taken for one that somebody else ended.
_SPARE_NS = 1_000_000_000


@fault("pfc_storm", area="nic")
@dataclass(frozen=True, slots=True)
class PfcStorm:
    """Keep traffic classes of a port paused from the other end of its link, as a sick NIC does.

    A process at `end` sends pause frames (IEEE 802.1Qbb): the port that gets one sends nothing of
    these priorities for as many quanta as it says, each the time of 512 bits. Half before they run
    out it gets the next. The undo sends frames of no quanta. `hit` are the frames that the sending
    kernel took. Where the pause ran out for more than 1 % of the time, since the process was not
    let run, that is told and makes the trial inconclusive.

    Reach: the port at the other end, where it honours PFC for these priorities, and from there
    *everything that waits for it*: a switch whose buffer fills pauses its own neighbours, and so
    on; one storm can stop a whole pod. So it counts as taking out every cable of the node that is
    paused: what real machines allow by default is less, and has to be raised by name (`--limit
    hosts_isolated=16`). It lasts `at_most`. Traffic of other priorities goes on. A switch with a
    PFC watchdog ends it from its side: after the detection time it drops the queue's packets
    instead of holding them (loss in place of a standstill), and restores it some time after the
    undo. A NIC may refuse to send what looks like flow control of its own (`hit` counts what its
    kernel took): look at the peer's counters (`nic_counters`).

    Needs: CAP_NET_RAW and a Linux host at `end`, by a port of its own. At the other end a port that
    honours PFC: a host's driver is asked (DCB, as `dcb pfc show` does); for a switch the inventory
    says it (`railbreak: {pfc: {Ethernet4: 3}}`). Veth pairs honour none, so the embedded fabric and
    labs refuse.

    Args:
        link: One link.
        end: The end that sends.
        speed: Speed of the link; from it follows how long a quantum lasts.
        priorities: The classes that are paused, 0 to 7.
        at_most: The sender ends after so long, whatever else; 60 s at most.

    Try:
        pfc_storm link=host1--leaf1 end=host1 speed=400Gbit/s
        pfc_storm link=host1--leaf1 end=host1 speed=100Gbit/s priorities=3,4 at_most=2s

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("gpu1", "eth1"), Port("leaf1", "eth4"))
        >>> fabric = Fabric("f", {"gpu1": Node("gpu1"), "leaf1": Node("leaf1")}, (cable,))
        >>> storm = PfcStorm("gpu1--leaf1", "gpu1", Bitrate.parse("100 Gbit/s"))
        >>> [one.describe() for one in storm.changes(fabric)]
        ['gpu1:eth1: pauses priority 3 of leaf1:eth4, a frame each 167.8 us (65535 quanta last \
335.5 us at 100 Gbit/s), 11 s at most']
    """

    link: str
    end: str
    speed: Bitrate
    priorities: tuple[int, ...] = (3,)
    at_most: Duration = USUAL

    def __post_init__(self) -> None:
        if not 0 < self.at_most.ns <= LONGEST.ns:
            raise SpecError(
                f"a pause storm can stop a pod: at_most must be above 0 and {LONGEST} at most, "
                f"got {self.at_most}",
                field="at_most",
            )
        self._storm(Place("any", "any"), "any:any")  # refuses what no frame can say

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One sender, at the end that sends."""
        cable, ends = aimed(fabric, self.link, self.end)
        if len(cable.ports) < 2:
            raise SpecError(f"link {cable.id} has no other end that could be paused", field="link")
        if len(ends) > 1:
            raise SpecError(
                f"end both: each would pause the other; name the one that sends, "
                f"{' or '.join(cable.nodes)}",
                field="end",
            )
        (port,) = ends
        return (self._storm(Place.at(port), cable.other(port).id),)

    def schedule(self, storm: Duration, rng: random.Random) -> tuple[InForce, ...]:
        """From the start, for the storm, and no longer than `at_most`."""
        return (InForce(0, min(storm.ns, self.at_most.ns)),)

    def _storm(self, place: Place, to: str) -> PauseStorm:
        return PauseStorm(
            place,
            tag_of(place, self),
            to,
            self.priorities,
            self.speed.bps,
            most_ns=self.at_most.ns + _SPARE_NS,
        )
