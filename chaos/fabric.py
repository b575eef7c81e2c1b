"""What exists: nodes, ports, links, roles. Pure data, whatever driver made it.

A `Fabric` is the resolved meaning of a topology file. Faults and probes are planned on it, without
any machine. Link ids are stable across drivers: the two `node:port` ends, sorted, joined by `--`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.errors import SpecError, near


@dataclass(frozen=True, order=True, slots=True)
class Port:
    """One end of a link: an interface of a node, named as in the topology file."""

    node: str
    name: str

    @property
    def id(self) -> str:
        """`node:name`."""
        return f"{self.node}:{self.name}"

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two ports.

    Attributes:
        a: The end that sorts first.
        b: The other end.
        mtu: Bytes, both ends.
        macs: MAC address per end if the file gives one, in the order a, b; else empty text.
        vars: The link's free `vars`, passed through.
        labels: The link's labels.
        kind: `veth`, or `dummy` (then `b` has an empty node).
    """

    a: Port
    b: Port
    mtu: int = 9500
    macs: tuple[str, str] = ("", "")
    vars: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    kind: str = "veth"

    @property
    def id(self) -> str:
        """Stable name, such as `leaf1:eth1--spine1:eth1`."""
        return "--".join(sorted(port.id for port in self.ports))

    @property
    def ports(self) -> tuple[Port, ...]:
        """Both ends (one for a dummy)."""
        return (self.a, self.b) if self.b.node else (self.a,)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes at the ends."""
        return tuple(port.node for port in self.ports)

    def port_of(self, node: str) -> Port:
        """The end at `node`.

        Raises:
            SpecError: the link does not touch that node.
        """
        for port in self.ports:
            if port.node == node:
                return port
        raise SpecError(f"link {self.id} has no end at {node!r}; {near(node, self.nodes)}")

    def other(self, port: Port) -> Port:
        """The end opposite `port`."""
        return self.b if port == self.a else self.a

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Node:
    """A host, a router, or a bridge.

    Attributes:
        name: Short name, as in the file.
        kind: Containerlab kind, lower case (`linux`, `frr`, `bridge`).
        role: `host`, `leaf`, `spine`, `router`, …: from label `role`, group, or name.
        runs: What the node is started as: `frr`, `shell` or `bridge` (from kind and image).
        group: The resolved group, free text.
        labels: The user's labels.
        addresses: Addresses with prefix length per port, as far as the file itself says them.
        settings: Every resolved Containerlab field the driver needs (exec, binds, sysctls, env, …).
    """

    name: str
    kind: str = "linux"
    role: str = "host"
    runs: str = "shell"
    group: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Crossing:
    """One link crossed in one direction by a packet."""

    link: Link
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}->{self.target} ({self.link.id})"


@dataclass(frozen=True, slots=True)
class Stream:
    """One 5-tuple that a probe's traffic uses, with the nodes at its ends.

    Attributes:
        source: Node that sends.
        target: Node that receives.
        source_ip: Address without prefix length.
        target_ip: Address without prefix length.
        proto: IP protocol number: 6 TCP, 17 UDP.
        sport: Source port.
        dport: Destination port.
    """

    source: str
    target: str
    source_ip: str
    target_ip: str
    proto: int
    sport: int
    dport: int

    def __str__(self) -> str:
        proto = {6: "tcp", 17: "udp"}.get(self.proto, str(self.proto))
        return f"{self.source}->{self.target} ({proto} {self.sport}->{self.dport})"


@dataclass(frozen=True, slots=True)
class Fabric:
    """Nodes and links; pure data.

    Attributes:
        name: Lab name.
        nodes: By short name, in file order.
        links: In file order.
        source: Path of the topology file.
        prefix: Containerlab's name prefix (`clab` when absent).
    """

    name: str
    nodes: Mapping[str, Node]
    links: tuple[Link, ...] = ()
    source: str = ""
    prefix: str = "clab"

    def node(self, name: str) -> Node:
        """The node called `name`.

        Raises:
            SpecError: there is none; near names are offered.
        """
        try:
            return self.nodes[name]
        except KeyError:
            raise SpecError(
                f"no node {name!r} in fabric {self.name}; {near(name, self.nodes)}"
            ) from None

    def links_of(self, node: str) -> tuple[Link, ...]:
        """Every link with an end at `node`, in file order."""
        self.node(node)
        return tuple(link for link in self.links if node in link.nodes)

    def link_at(self, port: Port) -> Link:
        """The link plugged into `port`."""
        for link in self.links:
            if port in link.ports:
                return link
        raise SpecError(f"no link at port {port} in fabric {self.name}")

    def rail(self, link: Link) -> str:
        """The rail of a cable: `rail` and its label, else its hosts' interface; empty for none."""
        if said := str(link.labels.get("rail", link.vars.get("rail", ""))):
            return f"rail {said}"
        at_hosts = (port.name for port in link.ports if self.node(port.node).role == "host")
        return next(at_hosts, "")

    def with_role(self, role: str) -> tuple[Node, ...]:
        """All nodes of a role, in file order."""
        return tuple(node for node in self.nodes.values() if node.role == role)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles that occur, in file order."""
        return tuple(dict.fromkeys(node.role for node in self.nodes.values()))

    def select_links(self, selector: str) -> tuple[Link, ...]:
        """Links by id, by port, by node pair, by role pair, or by node and role.

        Forms: `leaf1:eth1--spine1:eth1` (id), `leaf1:eth1` (port), `leaf1--spine1` (node pair, all
        parallel links; `leaf1--spine1#2` for the second), `leaf--spine` (role pair),
        `leaf1--spine` (mixed).

        Raises:
            SpecError: nothing matches; near names are offered.
        """
        body, _, index = selector.partition("#")
        found = tuple(link for link in self.links if self._matches(link, body))
        if not found:
            if body in self.nodes:
                known = {"--".join(link.nodes) for link in self.links_of(body)}
                raise SpecError(f"{body!r} is a node and no link; {near('', known)}")
            known = {link.id for link in self.links} | {"--".join(li.nodes) for li in self.links}
            raise SpecError(f"no link {selector!r} in fabric {self.name}; {near(body, known)}")
        if not index:
            return found
        if not index.isdecimal() or not 1 <= int(index) <= len(found):
            raise SpecError(f"link {selector!r}: the number after # must be 1 to {len(found)}")
        return (found[int(index) - 1],)

    def link(self, selector: str) -> Link:
        """Exactly one link.

        Raises:
            SpecError: none, or more than one; the message lists them.
        """
        found = self.select_links(selector)
        if len(found) > 1:
            listed = ", ".join(link.id for link in found[:6])
            raise SpecError(f"{selector!r} names {len(found)} links ({listed}); name one of them")
        return found[0]

    def _matches(self, link: Link, body: str) -> bool:
        if body == link.id or body in (port.id for port in link.ports):
            return True
        left, dashes, right = body.partition("--")
        if not dashes or len(link.ports) < 2:
            return False
        return any(
            self._is(x, left) and self._is(y, right)
            for x, y in ((link.a, link.b), (link.b, link.a))
        )

    def _is(self, port: Port, word: str) -> bool:
        return word in (port.id, port.node, self.nodes[port.node].role)

    def walk(self) -> Iterator[Port]:
        """Every port, link by link."""
        for link in self.links:
            yield from link.ports
