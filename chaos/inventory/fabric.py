"""`to_fabric`: hosts and cables → the fabric that experiments are planned on, and back from one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chaos.fabric import Fabric, Link, Node, Port
from chaos.inventory.merge import merge
from chaos.inventory.model import Cable, Host, Inventory, Source
from chaos.inventory.ssh_words import read_ssh_words

_LINUX = frozenset({"", "linux", "host", "frr"})


def to_fabric(inventory: Inventory, cables: Iterable[Cable] = ()) -> Fabric:
    """The fabric of an inventory, in the twin's names where there is one.

    `node.settings["ssh"]` holds what a driver needs, as plain data: `name` (of the node), `host`
    (its inventory name), `address`, `port`, `user`, `key_file`, `known_hosts`, `ssh_config`,
    `jump`, `become` (the method, or empty), `become_user`, `platform`, `connection`, `python`,
    `torch`, `ports` (the machine's interface per port of the fabric), `rails`, `secrets` (names
    alone). A node that nobody logs in to has none. Speeds are in `link.vars["speed_mbps"]`; an MTU
    of 0 is unknown. The rail of a cable is its label `rail`.

    Args:
        inventory: Hosts, and cables that it has itself.
        cables: Further ones, merged with those.

    Raises:
        SpecError: the cables contradict each other, two hosts would be one node, or the two ends
            of a cable would be on different rails.
    """
    every = merge(inventory.cables, cables)
    nodes: dict[str, Node] = {}
    for host in inventory.hosts.values():
        name = host.node or host.name
        if name in nodes:
            message = f"found the hosts {_host_of(nodes[name])} and {host.name} for the node {name}"
            raise host.source.wrong(f"{message}, wanted one each", host.name)
        nodes[name] = _node(name, host, every)
    links = tuple(_link(cable, inventory.hosts) for cable in every)
    return Fabric(inventory.name, nodes, links, inventory.source, "")


def _host_of(node: Node) -> str:
    return str(node.settings.get("ssh", {}).get("host", node.name))


def _node(name: str, host: Host, cables: Iterable[Cable]) -> Node:
    labels = {str(k): str(v) for k, v in (host.vars.get("labels") or {}).items()}
    if host.rail:
        labels["rail"] = host.rail
    kind = kind_of(host.platform)
    runs = "shell" if kind == "linux" else kind
    settings = {"ssh": {"name": name, **_ssh(host, cables)}} if host.address else {}
    group = host.groups[0] if host.groups else ""
    return Node(name, kind, host.role, runs, group, labels, {}, settings)


def kind_of(platform: str) -> str:
    """The kind of node that a platform is: the last word of Ansible's collection names.

    Examples:
        >>> kind_of("arista.eos.eos"), kind_of("linux"), kind_of("nokia_srlinux"), kind_of("")
        ('eos', 'linux', 'nokia_srlinux', 'linux')
    """
    word = platform.lower().rsplit(".", 1)[-1]
    return "linux" if word in _LINUX else word


def _ssh(host: Host, cables: Iterable[Cable]) -> dict[str, Any]:
    own = [port.name for cable in cables for port in cable.ends if port.node == host.name]
    renamed = {host.twin_port(name): name for name in own if host.twin_port(name) != name}
    words = read_ssh_words(host.ssh_args)
    rails = {host.twin_port(host.interface(port)): rail for port, rail in host.rails.items()}
    pfc = {host.twin_port(host.interface(port)): list(on) for port, on in host.pfc.items()}
    return {
        "host": host.name,
        "address": host.address,
        "port": host.port or (int(words.port) if words.port.isdigit() else 0),
        "user": host.user or words.user,
        "key_file": host.key_file or words.key_file,
        "known_hosts": words.known_hosts,
        "ssh_config": words.ssh_config,
        "jump": words.jump,
        "become": (host.become_method or "sudo") if host.become else "",
        "become_user": host.become_user,
        "platform": host.platform,
        "connection": host.connection,
        "python": host.python,
        "torch": host.torch,
        "ports": {**dict(host.ports), **renamed},
        "rails": rails,
        **({"pfc": pfc} if pfc else {}),
        "secrets": list(host.secrets),
    }


def _link(cable: Cable, hosts: Mapping[str, Host]) -> Link:
    ends = []
    for port, mac in zip(cable.ends, cable.macs, strict=True):
        host = hosts.get(port.node)
        named = Port(host.node or host.name, host.twin_port(port.name)) if host else port
        ends.append((named, mac))
    (a, mac_a), (b, mac_b) = sorted(ends)
    free = {**cable.vars, **({"speed_mbps": cable.speed_mbps} if cable.speed_mbps else {})}
    rail = _rail(cable, hosts)
    return Link(a, b, cable.mtu, (mac_a, mac_b), free, {"rail": rail} if rail else {})


def _rail(cable: Cable, hosts: Mapping[str, Host]) -> str:
    """The rail of a cable; empty for none.

    The rail of a whole box counts at cables to hosts only: those between switches join rails.
    """
    ends = [(port, hosts[port.node]) for port in cable.ends if port.node in hosts]
    at_host = any(host.role == "host" for _, host in ends)
    said = [
        (rail, f"{host.source} for {host.name}", host.source)
        for port, host in ends
        for rail in (host.rail_at(port.name) or (host.rail if at_host else ""),)
        if rail
    ]
    if drawn := str(cable.vars.get("rail", "")):
        source = next(iter(cable.sources), Source(""))
        said.append((drawn, str(source), source))
    if len({rail for rail, _, _ in said}) > 1:
        (one, where, source), (other, there, _) = (
            said[0],
            next(x for x in said if x[0] != said[0][0]),
        )
        raise source.wrong(
            f"found rail {one} ({where}) and rail {other} ({there}) for the cable {cable}, "
            "wanted one"
        )
    return said[0][0] if said else ""


def of_fabric(fabric: Fabric) -> Inventory:
    """The cabling that a topology file declares, its nodes being the hosts.

    The ports keep the names of the file.
    """
    source = Source(fabric.source)
    hosts = {
        name: Host(name, name, platform="" if node.kind == "linux" else node.kind, role=node.role)
        for name, node in fabric.nodes.items()
    }
    cables = tuple(
        Cable.between(
            link.a, link.b, link.macs, speed_mbps=_speed(link.vars), mtu=link.mtu, sources=(source,)
        )
        for link in fabric.links
        if len(link.ports) == 2
    )
    hosts = {name: replace(host, source=source) for name, host in hosts.items()}
    return Inventory(fabric.name, hosts, cables, source=fabric.source)


def _speed(values: Mapping[str, Any]) -> int:
    value = values.get("speed_mbps", 0)
    return value if isinstance(value, int) else 0
