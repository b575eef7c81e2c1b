"""The driver `ssh`: machines that are there already, reached over SSH.

inventory ──▶ adopt ──▶ Fleet (Connections, Machine: steward, clock, shipped programs)
changes ──▶ places.moved ──▶ RemoteHands per host, SwitchHands ──▶ Together
"""

from chaos.drivers.ssh.driver import SshDriver

__all__ = ["SshDriver"]
