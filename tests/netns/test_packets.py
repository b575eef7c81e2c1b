"""The packet language in the kernel: what nftables does is what the pure functions say."""

import contextlib
import math
import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from chaos.errors import SpecError
from chaos.packets import Chance
from chaos.packets.schedule import Schedule
from chaos.roce import AETH, OPCODES, RDETH, Ethernet, IPv4, Packet, Vlan, bth
from chaos.units import Percent
from tests.netns.bench import made_ready, numbered
from tests.netns.frames import V4, V6, roce, rule

pytestmark = pytest.mark.netns


# ---- schedules ----------------------------------------------------------------------------------

SCHEDULES = {
    "all": ("all", 50),
    "first 1": ({"first": 1}, 50),
    "first 3": ({"first": 3}, 200),
    "first 100": ({"first": 100}, 300),
    "after 1": ({"after": 1}, 50),
    "after 200": ({"after": 200}, 300),
    "every 1": ({"every": 1}, 20),
    "every 7": ({"every": 7}, 500),
    "every 7 from 0": ({"every": 7, "offset": 0}, 500),
    "every 7 from 3": ({"every": 7, "offset": 3}, 500),
    "every 7 from 25": ({"every": 7, "offset": 25}, 500),
    "every 100": ({"every": 100}, 1000),
    "random 10 %": ({"random": "10 %", "seed": 5}, 11_000),
    "random 50 %": ({"random": "50 %"}, 2000),
    "bursts": ({"enter": "1 %", "leave": "20 %", "seed": 4}, 10_000),
    "bursts that repeat": ({"enter": "20 %", "leave": "50 %"}, 11_000),
    "bursts with strays": ({"enter": "1 %", "leave": "10 %", "bad": "60 %", "good": "1 %"}, 5000),
}


def test_the_kernel_acts_on_the_ordinals_of_the_pure_function(bench):
    """First N, every k-th, bursts, packet by packet; what is not selected does not count."""
    frame, other = roce(), roce(name="rc_acknowledge")
    differ = {}
    for name, (words, count) in SCHEDULES.items():
        want = Schedule.parse(words).ordinals(count)
        frames = [one for _ in range(count) for one in (frame, other)]
        lost = bench.lost(rule(select={"opcode": "middle"}, when=words), frames)
        if lost != tuple(2 * ordinal for ordinal in want):
            differ[name] = (len(lost), len(want))
        assert bench.counted == {"seen": count, "hit": len(want), "passed": count - len(want)}, name
    assert differ == {}


@pytest.mark.parametrize("count", [1, 3, 100])
def test_first_n_is_exactly_n(bench, count):
    assert bench.lost(rule(when={"first": count}), [roce()] * 300) == tuple(range(count))


def test_the_same_seed_loses_the_same_packets_in_ten_runs_and_another_does_not(bench):
    frames = [roce()] * 2000
    runs = {bench.lost(rule(when={"random": "10 %", "seed": 3}), frames) for _ in range(10)}

    assert runs == {Chance(Percent(10), 3).ordinals(2000)}
    assert bench.lost(rule(when={"random": "10 %", "seed": 4}), frames) not in runs


@pytest.mark.parametrize(("share", "count"), [("0.1 %", 30_000), ("1 %", 20_000), ("10 %", 5_000)])
def test_rates_are_within_binomial_bounds(bench, share, count):
    """Five standard deviations: an honest draw misses them once in two million runs."""
    chance = Percent.parse(share).value / 100
    lost = bench.lost(rule(when={"random": share, "seed": 9}), [roce()] * count)

    assert abs(len(lost) - count * chance) <= 5 * math.sqrt(count * chance * (1 - chance))
    assert len(lost) == bench.counted["hit"]


def test_a_sequence_number_is_lost_once_and_its_retransmission_passes(bench):
    psns = [*range(50), *range(20, 60), *range(20, 60)]
    frames = [roce(psn) for psn in psns]

    assert bench.lost(rule(when={"psn": 30}), frames) == (30,)
    assert bench.lost(rule(when={"psn": [55, 30, 99]}), frames) == (30, 85)


# ---- selectors: a matrix against the pure matcher -----------------------------------------------


def extended(first, header, frame):
    """An IPv6 frame with an extension header put between IPv6 and what follows."""
    header = bytes([frame[20]]) + header
    length = int.from_bytes(frame[18:20]) + len(header)
    return frame[:18] + length.to_bytes(2) + bytes([first]) + frame[21:54] + header + frame[54:]


def patched(frame, at, *values):
    return frame[:at] + bytes(values) + frame[at + len(values) :]


