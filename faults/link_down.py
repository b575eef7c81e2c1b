"""A link that goes down: by an administrator, by a pulled cable, or silently."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, LinkState, PacketDrop, Place, aimed, table_name
from chaos.errors import SpecError, near
from chaos.fabric import Fabric
from chaos.registry import fault

MODES = ("carrier", "admin", "silent")


@fault("link_down", area="link")
@dataclass(frozen=True, slots=True)
class LinkDown:
    """Take one link out of service.

    Three modes, since they are noticed by different things. *carrier*: the cable is pulled; the
    named end, or both, loses its carrier and stays admin-up. *admin*: the named end is shut down;
    it loses its routes, permanent neighbours and IPv6 addresses (the undo puts them back), and the
    opposite end loses its carrier, as with a laser that goes dark. *silent*: what the named end
    sends vanishes; neither end's interface shows anything.

    Reach: every packet the kernel sends over that link, where its wire can be reached: the embedded
    fabric, stitched links of Containerlab (a plain veth pair cannot lose its carrier alone), and
    machines at the opposite port. A one-sided carrier loss also swallows what the other end sends,
    which keeps its carrier. Traffic of a NIC that bypasses the kernel is not hit by *silent*.

    Needs: CAP_NET_ADMIN; nftables for *silent*.

    Args:
        link: One link: id, node pair, or `in-use …` for one that the measured traffic crosses.
        mode: `carrier`, `admin` or `silent`.
        end: `both`, a node at the link, or `near`/`far` as seen from the traffic's source.

    Try:
        link_down link=leaf1--spine1
        link_down link=leaf1--spine1 mode=admin end=leaf1
        link_down link=leaf1--spine1 mode=silent end=spine1

    Examples:
        >>> from chaos.fabric import Link, Node, Port
        >>> cable = Link(Port("leaf1", "eth1"), Port("spine1", "eth1"))
        >>> fabric = Fabric("f", {"leaf1": Node("leaf1"), "spine1": Node("spine1")}, (cable,))
        >>> for change in LinkDown("leaf1--spine1", mode="admin", end="leaf1").changes(fabric):
        ...     print(change.describe())
        leaf1:eth1: admin down
        spine1:eth1~wire: no carrier
    """

    link: str
    mode: str = "carrier"
    end: str = "both"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SpecError(f"link_down has no mode {self.mode!r}; {near(self.mode, MODES)}")

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One change per end that is touched."""
        link, ends = aimed(fabric, self.link, self.end)
        if len(link.ports) < 2:
            raise SpecError(f"link {link.id} has one end only; there is no cable to break")
        if self.mode == "silent":
            return tuple(self._drop(Place.at(port, "wire")) for port in ends)
        if self.mode == "carrier":
            return tuple(LinkState(Place.at(port, "wire")) for port in ends)
        shut: list[Change] = [LinkState(Place.at(port)) for port in ends]
        dark = (link.other(port) for port in ends if link.other(port) not in ends)
        return (*shut, *(LinkState(Place.at(port, "wire")) for port in dark))

    def _drop(self, place: Place) -> PacketDrop:
        return PacketDrop(place, table_name("link_down", place, self))
