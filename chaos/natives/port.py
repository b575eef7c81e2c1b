"""`PortMtu`: one message sets the MTU, one sets it back, and what the kernel dropped with it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from chaos import netlink as nl
from chaos.change import Hits, PortMtu, Where
from chaos.changes.port import LEAST_MTU_OF_IPV6
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.netlink import Netlink, NetlinkError
from chaos.netns import inside
from chaos.saved import Saved, put_back, raw_attrs, save
from chaos.saved_words import legs, route

_IFNAME, _MTU, _LINK, _INFO, _STATS64, _LINK_NETNSID = 3, 4, 5, 18, 23, 37
_RTA_OIF, _RTA_METRICS, _RTA_MULTIPATH, _RTAX_LOCK, _RTAX_MTU = 4, 8, 9, 1, 2
_CLONED = 0x200
#: Kinds that lie on another interface and never have a greater MTU than it.
_ON_TOP = frozenset({b"vlan", b"macvlan", b"macvtap", b"ipvlan"})
#: Settings of IPv6 that the kernel makes anew with the defaults, and two that are no settings.
_SETTINGS = ("conf", "neigh")
_NO_SETTINGS = frozenset({"mtu", "stable_secret"})
_TOO_LONG = frozenset({"FragOKs", "FragFails", "Ip6FragOKs", "Ip6FragFails", "Ip6InTooBigErrors"})


@dataclass(slots=True)
class Sized:
    """`PortMtu`: one message, and back."""

    change: PortMtu
    where: Where
    link: Netlink
    before: int
    stacked: tuple[tuple[int, str, int], ...]
    settings: tuple[tuple[str, str], ...]
    keep: Saved
    counts: tuple[int, ...]
    base: tuple[int, int]
    lasting: bool = False

    @classmethod
    def open(cls, change: PortMtu, where: Where, saved: Mapping[str, Any] | None) -> Sized:
        """Called inside the namespace."""
        link = Netlink.open()
        counts: list[int] = []
        try:
            got = _look(link, change, where)
            if saved is None:
                before, stacked, settings, keep = _before(link, change, where, got)
            else:
                before = int(saved["mtu"])
                stacked = tuple((int(i), str(n), int(m)) for i, n, m in saved["stacked"])
                settings = tuple((str(path), str(value)) for path, value in saved["settings"])
                keep = Saved.from_json({**saved, "commands": saved["restored"]})
            for name in ("snmp", "snmp6"):
                with contextlib.suppress(OSError):
                    path = f"/proc/thread-self/net/{name}"
                    counts.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except BaseException:
            link.close()
            for fd in counts:
                os.close(fd)
            raise
        fds = tuple(counts)
        base = _counted(got, fds)
        return cls(change, where, link, before, stacked, settings, keep, fds, base)

    @property
    def saved(self) -> Mapping[str, Any]:
        """What the undo puts back; `commands` is all of it for people, after the MTU itself."""
        told = self.keep.to_json()
        sized = [["ip", "link", "set", "dev", n, "mtu", str(m)] for _, n, m in self.stacked]
        written = [
            ["sysctl", "-qw", f"{path.removeprefix('/proc/sys/')}={value}"]
            for path, value in self.settings
        ]
        return {
            "messages": told["messages"],
            "restored": told["commands"],
            "commands": [*sized, *written, *told["commands"]],
            "mtu": self.before,
            "stacked": [list(one) for one in self.stacked],
            "settings": [list(one) for one in self.settings],
        }

    def do(self) -> None:
        """Set it."""
        try:
            self.link.send(_set_mtu(self.where.ifindex, self.change.mtu))
        except OSError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Set what was before, unless somebody set another, and put back what was lost."""
        try:
            ours = self.in_force()
        except FabricError as error:
            return (str(error),)
        refused: list[str] = []
        own = (self.where.ifindex, self.where.ifname, self.before)
        for index, name, mtu in (*((own,) if ours else ()), *self.stacked):
            try:
                self.link.send(_set_mtu(index, mtu))
            except NetlinkError as error:
                refused.append(f"MTU {mtu} at {name}: {error}")
        if self.settings and not refused:
            refused += inside(self.where.netns, self._write)
        return (*refused, *put_back(self.link, self.keep))

    def _write(self) -> list[str]:
        refused = []
        for path, value in self.settings:
            try:
                Path(path).write_text(value, encoding="ascii")
            except OSError as error:
                refused.append(f"{path} = {value}: {error.strerror}")
        return refused

    def in_force(self) -> bool:
        """Whether the interface has that MTU."""
        return _number(_look(self.link, self.change, self.where)[_MTU]) == self.change.mtu

    def hits(self) -> Hits:
        """Packets at the interface, and those that were too long.

        `hit`: those it refused as they came, and those that its node cut, or refused to pass on.
        """
        now = _counted(_look(self.link, self.change, self.where), self.counts)
        seen, hit = (new - old for new, old in zip(now, self.base, strict=True))
        return Hits(seen, min(seen, hit))

    def close(self) -> None:
        """Close what was opened."""
        self.link.close()
        for fd in self.counts:
            os.close(fd)


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])


