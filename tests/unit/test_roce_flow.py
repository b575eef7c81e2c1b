"""The RoCE stream on paper: packets as the codec writes them, answers by kind, odd records."""

from ipaddress import ip_address

import pytest

from chaos.errors import SpecError
from chaos.roce import AETH, BTH, IPv4, IPv6, Packet, Syndrome, bth, cnp
from chaos.timeline import Moment, Windows
from chaos.units import Pps, Size
from probes.jobs.roce_requester import kind_of, opcodes, payload
from probes.jobs.roce_wire import answer, met, sealed
from probes.roce_flow import RoceFlow
from probes.roce_reading import measure, read

ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("2001:db8::1", "2001:db8::2")}


def arrived(family, body, **of_ip):
    """IP bytes as they arrive: what `sealed` gives to UDP, behind the headers of the kernel."""
    source, target = map(ip_address, ENDS[family])
    ip = (IPv4 if family == 4 else IPv6)(source, target, **of_ip)
    udp = sealed(*ENDS[family], 49152, body)
    head = BTH.read(body[:12])
    packet = Packet(ip, head, payload=body[12:], sport=49152)
    made = packet.write()[14:]
    assert made[-len(udp) :] == udp, "the codec computes another ICRC"
    return made


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ecn", [2, 3])
def test_a_packet_is_what_the_codec_writes(family, ecn):
    body = bth("rc_send_only", 0x11, 7, ack_request=True).write() + payload(b"abcd", 7, 5, 64)
    found = met(arrived(family, body, ecn=ecn, dscp=26))

    assert found.intact
    assert (found.source, found.ecn, found.dscp) == (ENDS[family][0], ecn, 26)
    assert (found.bth.psn, found.bth.ack_request, found.rest) == (7, True, body[12:])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("at", [-1, -5, -60])
def test_a_flipped_bit_breaks_the_icrc(family, at):
    body = bth("rc_send_only", 0x11, 7).write() + payload(b"abcd", 7, 5, 64)
    data = bytearray(arrived(family, body))
    data[at] ^= 1
    assert not met(bytes(data)).intact


def test_a_wrong_ip_checksum_is_seen():
    body = bth("rc_send_only", 0x11, 7).write() + payload(b"abcd", 7, 5, 64)
    data = bytearray(arrived(4, body))
    data[8] -= 1  # time to live: masked in the ICRC, not in the checksum of the header
    assert not met(bytes(data)).intact


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (answer(0x1F, 9, 0x11, 2), "ack"),
        (answer(0x60, 9, 0x11, 2), "psn_sequence_error"),
        (answer(0x62, 9, 0x11, 2), "remote_access_error"),
        (answer(0x2E, 9, 0x11, 2), "rnr_nak"),
        (b"".join((cnp(0x11)[0].write(), cnp(0x11)[1])), "cnp"),
        (bth("rc_send_only", 0x11, 7).write() + bytes(16), "other"),
    ],
)
def test_an_answer_is_known_by_its_kind(body, kind):
    assert kind_of(met(arrived(4, body))) == kind


def test_an_acknowledgement_is_a_bth_and_an_aeth():
    made = answer(0x60, 5, 0x11, 3)
    assert BTH.read(made[:12]) == bth("rc_acknowledge", 0x11, 5)
    assert AETH.read(made[12:]) == AETH(Syndrome.nak("psn_sequence_error").write(), 3)


def test_a_message_is_first_middle_last_or_only():
    first, middle, last, only = (bth(f"rc_send_{one}", 0, 0).opcode for one in
                                 ("first", "middle", "last", "only"))  # fmt: skip
    assert opcodes(1) == [only]
    assert opcodes(2) == [first, last]
    assert opcodes(4) == [first, middle, middle, last]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rate": Pps(6000)}, "at most 5 kpps"),
        ({"message": 0}, "1 to 1024 packets"),
        ({"size": Size(30)}, "steps of 4"),
        ({"qp": 1 << 24}, "24 bits"),
        ({"target": "h1"}, "two nodes"),
    ],
)
def test_what_cannot_be_is_refused(words, said):
    with pytest.raises(SpecError, match=said):
        RoceFlow(**{"source": "h1", "target": "h2", **words})


def records(lost=(), odd=None, answers=None):
    """A second of packets every millisecond, 10 us on the way, in the words of the programs."""
    slots = [slot for slot in range(1000) if slot not in lost]
    at = [slot * 1_000_000 + 10_000 for slot in slots]
    ends = {"until": 1_100_000_000, "received": len(slots), "dropped": 0, "buffer_errors": 0}
    clocks = {"clock_offset": 0, "clock_error": 0, "foreign": 0, "corrupted": 0}
    return {
        "sender": [
            {"ev": "ready", "t": 0, "n": 1},
            {"ev": "sent", "t": 0, "n": 2, "first": 0, "at": [n * 1_000_000 for n in range(1000)],
             "refused": []},
            {"ev": "answers", "t": 0, "n": 3, "until": 10**9, "met": answers or {}},
        ],
        "receiver": [
            {"ev": "ready", "t": 0, "n": 1},
            {"ev": "odd", "t": 0, "n": 2, "met": odd or {}, "at": at, "delays": [10_000] * len(at)},
            {"ev": "got", "t": 0, "n": 3, "slots": slots, "at": at, **ends, **clocks},
        ],
    }  # fmt: skip


WINDOWS = Windows(
    (0, 400_000_000), Moment(500_000_000, 500_000_000), Moment(700_000_000, 700_000_000), 10**9
)


def test_what_was_odd_from_fault_to_end_is_counted_and_told_once_per_train():
    marks = [100_000_000, 550_000_000, 551_000_000, 900_000_000]
    found = read(
        "h1->h2",
        1_000_000,
        records(odd={"ce": marks, "icrc": marks}, answers={"psn_sequence_error": marks[1:]}),
    )
    values = {one.name: one.value for one in measure(found, WINDOWS, 0)}

    assert values["roce_ce_packets"] == values["roce_icrc_packets"] == 3
    assert values["roce_nak_packets"] == 3
    assert values["roce_data_packets"] == values["roce_rnr_nak_packets"] == 0
    told = [(event.detector, event.at_ns) for event in found.events]
    assert told.count(("roce_icrc", 550_000_000)) == 1
    assert ("roce_icrc", 551_000_000) not in told
    assert ("roce_nak", 900_000_000) in told


def test_losses_and_delays_are_those_of_the_storm():
    found = read("h1->h2", 1_000_000, records(lost=range(600, 610)))
    values = {one.name: one.value for one in measure(found, WINDOWS, 0)}

    assert values["roce_lost_packets"] == 10
    assert values["roce_delay_median_ms"] == pytest.approx(0.01)
    assert values["roce_delay_added_ms"] == 0
    assert [event.detector for event in found.events if event.detector] == ["roce_gap"]
