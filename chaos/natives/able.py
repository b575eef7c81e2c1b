"""Which engines of packet rules are on this machine, found out by doing, once per process.

Each is tried in a network namespace that is thrown away: a kernel's version says nothing, since
modules may be missing, and a container may not be allowed to load them.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from chaos import nfqueue
from chaos.changes.queue import Queue
from chaos.errors import RailbreakError
from chaos.natives.netem import added, repeats, rooted
from chaos.netlink import Netlink
from chaos.netns import CLONE_NEWNET, unshare
from chaos.nft import Compiler
from chaos.packets.engines import ENGINES, SEED
from chaos.tap import Tap

ROOT_CURE = "run it as root: sudo railbreak …"
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


def _queue(queue: Queue) -> None:
    """The very messages of a rule, at lo."""
    link, index = Netlink.open(), socket.if_nametoindex("lo")
    try:
        for message in (rooted(index), *added(queue, index)):
            link.send(message)
    finally:
        link.close()


def _seed() -> None:
    if not repeats(socket.if_nametoindex("lo")):
        raise OSError(0, "this kernel's netem takes no seed")


def _worker() -> None:
    compiler = Compiler()
    try:
        if not compiler.warm:
            raise OSError(0, "no libnftables.so.1, to which its table belongs")
    finally:
        compiler.close()
    Tap("rbprobe").close()


def _nfqueue() -> None:
    compiler = Compiler()
    try:
        if not compiler.warm:
            raise OSError(0, "no libnftables.so.1, to which its table belongs")
        nfqueue.native(compiler)
    finally:
        compiler.close()
    nfqueue.Queue("probe", nfqueue.HEADERS).close()


#: How each is tried, and the cure where that fails.
_TRIED: dict[str, tuple[Callable[[], object], str]] = {
    "nftables": (
        _nftables,
        "install nftables; use a kernel with family netdev (CONFIG_NFT_FWD_NETDEV)",
    ),
    "netem": (
        lambda: _queue(Queue("netem", delay_ns=1_000_000)),
        "load sch_netem and sch_htb (modprobe sch_netem sch_htb), or use a kernel that has them",
    ),
    SEED: (_seed, "Linux 6.6 has it"),
    "htb": (
        lambda: _queue(Queue("bfifo", rate_bps=8_000_000, limit=10_000)),
        "load sch_htb (modprobe sch_htb), or use a kernel that has it",
    ),
    "nfqueue": (
        _nfqueue,
        "load nfnetlink_queue and nft_queue (modprobe nft_queue), and install libnftables1",
    ),
    "worker": (_worker, "load tun (modprobe tun), and install libnftables1"),
}
assert set(_TRIED) <= {*ENGINES, SEED}
