"""A rule as nftables text for a netdev ingress hook.

Three chains: `ingress` finds the packets (one rule per alternative, since nftables has no *or*),
`choose` counts them as `seen` and lets the schedule's counters choose, `act` counts them as `hit`
and acts. What was not chosen is counted as `passed`, so `seen = hit + passed` can be checked.
Offsets are from the UDP header: BTH begins after its 8 bytes.

Kernels read one, two and four bytes at a transport offset by a short way that takes the data of a
later IP fragment for a header (seen on 6.18); three bytes take the way that looks. So every rule
that reads there also asks for three bytes, of any value.
"""

from __future__ import annotations

from collections.abc import Iterator

from chaos.packets.action import Action
from chaos.packets.numbers import Numbers
from chaos.packets.schedule import Gate, Psn, Schedule
from chaos.packets.selector import ANY, Network, Selector, aeth_at, numbers

_UDP_BITS = 64
_NO_LATER_FRAGMENT = "@th,0,24 >= 0"
_OPCODE, _DEST_QP, _ACK_REQUEST, _PSN = "@th,64,8", "@th,104,24", "@th,128,1", "@th,136,24"


def table(name: str, ifname: str, select: Selector, when: Schedule, then: Action) -> str:
    """The whole table.

    Args:
        name: Of the table.
        ifname: Interface at whose ingress it acts.
        select: Which packets.
        when: Which of them.
        then: What is done.
    """
    found = [f"    {one} goto choose".replace("  goto", " goto") for one in lines(select, then)]
    return "\n".join(
        (
            f"table netdev {name} {{",
            *(f"  counter {one} {{ }}" for one in ("seen", "hit", "passed")),
            "  chain act {",
            "    counter name hit",
            *(f"    {one}" for one in then.nft()),
            "  }",
            "  chain choose {",
            "    counter name seen",
            *(f"    {one} goto act".replace("  goto", " goto") for one in _choices(when)),
            "    counter name passed",
            "  }",
            "  chain ingress {",
            f"    type filter hook ingress device {ifname} priority -500; policy accept;",
            *found,
            "  }",
            "}",
            "",
        )
    )


def _choices(when: Schedule) -> Iterator[str]:
    gates = " ".join(_gate(one) for one in when.gates())
    if isinstance(when, Psn):
        yield from (f"{_PSN} {psn} {gates}" for psn in sorted(set(when.of)))
    else:
        yield gates


def _gate(gate: Gate) -> str:
    low, high = gate.through.spans[0]
    many = f"numgen inc mod {gate.period}"
    if len(gate.through.spans) == 1 and high == gate.period - 1:
        return f"{many} >= {low}"
    if len(gate.through.spans) == 1 and low == 0 and high > 0:
        return f"{many} < {high + 1}"
    return f"{many} {gate.through.nft()}"


def lines(select: Selector, then: Action) -> tuple[str, ...]:
    """The matches that together mean what the selector means; an empty one means everything."""
    parted = select.dscp or select.ecn or select.source or select.destination
    families: tuple[int | None, ...] = select.families
    if not (parted or select.family or then.rewrites):
        families = (None,)
    return tuple(
        " ".join(part for part in (_ip(select, family), _transport(select), roce) if part)
        for family in families
        for roce in _roce(select)
    )


def _ip(select: Selector, family: int | None) -> str:
    if family is None:
        return ""
    ip = "ip" if family == 4 else "ip6"
    parts = [f"meta protocol {ip}"]
    for word, networks in (("saddr", select.source), ("daddr", select.destination)):
        own = [str(_short(one)) for one in networks if one.version == family]
        if own:
            parts.append(f"{ip} {word} " + (own[0] if len(own) == 1 else f"{{ {', '.join(own)} }}"))
    if select.dscp:
        parts.append(f"{ip} dscp {select.dscp.nft()}")
    if select.ecn:
        parts.append(f"{ip} ecn {select.ecn.nft()}")
    return " ".join(parts)


def _short(network: Network) -> object:
    return network.network_address if network.num_addresses == 1 else network


def _transport(select: Selector) -> str:
    if not select.protocol and not select.is_roce:
        return ""
    protocol = select.protocol or "udp"
    parts = [f"meta l4proto {protocol}"]
    if select.sport or select.dport or select.is_roce:
        parts.append(_NO_LATER_FRAGMENT)
    if select.sport:
        parts.append(f"{protocol} sport {select.sport.nft()}")
    if select.is_roce:
        parts.append("udp dport 4791")
    elif select.dport:
        parts.append(f"{protocol} dport {select.dport.nft()}")
    return " ".join(parts)


def _roce(select: Selector) -> Iterator[str]:
    own = []
    if select.dest_qp:
        own.append(f"{_DEST_QP} {select.dest_qp.nft()}")
    if select.psn:
        own.append(f"{_PSN} {select.psn.nft()}")
    if select.ack_request is not None:
        own.append(f"{_ACK_REQUEST} {select.ack_request:d}")
    for opcodes, at, syndromes in _answers(select):
        more = [f"{_OPCODE} {opcodes.nft()}"] if opcodes else []
        if syndromes:
            more.append(f"@th,{_UDP_BITS + 8 * at},8 {syndromes.nft()}")
        yield " ".join((*more, *own))


def _answers(select: Selector) -> Iterator[tuple[Numbers, int, Numbers]]:
    """Opcodes, and for those that carry an AETH where it lies and what may stand in it."""
    if not select.opcode and not select.syndrome:
        yield ANY, 0, ANY
        return
    groups: dict[tuple[int, Numbers], list[int]] = {}
    for item, allowed in select.answers():
        for number in numbers(item):
            at = aeth_at(number) if allowed else 0
            if at is not None:
                groups.setdefault((at, allowed), []).append(number)
    for (at, allowed), those in groups.items():
        yield Numbers.of((one, one) for one in those), at, allowed
