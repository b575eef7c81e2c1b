"""What a worker does with packets, on paper: when each leaves, in which order, with which bytes."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.all import UDP, Ether, raw

from chaos.change import PacketRule, Place, Where
from chaos.errors import CapabilityError
from chaos.packet_worker import chooser, line_of, rewrite_of
from chaos.packets import Rule
from chaos.packets.line import Delayed, Slowed
from chaos.packets.rewrite import finished
from chaos.roce import AETH, Ethernet, IPv4, IPv6, Packet, Vlan, bth

MS = 1_000_000
V4 = IPv4(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
V6 = IPv6(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))


def run(then, comes, when="all", size=1250, until=10**12):
    """(when it left, number) of packets that come at given times, looked at as they fall due."""
    line = line_of(Rule.parse({"when": when, "then": then}))
    left = []

    def advance(now):
        while (due := line.next_ns()) is not None and due <= now:
            left.extend((due, one) for one in line.due(due))

    for number, at in enumerate(comes):
        advance(at)
        line.meet(number, size, at, number)
        left.extend((at, one) for one in line.due(at))
    advance(until)
    assert line.next_ns() is None
    return left, line


def test_a_delay_is_added_and_the_order_kept():
    left, _ = run("delay=10ms", [0, MS, 2 * MS])
    assert left == [(10 * MS, 0), (11 * MS, 1), (12 * MS, 2)]


@pytest.mark.parametrize("shape", ["uniform", "normal", "exponential"])
def test_jitter_never_lets_a_packet_overtake_and_repeats_by_its_seed(shape):
    comes = [at * MS // 10 for at in range(2000)]
    then = f"delay=10ms jitter=4ms shape={shape} seed="
    runs = [run(then + seed, comes)[0] for seed in ("3", "3", "4")]

    assert runs[0] == runs[1] != runs[2]
    assert [number for _, number in runs[0]] == list(range(2000))
    assert all(at >= comes[number] for at, number in runs[0])


@pytest.mark.parametrize(
    ("shape", "mean", "low", "high"),
    [("uniform", 10, 6, 14), ("normal", 10, 0, 40), ("exponential", 14, 10, 90)],
)
def test_the_draws_have_the_shape_asked_for(shape, mean, low, high):
    """Ten thousand draws: their mean within five standard errors."""
    draw = Rule.parse({"then": f"delay=10ms jitter=4ms shape={shape}"}).then.how.draws()
    drawn = [draw() / MS for _ in range(10_000)]

    assert sum(drawn) / len(drawn) == pytest.approx(mean, abs=5 * 4 / 100)
    assert low <= min(drawn)
    assert max(drawn) <= high


def test_a_rate_sends_each_packet_when_its_last_bit_is_out():
    """1250 bytes at 10 Mbit/s take a millisecond."""
    left, line = run("rate=10Mbit/s", [0, 0, 0, 10 * MS])
    assert left == [(MS, 0), (2 * MS, 1), (3 * MS, 2), (11 * MS, 3)]
    assert line.dropped == 0


def test_a_full_queue_drops_what_comes_last():
    left, line = run("rate=10Mbit/s queue=3ms", [0] * 10)
    assert [number for _, number in left] == [0, 1, 2, 3]
    assert line.dropped == 6


@pytest.mark.parametrize(
    ("then", "when", "order"),
    [
        ("reorder=1", "first=1", [1, 0, 2, 3, 4, 5]),
        ("reorder=3", "first=1", [1, 2, 3, 0, 4, 5]),
        ("reorder=2", "first=2", [2, 3, 0, 1, 4, 5]),
        ("reorder=1", "every=2 offset=0", [1, 0, 3, 2, 5, 4]),
        ("reorder=1", "psn=4,5", [0, 1, 2, 3, 4, 5]),  # nobody overtakes them: in time
    ],
)
def test_a_packet_waits_for_as_many_as_were_asked(then, when, order):
    left, _ = run(then, range(6), when)
    assert [number for _, number in left] == order


def test_what_nobody_overtakes_goes_at_the_latest_in_time():
    left, _ = run("reorder=5 within=20ms", [0, MS], "first=1")
    assert left == [(MS, 1), (20 * MS, 0)]


@pytest.mark.parametrize("then", ["delay=5ms jitter=5ms", "reorder=3", "rate=1Mbit/s queue=10s"])
def test_nothing_is_lost_and_nothing_doubled(then):
    rng = random.Random(4)
    comes = sorted(rng.randrange(10**9) for _ in range(500))
    left, line = run(then, comes, "random=20% seed=2" if "reorder" in then else "all", size=100)
    assert sorted(number for _, number in left) == list(range(500))
    assert line.dropped == 0


def test_what_is_held_is_given_back_in_its_order():
    line = line_of(Rule.parse({"then": "delay=1s"}))
    for number in range(5):
        line.meet(number, 100, number)
    assert line.rest() == [0, 1, 2, 3, 4]
    assert line.rest() == []
    held = line_of(Rule.parse({"when": "first=1", "then": "reorder=9"}))
    held.meet(0, 100, 0)
    assert held.rest() == [0]


def test_a_line_is_that_of_its_action_and_nftables_needs_none():
    assert isinstance(line_of(Rule.parse({"then": "delay=1s"})), Delayed)
    assert isinstance(line_of(Rule.parse({"then": "rate=1Mbit/s"})), Slowed)
    with pytest.raises(CapabilityError, match="no worker does drop; nftables does"):
        line_of(Rule.parse({"then": "drop"}))


def test_the_chooser_is_the_schedule():
    rule = Rule.parse({"when": "random=10% seed=3", "then": "reorder=1"})
    chosen = chooser(rule)
    assert tuple(n for n in range(3000) if chosen(n, None)) == rule.when.ordinals(3000)
    first = chooser(Rule.parse({"when": "psn=5,7", "then": "reorder=1"}))
    assert [first(n, psn) for n, psn in enumerate((5, 5, 6, 7, None, 7))] == [
        *(True, False, False, True, False, False)
    ]


# ---- bytes --------------------------------------------------------------------------------------


def packets():
    for ip in (V4, V6, replace(V4, options=bytes(8))):
        for ethernet in (Ethernet(), Ethernet(vlans=(Vlan(5),))):
            for base, headers, payload in (
                (bth("rc_send_only", 1, 2, pad=1), (), b"odd" + b"\0"),
                (bth("rc_send_only", 1, 2), (), bytes(1024)),
                (bth("rc_acknowledge", 1, 2), (AETH(0, 3),), b""),
                (bth("rc_rdma_read_response_only", 1, 2), (AETH(0x1F, 3),), b"read"),
            ):
                made = Packet(ip, base, headers, payload, ethernet=ethernet, trailer=b"tail")
                yield made
                yield Packet.read(finished(replace(made, checksum=1), False))


def summed(frame):
    seen = Ether(frame)
    if seen[UDP].chksum == 0:
        return None
    del seen[UDP].chksum
    return Ether(raw(seen))[UDP].chksum == Ether(frame)[UDP].chksum


def test_the_checksum_of_a_finished_packet_is_what_scapy_finds():
    found = [summed(one.write()) for one in packets() if one.trailer]
    assert set(found) == {None, True}


@pytest.mark.parametrize("then", ["corrupt=silent", "forge=remote_access_error"])
def test_a_rewrite_keeps_all_it_does_not_name(then):
    rewrite = rewrite_of(Rule.parse({"then": then}))
    done = 0
    for one in packets():
        frame = one.write()
        made = rewrite(frame, False)
        if made is None:
            assert not one.data if "silent" in then else not one.headers
            continue
        after, done = Packet.read(made), done + 1
        assert after.intact
        assert summed(made) is summed(frame)
        assert summed(made) is not False
        kept = {"payload": one.payload} if "silent" in then else {"headers": one.headers}
        same = replace(after, icrc=one.icrc, checksum=one.checksum, **kept)
        assert same == Packet.read(frame) if one.icrc else same.write() == frame
        assert after.data != one.data if "silent" in then else after.headers[0].syndrome == 0x62
    assert done > 10


def silent_bits(seed, between=()):
    """Which bits of 64 packets are flipped; `between`: frames met before each of them."""
    rewrite = rewrite_of(Rule.parse({"then": f"corrupt=silent seed={seed}"}))
    frame, flipped = Packet(V4, bth("rc_send_only", 1, 2), (), bytes(64)).write(), []
    for _ in range(64):
        for one in between:
            assert rewrite(one, False) is None
        flipped.append(int.from_bytes(Packet.read(rewrite(frame, False)).payload))
    return flipped


def test_a_seed_is_all_that_decides_which_bit_is_another():
    assert silent_bits(3) == silent_bits(3) != silent_bits(4)
    assert {one.bit_count() for one in silent_bits(3)} == {1}
    assert len({one.bit_length() // 64 for one in silent_bits(3)}) > 4, "all over the payload"


def test_what_cannot_be_rewritten_takes_its_draw_along():
    """The n-th packet met gets the n-th draw, whatever the others were."""
    bare = Packet(V4, bth("rc_send_only", 1, 2)).write()
    assert silent_bits(3, [bare]) == silent_bits(3, [b"short"]) != silent_bits(3)


@pytest.mark.parametrize("ip", [V4, V6])
@pytest.mark.parametrize("checksum", [0, 1])
def test_a_notification_goes_back_as_its_packets_came(ip, checksum):
    """To the sender's addresses and queue pair, with a UDP checksum where its packets have one."""
    ethernet = Ethernet("02:00:00:00:00:22", "02:00:00:00:00:11", (Vlan(5),))
    packet = Packet(ip, bth("rc_send_only", 1, 2), (), b"data", 50000, ethernet, checksum)
    made = rewrite_of(Rule.parse({"then": "forge=cnp qp=17"}))(
        finished(packet, False) if checksum else packet.write(), False
    )
    back = Packet.read(made)
    assert (back.ip.source, back.ip.destination) == (ip.destination, ip.source)
    assert back.ethernet == Ethernet(ethernet.source, ethernet.destination, ethernet.vlans)
    assert (back.bth.opcode, back.bth.dest_qp, back.bth.becn) == (0x81, 17, True)
    assert back.intact
    assert summed(made) is (True if checksum else None)


