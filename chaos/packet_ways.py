"""How a worker gets its packets and gives them back; here: across a cable.

A way has an nftables table of this process (`flags owner`), which chooses and counts the packets;
when the process ends, however it ends, the kernel removes the table, and packets go straight on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from chaos.errors import CapabilityError
from chaos.nfqueue import Queued
from chaos.nft import NFPROTO_NETDEV, Compiler, Tables
from chaos.packets import Rule
from chaos.tap import HEAD, NEEDS_CHECKSUM, Out, Tap

#: A virtio-net header that asks for nothing.
PLAIN = bytes(HEAD)


@dataclass(slots=True)
class Taken:
    """A packet on its way through the worker.

    Attributes:
        raw: Its bytes, with what the way needs before them.
        head: Where its Ethernet header begins in them.
        size: Bytes from the Ethernet header on, on the cable.
        partial: Its UDP or TCP checksum is still to be completed by the kernel.
        whole: It can be rewritten.
        waits: What the kernel holds for it, where it does.
    """

    raw: bytes
    head: int
    size: int
    partial: bool = False
    whole: bool = True
    waits: Queued | None = None

    @property
    def frame(self) -> bytes:
        """From the Ethernet header on."""
        return self.raw[self.head :]

    def rewritten(self, frame: bytes) -> Taken:
        """The same with other contents."""
        return Taken(self.raw[: self.head] + frame, self.head, len(frame), waits=self.waits)


class Way(ABC):
    """The table, and packets in and out.

    Attributes:
        fd: Ready to be read when a packet has come.
    """

    fd: int
    family: ClassVar[int]

    def __init__(self, table: str, rule: Rule) -> None:
        self._table, self._rule = table, rule

    def _ready(self, *, owner: bool = False) -> None:
        """Opened last: of a killed process the kernel closes the last file first.

        Each of the others takes it a grace period (20 ms and more), in which packets would be lost.
        """
        self._tables = Tables.open(self.family)
        self.compiler = Compiler(owner=owner)
        if not self.compiler.warm:
            raise CapabilityError("a worker's table needs libnftables.so.1; install libnftables1")

    def there(self) -> bool:
        """Whether packets are led here."""
        return self._table in self._tables.names()

    def counted(self) -> dict[str, int]:
        """The table's counters."""
        return self._tables.counters(self._table)

    @abstractmethod
    def lead(self) -> None:
        """Lead the packets here."""

    @abstractmethod
    def let_be(self) -> None:
        """Lead no more of them here; what was counted can still be read."""

    @abstractmethod
    def done(self) -> None:
        """All that came was given back: take the table away."""

    @abstractmethod
    def read(self) -> Taken | None:
        """The next packet; None while there is none."""

    @abstractmethod
    def give(self, packet: Taken) -> bool:
        """It goes on; whether it could."""

    @abstractmethod
    def drop(self, packet: Taken) -> None:
        """It goes nowhere."""

    @abstractmethod
    def answer(self, frame: bytes) -> bool:
        """A frame for the sender of the packets; whether it went."""

    def refused(self) -> int:
        """Packets that turned out not to be given back, of those that seemed to be."""
        return 0

    def lost(self) -> int:
        """Packets for which there was no room."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Give all back."""


class Across(Way):
    """From one inner end of a cable into a tap, and out of the other inner end.

    Args:
        order: `table`, `ifname`, `across`, `tap`.
        rule: Which packets.
    """

    family = NFPROTO_NETDEV

    def __init__(self, order: dict[str, Any], rule: Rule) -> None:
        super().__init__(order["table"], rule)
        self._tap = Tap(order["tap"])
        self.fd = self._tap.fd
        self._ahead = Out(order["across"])
        self._back = Out(order["ifname"])
        self._ready()
        ends = {"across": order["across"], "tap": order["tap"]}
        self._text = rule.nft(self._table, order["ifname"], **ends)

    def lead(self) -> None:
        """One transaction."""
        self.compiler.run(self._text)

    def let_be(self) -> None:
        """Unhook the chain, so that the counters stand still."""
        chain = f"chain netdev {self._table} ingress"
        self.compiler.run(f"flush {chain}; delete {chain}")

    def done(self) -> None:
        """Delete the table."""
        self.compiler.run(f"delete table netdev {self._table}")

    def read(self) -> Taken | None:
        """From the tap; what the kernel itself sends to it is thrown away."""
        while True:
            raw = self._tap.read()
            if raw is None:
                return None
            if raw[HEAD + 6 : HEAD + 12] != self._tap.mac:
                return Taken(raw, HEAD, len(raw) - HEAD, bool(raw[0] & NEEDS_CHECKSUM))

    def give(self, packet: Taken) -> bool:
        """Out of the other inner end; a copy that was answered has gone on already."""
        return self._rule.then.answers or self._ahead.send(packet.raw)

    def drop(self, packet: Taken) -> None:
        """Nobody else has it."""

    def answer(self, frame: bytes) -> bool:
        """Back out of the end it came from."""
        return self._back.send(PLAIN + frame)

    def lost(self) -> int:
        """What found the tap's queue full."""
        return self._tap.lost()

    def close(self) -> None:
        """The tap goes."""
        self._tap.close()
