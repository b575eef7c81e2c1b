"""How a worker gets packets where only the interface is reached that receives: from its IP.

`Waiting` holds them in the kernel's queue; `Copied` lets them go on untouched and reads a copy.
Frames that are not IP are never seen there.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from chaos import netlink as nl
from chaos import nflog, nfqueue
from chaos.errors import ApplyError, CapabilityError
from chaos.nflog import Copies
from chaos.nfqueue import Queue
from chaos.nft import NFPROTO_INET
from chaos.packet_ways import PLAIN, Taken, Way
from chaos.packets import Rule
from chaos.tap import Out

_ETHERNET = 14
_IFNAME, _MASTER, _LINKINFO, _KIND = 3, 10, 18, 1
_TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


class _Received(Way):
    """The table, before IP."""

    family = NFPROTO_INET

    def __init__(self, order: dict[str, Any], rule: Rule) -> None:
        super().__init__(order["table"], rule)
        self._ifname: str = order["ifname"]
        refuse_taken(self._ifname)

    def let_be(self) -> None:
        """Empty the chain. It stays hooked: a kernel that unhooks one drops all that is queued."""
        self.compiler.run(f"flush chain inet {self._table} ingress")

    def done(self) -> None:
        """Delete the table."""
        self.compiler.run(f"delete table inet {self._table}")


class Waiting(_Received):
    """Where only the interface is reached that receives: packets wait in the kernel.

    Args:
        order: `table`, `ifname`.
        rule: Which packets.
    """

    def __init__(self, order: dict[str, Any], rule: Rule) -> None:
        super().__init__(order, rule)
        self._rewrites = rule.then.deed in ("corrupt", "forge")
        self._queue = Queue(self._table, nfqueue.ALL if self._rewrites else nfqueue.HEADERS)
        self.fd = self._queue.fd
        self._ready(owner=True)
        self._native = nfqueue.native(self.compiler)

    def lead(self) -> None:
        """The table; where nftables has no words for the queue, its rules come before the hook."""
        number = self._queue.number
        statement = nfqueue.words(number) if self._native else ""
        text = self._rule.nft(self._table, self._ifname, queue=statement)
        if self._native:
            self.compiler.run(text)
            return
        chains, begin, hook = text.partition("  chain ingress {")
        self.compiler.run(chains + "}\n")
        for chain in ("act", *(("choose",) if self._rule.then.deed == "reorder" else ())):
            nfqueue.append(self.compiler, self._table, chain, number)
        self.compiler.run(f"table inet {self._table} {{\n  flags owner;\n{begin}{hook}")

    def read(self) -> Taken | None:
        """From the queue; the kernel takes the Ethernet header off before."""
        packet = self._queue.read()
        if packet is None:
            return None
        kind = _TYPES.get(packet.data[0] >> 4 if packet.data else 0, bytes(2))
        return Taken(
            bytes(12) + kind + packet.data,
            0,
            packet.size + _ETHERNET,
            whole=not packet.segments and len(packet.data) == packet.size,
            waits=packet,
        )

    def give(self, packet: Taken) -> bool:
        """It goes on from where it was taken."""
        assert packet.waits is not None
        data = packet.raw[_ETHERNET:] if self._rewrites else b""
        changed = data if data != packet.waits.data else b""
        self._queue.give(packet.waits, changed)
        return True

    def drop(self, packet: Taken) -> None:
        """The kernel lets go of it."""
        assert packet.waits is not None
        self._queue.drop(packet.waits)

    def answer(self, frame: bytes) -> bool:
        """Nobody is answered."""
        return False

    def refused(self) -> int:
        """What the kernel no longer had."""
        return self._queue.refused

    def close(self) -> None:
        """The queue goes."""
        self._queue.close()


class Copied(_Received):
    """Where only the interface is reached that receives, and the packets go on untouched.

    Args:
        order: `table`, `ifname`.
        rule: Which packets.
    """

    def __init__(self, order: dict[str, Any], rule: Rule) -> None:
        super().__init__(order, rule)
        self._copies = Copies(self._table)
        self.fd = self._copies.fd
        self._back = Out(self._ifname)
        self._ready()
        statement = nflog.words(self._copies.number)
        self._text = rule.nft(self._table, self._ifname, queue=statement)

    def lead(self) -> None:
        """One transaction."""
        self.compiler.run(self._text)

    def read(self) -> Taken | None:
        """The next copy."""
        frame = self._copies.read()
        return None if frame is None else Taken(frame, 0, len(frame))

    def give(self, packet: Taken) -> bool:
        """It went on by itself."""
        return True

    def drop(self, packet: Taken) -> None:
        """A copy."""

    def answer(self, frame: bytes) -> bool:
        """Out of the interface that it came by, to who sent it over the last cable."""
        return self._back.send(PLAIN + frame)

    def close(self) -> None:
        """The group goes."""
        self._copies.close()
        self._back.close()


def refuse_taken(ifname: str) -> None:
    """Refuse an interface whose packets another takes before IP sees whose they were.

    Raises:
        ApplyError: there is no such interface.
        CapabilityError: it is a port of a bond, a bridge, a team or a switch.
    """
    link = nl.Netlink.open()
    try:
        got = _link(link, socket.if_nametoindex(ifname))
        above = _link(link, int.from_bytes(got[_MASTER], sys.byteorder)) if _MASTER in got else {}
    except OSError as error:
        raise ApplyError(f"{ifname}: {error.strerror}") from None
    finally:
        link.close()
    kind = nl.attrs(above.get(_LINKINFO, b""), 0).get(_KIND, b"").rstrip(b"\0").decode()
    if above and kind != "vrf":
        name = above[_IFNAME].rstrip(b"\0").decode()
        raise CapabilityError(
            f"{ifname} is a port of {name} ({kind}), which takes what arrives there before IP: "
            "nothing can be held or rewritten at it; then: drop, ce and corrupt act there"
        )


def _link(link: nl.Netlink, index: int) -> dict[int, bytes]:
    return nl.attrs(link.ask(nl.RTM_GETLINK, nl.ifinfo(index)).body, 16)
