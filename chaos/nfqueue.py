"""Packets into this process and back by the kernel's packet queue (NFQUEUE). No policy.

A rule of nftables queues a packet by a number; whoever bound the number gets it, and says later
what becomes of it. Meanwhile the packet stays in the kernel as it is, super-packets of a stream
too; only what is to be read of it is copied here. Where nobody has bound the number (`bypass`),
where the queue is full or this process reads no more (fail-open), packets go straight on.

nftables queues by `queue`, which some kernels are built without (CONFIG_NFT_QUEUE). The target of
`iptables-nft` (NFT_COMPAT) does the same, in any table; nftables has no words for it, so such a
rule is written as a message here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos import netlink as nl
from chaos.errors import CapabilityError
from chaos.nft import NFPROTO_INET, Compiler, dry_rule

_NETLINK_NETFILTER, _SOL_NETLINK, _NO_ENOBUFS = 12, 270, 5
_PACKET, _VERDICT, _CONFIG = (3 << 8 | kind for kind in (0, 1, 2))
_BIND, _COPY_PACKET = 1, 2
_CFG_CMD, _CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_FAIL_OPEN, _WHOLE = 1, 4
_HEADER, _VERDICT_HEADER, _PAYLOAD, _LENGTH, _NOTES = 1, 2, 10, 13, 14
_SEGMENTS = 2
_DROP, _ACCEPT = 0, 1
_SO_RCVBUFFORCE, _RECEIVE_BUFFER = 33, 64 << 20
#: Enough to find a sequence number behind any headers.
HEADERS, ALL = 256, 0xFFFF - 4
#: Packets that may be held; what comes then goes straight on.
LONGEST = 20_000
_FIRST, _MANY, _TRIES = 20_000, 40_000, 50
_REVISION, _BYPASS = 3, 1  # of struct xt_NFQ_info_v3


@dataclass(slots=True)
class Queued:
    """A packet that waits in the kernel.

    Attributes:
        number: Its own in this queue.
        data: From its IP header on, as far as it was asked for.
        size: Bytes from the IP header on.
        segments: It is many packets of a stream in one.
    """

    number: int
    data: bytes
    size: int
    segments: bool


class Numbered:
    """A number of ours in the calling thread's network namespace, by which a rule finds us.

    Args:
        subsystem: Of nfnetlink, with what this machine lacks where there is none.
        name: What the number is taken from; the next free one.
        configured: What else is asked for.

    Raises:
        CapabilityError: this kernel has no such thing, or does not let us.
    """

    def __init__(self, subsystem: tuple[int, str], name: str, configured: Sequence[bytes]) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._config, lacks = subsystem
        self.fd, self.number = self._socket.fileno(), 0
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            self._bind(name)
            for what in configured:
                self._configure(what)
        except OSError as error:
            self._socket.close()
            raise CapabilityError(
                f"this kernel gives no packets to a process here: {error.strerror}; it needs "
                f"{lacks}"
            ) from None

    def _bind(self, name: str) -> None:
        """A number that nobody has: the kernel refuses one that another has."""
        begin = zlib.crc32(name.encode())
        for more in range(_TRIES):
            self.number = _FIRST + (begin + more) % _MANY
            try:
                self._configure(nl.attr(_CFG_CMD, struct.pack(">BBH", _BIND, 0, 0)))
                return
            except OSError as error:
                taken = error.errno in (errno.EBUSY, errno.EPERM) and not os.geteuid()
                if not taken or more == _TRIES - 1:
                    raise

    def _configure(self, what: bytes) -> None:
        body = _head(self.number) + what
        self._socket.send(nl.message(self._config, nl.NLM_F_REQUEST | nl.NLM_F_ACK, body))
        for got in nl.split(self._socket.recv(1 << 17)):
            (code,) = struct.unpack_from("=i", got.body)
            if code:
                raise OSError(-code, os.strerror(-code))

    def close(self) -> None:
        """Give the number back; what is still held for it is lost."""
        self._socket.close()


class Queue(Numbered):
    """A queue of our own; see the module.

    Args:
        name: What its number is taken from.
        copied: Bytes of a packet that are read.

    Attributes:
        refused: Packets that the kernel no longer had when they were given back.
    """

    def __init__(self, name: str, copied: int) -> None:
        flags = struct.pack(">I", _FAIL_OPEN | _WHOLE)
        self.refused = 0
        super().__init__(
            (_CONFIG, "CONFIG_NETFILTER_NETLINK_QUEUE (modprobe nfnetlink_queue)"),
            name,
            (
                nl.attr(_CFG_PARAMS, struct.pack(">IB", copied, _COPY_PACKET)),
                nl.attr(_CFG_MAXLEN, struct.pack(">I", LONGEST)),
                nl.attr(_CFG_FLAGS, flags) + nl.attr(_CFG_MASK, flags),
            ),
        )

    def read(self) -> Queued | None:
        """The next packet; None while there is none."""
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return None
            for got in nl.split(data):
                if got.kind == _PACKET:
                    return _queued(got.body)
                if got.kind == nl.NLMSG_ERROR:
                    self.refused += 1

    def give(self, packet: Queued, changed: bytes = b"") -> None:
        """It goes on; with other contents where some are given."""
        self._judge(packet, _ACCEPT, nl.attr(_PAYLOAD, changed) if changed else b"")

    def drop(self, packet: Queued) -> None:
        """It goes nowhere."""
        self._judge(packet, _DROP)

    def _judge(self, packet: Queued, verdict: int, more: bytes = b"") -> None:
        body = _head(self.number)
        body += nl.attr(_VERDICT_HEADER, struct.pack(">II", verdict, packet.number)) + more
        self._socket.send(nl.message(_VERDICT, nl.NLM_F_REQUEST, body))


def words(number: int) -> str:
    """The statement of nftables that queues a packet."""
    return f"queue num {number} bypass"


def native(compiler: Compiler) -> bool:
    """Whether this kernel's nftables has `queue`; else the target of iptables-nft does it.

    Raises:
        CapabilityError: it has neither.
    """
    if compiler.would(f"table inet railbreak_probe {{\n chain a {{\n {words(1)}\n }}\n}}\n"):
        return True
    if code := dry_rule(NFPROTO_INET, target(1)):
        raise CapabilityError(
            "nftables queues no packets to a process on this kernel (CONFIG_NFT_QUEUE), nor does "
            f"iptables-nft (CONFIG_NFT_COMPAT, xt_NFQUEUE): {os.strerror(code)}"
        )
    return False


def append(compiler: Compiler, table: str, chain: str, number: int) -> None:
    """A rule at the end of a chain of ours that queues, where nftables has no words for it.

    Raises:
        ApplyError: the kernel refused.
    """
    compiler.append(NFPROTO_INET, table, chain, target(number))


def target(number: int) -> bytes:
    """The expression: target NFQUEUE, one queue, bypass."""
    info = struct.pack("=HHH", number, 1, _BYPASS)
    data = (
        nl.text(1, "NFQUEUE")
        + nl.attr(2, struct.pack(">I", _REVISION))
        + nl.attr(3, info + bytes(-len(info) % 8))
    )
    return nl.text(1, "target") + nl.attr(2 | 0x8000, data)


def taken() -> dict[int, int]:
    """Numbers of the calling thread's namespace that are bound, with the port that bound each."""
    try:
        text = Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text()
    except OSError:
        return {}
    rows = (line.split() for line in text.splitlines())
    return {int(row[0]): int(row[1]) for row in rows if len(row) > 1}


def _head(number: int) -> bytes:
    return struct.pack(">BBH", 0, 0, number)


def _queued(body: bytes) -> Queued:
    got = nl.attrs(body, 4)
    (number,) = struct.unpack_from(">I", got[_HEADER])
    data = got.get(_PAYLOAD, b"")
    size = int.from_bytes(got[_LENGTH]) if _LENGTH in got else len(data)
    notes = int.from_bytes(got.get(_NOTES, bytes(4)))
    return Queued(number, data, size, bool(notes & _SEGMENTS))
