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
from dataclasses import dataclass

from chaos.packets.action import Action
from chaos.packets.numbers import Numbers
from chaos.packets.schedule import Gate, Psn, Schedule
from chaos.packets.selector import ANY, Network, Selector, aeth_at, numbers

#: A detour comes after rules that drop or mark: what is gone need not be carried. A queue's comes
#: last: what a worker took is in no queue.
_AT = {False: -500, True: -400}
_BEFORE_QUEUES = -350
#: Before fragments are put together, and before connections are tracked.
_BEFORE_IP = -450
_UDP_BITS = 64
_NO_LATER_FRAGMENT = "@th,0,24 >= 0"
_OPCODE, _DEST_QP, _ACK_REQUEST, _PSN = "@th,64,8", "@th,104,24", "@th,128,1", "@th,136,24"
#: Written from the end of the UDP header: nftables then keeps the UDP checksum, and one of 0 at 0.
_SET_FECN, _SET_BECN = "@ih,32,1 set 1", "@ih,33,1 set 1"
#: The first byte behind a BTH: payload or another header; where neither is, the ICRC's own.
_AFTER_BTH, _SET_AFTER_BTH = "@th,160,8", "@ih,96,8 set"
_IS_ROCE = f"meta l4proto udp {_NO_LATER_FRAGMENT} udp dport 4791"


@dataclass(frozen=True, slots=True)
class Detour:
    """How another engine gets its packets.

    Attributes:
        act: Statement for a packet that the schedule chose.
        rest: Statement for the other packets that the selector means; empty: the kernel keeps them.
        owned: The table is gone with the process that made it.
        queued: Packets are taken where IP begins, since there is nothing beyond the interface.
        taken: What matches packets that another rule's queue has got; they are let pass unseen.
    """

    act: str
    rest: str = ""
    owned: bool = True
    queued: bool = False
    taken: str = ""


def table(
    name: str,
    ifname: str,
    select: Selector,
    when: Schedule,
    then: Action,
    detour: Detour | None = None,
    across: str = "",
    way: str = "ingress",
) -> str:
    """The whole table.

    Args:
        name: Of the table.
        ifname: Interface at whose ingress it acts.
        select: Which packets.
        when: Which of them.
        then: What is done, where no other engine does it.
        detour: How packets get to one that does.
        across: Interface out of which they go on; only `duplicate` needs it.
        way: `egress` where packets are met as they leave.
    """
    at = _BEFORE_QUEUES if detour and detour.taken else _AT[bool(detour)]
    family, hook, here = "netdev", f"{way} device {ifname} priority {at}", ""
    if detour and detour.queued:
        family, hook, here = "inet", f"prerouting priority {_BEFORE_IP}", f'iifname "{ifname}" '
    found = [
        f"    {here}{one} goto choose".replace("  goto", " goto") for one in lines(select, then)
    ]
    acts = (detour.act,) if detour else deeds(then, across)
    return "\n".join(
        (
            f"table {family} {name} {{",
            *(("  flags owner;",) if detour and detour.owned else ()),
            *(f"  counter {one} {{ }}" for one in ("seen", "hit", "passed")),
            "  chain act {",
            "    counter name hit",
            *(f"    {one}" for one in acts),
            "  }",
            "  chain choose {",
            "    counter name seen",
            *(f"    {one} goto act".replace("  goto", " goto") for one in _choices(when)),
            "    counter name passed",
            *((f"    {detour.rest}",) if detour and detour.rest else ()),
            "  }",
            "  chain ingress {",
            f"    type filter hook {hook}; policy accept;",
            *((f"    {detour.taken} accept",) if detour and detour.taken else ()),
            *found,
            "  }",
            "}",
            "",
        )
    )


def deeds(then: Action, across: str = "") -> tuple[str, ...]:
    """What is done to a packet that was chosen, a rule each.

    What stands before an `accept` is done to the packets it matches, and nothing more.
    """
    match then.deed:
        case "drop":
            return ("drop",)
        case "ce" | "bleach":
            code = "ce" if then.deed == "ce" else "not-ect"
            return (f"ip ecn set {code}", f"ip6 ecn set {code}")
        case "dscp":
            return (f"ip dscp set {then.value}", f"ip6 dscp set {then.value}")
        case "fecn" | "becn":
            return (_SET_FECN if then.deed == "fecn" else _SET_BECN,)
        case "duplicate":
            return (f"dup to {across}",)
        case _:
            return tuple(_corrupt())


def _corrupt() -> Iterator[str]:
    """RoCEv2: a byte that the ICRC covers. Else the checksum of IPv4, or that of UDP or TCP.

    Every value is replaced by one that is surely another.
    """
    yield f"{_IS_ROCE} {_AFTER_BTH} < 0x80 {_SET_AFTER_BTH} 0xff accept"
    yield f"{_IS_ROCE} {_AFTER_BTH} >= 0x80 {_SET_AFTER_BTH} 0x00 accept"
    for match, what in (
        ("meta protocol ip", "ip checksum"),
        (f"meta protocol ip6 meta l4proto udp {_NO_LATER_FRAGMENT}", "udp checksum"),
        (f"meta protocol ip6 meta l4proto tcp {_NO_LATER_FRAGMENT}", "tcp checksum"),
    ):
        yield f"{match} {what} < 0x8000 {what} set 0xfffe accept"
        yield f"{match} {what} >= 0x8000 {what} set 0x0001 accept"


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
        " ".join(part for part in (_ip(select, family), _transport(select), more, roce) if part)
        for family in families
        for more in _checked(select, family, then)
        for roce in _roce(select)
    )


def _checked(select: Selector, family: int | None, then: Action) -> tuple[str, ...]:
    """What of IPv6 has a checksum that can be broken; IPv6 itself has none."""
    if then.deed != "corrupt" or family != 6 or select.is_roce:
        return ("",)
    protocols = (select.protocol,) if select.protocol else ("udp", "tcp")
    return tuple(f"meta l4proto {one} {_NO_LATER_FRAGMENT}" for one in protocols)


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
