"""What was heard → cables: ports named, both ends' words put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chaos.fabric import Port
from chaos.inventory.lldp import Callers, Neighbour
from chaos.inventory.model import Cable, Host


@dataclass(frozen=True, slots=True)
class Seen:
    """A cable as its ends tell of it.

    Attributes:
        cable: The two ports, with the speed that was told.
        by: The ports at which it was heard: one or both ends.
        words: What was heard.
    """

    cable: Cable
    by: tuple[Port, ...]
    words: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was heard.

    Attributes:
        seen: Cables.
        unnamed: A known neighbour whose port is not told (local port, host of the neighbour).
        unknown: A neighbour that is no host.
        asked: Hosts whose output is there.
        silent: Hosts that could not be asked, with the reason.
    """

    seen: tuple[Seen, ...]
    unnamed: tuple[tuple[Port, str, Neighbour], ...]
    unknown: tuple[tuple[Port, Neighbour], ...]
    asked: frozenset[str]
    silent: Mapping[str, str] = field(default_factory=dict)


def gather(
    hosts: Mapping[str, Host],
    heard: Mapping[str, Iterable[Neighbour]],
    declared: Iterable[Cable] = (),
    silent: Mapping[str, str] | None = None,
) -> Evidence:
    """Name every port that was heard of.

    A port that is told by its MAC address alone is named by the declared MACs, else by the other
    end: when that hears this port from an interface, the interface is it.

    Args:
        hosts: The inventory's hosts.
        heard: Per host, what it hears.
        declared: Cables that say which ports there are.
        silent: Hosts that could not be asked, with the reason.
    """
    declared = tuple(declared)
    ports: dict[str, set[str]] = {}
    by_mac: dict[str, Port] = {}
    for cable in declared:
        for end, mac in zip(cable.ends, cable.macs, strict=True):
            ports.setdefault(end.node, set()).add(end.name)
            if mac:
                by_mac[mac.lower()] = end
    for name, words in heard.items():
        for one in words:
            ports.setdefault(name, set()).add(hosts[name].interface(one.interface))
    callers = Callers(hosts)
    sightings: list[tuple[Port, Port, Neighbour]] = []
    unnamed: list[tuple[Port, str, Neighbour]] = []
    unknown: list[tuple[Port, Neighbour]] = []
    for name, words in heard.items():
        for one in words:
            local = Port(name, hosts[name].interface(one.interface))
            other = callers.find(one.chassis)
            if not other:
                unknown.append((local, one))
            elif port := _port(one, hosts[other], ports.get(other, set()), by_mac):
                sightings.append((local, Port(other, port), one))
            else:
                unnamed.append((local, other, one))
    named, left = _by_the_other_end(sightings, unnamed)
    seen = _together([*sightings, *named])
    return Evidence(tuple(seen), tuple(left), tuple(unknown), frozenset(heard), dict(silent or {}))


def _port(one: Neighbour, host: Host, known: set[str], by_mac: Mapping[str, Port]) -> str:
    """The machine's name of the neighbour's port; empty when it is not told."""
    told = [host.interface(name) for name in (one.port, one.other) if name]
    if sure := next((name for name in told if name in known), ""):
        return sure
    if one.mac in by_mac and by_mac[one.mac].node == host.name:
        return by_mac[one.mac].name
    return told[0] if told else ""


def _by_the_other_end(
    sightings: list[tuple[Port, Port, Neighbour]], unnamed: list[tuple[Port, str, Neighbour]]
) -> tuple[list[tuple[Port, Port, Neighbour]], list[tuple[Port, str, Neighbour]]]:
    named, left = [], []
    for local, other, one in unnamed:
        facing = {seer for seer, seen, _ in sightings if seen == local and seer.node == other}
        if len(facing) == 1:
            named.append((local, facing.pop(), one))
        else:
            left.append((local, other, one))
    return named, left


def _together(sightings: list[tuple[Port, Port, Neighbour]]) -> list[Seen]:
    found: dict[tuple[Port, Port], list[tuple[Port, Neighbour]]] = {}
    for local, other, one in sightings:
        ends = (min(local, other), max(local, other))
        found.setdefault(ends, []).append((local, one))
    seen = []
    for (a, b), words in found.items():
        speed = max(one.speed_mbps for _, one in words)
        sources = tuple(dict.fromkeys(one.source for _, one in words))
        by = tuple(dict.fromkeys(local for local, _ in words))
        cable = Cable(a, b, speed_mbps=speed, sources=sources)
        seen.append(Seen(cable, by, tuple(one for _, one in words)))
    return seen
