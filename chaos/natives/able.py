"""Which engines of packet rules are on this machine, found out by doing, once per process.

Each is tried in a network namespace that is thrown away: a kernel's version says nothing, since
modules may be missing, and a container may not be allowed to load them.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from chaos import netlink as nl
from chaos.errors import RailbreakError
from chaos.netns import CLONE_NEWNET, unshare
from chaos.nft import Compiler
from chaos.packets.engines import ENGINES
from chaos.tap import Tap

ROOT_CURE = "run it as root: sudo railbreak …"
_ROOT, _KIND = 0xFFFFFFFF, 1
_TABLE = (
    "table netdev probe {\n counter hit { }\n chain c {\n"
    " type filter hook ingress device lo priority -500;\n"
    " meta priority set 7262:1\n counter name hit\n fwd to lo\n }\n}\n"
)


class Here(Mapping[str, str]):
    """Engines by name → why one is not here; each is tried when it is asked for."""

    def __getitem__(self, name: str) -> str:
        if name not in _TRIED:
            raise KeyError(name)
        return _missing(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_TRIED)

    def __len__(self) -> int:
        return len(_TRIED)


@cache
def _missing(name: str) -> str:
    attempt, cure = _TRIED[name]
    if os.geteuid() != 0:
        return f"not root; {ROOT_CURE}"
    why = in_scratch(attempt)
    return f"{why}; {cure}" if why else ""


def in_scratch(attempt: Callable[[], object]) -> str:
    """Why something fails in a network namespace of its own; empty when it does not."""
    found: list[str] = []

    def body() -> None:
        try:
            unshare(CLONE_NEWNET)
            attempt()
        except OSError as error:
            found.append(error.strerror or str(error))
        except RailbreakError as error:
            found.append(str(error).replace(";", ","))

    thread = threading.Thread(target=body, name="probe")
    thread.start()
    thread.join()
    return found[0] if found else ""


def _nftables() -> None:
    compiler = Compiler()
    try:
        compiler.run(_TABLE)
    finally:
        compiler.close()


def _qdisc(kind: str) -> None:
    """A queueing discipline with the kernel's own options at the root of lo."""
    head = struct.pack("=BBHiIII", 0, 0, 0, socket.if_nametoindex("lo"), 0x72620000, _ROOT, 0)
    flags = nl.NLM_F_REQUEST | nl.NLM_F_ACK | nl.NLM_F_CREATE | nl.NLM_F_EXCL
    link = nl.Netlink.open()
    try:
        link.send(nl.message(nl.RTM_NEWQDISC, flags, head + nl.text(_KIND, kind)))
    finally:
        link.close()


def _worker() -> None:
    compiler = Compiler()
    try:
        if not compiler.warm:
            raise OSError(0, "no libnftables.so.1, to which its table belongs")
    finally:
        compiler.close()
    Tap("rbprobe").close()


#: How each is tried, and the cure where that fails.
_TRIED: dict[str, tuple[Callable[[], object], str]] = {
    "nftables": (
        _nftables,
        "install nftables; use a kernel with family netdev (CONFIG_NFT_FWD_NETDEV)",
    ),
    "worker": (_worker, "load tun (modprobe tun), and install libnftables1"),
}
assert set(_TRIED) <= {*ENGINES}
