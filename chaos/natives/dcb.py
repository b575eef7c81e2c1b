"""Whether a port honours priority flow control, as its driver tells by DCB netlink."""

from __future__ import annotations

import struct

from chaos import netlink as nl
from chaos.netlink import Netlink, NetlinkError

_RTM_GETDCB, _IEEE_GET = 78, 21
_IFNAME, _IEEE, _PFC = 1, 13, 2


def honoured(link: Netlink, ifname: str) -> tuple[int, ...] | None:
    """Priorities whose pause frames a port obeys; None where its driver has no DCB.

    The same that `dcb pfc show dev IFNAME` asks.
    """
    try:
        return read(link.ask(_RTM_GETDCB, request(ifname)).body)
    except NetlinkError:
        return None


def request(ifname: str) -> bytes:
    """The question, without the header of netlink."""
    return struct.pack("=BBH", 0, _IEEE_GET, 0) + nl.text(_IFNAME, ifname)


def read(body: bytes) -> tuple[int, ...] | None:
    """Priorities with PFC in an answer; None where it tells nothing of PFC.

    The kernel's `struct ieee_pfc` begins with the classes it can, then those that are on.
    """
    told = nl.attrs(nl.attrs(body, 4).get(_IEEE, b""), 0).get(_PFC)
    if told is None or len(told) < 2:
        return None
    return tuple(at for at in range(8) if told[1] >> at & 1)
