"""nftables: rules by libnftables in this process, reading and deleting by nfnetlink. No policy.

libnftables (libnftables.so.1, Debian's libnftables1) compiles the text; where it is absent the
`nft` command does, twenty times slower. Both speak to the namespace in which they were opened.
Listing through the library costs time for every set element in the namespace, so tables and
counters are read by hand-packed messages, and deleting needs no compiler at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos import netlink
from chaos.errors import ApplyError, CapabilityError, FabricError
from chaos.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Netlink,
    NetlinkError,
)
from chaos.netns import setns

NFPROTO_INET, NFPROTO_NETDEV = 1, 5
_NETLINK_NETFILTER, _NFTABLES, _SO_PROTOCOL = 12, 10, 38
_GETTABLE, _DELTABLE, _DELCHAIN, _GETOBJ = (_NFTABLES << 8 | kind for kind in (1, 2, 5, 19))
_NEWTABLE, _NEWCHAIN, _NEWRULE = (_NFTABLES << 8 | kind for kind in (0, 3, 6))
_BATCH_BEGIN, _BATCH_END = 16, 17
_TABLE_NAME, _OBJ_TABLE, _OBJ_NAME, _OBJ_DATA = 1, 1, 2, 4
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _LIST_ELEMENT, _NESTED = 1, 2, 4, 1, 0x8000
_COUNTER_PACKETS = 2
_STATELESS = 1 << 1
_FAMILY = {NFPROTO_INET: "inet", NFPROTO_NETDEV: "netdev"}
#: The library's table of interface names is the process's own: two threads in it abort the process.
_ONE_AT_A_TIME = threading.Lock()


def _head(family: int, resource: int = 0) -> bytes:
    return struct.pack("=BBH", family, 0, socket.htons(resource))


def _library() -> ctypes.CDLL | None:
    try:
        lib = ctypes.CDLL("libnftables.so.1")
    except OSError:
        return None
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).restype = ctypes.c_char_p
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    lib.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    return lib


class Compiler:
    """Runs nftables text in the namespace of the thread that made it.

    Args:
        command: Use the `nft` command even where the library is present.
        counts: Print what was counted with what is listed.
        owner: Rules are also to be appended by message, as the owner of the tables that it makes;
            of a process with one thread.
    """

    def __init__(self, *, command: bool = False, counts: bool = False, owner: bool = False) -> None:
        self._counts = counts
        self._own: Netlink | None = None
        self._lib = None if command else _library()
        self._ctx: int | None = None
        self._netns = -1
        if self._lib is None:
            self._netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return
        with _ONE_AT_A_TIME:
            before = _sockets() if owner else frozenset()
            self._ctx = self._lib.nft_ctx_new(0)
            if owner:
                self._own = _the_new(before)
            self._lib.nft_ctx_buffer_output(self._ctx)
            self._lib.nft_ctx_buffer_error(self._ctx)
            self._lib.nft_ctx_output_set_flags(self._ctx, 0 if counts else _STATELESS)

    @property
    def warm(self) -> bool:
        """The library is here: one socket for all commands, which a table may belong to."""
        return self._lib is not None

    def run(self, text: str) -> str:
        """Run commands as one transaction; what they print.

        Raises:
            ApplyError: nftables refused; its own sentence is quoted.
            CapabilityError: neither the library nor the command is here.
        """
        if self._lib is None:
            return self._by_command(text)
        with _ONE_AT_A_TIME:
            code = self._lib.nft_run_cmd_from_buffer(self._ctx, text.encode())
            out: bytes = self._lib.nft_ctx_get_output_buffer(self._ctx)
            said: bytes = self._lib.nft_ctx_get_error_buffer(self._ctx)
        if code != 0:
            raise _refused(said.decode(errors="replace"))
        return out.decode(errors="replace")

    def would(self, text: str) -> bool:
        """Whether the kernel would take the commands; nothing is done."""
        if self._lib is None:
            return False
        self._lib.nft_ctx_set_dry_run(self._ctx, True)
        try:
            self.run(text)
        except ApplyError:
            return False
        finally:
            self._lib.nft_ctx_set_dry_run(self._ctx, False)
        return True

    def append(self, family: int, table: str, chain: str, expression: bytes) -> None:
        """Append a rule of one expression that nftables has no words for.

        Raises:
            ApplyError: the kernel refused.
        """
        if self._own is None:
            raise ApplyError("nftables: no socket of the tables' owner to append a rule by")
        code = _batch(self._own, (_rule(family, table, chain, expression),))
        if code:
            raise ApplyError(f"nftables refused a rule of {table} {chain}: {os.strerror(code)}")

    def _by_command(self, text: str) -> str:
        fd = self._netns
        try:
            done = subprocess.run(
                ("nft", *(() if self._counts else ("-s",)), "-f", "-"),
                input=text.encode(),
                capture_output=True,
                preexec_fn=lambda: setns(fd),  # the child only; the caller stays where it is
            )
        except FileNotFoundError:
            raise CapabilityError(
                "no nftables: neither libnftables.so.1 nor the command nft is here; "
                "install nftables"
            ) from None
        if done.returncode != 0:
            raise _refused(done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace")

    def close(self) -> None:
        """Give the handle back."""
        if self._own is not None:
            self._own.close()
        if self._lib is not None and self._ctx is not None:
            with _ONE_AT_A_TIME:
                self._lib.nft_ctx_free(self._ctx)
            self._ctx = None
        if self._netns >= 0:
            os.close(self._netns)
            self._netns = -1


@dataclass(slots=True)
class Tables:
    """A warm nfnetlink socket that reads and deletes tables of one family, by default netdev."""

    link: Netlink
    family: int = NFPROTO_NETDEV

    @classmethod
    def open(cls, family: int = NFPROTO_NETDEV) -> Tables:
        """Open in the calling thread's network namespace."""
        return cls(_opened(), family)

    def names(self) -> frozenset[str]:
        """Every table of the family.

        Raises:
            FabricError: the kernel gave no answer.
        """
        found = _answer(lambda: self.link.dump(_GETTABLE, _head(self.family)))
        return frozenset(
            _text(netlink.attrs(one.body, 4)[_TABLE_NAME])
            for one in found
            if one.kind == _NFTABLES << 8
        )

    def counters(self, table: str) -> dict[str, int]:
        """Packets per named counter of `table`; empty when there is no such table."""
        body = _head(self.family) + netlink.text(_OBJ_TABLE, table)
        counted = {}
        for one in _answer(lambda: self.link.dump(_GETOBJ, body)):
            got = netlink.attrs(one.body, 4)
            if _text(got.get(_OBJ_TABLE, b"")) == table and _OBJ_DATA in got:
                inner = netlink.attrs(got[_OBJ_DATA], 0)
                packets = struct.unpack(">Q", inner[_COUNTER_PACKETS])[0]
                counted[_text(got[_OBJ_NAME])] = packets
        return counted

    def delete(self, table: str) -> bool:
        """Delete one table and all in it; False when there was none."""
        return self._gone(
            _DELTABLE, netlink.text(_TABLE_NAME, table), f"table {_FAMILY[self.family]} {table}"
        )

    def detach(self, table: str, chain: str = "ingress") -> bool:
        """Delete its chain that packets come by; its counters stay. False when there was none."""
        body = netlink.text(_CHAIN_TABLE, table) + netlink.text(_CHAIN_NAME, chain)
        return self._gone(_DELCHAIN, body, f"chain {_FAMILY[self.family]} {table} {chain}")

    def _gone(self, kind: int, named: bytes, what: str) -> bool:
        body = _head(self.family) + named
        gone = netlink.message(kind, NLM_F_REQUEST | NLM_F_ACK, body, 1)
        code = _batch(self.link, (gone,))
        if code and code != errno.ENOENT:
            raise NetlinkError(code, f"delete {what}: {os.strerror(code)}")
        return not code

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def dry_rule(family: int, expression: bytes) -> int:
    """What the kernel would say to a rule of one expression: 0, or an error number.

    A transaction without its end is looked at and thrown away.
    """
    table, chain = "railbreak_probe", "probe"
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    named = netlink.text(_TABLE_NAME, table)
    made = netlink.text(_CHAIN_TABLE, table) + netlink.text(_CHAIN_NAME, chain)
    link = _opened()
    try:
        messages = (
            netlink.message(_NEWTABLE, flags, _head(family) + named, 1),
            netlink.message(_NEWCHAIN, flags, _head(family) + made, 1),
            _rule(family, table, chain, expression),
        )
        return _batch(link, messages, end=False)
    finally:
        link.close()


