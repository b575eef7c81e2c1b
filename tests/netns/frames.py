"""Frames from h1 to h2, crafted byte by byte, and what a stranger (scapy) finds in them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from scapy.all import IP, TCP, UDP, Ether, raw
from scapy.all import IPv6 as ScapyIPv6
from scapy.contrib.roce import BTH as SCAPY_BTH

from chaos.packet_worker import line_of
from chaos.packets import Rule
from chaos.packets.rewrite import finished
from chaos.roce import AETH, BY_NAME, IPv4, IPv6, Packet, bth
from chaos.roce.headers import KINDS
from chaos.roce.opcodes import SIZES

V4 = IPv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
V6 = IPv6(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
PSN = slice(14 + 20 + 8 + 9, 14 + 20 + 8 + 12)  #: of a frame over IPv4 without a VLAN tag
ETHER = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")


def rule(**words):
    return Rule.parse(words)


def roce(psn=0, name="rc_rdma_write_middle", ip=V4, qp=0x11, **more):
    """One crafted frame."""
    headers = tuple(KINDS[one].read(bytes(SIZES[one])) for one in BY_NAME[name].headers)
    return Packet(ip, bth(name, qp, psn), headers, b"payload!", **more).write()


def data(psn, ip=V4, payload=bytes(40)):
    """A packet of data that is answered for by nobody but its PSN."""
    return Packet(ip, bth("rc_send_only", 1, psn), (), payload)


def summed(packet):
    """The same with a UDP checksum."""
    return finished(replace(packet, checksum=1), False)


def assortment():
    """RoCEv2 packets of both families, with and without a UDP checksum, and bytes of all sizes."""
    made = []
    for ip in (V4, V6):
        for first in (0x00, 0x7F, 0x80, 0xFF):
            middle = Packet(ip, bth("rc_rdma_write_middle", 0x11, first), (), bytes([first]) * 64)
            only = Packet(ip, bth("rc_send_only", 0x11, first, ack_request=True), (), b"x" * 64)
            ack = Packet(ip, bth("rc_acknowledge", 0x12, first), (AETH(first & 0x1F, 3),))
            bare = Packet(ip, bth("rc_send_only", 0x13, first))
            for packet in (middle, only, ack, bare):
                made += [packet.write(), summed(packet)]
    return made


def plain_frames():
    """Packets that are no RoCE, by name."""
    v4, v6 = IP(src="10.0.0.1", dst="10.0.0.2"), ScapyIPv6(src="2001:db8::1", dst="2001:db8::2")
    load = b"payload!"
    return {
        f"{name} v{4 if ip is v4 else 6}": raw(ETHER / ip / layer / load)
        for ip in (v4, v6)
        for name, layer in (("udp", UDP(sport=7, dport=9)), ("tcp", TCP(sport=7, dport=9)))
    }


def checksum_holds(frame):
    """Whether scapy finds the checksum of UDP or TCP right; None where there is none."""
    layer = UDP if UDP in Ether(frame) else TCP
    seen = Ether(frame)
    if seen[layer].chksum == 0:
        return None
    del seen[layer].chksum
    return Ether(raw(seen))[layer].chksum == Ether(frame)[layer].chksum


def scapy_finds_icrc(frame):
    """The ICRC as scapy computes it; it knows that of IPv4 alone."""
    seen = Ether(frame)
    del seen[SCAPY_BTH].icrc
    return Ether(raw(seen))[SCAPY_BTH].icrc == Ether(frame)[SCAPY_BTH].icrc


def expected_order(one, frames):
    """The order in which a pure line lets frames go that come one after the other."""
    line, order = line_of(one), []
    meant = set(one.seen(frames))
    for number, frame in enumerate(frames):
        if number not in meant:
            order.append(number)
            continue
        psn = int.from_bytes(frame[PSN])
        line.meet(number, len(frame), number, psn)
        order += line.due(number)
    return order + line.rest()
