"""What a switch's access list can express of an nftables match: one UDP flow, exactly."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from chaos.errors import CapabilityError

Family = int  # 4 or 6
_PORT = re.compile(r"\d{1,5}")
_DSCP = re.compile(r"0x[0-9a-fA-F]{1,2}|\d{1,2}")


@dataclass(frozen=True, slots=True)
class Match:
    """Packets that an access list drops.

    Attributes:
        families: 4, 6 or both: an nftables `udp dport 4791` alone means both.
        source: Source prefix; empty for any.
        destination: Destination prefix; empty for any.
        sport: UDP source port; None for any.
        dport: UDP destination port; None for any.
        dscp: Differentiated services code point; None for any.
        udp: Only UDP; without it every packet of the families is meant.
    """

    families: tuple[Family, ...] = (4, 6)
    source: str = ""
    destination: str = ""
    sport: int | None = None
    dport: int | None = None
    dscp: int | None = None
    udp: bool = False


def _refuse(match: str, what: str) -> CapabilityError:
    return CapabilityError(
        f"a switch's access list cannot express {match!r}: {what}; it takes ip or ip6 saddr and "
        "daddr, udp sport and dport, and ip or ip6 dscp, each with one plain value"
    )


def parse(match: str) -> Match:
    """Read the part of nftables' language that every access list has, and nothing else.

    Args:
        match: As in `PacketDrop.match`.

    Raises:
        CapabilityError: anything else is in it; the sentence says which words.

    Examples:
        >>> parse("ip saddr 10.0.0.1 udp dport 4791")
        Match(families=(4,), source='10.0.0.1/32', destination='', sport=None, dport=4791, \
dscp=None, udp=True)
    """
    if not match.strip():
        raise CapabilityError(
            "a switch's access list cannot drop everything: it does not see ARP, LLDP and other "
            "frames that are not IP; take the port down instead, or name a flow such as "
            "'udp dport 4791'"
        )
    found: dict[str, str] = {}
    words = match.split()
    while words:
        if len(words) < 3:
            raise _refuse(match, f"{' '.join(words)!r} is not whole")
        (layer, name, value), words = words[:3], words[3:]
        known = {"ip": ("saddr", "daddr", "dscp"), "udp": ("sport", "dport")}
        if name not in known.get("ip" if layer == "ip6" else layer, ()):
            raise _refuse(match, f"{layer} {name} is not among what they all have")
        key = f"{layer} {name}"
        if key in found:
            raise _refuse(match, f"{key} is given twice")
        found[key] = value
    layers = {key.split()[0] for key in found}
    if {"ip", "ip6"} <= layers:
        raise _refuse(match, "a packet is IPv4 or IPv6, never both")
    family = 6 if "ip6" in layers else 4
    ip = "ip6" if family == 6 else "ip"
    return Match(
        families=(family,) if layers & {"ip", "ip6"} else (4, 6),
        source=_prefix(match, family, found.get(f"{ip} saddr", "")),
        destination=_prefix(match, family, found.get(f"{ip} daddr", "")),
        sport=_number(match, _PORT, found.get("udp sport"), 65535, "a port"),
        dport=_number(match, _PORT, found.get("udp dport"), 65535, "a port"),
        dscp=_number(match, _DSCP, found.get(f"{ip} dscp"), 63, "a code point"),
        udp="udp" in layers,
    )


def _prefix(match: str, family: Family, value: str) -> str:
    if not value:
        return ""
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise _refuse(match, f"{value!r} is neither one address nor one prefix") from None
    if network.version != family:
        raise _refuse(match, f"{value} is no IPv{family} address")
    return str(network)


def _number(
    match: str, pattern: re.Pattern[str], value: str | None, most: int, what: str
) -> int | None:
    if value is None:
        return None
    if not pattern.fullmatch(value) or int(value, 0) > most:
        raise _refuse(match, f"{value!r} is not {what} from 0 to {most}")
    return int(value, 0)
