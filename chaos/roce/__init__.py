"""RoCEv2 packets: opcodes, headers, syndromes, the invariant CRC; read, made, written.

Pure: nothing is sent or received here.
"""

from chaos.roce.headers import (
    AETH,
    BTH,
    DETH,
    IETH,
    RDETH,
    RETH,
    AtomicAckETH,
    AtomicETH,
    Extended,
    ImmDt,
    bth,
    cnp,
)
from chaos.roce.icrc import icrc
from chaos.roce.opcodes import BY_NAME, CNP, OPCODES, Opcode, opcode
from chaos.roce.packet import PORT, Ethernet, IPv4, IPv6, Packet, Vlan
from chaos.roce.syndromes import NAKS, Syndrome

__all__ = [
    "AETH",
    "BTH",
    "BY_NAME",
    "CNP",
    "DETH",
    "IETH",
    "NAKS",
    "OPCODES",
    "PORT",
    "RDETH",
    "RETH",
    "AtomicAckETH",
    "AtomicETH",
    "Ethernet",
    "Extended",
    "IPv4",
    "IPv6",
    "ImmDt",
    "Opcode",
    "Packet",
    "Syndrome",
    "Vlan",
    "bth",
    "cnp",
    "icrc",
    "opcode",
]