def _name(got: Mapping[int, bytes]) -> str:
    return got[_IFNAME].rstrip(b"\0").decode()


def _set_mtu(index: int, mtu: int) -> bytes:
    flags = nl.NLM_F_REQUEST | nl.NLM_F_ACK
    return nl.message(nl.RTM_NEWLINK, flags, nl.ifinfo(index) + nl.u32(_MTU, mtu))


def _look(link: Netlink, change: PortMtu, where: Where) -> dict[int, bytes]:
    """Attributes of the very interface that was resolved."""
    try:
        found = nl.attrs(link.ask(nl.RTM_GETLINK, nl.ifinfo(where.ifindex)).body, 16)
    except OSError as error:
        raise FabricError(f"{change.place}: {where.ifname} cannot be read: {error}") from None
    if _name(found) != where.ifname:
        raise FabricError(
            f"{change.place}: interface {where.ifindex} is now {_name(found)!r}, expected "
            f"{where.ifname!r}"
        )
    return found


_Before = tuple[int, tuple[tuple[int, str, int], ...], tuple[tuple[str, str], ...], Saved]


def _before(link: Netlink, change: PortMtu, where: Where, got: Mapping[int, bytes]) -> _Before:
    """The MTU now, those of interfaces on top, settings and state that would be lost.

    Raises:
        BlockedError: it has that MTU already, or something would be lost that cannot be put back.
    """
    mtu = _number(got[_MTU])
    if mtu == change.mtu:
        raise BlockedError(
            f"{change.place}: its MTU is {mtu} already, so setting it breaks nothing"
        )
    stacked = tuple(_stacked(link, where.ifindex, change.mtu))
    lost = (where.ifindex, *(index for index, _, _ in stacked))
    if change.mtu >= LEAST_MTU_OF_IPV6:
        _refuse_own_mtu(link, change, lost)
        return mtu, stacked, (), Saved()
    names = (where.ifname, *(name for _, name, _ in stacked))
    return mtu, stacked, tuple(settings(names)), leg_by_leg(link, save(link, where.ifindex), lost)


def _stacked(link: Netlink, index: int, mtu: int) -> Iterator[tuple[int, str, int]]:
    """Interfaces on top of `index`, lowest first, that cannot keep their MTU: index, name, MTU."""
    above: dict[int, list[tuple[int, str, int]]] = {}
    for one in link.dump(nl.RTM_GETLINK, nl.ifinfo()):
        (at,) = struct.unpack_from("=i", one.body, 4)
        got = nl.attrs(one.body, 16)
        kind = nl.attrs(got.get(_INFO, b""), 0).get(1, b"").rstrip(b"\0")
        on_top = kind in _ON_TOP and _LINK in got and _LINK_NETNSID not in got
        if on_top and _number(got[_MTU]) > mtu:
            found = (at, _name(got), _number(got[_MTU]))
            above.setdefault(_number(got[_LINK]), []).append(found)
    todo = [index]
    for below in todo:
        for found in sorted(above.get(below, ())):
            todo.append(found[0])
            yield found