def _rule(family: int, table: str, chain: str, expression: bytes) -> bytes:
    body = _head(family) + netlink.text(_RULE_TABLE, table) + netlink.text(_RULE_CHAIN, chain)
    element = netlink.attr(_LIST_ELEMENT | _NESTED, expression)
    body += netlink.attr(_RULE_EXPRESSIONS | _NESTED, element)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
    return netlink.message(_NEWRULE, flags, body, 1)


def _batch(link: Netlink, messages: Sequence[bytes], *, end: bool = True) -> int:
    """Send messages that ask for an acknowledgement, as one transaction; the first error or 0."""
    marks = _head(0, _NFTABLES)
    last = netlink.message(_BATCH_END, NLM_F_REQUEST, marks, 2) if end else b""
    begin = netlink.message(_BATCH_BEGIN, NLM_F_REQUEST, marks)
    link.sock.send(begin + b"".join(messages) + last)
    waiting, found = len(messages), 0
    while waiting > 0:
        for got in netlink.split(link.sock.recv(1 << 17)):
            waiting -= 1
            (code,) = struct.unpack_from("=i", got.body)
            if code and not got.seq:  # of the transaction as a whole: nothing else is answered
                return -int(code)
            found = found or -code
    return found


def _opened() -> Netlink:
    flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
    sock.bind((0, 0))
    return Netlink(sock)


def _sockets() -> frozenset[int]:
    """File descriptors of this process that are sockets of nfnetlink."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                protocol = one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
                if (one.family, protocol) == (socket.AF_NETLINK, _NETLINK_NETFILTER):
                    found.add(int(name))
    return frozenset(found)


def _the_new(before: frozenset[int]) -> Netlink | None:
    new = _sockets() - before
    return Netlink(socket.socket(fileno=os.dup(min(new)))) if new else None


def _answer(ask: Callable[[], list[netlink.Message]]) -> list[netlink.Message]:
    try:
        return ask()
    except OSError as error:
        raise FabricError(f"nftables cannot be read: {error}") from None


def _refused(said: str) -> ApplyError:
    return ApplyError(f"nftables refused: {(said.strip().splitlines() or ['no reason given'])[0]}")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
