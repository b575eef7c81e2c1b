"""Cables of several sources become one list; where two sources differ, both are named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chaos.errors import SpecError
from chaos.fabric import Port
from chaos.inventory.evidence import Evidence
from chaos.inventory.model import Cable


def merge(*sources: Iterable[Cable]) -> tuple[Cable, ...]:
    """Every cable once, with all its places.

    Raises:
        SpecError: one port has two cables, or one cable two speeds; both places are named.

    Examples:
        >>> one = Cable(Port("a", "eth1"), Port("b", "eth1"))
        >>> merge([one], [one]) == (one,)
        True
    """
    found: dict[tuple[Port, Port], Cable] = {}
    at: dict[Port, Cable] = {}
    for cables in sources:
        for cable in cables:
            for port in cable.ends:
                first = at.get(port)
                if first is not None and first.ends != cable.ends:
                    raise _two_cables(port, cable, first)
            before = found.get(cable.ends)
            made = cable if before is None else _one(before, cable)
            found[cable.ends] = made
            at |= dict.fromkeys(cable.ends, made)
    return tuple(found.values())


def _two_cables(port: Port, cable: Cable, first: Cable) -> SpecError:
    there = _places(first)
    message = f"found the cable {port}--{cable.other(port)}, but {there} has "
    return _wrong(cable, f"{message}{port}--{first.other(port)}; a port has one cable", "")


def _one(before: Cable, cable: Cable) -> Cable:
    for field, unit in (("speed_mbps", " Mbit/s"), ("mtu", " bytes")):
        one, other = getattr(before, field), getattr(cable, field)
        if one and other and one != other:
            message = f"found {other}{unit} for {cable}, but {_places(before)} has {one}{unit}"
            raise _wrong(cable, message, field)
    macs = tuple(a or b for a, b in zip(before.macs, cable.macs, strict=True))
    return replace(
        before,
        speed_mbps=before.speed_mbps or cable.speed_mbps,
        mtu=before.mtu or cable.mtu,
        macs=(macs[0], macs[1]),
        vars={**cable.vars, **before.vars},
        sources=tuple(dict.fromkeys((*before.sources, *cable.sources))),
    )


def _places(cable: Cable) -> str:
    return " and ".join(str(source) for source in cable.sources) or "another source"


def _wrong(cable: Cable, message: str, field: str) -> SpecError:
    return cable.sources[0].wrong(message, field) if cable.sources else SpecError(message)


def discovered(evidence: Evidence) -> tuple[tuple[Cable, ...], tuple[str, ...]]:
    """The cables that LLDP tells of, and warnings for what rests on one end's word alone."""
    warnings = []
    for seen in evidence.seen:
        if len(seen.by) == 1:
            other = seen.cable.other(seen.by[0])
            why = _silence(evidence, other)
            warnings.append(f"{seen.cable}: only {seen.by[0]} hears it; {why}")
    for local, host, one in evidence.unnamed:
        told = f"by the MAC address {one.mac} alone" if one.mac else "not at all"
        warnings.append(f"{local}: reaches {host}, which names its port {told}; left out")
    for local, one in evidence.unknown:
        warnings.append(f"{local}: hears {one.chassis!r}, which is no host; left out")
    return tuple(seen.cable for seen in evidence.seen), tuple(warnings)


def _silence(evidence: Evidence, port: Port) -> str:
    if port.node in evidence.asked:
        return f"{port} hears nothing of it"
    return f"{port.node} was not asked"