def crafted():
    """Frames that differ in what selectors look at, odd ones among them, by name."""
    made = {}
    for number, one in OPCODES.items():
        for family, ip in ((4, V4), (6, V6)):
            made[f"{one.name} v{family}"] = roce(number, one.name, ip)
    for family, ip in ((4, V4), (6, V6)):
        for syndrome in (0x00, 0x1F, 0x20, 0x2E, 0x40, 0x60, 0x61, 0x62, 0x63, 0x64, 0x7F, 0x9F):
            for name in ("rc_acknowledge", "rc_rdma_read_response_only", "rd_acknowledge"):
                headers = (AETH(syndrome, 1),)
                headers = (RDETH(0x60, 5), *headers) if name[:2] == "rd" else headers
                packet = Packet(ip, bth(name, 0x12, 7), headers)
                made[f"{name} 0x{syndrome:02x} v{family}"] = packet.write()
        for dscp in (0, 1, 8, 26, 27, 46, 63):
            for ecn in range(4):
                changed = replace(ip, dscp=dscp, ecn=ecn)
                made[f"dscp {dscp} ecn {ecn} v{family}"] = roce(3, ip=changed)
        for qp in (0, 0x11, 0x12, 0x1100, 0x110000, 0xFFFFFF):
            made[f"qp {qp:x} v{family}"] = roce(9, qp=qp, ip=ip)
        for psn in (0, 99, 100, 200, 201, 0x640000, 0xFFFFFF):
            base = bth("rc_send_only", 0x11, psn, ack_request=psn % 2 == 1)
            made[f"psn {psn} v{family}"] = Packet(ip, base).write()
        for sport in (1, 49152, 49153, 65535):
            made[f"sport {sport} v{family}"] = roce(ip=ip, sport=sport)
        tag = Ethernet(vlans=(Vlan(5, 3),))
        made[f"vlan v{family}"] = roce(ip=ip, ethernet=tag)
        two = Ethernet(vlans=(Vlan(7, kind=0x88A8), Vlan(5)))
        made[f"two vlans v{family}"] = roce(ip=ip, ethernet=two)
        whole = roce(ip=ip)
        at = 34 if family == 4 else 54
        made[f"other port v{family}"] = patched(whole, at + 2, 0, 53)
        made[f"reserved bits v{family}"] = patched(whole, at + 16, 0x7F)
        made[f"unknown opcode v{family}"] = patched(whole, at + 8, 0xFE)
        for size in (14, 20, at - 1, at + 3, at + 8, at + 9, at + 16, at + 20):
            made[f"cut at {size} v{family}"] = whole[:size]
    made["other hosts v4"] = roce(ip=replace(V4, source=IPv4Address("192.0.2.1")))
    made["other subnet v4"] = roce(ip=replace(V4, destination=IPv4Address("10.0.1.9")))
    made["other hosts v6"] = roce(ip=replace(V6, source=IPv6Address("2001:db9::1")))
    made["other subnet v6"] = roce(ip=replace(V6, destination=IPv6Address("2001:db8:1::9")))
    made["options"] = roce(ip=replace(V4, options=bytes(range(8))))
    v4, v6 = roce(), roce(ip=V6)
    made["tcp v4"] = patched(v4, 23, 6)
    made["tcp v6"] = patched(v6, 20, 6)
    made["icmp"] = patched(v4, 23, 1)
    made["first fragment v4"] = patched(v4, 20, 0x20, 0)
    made["later fragment v4"] = patched(v4, 20, 0x00, 0x10)
    made["short total length"] = patched(v4, 16, 0, 10)
    made["long total length"] = patched(v4, 16, 9, 0)
    made["long payload length"] = patched(v6, 18, 9, 0)
    made["version 5"] = patched(v4, 14, 0x55)
    made["header of 4 words"] = patched(v4, 14, 0x44)
    made["version 7"] = patched(v6, 14, 0x70)
    made["arp"] = v4[:12] + b"\x08\x06" + v4[14:]
    made["lldp"] = v4[:12] + b"\x88\xcc" + v4[14:]
    made["length field"] = v4[:12] + b"\x00\x40" + v4[14:]
    for name, first, header in (
        ("hop by hop", 0, bytes(7)),
        ("long hop by hop", 0, b"\x01" + bytes(14)),
        ("routing", 43, bytes(7)),
        ("destination options", 60, bytes(7)),
        ("authentication", 51, b"\x04" + bytes(22)),
        ("first fragment", 44, b"\0\0\1" + bytes(4)),
        ("later fragment", 44, b"\0\0\x11" + bytes(4)),
        ("whole fragment", 44, bytes(7)),
    ):
        made[f"{name} v6"] = extended(first, header, v6)
        made[f"{name} and more v6"] = extended(60, bytes(7), extended(first, header, v6))
    made["no next header v6"] = patched(v6, 20, 59)
    made["esp v6"] = patched(v6, 20, 50)
    return made


