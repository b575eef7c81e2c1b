"""The way to a switch through jump hosts: the `ssh` of this machine, as its own end of a socket."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path

from chaos.drivers.ssh.target import Target

_ENDS_WITHIN_S = 2.0


def through(target: Target, jump: str, host: str, port: int) -> str:
    """The command whose input and output are a connection to a switch, by way of jump hosts.

    Each of them is logged in to with the target's own key and known hosts, else as ssh_config and
    the agent have it, and none may ask for anything.

    Args:
        target: The switch.
        jump: `[user@]host[:port],…`, as `ssh -J` takes it.
        host: Its name or address as the last of them knows it.
        port: Its SSH port.

    Examples:
        >>> switch = Target("sw", "10.9.0.1", key_file="/k", known_hosts="/n")
        >>> through(switch, "ops@bastion:2222", "10.9.0.1", 22)
        'ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/n -i /k -p 2222 \
-W 10.9.0.1:22 ops@bastion'
    """
    before, _, last = jump.rpartition(",")
    words = ["ssh", *(("-F", _path(target.ssh_config)) if target.ssh_config else ())]
    words += ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    if target.known_hosts:
        words += ["-o", f"UserKnownHostsFile={_path(target.known_hosts)}"]
    words += ["-i", _path(target.key_file)] if target.key_file else []
    user, _, place = last.strip().rpartition("@")
    name, its_port = place, ""
    if found := re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", place):
        name, its_port = found[1] or found[3], found[2] or found[4] or ""
    if before:
        way = through(target, before, name, int(its_port or 22))
        words += ["-o", f"ProxyCommand={way.replace('%', '%%')}"]
    words += ["-p", its_port] if its_port else []
    end = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return shlex.join((*words, "-W", end, f"{user}@{name}" if user else name))


def _path(word: str) -> str:
    return str(Path(word).expanduser())


class Way:
    """A running command, and the socket that is its input and output.

    Args:
        command: As ssh_config's ProxyCommand has it, tokens expanded.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: str) -> None:
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            self._process = subprocess.Popen(
                shlex.split(command),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors.fileno(),
                start_new_session=True,  # Ctrl-C is for us: healing needs the way
            )
        except OSError:
            self.socket.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def said(self) -> str:
        """The last line of its complaints, once it has ended; empty while it runs or is content."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_WITHIN_S)
        if not self._process.returncode:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        told = [line.strip() for line in lines if line.strip()]
        return told[-1] if told else f"it ended with {self._process.returncode}"

    def close(self) -> None:
        """End it; repeatable."""
        self.socket.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()
