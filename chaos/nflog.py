"""Copies of packets into this process, by nfnetlink_log; the packets themselves go straight on."""

from __future__ import annotations

import struct

from chaos import netlink as nl
from chaos.nfqueue import Numbered

_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1
_CFG_MODE, _CFG_AT_ONCE, _COPY_PACKET = 2, 5, 2
_PAYLOAD, _LINK_HEADER = 9, 16


class Copies(Numbered):
    """A group of our own to which a rule logs packets whole, one by one.

    Args:
        name: What its number is taken from.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            (_CONFIG, "CONFIG_NETFILTER_NETLINK_LOG (modprobe nfnetlink_log)"),
            name,
            (
                nl.attr(_CFG_MODE, struct.pack(">IBB", 0, _COPY_PACKET, 0)),
                nl.attr(_CFG_AT_ONCE, struct.pack(">I", 1)),
            ),
        )
        self._more: list[bytes] = []

    def read(self) -> bytes | None:
        """The next frame, from its Ethernet header on; None while there is none."""
        while not self._more:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return None
            self._more = [_frame(one.body) for one in nl.split(data) if one.kind == _PACKET]
        return self._more.pop(0)


def words(number: int) -> str:
    """The statement of nftables that logs a packet."""
    return f"log group {number}"


def _frame(body: bytes) -> bytes:
    got = nl.attrs(body, 4)
    return got.get(_LINK_HEADER, b"") + got.get(_PAYLOAD, b"")
