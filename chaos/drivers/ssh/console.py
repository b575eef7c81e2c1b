"""One session at a switch's command line, by Netmiko; blocking, for one thread.

The prompt is learnt while it opens, so that a command later is one round trip. Host keys are
checked; nothing is ever added to a list of known hosts. A password comes from the environment
alone, and goes nowhere but to the switch.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import paramiko
from netmiko import BaseConnection, ConnectHandler
from netmiko.exceptions import (
    NetmikoAuthenticationException,
    NetmikoTimeoutException,
    ReadTimeout,
)

from chaos.drivers.ssh.jump import Way, through
from chaos.drivers.ssh.target import Target
from chaos.errors import FabricError
from chaos.nos import Platform

CONNECT_S = 15.0
ANSWER_S = 30.0
#: Keys in `~/.ssh` that are offered where none is named, as ssh does.
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
#: Variable of the environment with the password of switches; `…_LEAF1` has that of `leaf1` alone.
PASSWORD = "RAILBREAK_SWITCH_PASSWORD"  # noqa: S105 - the name of a variable


class RejectedError(FabricError):
    """The switch answered, and its answer is no.

    Args:
        message: The sentence.
        answer: All that it printed.
    """

    def __init__(self, message: str, answer: str = "") -> None:
        super().__init__(message)
        self.answer = answer


def variable_of(node: str) -> str:
    """The variable of the environment that holds the password of one switch.

    Examples:
        >>> variable_of("dc1-leaf1")
        'RAILBREAK_SWITCH_PASSWORD_DC1_LEAF1'
    """
    return f"{PASSWORD}_{re.sub(r'[^A-Za-z0-9]', '_', node).upper()}"


def password_of(node: str, environ: Mapping[str, str] = os.environ) -> str:
    """The password of a switch, or that of all switches; empty where none is given."""
    return environ.get(variable_of(node)) or environ.get(PASSWORD, "")


class Console:
    """A session at one switch.

    Args:
        target: How it is reached.
        platform: What it runs.
        password: Where keys and the agent do not suffice; never written down. By default that of
            the environment (`password_of`).
        connect_s: How long connecting may take, in seconds.
        answer_s: How long a command may take, in seconds.
    """

    def __init__(
        self,
        target: Target,
        platform: Platform,
        *,
        password: str = "",
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.target = target
        self.platform = platform
        self._password = password or password_of(target.name)
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._line: BaseConnection | None = None
        self._way: Way | None = None
        self._numbers = itertools.count(1)

    @property
    def told(self) -> str:
        """The switch in words, for messages."""
        return f"{self.target.name} ({self.platform.title} at {self.target.address})"

    def open(self) -> None:
        """Connect, learn the prompt, get the rights; does nothing when that is done.

        Raises:
            FabricError: one sentence about what is in the way and what cures it.
        """
        if self._line is not None:
            return
        try:
            self._line = ConnectHandler(**self._words())
            self._prepare(self._line)
        except NetmikoAuthenticationException:
            self.close()
            raise FabricError(
                f"{self.told} refused the login of {self.target.user or 'the user'}; offer a key "
                "that it knows (key_file, the agent, IdentityFile) or its password in the "
                f"environment ({variable_of(self.target.name)})"
            ) from None
        except (NetmikoTimeoutException, paramiko.SSHException) as error:
            raise FabricError(self._unreached(str(error))) from None
        except (ReadTimeout, ValueError) as error:
            self.close()
            raise FabricError(
                f"{self.told} answers with a prompt that {self.platform.title} does not have; is "
                f"its platform really {self.platform.name}? ({_short(error)})"
            ) from None
        except (OSError, EOFError) as error:
            raise FabricError(self._unreached(_short(error))) from None
        except FabricError:
            self.close()
            raise

    def _unreached(self, why: str) -> str:
        said = self._way.said() if self._way is not None else ""
        self.close()
        if "Host key for server" in why or "not found in known_hosts" in why:
            files = self.target.known_hosts or "~/.ssh/known_hosts"
            what = "is not the one that is known" if "does not match" in why else "is not known"
            return (
                f"the host key of {self.told} {what}; nothing was sent to it. Compare its key by "
                f"another way, then put it into {files}"
            )
        if said:
            return f"{self.told} cannot be reached through its jump host: {said}"
        return f"{self.told} cannot be reached on port {self._port}: {_first(why)}"

    def _words(self) -> dict[str, Any]:
        target = self.target
        config = paramiko.SSHConfig()
        path = Path(target.ssh_config or "~/.ssh/config").expanduser()
        if path.exists():
            config = paramiko.SSHConfig.from_path(str(path))
        elif target.ssh_config:
            raise FabricError(f"{target.name}: there is no ssh_config {target.ssh_config}")
        found = config.lookup(target.address)
        self._port = target.port or int(found.get("port", 22))
        host = found.get("hostname", target.address)
        jump = target.jump or found.get("proxyjump", "")
        way = found.get("proxycommand", "")
        if jump and jump != "none":
            way = through(target, jump, host, self._port)
        key = self._key(found.get("identityfile", []))
        known = target.known_hosts or found.get("userknownhostsfile", "").split(" ")[0]
        if target.known_hosts and not Path(target.known_hosts).is_file():
            raise FabricError(f"{target.name}: there is no known_hosts {target.known_hosts}")
        return {
            "device_type": self.platform.device_type,
            "host": host,
            "port": self._port,
            "username": target.user or found.get("user", ""),
            "password": self._password,
            "use_keys": bool(key),
            "key_file": key or None,
            "allow_agent": not target.key_file,
            "ssh_strict": True,
            "system_host_keys": not known,
            "alt_host_keys": bool(known),
            "alt_key_file": str(Path(known).expanduser()) if known else "",
            "sock": self._open_way(way) if way else None,
            "conn_timeout": self._connect_s,
            "auth_timeout": self._connect_s,
            "banner_timeout": self._connect_s,
            "read_timeout_override": None,
        }

    def _open_way(self, command: str) -> socket.socket:
        self._way = Way(command)
        return self._way.socket

    def _key(self, named: Sequence[str]) -> str:
        """The key to offer beside those of the agent; empty for none."""
        if self.target.key_file:
            path = Path(self.target.key_file).expanduser()
            if not path.is_file():
                raise FabricError(f"{self.target.name}: there is no key {path}")
            return str(path)
        usual = () if self._password else tuple(f"~/.ssh/{one}" for one in USUAL_KEYS)
        paths = (Path(one).expanduser() for one in (*named, *usual))
        return next((str(path) for path in paths if path.is_file()), "")

    def _prepare(self, line: BaseConnection) -> None:
        """Rights, and a terminal that does not fold lines."""
        if not self.platform.linux:
            if self.platform.device_type == "arista_eos" and not line.check_enable_mode():
                line.enable()
            return
        self.run("stty -echo cols 500 2>/dev/null; unset HISTFILE; true")
        if self.target.become and self.run("id -u").strip() != "0":
            if self.target.become != "sudo":
                raise FabricError(
                    f"{self.told}: become {self.target.become!r} is not used at a switch; say sudo"
                )
            try:
                self.run("sudo -n true")
            except RejectedError:
                raise FabricError(
                    f"{self.told}: {self.target.user or 'the user'} may not sudo without a "
                    "password; allow it, or log in as root"
                ) from None
            line.write_channel("exec sudo -n sh\n")

    def run(self, command: str) -> str:
        """What an accepted command printed.

        Raises:
            RejectedError: the switch said no; the sentence has its words.
            FabricError: the session is gone or gave no answer in time.
        """
        if self._line is None:
            raise FabricError(f"{self.told}: the session is closed")
        try:
            answer = self._shell(command) if self.platform.linux else self._cli(command)
        except (ReadTimeout, OSError, EOFError, paramiko.SSHException) as error:
            self.close()
            raise FabricError(
                f"{self.told} gave no answer to {_short(command)!r} in {self._answer_s:g} s "
                f"({type(error).__name__})"
            ) from None
        if no := self.platform.rejection(answer):
            raise RejectedError(f"{self.told} rejected {_short(command)!r}: {no}", answer)
        return answer

    def _shell(self, command: str) -> str:
        """Between two marks that the echo of the command does not hold; its exit status."""
        assert self._line is not None
        mark = f"rb{next(self._numbers)}"
        self._line.write_channel(f"echo {mark}''begin; {command}; echo {mark}''end:$?\n")
        text = self._line.read_until_pattern(
            rf"{mark}end:\d+\s", read_timeout=self._answer_s
        ).replace("\r", "")
        answer, _, status = text.partition(f"{mark}begin\n")[2].rpartition(f"{mark}end:")
        if status.strip() != "0":
            said = _short(answer) or f"exit status {status.strip()}"
            raise RejectedError(f"{self.told} rejected {_short(command)!r}: {said}", answer)
        return answer

    def _cli(self, command: str) -> str:
        assert self._line is not None
        prompt = re.escape(self._line.base_prompt) + self.platform.prompt
        self._line.write_channel(command + "\n")
        text = self._line.read_until_pattern(prompt, read_timeout=self._answer_s)
        text = self._line.strip_ansi_escape_codes(text).replace("\r", "")
        lines = text.split("\n")
        if command in lines[0]:
            lines = lines[1:]
        lines = lines[:-1]  # the prompt
        return "\n".join(one for one in lines if not one.startswith("--{"))

    def close(self) -> None:
        """End the session; never fails."""
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(Exception):
                line.paramiko_cleanup()
        way, self._way = self._way, None
        if way is not None:
            way.close()


def _short(text: object) -> str:
    return " ".join(str(text).split())[:160]


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
