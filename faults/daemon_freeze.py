"""A routing daemon that stands still."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, DaemonState, Place, at_node
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("daemon_freeze", area="switch")
@dataclass(frozen=True, slots=True)
class DaemonFreeze:
    """Let FRR's daemons of one router stand still (SIGSTOP); the undo lets them go on.

    Its TCP connections stay open, so neighbours learn of it only by what expects to hear something:
    BFD where *bfdd* stands still, the hold timer where *bgpd* does.

    Reach: processes alone; the kernel goes on forwarding by the routes it has, also towards links
    that have died meanwhile. In a container watchfrr kills and restarts what does not answer for
    some ten seconds.

    Needs: FRR in nodes whose processes are on this machine (embedded, containerlab), as root.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        daemon: `bgpd`, `bfdd`, `zebra`, … or `all`.

    Try:
        daemon_freeze node=spine1
        daemon_freeze node=spine1 daemon=bgpd

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"spine1": Node("spine1", runs="frr")})
        >>> DaemonFreeze("spine1", "bgpd").changes(fabric)[0].describe()
        'spine1: bgpd frozen'
    """

    node: str
    daemon: str = "all"

    def __post_init__(self) -> None:
        DaemonState(Place("any"), self.daemon)  # refuses a name that FRR has not

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One change for all of them."""
        return (DaemonState(at_node(fabric, self.node), self.daemon, "freeze"),)
