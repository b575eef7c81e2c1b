"""A routing daemon that dies."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.change import Change, DaemonState, Place, at_node
from chaos.fabric import Fabric
from chaos.registry import fault


@fault("daemon_kill", area="switch")
@dataclass(frozen=True, slots=True)
class DaemonKill:
    """Kill FRR's daemons of one router (SIGKILL); the undo starts them as they were.

    With the same arguments and environment, with the configuration that the router had, and it
    waits until each answers. Sessions take longer to come back: a neighbour's retry backs off.

    Reach: processes alone; the kernel goes on forwarding by the routes it has. *all* takes zebra
    first, so those routes stay. Without graceful restart (FRR 8.4, measured on a leaf): a *bgpd*
    that dies alone makes zebra take its routes out of the kernel at once, for as long as it is
    dead; a *zebra* costs nothing while it is dead, and some six seconds once it starts, for it
    sweeps the kernel's routes and bgpd is slow to come to it; a *bfdd* makes the neighbours see
    every link dead, which costs a second, and another half when it is back. Where there is another
    way, as around a spine, *bgpd* costs some tens of milliseconds and the others a packet or none.
    In a container watchfrr starts what was killed by itself within seconds: the fault is then the
    death, and the starts are counted (`seen`).

    Needs: FRR in nodes whose processes are on this machine (embedded, containerlab), as root.

    Args:
        node: The router, or `in-use …` for one that the measured traffic crosses.
        daemon: `bgpd`, `bfdd`, `zebra`, … or `all`.

    Try:
        daemon_kill node=spine1
        daemon_kill node=leaf1 daemon=bgpd

    Examples:
        >>> from chaos.fabric import Node
        >>> fabric = Fabric("f", {"spine1": Node("spine1", runs="frr")})
        >>> DaemonKill("spine1").changes(fabric)[0].describe()
        'spine1: every FRR daemon killed'
    """

    node: str
    daemon: str = "all"

    def __post_init__(self) -> None:
        DaemonState(Place("any"), self.daemon)  # refuses a name that FRR has not

    def changes(self, fabric: Fabric) -> tuple[Change, ...]:
        """One change for all of them: their order matters."""
        return (DaemonState(at_node(fabric, self.node), self.daemon, "kill"),)
