"""nftables: rules by libnftables in this process, reading and deleting by nfnetlink. No policy.

libnftables (libnftables.so.1, Debian's libnftables1) compiles the text; where it is absent the
`nft` command does, twenty times slower. Both speak to the namespace in which they were opened.
Listing through the library costs time for every set element in the namespace, so tables and
counters are read by hand-packed messages, and deleting needs no compiler at all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from chaos import netlink
from chaos.errors import ApplyError, CapabilityError, FabricError
from chaos.netlink import NLM_F_ACK, NLM_F_REQUEST, Netlink, NetlinkError
from chaos.netns import setns

NFPROTO_NETDEV = 5
_NETLINK_NETFILTER, _NFTABLES = 12, 10
_GETTABLE, _DELTABLE, _DELCHAIN, _GETOBJ = (_NFTABLES << 8 | kind for kind in (1, 2, 5, 19))
_BATCH_BEGIN, _BATCH_END = 16, 17
_TABLE_NAME, _OBJ_TABLE, _OBJ_NAME, _OBJ_DATA = 1, 1, 2, 4
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_COUNTER_PACKETS = 2
_STATELESS = 1 << 1
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
    return lib


class Compiler:
    """Runs nftables text in the namespace of the thread that made it.

    Args:
        command: Use the `nft` command even where the library is present.
        counts: Print what was counted with what is listed.
    """

    def __init__(self, *, command: bool = False, counts: bool = False) -> None:
        self._counts = counts
        self._lib = None if command else _library()
        self._ctx: int | None = None
        self._netns = -1
        if self._lib is None:
            self._netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return
        with _ONE_AT_A_TIME:
            self._ctx = self._lib.nft_ctx_new(0)
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
        if self._lib is not None and self._ctx is not None:
            with _ONE_AT_A_TIME:
                self._lib.nft_ctx_free(self._ctx)
            self._ctx = None
        if self._netns >= 0:
            os.close(self._netns)
            self._netns = -1


@dataclass(slots=True)
class Tables:
    """A warm nfnetlink socket that reads and deletes tables of family netdev."""

    link: Netlink

    @classmethod
    def open(cls) -> Tables:
        """Open in the calling thread's network namespace."""
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        sock = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
        sock.bind((0, 0))
        return cls(Netlink(sock))

    def names(self) -> frozenset[str]:
        """Every table of family netdev.

        Raises:
            FabricError: the kernel gave no answer.
        """
        found = _answer(lambda: self.link.dump(_GETTABLE, _head(NFPROTO_NETDEV)))
        return frozenset(
            _text(netlink.attrs(one.body, 4)[_TABLE_NAME])
            for one in found
            if one.kind == _NFTABLES << 8
        )

    def counters(self, table: str) -> dict[str, int]:
        """Packets per named counter of `table`; empty when there is no such table."""
        body = _head(NFPROTO_NETDEV) + netlink.text(_OBJ_TABLE, table)
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
        return self._gone(_DELTABLE, netlink.text(_TABLE_NAME, table), f"table netdev {table}")

    def detach(self, table: str, chain: str = "ingress") -> bool:
        """Delete its chain that packets come by; its counters stay. False when there was none."""
        body = netlink.text(_CHAIN_TABLE, table) + netlink.text(_CHAIN_NAME, chain)
        return self._gone(_DELCHAIN, body, f"chain netdev {table} {chain}")

    def _gone(self, kind: int, named: bytes, what: str) -> bool:
        flags = NLM_F_REQUEST | NLM_F_ACK
        body = _head(NFPROTO_NETDEV) + named
        marks = _head(0, _NFTABLES)
        batch = (
            netlink.message(_BATCH_BEGIN, NLM_F_REQUEST, marks)
            + netlink.message(kind, flags, body, 1)
            + netlink.message(_BATCH_END, NLM_F_REQUEST, marks, 2)
        )
        self.link.sock.send(batch)
        for got in netlink.split(self.link.sock.recv(1 << 17)):
            (code,) = struct.unpack_from("=i", got.body)
            if code == -errno.ENOENT:
                return False
            if code:
                raise NetlinkError(-code, f"delete {what}: {os.strerror(-code)}")
        return True

    def close(self) -> None:
        """Close the socket."""
        self.link.close()


def _answer(ask: Callable[[], list[netlink.Message]]) -> list[netlink.Message]:
    try:
        return ask()
    except OSError as error:
        raise FabricError(f"nftables cannot be read: {error}") from None


def _refused(said: str) -> ApplyError:
    return ApplyError(f"nftables refused: {(said.strip().splitlines() or ['no reason given'])[0]}")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