SELECTORS = [
    "everything",
    *("family=4", "family=6", "roce=true", "protocol=udp", "protocol=tcp"),
    *("source=10.0.0.1", "source=10.0.0.0/24", "source=10.0.0.0/24,2001:db8::/32"),
    *("destination=10.0.0.2,10.0.1.9", "destination=2001:db8::2", "destination=0.0.0.0/0"),
    *("family=4 protocol=udp", "protocol=udp dport=53", "protocol=udp dport=4000-5000"),
    "source=10.0.0.1 destination=10.0.0.2 protocol=udp sport=49152 dport=4791",
    "source=2001:db8::1 destination=2001:db8::2 protocol=udp sport=49152 dport=4791",
    *("roce=true sport=49153", "roce=true sport=1,49152-49153"),
    *(f"dscp={value}" for value in ("0", "26", "af31,ef", "1-26", "8-63", "26-27,46")),
    *(f"ecn={value}" for value in ("not-ect", "ect0", "ect1", "ce", "ect", "0,3", "0-3")),
    *("dscp=26 ecn=ce", "family=6 dscp=26 ecn=ect", "roce=true dscp=46", "family=4 dscp=2-30"),
    *(
        f"opcode={one}"
        for one in (
            *("data", "first", "middle", "last", "only", "send", "write", "read", "atomic"),
            *("ack", "nak", "rnr_nak", "cnp", "rc_send_only", "ud_send_only", "0x11", "0xfe"),
            *("first,last", "ack,nak", "ack,0x11", "nak,cnp,4-6", "rd_acknowledge", "0-255"),
        )
    ),
    *("dest_qp=0x11", "dest_qp=17,18", "dest_qp=17-18", "dest_qp=0,0x1100-0x110000,0xffffff"),
    *("psn=100", "psn=100-200", "psn=0,100-200,0xffffff", "psn=0x640000", "psn=0-16777215"),
    *("ack_request=true", "ack_request=false", "ack_request=true psn=0-150"),
    *(
        f"syndrome={one}"
        for one in (
            *("ack", "nak", "rnr_nak", "psn_sequence_error", "invalid_request", "0x2e"),
            *("remote_access_error,remote_operational_error", "0x60-0x62", "0-255", "0x40"),
        )
    ),
    *("opcode=read syndrome=nak", "opcode=rd_acknowledge syndrome=ack", "opcode=only syndrome=0"),
    *("opcode=ack syndrome=0x00", "opcode=nak,read syndrome=0x60-0x7f", "opcode=nak family=6"),
    "source=10.0.0.1 dscp=0-63 opcode=data dest_qp=17 psn=0-20 ack_request=false",
]


def compared(bench, rules, frames):
    """Rules under which the kernel and the pure matcher disagree, with the frames; how many hit."""
    differ, acted = {}, 0
    names, sent = list(frames), list(frames.values())
    whole = [numbered(at, frame) for at, frame in enumerate(sent)]
    for one in rules:
        want, got = one.hit(whole), bench.lost(one, sent)
        acted += len(want)
        if want != got:
            differ[str(one)] = {
                "only on paper": [names[at] for at in want if at not in got],
                "only in the kernel": [names[at] for at in got if at not in want],
            }
        assert bench.counted["seen"] == len(one.seen(whole)) or str(one) in differ
    return differ, acted


def test_every_selector_hits_what_it_should_and_nothing_else(bench):
    rules = [rule(select=text) for text in SELECTORS]
    frames = crafted()
    assert len(frames) > 250

    differ, acted = compared(bench, rules, frames)

    assert differ == {}
    assert acted > 20 * len(rules)


def test_each_selector_of_the_matrix_means_some_frames_and_not_others():
    """Else the comparison above would show nothing; two of them mean all there is of a kind."""
    frames = [frame + bytes(4) for frame in crafted().values()]
    meant = {text: len(rule(select=text).hit(frames)) for text in SELECTORS}
    assert [text for text, count in meant.items() if not count] == []
    assert [text for text, count in meant.items() if count == len(frames)] == ["everything"]


