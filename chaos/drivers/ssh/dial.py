"""One SSH handshake: what is asked of asyncssh, and host keys that are always checked.

No password is ever read or sent: keys, the agent and the user's ssh_config say who we are.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh

from chaos.drivers.ssh.refused import sentence
from chaos.drivers.ssh.target import Target
from chaos.errors import FabricError

CONNECT_S = 20.0
KEEPALIVE_S, KEEPALIVE_COUNT = 5, 3


class _Client(asyncssh.SSHClient):
    """Remembers the host key that was not trusted."""

    offered: str = ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Called only for a key that is in no file of known hosts: never trusted."""
        kind = key.get_algorithm()
        self.offered = f"{kind} {key.get_fingerprint()}"
        return False


async def dial(
    target: Target, tunnel: asyncssh.SSHClientConnection | None, connect_s: float
) -> asyncssh.SSHClientConnection:
    """A new connection, through that to its last jump host where it has one.

    Raises:
        FabricError: one sentence: what failed, and the cure.
    """
    client = _Client()
    try:
        async with asyncio.timeout(connect_s):
            return await _dial(target, client, tunnel)
    except (OSError, TimeoutError, asyncssh.Error, ValueError) as error:
        raise FabricError(sentence(target, error, offered=client.offered)) from None


async def _dial(
    target: Target, client: _Client, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    given = _settings(target) | {"client_factory": lambda: client}
    if tunnel is not None:
        given["tunnel"] = tunnel
    if "known_hosts" not in given:
        options = await asyncssh.SSHClientConnectionOptions.construct(host=target.address, **given)
        if options.known_hosts is None:  # an ssh_config may switch the check off: it stays on
            given["known_hosts"] = _host_keys("~/.ssh/known_hosts")
    return await asyncssh.connect(target.address, **given)


def _settings(target: Target) -> dict[str, Any]:
    """What is asked of asyncssh; what the target leaves open is left to ssh_config."""
    given: dict[str, Any] = {
        "keepalive_interval": KEEPALIVE_S,
        "keepalive_count_max": KEEPALIVE_COUNT,
        "preferred_auth": "publickey",
        "password": None,
        "login_timeout": CONNECT_S,
    }
    if target.port:
        given["port"] = target.port
    if target.user:
        given["username"] = target.user
    if target.key_file:
        given["client_keys"] = [str(Path(target.key_file).expanduser())]
    if target.ssh_config:
        given["config"] = [str(Path(target.ssh_config).expanduser())]
    if target.known_hosts:
        given["known_hosts"] = _host_keys(target.known_hosts)
    return given


def _host_keys(file: str) -> str | bytes:
    path = Path(file).expanduser()
    return str(path) if path.is_file() else b""


def hop(text: str, like: Target) -> Target:
    """A jump host `[user@]host[:port]` (IPv6 in brackets), reached with the target's own files."""
    user, _, rest = text.strip().rpartition("@")
    host, port = rest, 0
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = int(tail[1:]) if tail[1:].isdecimal() else 0
    elif rest.count(":") == 1:
        host, _, tail = rest.partition(":")
        port = int(tail) if tail.isdecimal() else 0
    name = f"jump host {host} (for {like.name})"
    return replace(like, name=name, address=host, port=port, user=user, platform="")
