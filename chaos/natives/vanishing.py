"""What goes with an interface when it vanishes, as commands that put it on one of the same name.

More goes than with one that is set down (`chaos.saved`): the IPv4 addresses, the MTU, the MAC
address, the settings, and routes elsewhere that name one of its addresses as their source. What the
commands cannot put back is refused before.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from chaos import netlink as nl
from chaos import saved_words as words
from chaos.errors import BlockedError
from chaos.natives.port import leg_by_leg, settings
from chaos.netlink import Netlink
from chaos.nft import Compiler
from chaos.saved import DAEMONS, save

Argv = tuple[str, ...]
# Nexthop objects are refused without one, and the link of a quick port takes its time.
_CARRIER = """n=0
until [ "$(cat "/sys/class/net/$1/carrier")" = 1 ] || [ $n -ge 200 ]; do
  n=$((n + 1)); sleep 0.1
done
"""
_ADDRESS, _IFNAME, _MTU, _TXQLEN, _INFO, _ALIAS, _XDP, _PERM = 1, 3, 4, 13, 18, 20, 43, 54
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST, _IFA_CACHE, _IFA_FLAGS = 1, 2, 3, 4, 6, 8
_IFA_METRIC, _RTA_SOURCE, _RTA_OIF = 9, 7, 4
_PERMANENT, _NO_PREFIX_ROUTE, _FOR_EVER = 0x80, 0x200, 0xFFFFFFFF
_INGRESS = 0xFFFFFFF1


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as netlink tells of it.

    Attributes:
        index: Its index now.
        name: Its name.
        up: Whether it is set up.
        carrier: Whether it has a carrier.
        kind: Kind of a device that is made by software, such as `veth`; empty for others.
        got: Its attributes.
    """

    index: int
    name: str
    up: bool
    carrier: bool
    kind: str
    got: Mapping[int, bytes]


def interface(link: Netlink, index: int) -> Interface:
    """Read one.

    Raises:
        OSError: there is none of that index.
    """
    body = link.ask(nl.RTM_GETLINK, nl.ifinfo(index)).body
    got = nl.attrs(body, 16)
    (flags,) = struct.unpack_from("=I", body, 8)
    kind = nl.attrs(got.get(_INFO, b""), 0).get(1, b"").rstrip(b"\0").decode()
    name = got[_IFNAME].rstrip(b"\0").decode()
    up, carrier = bool(flags & nl.IFF_UP), bool(flags & nl.IFF_LOWER_UP)
    return Interface(index, name, up, carrier, kind, got)


def refuse(link: Netlink, one: Interface) -> None:
    """Refuse what hangs on an interface that no command of ours puts back.

    Raises:
        BlockedError: names it.
    """
    name = one.name
    for found in link.dump(nl.RTM_GETQDISC, bytes(20)):
        index, handle, parent = struct.unpack_from("=iII", found.body, 4)
        if index == one.index and (handle or parent == _INGRESS):
            kind = nl.attrs(found.body, 20)[1].rstrip(b"\0").decode()
            raise BlockedError(
                f"{name} has a qdisc {kind} {handle >> 16:x}: that somebody set, and it would be "
                f"lost for good; take it off first (tc qdisc del dev {name} …)"
            )
    if nl.attrs(one.got.get(_XDP, b""), 0).get(2, b"\0")[:1] not in (b"", b"\0"):
        raise BlockedError(f"{name} runs an XDP program, which would be lost for good; detach it")
    compiler = Compiler()
    try:
        rules = compiler.run("list ruleset")
    finally:
        compiler.close()
    for line in rules.splitlines():
        said = line.replace('"', " ").replace(",", " ").split()
        hook = said[:2] == ["type", "filter"] and {"device", "devices"} & {*said}
        if (hook or said[:1] == ["devices"]) and name in said:
            raise BlockedError(
                f"nftables rules hang on {name} and would be lost with it: {line.strip()}; delete "
                "them first"
            )