def drawn(rng):
    """A random selector that the language takes."""
    able = {
        "family": (4, 6),
        "source": ("10.0.0.1", "10.0.0.0/8", "2001:db8::/64", ["10.0.0.1", "2001:db8::1"]),
        "destination": ("10.0.0.2", "10.0.0.0/23", ["10.0.0.0/24", "2001:db8::/33"]),
        "sport": (49152, "1-49152", [1, 65535]),
        "dscp": (f"{rng.randrange(30)}-{rng.randrange(30, 64)}", rng.randrange(64)),
        "ecn": (rng.randrange(4), "ect", "1-3"),
        "opcode": ("data", "read", ["first", "last", 0x11], rng.randrange(256), "0-40", "ack"),
        "dest_qp": (17, "0-17", [0x1100, 18], "18-0xffffff"),
        "psn": (rng.randrange(200), "0-99", f"100-{rng.randrange(200, 1 << 24)}", [3, 7, 9]),
        "ack_request": (True, False),
        "syndrome": ("ack", "nak", "0x10-0x65", rng.randrange(128)),
    }
    words = rng.sample(sorted(able), rng.randrange(1, 5))
    made = {word: rng.choice(able[word]) for word in words}
    return made if rng.random() < 0.5 else made | {"roce": True}


def test_random_selectors_on_random_frames(bench):
    """Bytes of good frames are changed at random, addresses of Ethernet excepted."""
    rng, rules, good = random.Random(12), [], list(crafted().values())
    while len(rules) < 60:
        with contextlib.suppress(SpecError):  # words that contradict each other
            rules.append(rule(select=drawn(rng), then=rng.choice(("drop", "drop", "ce"))))
    frames = {}
    for number in range(500):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randrange(3)):
            if len(frame) > 15:
                frame[rng.randrange(12, min(len(frame), 90))] = rng.choice((0, 4, 6, 17, 44, 255))
        frames[number] = bytes(frame)
    drops = [one for one in rules if not one.then.rewrites]

    differ, acted = compared(bench, drops, frames)

    assert differ == {}
    assert acted > 200
    for one in rules:
        if one.then.rewrites:
            whole = [numbered(at, frame) for at, frame in frames.items()]
            bench.run(one, list(frames.values()))
            assert bench.counted["hit"] == len(one.hit(whole)), str(one)


# ---- actions ------------------------------------------------------------------------------------


def expected(packet, then):
    """What a packet should be after a rewrite."""
    point = then.value if then.deed == "dscp" else packet.ip.dscp
    ecn = {"ce": 3, "bleach": 0}.get(then.deed, packet.ip.ecn)
    ip = replace(packet.ip, dscp=point, ecn=ecn)
    if isinstance(ip, IPv4):
        ip = replace(ip, checksum=None)
    return replace(packet, ip=ip)


@pytest.mark.parametrize("then", ["ce", "bleach", "dscp=0", "dscp=af31", "dscp=63"])
def test_a_rewrite_changes_what_it_names_and_no_icrc(bench, then):
    """Checksum of IPv4 right, ICRC valid without being touched, every other byte as it was."""
    packets = []
    for ip in (V4, V6):
        for dscp, ecn in ((0, 0), (26, 1), (46, 2), (63, 3), (1, 2)):
            more = {"flow_label": 0xABCDE} if ip is V6 else {"identification": 0xFFFF, "ttl": 1}
            changed = replace(ip, dscp=dscp, ecn=ecn, **more)
            packets.append(Packet.read(roce(5, ip=changed)))
            packets.append(Packet.read(roce(5, "rc_rdma_write_only", ip=changed)))
    frames = [one.write() for one in packets] + [roce(5, ip=V4, name="cnp")]
    one = rule(select={"opcode": "middle"}, then=then)

    got = bench.run(one, frames)

    assert len(got) == len(frames)
    hit = one.hit(frames)
    assert len(hit) == bench.counted["hit"] == 10
    for number, frame in got.items():
        if number not in hit:
            assert frame == frames[number]
            continue
        read = Packet.read(frame)
        assert read.write() == expected(packets[number], one.then).write()
        assert read.sealed().write() == frame, "the header checksum is right"
        assert read.intact


def test_a_rewrite_leaves_what_is_no_ip_unseen(bench):
    frames = [crafted()[name] for name in ("arp", "lldp", "vlan v4", "vlan v6", "two vlans v4")]
    got = bench.run(rule(then="ce"), frames)
    assert bench.counted == {"seen": 2, "hit": 2, "passed": 0}
    assert len(got) == 5


def test_both_directions_draw_their_own_ordinals(bench):
    one = rule(when={"random": "10 %"})
    patterns = {one.towards(at).when.ordinals(2000) for at in (0, 1)}
    assert len(patterns) == 2
    assert bench.lost(one.towards(1), [roce()] * 2000) in patterns


def test_counters_go_on_over_several_times_in_force(bench):
    """`hits` adds up, and every time begins its schedule anew."""
    one = rule(when={"first": 2})
    with contextlib.closing(made_ready(bench.two_hosts, one)) as made:
        for times in (1, 2, 3):
            made.do()
            bench.exchange([roce()] * 5, one)
            assert made.undo() == ()
            assert (made.hits().seen, made.hits().hit) == (5 * times, 2 * times)