def _refuse_own_mtu(link: Netlink, change: PortMtu, lost: Collection[int]) -> None:
    """Refuse an IPv6 route with an MTU of its own: the kernel would give it the interface's."""
    head = struct.pack("=BBBBBBBBI", socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
    for one in link.dump(nl.RTM_GETROUTE, head):
        got = nl.attrs(one.body, 12)
        metrics = nl.attrs(got.get(_RTA_METRICS, b""), 0)
        (flags,) = struct.unpack_from("=I", one.body, 8)
        if _RTAX_MTU not in metrics or flags & _CLONED or _RTA_OIF not in got:
            continue
        locked = _number(metrics.get(_RTAX_LOCK, bytes(4))) >> _RTAX_MTU & 1
        if _number(got[_RTA_OIF]) in lost and not locked:
            to = (
                f"{socket.inet_ntop(socket.AF_INET6, got[1])}/{one.body[1]}" if 1 in got else "::/0"
            )
            raise BlockedError(
                f"{change.place}: route {to} has an MTU of its own, which the kernel would replace "
                "by the interface's for good; lock it (ip -6 route replace … mtu lock N)"
            )


def settings(
    names: Collection[str], families: Collection[str] = ("ipv6",)
) -> Iterator[tuple[str, str]]:
    """Settings at interfaces that are not the defaults: path and value."""
    for name in names:
        for family, group in product(families, _SETTINGS):
            folder = Path("/proc/sys/net", family, group)
            for path in sorted((folder / name).glob("*")):
                if path.name in _NO_SETTINGS:
                    continue
                value = _setting(path)
                if value is not None and value != _setting(folder / "default" / path.name):
                    yield str(path), value


def _setting(path: Path) -> str | None:
    """A setting's value; None where there is none to be read (a namespace has no neigh/default)."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def leg_by_leg(link: Netlink, keep: Saved, lost: Collection[int]) -> Saved:
    """IPv6 multipath routes as one message per lost leg.

    The other legs stand; one that is added again is refused, and takes those before it with it.
    """
    names: dict[int, str] = {}
    for one in link.dump(nl.RTM_GETLINK, nl.ifinfo()):
        names[struct.unpack_from("=i", one.body, 4)[0]] = _name(nl.attrs(one.body, 16))
    messages, commands = [], []
    for raw, argv in zip(keep.messages, keep.commands, strict=True):
        kind, flags = struct.unpack_from("=HH", raw, 4)
        body = raw[16:]
        got = nl.attrs(body, 12) if kind == nl.RTM_NEWROUTE else {}
        if _RTA_MULTIPATH not in got or body[0] != socket.AF_INET6:
            messages.append(raw)
            commands.append(argv)
            continue
        ways = got[_RTA_MULTIPATH]
        rest = b"".join(part for at, part in raw_attrs(body, 12) if at != _RTA_MULTIPATH)
        for at, _, _, index, _ in legs(ways):
            if index in lost:
                (length,) = struct.unpack_from("=H", ways, at)
                made = body[:12] + rest + nl.attr(_RTA_MULTIPATH, ways[at : at + length])
                messages.append(nl.message(kind, flags, made))
                commands.append(route(made, names))
    return Saved(tuple(messages), tuple(commands))


def _counted(got: Mapping[int, bytes], fds: Collection[int]) -> tuple[int, int]:
    """Packets at an interface, and those too long, there and in its node."""
    received, sent, _, _, errors, _, dropped = struct.unpack_from("=7Q", got[_STATS64])
    cut = sum(_too_long(os.pread(fd, 1 << 16, 0).decode()) for fd in fds)
    return received + sent + errors + dropped, errors + dropped + cut


def _too_long(text: str) -> int:
    """Packets that did not fit, from `/proc/net/snmp` (two lines each) or `snmp6` (a name each).

    Examples:
        >>> _too_long("Ip: InReceives FragOKs FragFails\\nIp: 9 2 1\\n")
        3
    """
    words = [line.split() for line in text.splitlines()]
    pairs = [one for one in words if len(one) == 2]
    for names, values in pairwise(words):
        if names[:1] == ["Ip:"] == values[:1]:
            pairs += [list(pair) for pair in zip(names[1:], values[1:], strict=True)]
    return sum(int(value) for name, value in pairs if name in _TOO_LONG)
