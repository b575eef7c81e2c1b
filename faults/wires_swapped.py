"""Two cables plugged into each other's ports."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, Place, WireTo, refuse_in_use, table_name
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Port
from chaos.registry import fault


@fault("wires_swapped", area="link")
@dataclass(frozen=True, slots=True)
class WiresSwapped:
    """Exchange the plugs of two cables at one end, as a technician in a hurry does.

    Every port stays up and every light is green. What is wired wrongly shows in who is at the other
    end: LLDP (`railbreak fabric verify`), addresses that nobody answers, sessions that do not come.
    Where routing runs over whatever is plugged in (BGP unnumbered between switches) the fabric may
    work on, with cables that nobody knows of.

    Reach: everything on those two cables, LLDP and BFD too. Carriers do not blink, as they would
    when plugs are pulled. It is the cabling that is wrong, so no host and no switch shows a change.

    Needs: a fabric whose cables can be led elsewhere: the embedded one.

    Args:
        link: One cable: id, node pair, or `in-use …`.
        other: The other cable. Their plugs are exchanged at a node that both end at, if any.

    Try:
        wires_swapped link=leaf1--spine1 other=leaf1--spine2
        wires_swapped link=host1--leaf1 other=host2--leaf1

    Examples:
        >>> from chaos.fabric import Node
        >>> cables = tuple(Link(Port(f"host{n}", "eth1"), Port("leaf1", f"eth{n}")) for n in (1, 2))
        >>> fabric = Fabric("f", {name: Node(name) for name in ("host1", "host2", "leaf1")}, cables)
        >>> for change in WiresSwapped("host1--leaf1", "host2--leaf1").changes(fabric):
        ...     print(change.describe())
        host1:eth1~wire: what it sends arrives at leaf1:eth2
        leaf1:eth2~wire: what it sends arrives at host1:eth1
        host2:eth1~wire: what it sends arrives at leaf1:eth1
        leaf1:eth1~wire: what it sends arrives at host2:eth1
    """

    link: str
    other: str

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """Four: each of the four ports sends to another one."""
        refuse_in_use("link", self.link)
        first, second = fabric.link(self.link), fabric.link(self.other)
        if first == second:
            raise SpecError(f"{first.id} cannot be exchanged with itself", field="other")
        for link in (first, second):
            if len(link.ports) < 2:
                raise SpecError(f"link {link.id} has one end only; there is no cable to exchange")
        here, there = _plugs(first, second)
        return tuple(
            WireTo(place, table_name("wires_swapped", place, self), to.id)
            for stays, to in ((first.other(here), there), (second.other(there), here))
            for place, to in ((Place.at(stays, "wire"), to), (Place.at(to, "wire"), stays))
        )


def _plugs(first: Link, second: Link) -> tuple[Port, Port]:
    """The plugs that are exchanged: at a node of both, else at the ends that sort last."""
    shared = [name for name in second.nodes if name in first.nodes]
    if shared:
        return first.port_of(shared[0]), second.port_of(shared[0])
    return first.b, second.b