def on_link(link: Netlink, one: Interface) -> Iterator[Argv]:
    """The interface itself: MAC address, MTU, queue, settings, up, addresses; in that order."""
    dev = ("ip", "link", "set", "dev", one.name)
    mac, burnt = one.got.get(_ADDRESS, b""), one.got.get(_PERM, b"")
    if mac and mac != burnt:
        yield (*dev, "address", mac.hex(":"))
    yield (*dev, "mtu", str(_number(one.got[_MTU])))
    if _TXQLEN in one.got:
        yield (*dev, "txqueuelen", str(_number(one.got[_TXQLEN])))
    if _ALIAS in one.got:
        yield (*dev, "alias", one.got[_ALIAS].rstrip(b"\0").decode())
    for path, value in settings((one.name,), ("ipv4", "ipv6")):
        yield ("sh", "-c", 'echo "$1" >"$2"', "railbreak", value, path)
    if one.up:
        yield words.link_up(one.name)
    for found in link.dump(nl.RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
        if struct.unpack_from("=I", found.body, 4)[0] == one.index:
            yield _address(found.body, one.name)


def over_link(link: Netlink, one: Interface) -> Iterator[Argv]:
    """What needs the interface to be there and up: IPv6 addresses, nexthops, routes, neighbours."""
    keep = save(link, one.index)
    yield from leg_by_leg(link, keep, (one.index,)).commands
    yield from _from_here(link, one)


def _from_here(link: Netlink, one: Interface) -> Iterator[Argv]:
    """IPv4 routes over other interfaces that an address of this one is the source of."""
    head = struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)
    own = {
        nl.attrs(found.body, 8)[_IFA_LOCAL]
        for found in link.dump(nl.RTM_GETADDR, head)
        if struct.unpack_from("=I", found.body, 4)[0] == one.index
    }
    names = {
        struct.unpack_from("=i", found.body, 4)[0]: nl.attrs(found.body, 16)[_IFNAME]
        .rstrip(b"\0")
        .decode()
        for found in link.dump(nl.RTM_GETLINK, nl.ifinfo())
    }
    for found in link.dump(nl.RTM_GETROUTE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 0, 0, 0, 0, 0)):
        got = nl.attrs(found.body, 12)
        table, proto, kind = found.body[4], found.body[5], found.body[7]
        elsewhere = _RTA_OIF in got and _number(got[_RTA_OIF]) != one.index
        ours = got.get(_RTA_SOURCE) in own and table != 255 and proto not in DAEMONS
        if ours and elsewhere and kind == 1:
            yield words.route(found.body, names)


def _address(body: bytes, name: str) -> Argv:
    """`ip addr replace` of an IPv4 address, with what it had left to live."""
    prefix, short, scope = body[1], body[2], body[3]
    got = nl.attrs(body, 8)
    own, peer = got[_IFA_LOCAL], got[_IFA_ADDRESS]
    flags = _number(got[_IFA_FLAGS]) if _IFA_FLAGS in got else short
    argv = ["ip", "addr", "replace", socket.inet_ntop(socket.AF_INET, own)]
    argv += ["peer", socket.inet_ntop(socket.AF_INET, peer)] if peer != own else []
    argv[-1] += f"/{prefix}"
    if _IFA_BROADCAST in got:
        argv += ["brd", socket.inet_ntop(socket.AF_INET, got[_IFA_BROADCAST])]
    argv += ["dev", name, "scope", {0: "global", 253: "link", 254: "host"}.get(scope, str(scope))]
    if (label := got.get(_IFA_LABEL, b"").rstrip(b"\0").decode()) not in ("", name):
        argv += ["label", label]
    argv += ["metric", str(_number(got[_IFA_METRIC]))] if _IFA_METRIC in got else []
    preferred, valid = struct.unpack_from("=II", got[_IFA_CACHE])
    if not flags & _PERMANENT and valid != _FOR_EVER:
        argv += ["valid_lft", str(valid), "preferred_lft", str(preferred)]
    return (*argv, *(["noprefixroute"] if flags & _NO_PREFIX_ROUTE else []))


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])


def all_of(link: Netlink, interfaces: Collection[Interface]) -> tuple[Argv, ...]:
    """Everything that goes with interfaces, those that others need first."""
    first = [argv for one in interfaces for argv in on_link(link, one)]
    first += [("sh", "-c", _CARRIER, "railbreak", one.name) for one in interfaces if one.carrier]
    then = [argv for one in interfaces for argv in over_link(link, one)]
    return tuple(dict.fromkeys((*first, *then)))
