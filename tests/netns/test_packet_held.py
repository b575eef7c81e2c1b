"""Packets held by each engine: none is lost, doubled or out of place, and each comes in time."""

import time

import pytest

from chaos.changes.queue import Queue
from chaos.natives.able import Here
from chaos.packets.engines import SEED
from tests.netns.bench import QUIET_S, TABLE, acting, by, numbers
from tests.netns.frames import data, expected_order, roce, rule
from tests.netns.transfer import frames_of, transferred
from tests.waiting import wait_until

pytestmark = pytest.mark.netns


@by("netem", "worker")
def test_ten_thousand_delayed_packets_arrive_once_each_and_in_order(road):
    frames = [roce(n) for n in range(10_000)]

    came = road.go(rule(then="delay=2ms"), frames)

    assert numbers(came) == list(range(10_000))
    assert all(one.frame == frames[one.number] for one in came)
    assert min(one.took_ns for one in came) >= 2_000_000
    assert road.counted["hit"] == 10_000
    if road.told:
        assert road.told["taken"] == road.told["sent"] == 10_000


#: netem is tried in a machine that is emulated and at times stands still for some milliseconds, so
#: there what is looked for is longer: milliseconds by engine.
_LONG = {"netem": 10, "worker": 1}


@by("netem", "worker")
def test_a_delay_holds_the_chosen_and_nobody_else(road):
    held_ns = 20_000_000 * _LONG[road.engine]
    one = rule(select={"opcode": "middle"}, when={"every": 5}, then=f"delay={held_ns // 1000}us")
    frames = [f for n in range(200) for f in (roce(n), roce(n, "rc_acknowledge"))]

    came = road.go(one, frames, gap_s=0.001)

    late = {got.number for got in came if got.took_ns >= held_ns}
    assert late == set(one.hit(frames))
    assert sorted(numbers(came)) == list(range(400))
    others = sorted(got.took_ns for got in came if got.number not in late)
    assert others[len(others) // 2] < held_ns // 10


def drawn_by_netem(one):
    """The delays that the kernel draws, told from its generator (lfsr113) and from our table."""
    queue = Queue.of(one, TABLE)
    seed, table, spread = queue.seed, queue.table(), queue.spread_ns
    first = ((seed >> 32) ^ (seed << 10) ^ seed) & 0xFFFFFFFF
    state = [first + least if first < least else first for least in (2, 8, 16, 128)]
    shifts = ((6, 13, 1, 18), (2, 27, 3, 2), (13, 21, 4, 7), (3, 12, 7, 13))
    while True:
        drawn = 0
        for at, (a, b, low, d) in enumerate(shifts):
            s = state[at]
            kept = s >> low << low
            state[at] = ((kept << d) & 0xFFFFFFFF) ^ ((((s << a) & 0xFFFFFFFF) ^ s) >> b)
            drawn ^= state[at]
        if table:
            yield max(0, queue.delay_ns + round(table[drawn % len(table)] * spread / 8192))
        else:
            yield queue.delay_ns - spread + drawn % (2 * spread)


@by("netem", "worker")
@pytest.mark.parametrize("shape", ["uniform", "normal", "exponential"])
def test_jitter_is_drawn_by_its_seed(road, shape):
    """Packets far apart: each comes when the pure draw says, within what this machine adds."""
    long = _LONG[road.engine]
    one = rule(then=f"delay={8 * long}ms jitter={3 * long}ms shape={shape} seed=5")
    if road.engine == "netem" and (why := Here()[SEED]):
        pytest.skip(why)
    draw = drawn_by_netem(one).__next__ if road.engine == "netem" else one.then.how.draws()
    want = [draw() for _ in range(60 if long == 1 else 25)]

    came = road.go(one, [roce(n) for n in range(len(want))], gap_s=0.025 * long)

    over = sorted(got.took_ns - want[got.number] for got in came)
    assert over[0] >= 0, "another draw would be too early now and then"
    assert over[len(over) // 2] < long * 1_000_000, "the median packet is hardly late"
    assert len({ns // (long * 100_000) for ns in want}) > 15


@pytest.mark.parametrize(
    ("when", "then"),
    [
        ({"every": 10}, "reorder=1"),
        ({"every": 10}, "reorder=3"),
        ({"random": "10 %", "seed": 3}, "reorder=2"),
        ({"psn": [5, 200]}, "reorder=5"),
        ({"first": 1}, "reorder=100"),
        ({"enter": "5 %", "leave": "50 %"}, "reorder=4"),
    ],
)
def test_reordering_is_exact_and_the_same_in_ten_runs(road, when, then):
    one = rule(when=when, then=then)
    frames = [roce(n) for n in range(500)]
    want = expected_order(one, frames)
    assert want != sorted(want)

    runs = [numbers(road.go(one, frames)) for _ in range(10)]

    assert runs == [want] * 10


def test_a_packet_that_nobody_overtakes_goes_on_in_time(road):
    came = road.go(rule(when={"first": 1}, then="reorder=3 within=50ms"), [roce(0)])
    assert 50_000_000 <= came[0].took_ns < 80_000_000


@by("htb", "worker")
def test_a_rate_spaces_packets_and_drops_what_would_wait_too_long(road):
    """1238 bytes at 1 Mbit/s: 9.9 ms each; of a burst six fit before 50 ms of waiting."""
    frames = [data(n, payload=bytes(1176)).write() for n in range(30)]
    assert len(frames[0]) + 4 == 1238

    came = road.go(rule(then="rate=1Mbit/s queue=50ms"), frames, expect=6)

    assert numbers(came) == list(range(6))
    assert came[-1].took_ns - came[0].took_ns == pytest.approx(5 * 9_904_000, rel=0.1)
    dropped = road.met.dropped if road.engine == "htb" else road.told["dropped"]
    assert dropped == 24


def test_a_stream_of_large_segments_comes_through_whole(two_hosts):
    """Senders that leave segmentation to the kernel: a super-packet is one packet here too."""
    size = 8_000_000
    with acting(
        two_hosts, rule(select={"protocol": "tcp"}, then="delay=1ms"), engine="worker"
    ) as made:
        transferred(two_hosts, size)
        assert made.undo() == ()
        trouble, told, hits = made.trouble, made.told, made.hits()

    assert trouble == ()
    assert told["taken"] == hits.hit
    assert hits.hit < frames_of(size) / 4, "segments of many frames each"


@by("worker")
def test_what_is_held_when_it_ends_is_let_go(road):
    """Nothing is lost by taking a delay of ten seconds back after a moment."""
    with road.in_force(rule(then="delay=10s")) as made:
        for number in range(100):
            road.send(number, roce(number))
        wait_until(lambda: made.hits().hit == 100, "all of them to be led to the worker")
        time.sleep(QUIET_S)
        assert road.gather() == []
    assert numbers(road.arrivals(100)) == list(range(100))
