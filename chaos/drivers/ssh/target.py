"""How one machine or switch is reached over SSH; plain data without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

Become = Literal["", "sudo", "su"]


@dataclass(frozen=True, slots=True)
class Target:
    """One machine, as far as a connection needs it.

    Attributes:
        name: Name in the fabric.
        address: Name or address to connect to.
        port: SSH port; 0 leaves it to the user's ssh_config, else 22.
        user: Login name; empty leaves it to ssh_config, else it is ours.
        key_file: Private key; empty leaves it to the agent and ssh_config.
        known_hosts: File of host keys; empty is the user's own `~/.ssh/known_hosts`.
        ssh_config: File of client settings; empty is the user's own `~/.ssh/config`.
        jump: Hosts to go through, as `ssh -J` takes them; empty leaves it to ssh_config.
        platform: Network operating system; empty for a Linux host.
        become: How a command gets root's rights: `sudo` (never with a password), `su`, or empty
            where the login has them already.
        python: Interpreter on the machine; empty looks for `python3`.
    """

    name: str
    address: str
    port: int = 0
    user: str = ""
    key_file: str = ""
    known_hosts: str = ""
    ssh_config: str = ""
    jump: str = ""
    platform: str = ""
    become: Become = ""
    python: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data; holds no secret."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `to_json` made."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in data.items() if name in known})

    @property
    def words(self) -> tuple[str, ...]:
        """The `ssh` command that reaches it, for a cure that a person types.

        Examples:
            >>> " ".join(Target("h1", "10.0.0.1", port=2222, user="ops").words)
            'ssh -p 2222 ops@10.0.0.1'
        """
        found = ["ssh"]
        for flag, value in (
            ("-F", self.ssh_config),
            ("-i", self.key_file),
            ("-J", self.jump),
            ("-p", str(self.port or "")),
        ):
            found += [flag, value] if value else []
        if self.known_hosts:
            found += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        return (*found, f"{self.user}@{self.address}" if self.user else self.address)
