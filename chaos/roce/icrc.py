"""The invariant CRC: over all that no router may change.

What may change on the way counts as ones: of IPv4 the type of service (DSCP, ECN), time to live and
header checksum; of IPv6 the traffic class, flow label and hop limit; the UDP checksum; and FECN,
BECN and the six bits beside them. In front stand eight bytes of ones, for the local route header
that RoCEv2 has not (IBTA annex A17.3.3).
"""

from __future__ import annotations

import zlib

from chaos.errors import SpecError

SIZE = 4
_UDP, _BTH = 8, 12


def icrc(packet: bytes) -> bytes:
    """The four bytes as they stand on the wire.

    Args:
        packet: From the first byte of the IP header to the last before the ICRC.

    Raises:
        SpecError: neither IPv4 nor IPv6, or shorter than its headers.
    """
    data = bytearray(packet)
    version = data[0] >> 4 if data else 0
    if version == 4:
        header = (data[0] & 15) * 4
        masked = (1, 8, 10, 11)
    elif version == 6:
        header = 40
        masked = (1, 2, 3, 7)
    else:
        raise SpecError(f"an ICRC is over IPv4 or IPv6, got version {version}")
    if header < 20 or len(data) < header + _UDP + _BTH:
        raise SpecError(
            f"an ICRC is over IP, UDP and BTH, {max(header, 20) + _UDP + _BTH} bytes at least, "
            f"got {len(data)}"
        )
    if version == 6:
        data[0] |= 0x0F
    for at in (*masked, header + 6, header + 7, header + _UDP + 4):
        data[at] = 0xFF
    return zlib.crc32(b"\xff" * 8 + bytes(data)).to_bytes(SIZE, "little")