def test_padding_is_never_what_is_corrupted():
    rewrite = rewrite_of(Rule.parse({"then": "corrupt=silent"}))
    frame = Packet(V4, bth("rc_send_only", 1, 2, pad=3), (), b"x\0\0\0").write()
    assert {Packet.read(rewrite(frame, False)).payload[1:] for _ in range(50)} == {bytes(3)}


def test_a_checksum_that_the_kernel_completes_is_left_to_it():
    packet = Packet(V4, bth("rc_send_only", 1, 2), (), b"data", checksum=0x1234)
    made = rewrite_of(Rule.parse({"then": "corrupt=silent"}))(packet.write(), True)
    assert Packet.read(made).checksum == 0x1234


def test_what_cannot_be_read_is_not_rewritten():
    rewrite = rewrite_of(Rule.parse({"then": "forge=rnr_nak"}))
    assert rewrite(b"short", False) is None
    assert rewrite(Packet(V4, bth("rc_send_only", 1, 2)).write(), False) is None


def test_a_worker_is_told_all_it_needs():
    rule = Rule.parse({"select": "opcode=data", "when": "first=3", "then": "delay=1ms"})
    change = PacketRule(Place("h1", "eth1", "wire"), "railbreak_t", rule, "worker")
    steps = change.steps(Where(ifname="w1a", across="w1b"))
    assert steps.do[0][2:4] == ("chaos.packet_worker", "start")
    assert '"across":"w1b"' in steps.do[0][-1]
    assert len(change.tap) <= 15


def test_where_only_a_receiver_is_reached_a_worker_has_no_tap_and_a_table_before_ip():
    rule = Rule.parse({"select": "opcode=data", "when": "first=3", "then": "reorder=2"})
    change = PacketRule(Place("h1", "eth1"), "railbreak_t", rule)
    steps = change.steps(Where(ifname="eth1"))
    assert '"across":""' in steps.do[0][-1]
    assert steps.mark == "table inet railbreak_t\n"
    text = change.ruleset("eth1")
    assert "type filter hook prerouting priority -450;" in text
    assert text.count("queue num N bypass") == 2, "those that overtake come by, too"
    assert 'iifname "eth1" ' in text
    assert text.count("flags owner") == 1
