"""Hosts and the cables between them, each with where it was read. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.errors import SpecError, near
from chaos.fabric import Port


@dataclass(frozen=True, slots=True)
class Source:
    """A place in a file; line 0 where none is known."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def wrong(self, message: str, field: str = "") -> SpecError:
        """The refusal of what stands here."""
        return SpecError(message, file=self.file, line=self.line or None, field=field or None)


NOWHERE = Source("")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine or switch, and how it is reached. No secret is ever kept.

    Attributes:
        name: Its name in the inventory.
        node: Its name in the fabric: that of the twin where one was read, else `name`.
        address: Name or address to connect to; empty: it is in the fabric, but nobody logs in.
        port: SSH port; 0 leaves it to the user's ssh_config.
        user: Login name; empty leaves it to ssh_config.
        key_file: Private key, as written; empty leaves it to the agent and ssh_config.
        ssh_args: Words of `ansible_ssh_common_args` and `ansible_ssh_extra_args`.
        become: Whether commands need another user's rights.
        become_user: That user.
        become_method: `sudo`, `su`, `enable`, …
        platform: As written: `arista.eos.eos`, `cumulus`, `sonic`, …; empty for a Linux host.
        connection: `ssh`, `network_cli`, …; as written.
        python: Interpreter on the target, if the inventory names one.
        groups: Every group it is in, parents included, nearest first.
        role: `host`, `leaf`, `spine`, …
        hardware: What the box calls itself (in LLDP), where that is not `name`.
        torch: Folder on the host that holds torch, where its interpreter has none.
        ports: The machine's interface per port name of the twin (`eth1` → `swp1`).
        rail: Rail of all its ports, if it is on one.
        rails: Rail per port (by either name).
        pfc: Priorities whose pause frames a port (by either name) honours, where that is told.
        vars: Its other variables, without secrets.
        secrets: Names of variables that hold a secret, which was not read.
        source: Where it is first named.
    """

    name: str
    node: str = ""
    address: str = ""
    port: int = 0
    user: str = ""
    key_file: str = ""
    ssh_args: tuple[str, ...] = ()
    become: bool = False
    become_user: str = ""
    become_method: str = ""
    platform: str = ""
    connection: str = ""
    python: str = ""
    groups: tuple[str, ...] = ()
    role: str = "host"
    hardware: str = ""
    torch: str = ""
    ports: Mapping[str, str] = field(default_factory=dict)
    rail: str = ""
    rails: Mapping[str, str] = field(default_factory=dict)
    pfc: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    vars: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    source: Source = NOWHERE

    def interface(self, port: str) -> str:
        """The machine's own name of a port of the twin; any other name is its own already.

        Examples:
            >>> Host("sw1", ports={"eth1": "Ethernet0"}).interface("eth1")
            'Ethernet0'
        """
        return self.ports.get(port, port)

    def rail_at(self, port: str) -> str:
        """The rail that is given for one port, by either name; empty for none.

        Examples:
            >>> Host("gpu1", ports={"eth1": "ens3"}, rails={"eth1": "0"}).rail_at("ens3")
            '0'
        """
        return self.rails.get(port) or self.rails.get(self.twin_port(port), "")

    def twin_port(self, interface: str) -> str:
        """The twin's name of one of the machine's interfaces."""
        return next((twin for twin, own in self.ports.items() if own == interface), interface)


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable between two interfaces, by the hosts' names and their own interface names.

    Attributes:
        a: The end that sorts first.
        b: The other end.
        speed_mbps: Mbit/s as declared or negotiated; 0 where nobody says.
        mtu: Bytes; 0 where nobody says.
        macs: MAC address per end, in the order a, b; empty where nobody says.
        vars: Free values: further columns of a table, `vars` of a twin's link.
        sources: Every place that says so.
    """

    a: Port
    b: Port
    speed_mbps: int = 0
    mtu: int = 0
    macs: tuple[str, str] = ("", "")
    vars: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()

    @classmethod
    def between(
        cls, one: Port, other: Port, macs: tuple[str, str] = ("", ""), **more: Any
    ) -> Cable:
        """A cable with its ends, and their MAC addresses, in order."""
        if other < one:
            one, other, macs = other, one, (macs[1], macs[0])
        return cls(one, other, macs=macs, **more)

    @property
    def ends(self) -> tuple[Port, Port]:
        """Both ends."""
        return (self.a, self.b)

    def other(self, port: Port) -> Port:
        """The end opposite `port`."""
        return self.b if port == self.a else self.a

    def __str__(self) -> str:
        return f"{self.a}--{self.b}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What an inventory and its link files say.

    Attributes:
        name: Name of the fabric: the twin's or lab's name, else the file's.
        hosts: By inventory name, in file order.
        cables: In file order.
        warnings: Sentences: what was left out or taken on thin evidence.
        source: The inventory's path.
    """

    name: str
    hosts: Mapping[str, Host]
    cables: tuple[Cable, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""

    def host(self, name: str) -> Host:
        """The host of that inventory name.

        Raises:
            SpecError: there is none; near names are offered.
        """
        try:
            return self.hosts[name]
        except KeyError:
            raise SpecError(
                f"no host {name!r} in the inventory; {near(name, self.hosts)}", file=self.source
            ) from None
