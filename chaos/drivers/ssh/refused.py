"""What went wrong with a connection, as one sentence with its cure."""

from __future__ import annotations

import shlex

import asyncssh

from chaos.drivers.ssh.target import Target


def sentence(target: Target, error: BaseException, *, offered: str = "") -> str:
    """Name, address, what failed, what to do.

    Args:
        target: The machine.
        error: What asyncssh or the system raised.
        offered: The host key it showed, where that is what failed.
    """
    at = f"{target.address}:{target.port}" if target.port else target.address
    return f"{target.name} ({at}): {_why(target, error, offered)}"


def _why(target: Target, error: BaseException, offered: str) -> str:
    by_hand = shlex.join(target.words)
    if isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.KeyExchangeFailed):
        file = target.known_hosts or "~/.ssh/known_hosts"
        shown = f"its host key {offered}" if offered else "its host key"
        return (
            f"{shown} is not the one in {file}, or none is there; compare it on the machine's own "
            "console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then connect once by "
            f"hand: {by_hand}"
        )
    if isinstance(error, asyncssh.PermissionDenied):
        who = f"user {target.user}" if target.user else "us"
        return (
            f"it lets {who} in by none of our keys (passwords are not used); "
            f"ssh-add the key, name it in the inventory, or try by hand: {by_hand}"
        )
    if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
        return f"key {target.key_file or 'of ~/.ssh'} cannot be used ({error}); ssh-add it instead"
    if isinstance(error, asyncssh.ConfigParseError):
        return f"ssh_config cannot be read: {error}"
    if isinstance(error, TimeoutError):
        return f"no answer in time; is it up, and reachable from here? try: {by_hand}"
    if isinstance(error, OSError):
        what = (error.strerror or str(error)).lower()
        return f"not reachable ({what}); try: {by_hand}"
    if isinstance(error, asyncssh.ConnectionLost | asyncssh.DisconnectError):
        reason = getattr(error, "reason", "") or str(error)
        return f"the connection was lost ({reason}); try: {by_hand}"
    return f"{type(error).__name__}: {error}; try: {by_hand}"
