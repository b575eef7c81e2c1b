"""Rates of losses, marks and corruptions on hundreds of thousands of real packets.

Confidence of every bound here: 99.9 %, two-sided. A schedule is drawn by its seed, so a run that
passes passes always; what the bounds would notice is shown by patterns that are wrong on purpose.
The unit that is drawn is one period of the pattern (10,000 packets above 0.5 %, else a million):
it repeats, so what says something of chance is its places, each counted once.
"""

import contextlib
import ctypes
import math
import os
import struct
from itertools import groupby
from types import SimpleNamespace

import pytest

from chaos.packets.schedule import Schedule
from tests.netns.bench import OURS, Bench, acting, one_cpu
from tests.netns.frames import roce, rule

pytestmark = [pytest.mark.netns, pytest.mark.slow]

Z = 3.2905  # of the normal distribution at 99.95 %
MODULI = (2, 3, 4, 5, 7, 8, 10, 16, 32)  # flows that take strict turns
LEAST = 5  # hits due to each of them, below which chi-square says nothing
#: Packets that make a rate wrong by 20 % fall outside of the bounds.
ENOUGH = {"0.1 %": 500_000, "1 %": 200_000, "10 %": 200_000}
_BATCH, _ROOM = 512, 256


# ---- the arithmetic -----------------------------------------------------------------------------


def binomial_bounds(count, chance):
    """Fewest and most hits among `count` draws that 99.9 % of honest runs have; exact."""

    def probability(hits):
        rest = count - hits
        ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(rest + 1)
        return math.exp(ways + hits * math.log(chance) + rest * math.log1p(-chance))

    spread = 8 * math.sqrt(count * chance) + 10
    near = range(max(0, int(count * chance - spread)), min(count, int(count * chance + spread)) + 1)
    below, found = 0.0, []
    for hits in near:
        below += probability(hits)
        if 0.0005 < below < 0.9995:
            found.append(hits)
    return found[0], found[-1] + 1


def runs_z(places, length):
    """Wald and Wolfowitz: standard deviations that the number of runs is off."""
    hit, miss = len(places), length - len(places)
    marks = bytearray(length)
    for place in places:
        marks[place] = 1
    runs = sum(1 for _ in groupby(marks))
    mean = 1 + 2 * hit * miss / length
    variance = (mean - 1) * (mean - 2) / (length - 1)
    return (runs - mean) / math.sqrt(variance)


def unfair(places, length):
    """Moduli whose residues the places prefer, by chi-square (Wilson and Hilferty's bound)."""
    found = {}
    for modulus in (one for one in MODULI if len(places) >= LEAST * one):
        counts = [0] * modulus
        for place in places:
            counts[place % modulus] += 1
        due = [len(places) * len(range(r, length, modulus)) / length for r in range(modulus)]
        chi = sum((a - b) ** 2 / b for a, b in zip(counts, due, strict=True))
        free = modulus - 1
        most = free * (1 - 2 / (9 * free) + Z * math.sqrt(2 / (9 * free))) ** 3
        if chi > most:
            found[modulus] = (round(chi, 1), round(most, 1))
    return found


def burst_bounds(enter, leave, length):
    """Gilbert and Elliott: mean burst length and share lost, each with its bound."""
    share, kept = enter / (enter + leave), 1 - enter - leave
    bursts = length * share * leave
    each = Z * math.sqrt(1 - leave) / leave / math.sqrt(bursts)
    wide = Z * math.sqrt(share * (1 - share) / length * (1 + kept) / (1 - kept))
    return (1 / leave, each), (share, wide)


# ---- packets, many at a time --------------------------------------------------------------------


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_ulong),
        ("moved", ctypes.c_uint),
    )


class Many:
    """Buffers of one size behind `sendmmsg` and `recvmmsg`: about two microseconds a packet."""

    def __init__(self, size):
        self.size, self.data = size, (ctypes.c_char * (size * _BATCH))()
        self.view = memoryview(self.data).cast("B")
        base = ctypes.addressof(self.data)
        self.vectors = (_Vector * _BATCH)(*(_Vector(base + n * size, size) for n in range(_BATCH)))
        self.messages = (_Message * _BATCH)()
        for message, vector in zip(self.messages, self.vectors, strict=True):
            message.vectors, message.vector_count = ctypes.pointer(vector), 1
        self.libc = ctypes.CDLL(None, use_errno=True)

    def send(self, sock, frame, numbers):
        for n, number in enumerate(numbers):
            at = n * self.size
            self.view[at : at + len(frame)] = frame
            struct.pack_into(">I", self.view, at + len(frame), number)
        sent = self.libc.sendmmsg(sock.fileno(), self.messages, len(numbers), 0)
        assert sent == len(numbers), os.strerror(ctypes.get_errno())

    def receive(self, sock):
        """Frames that have come, each with its number."""
        while (got := self.libc.recvmmsg(sock.fileno(), self.messages, _BATCH, 0x40, None)) > 0:
            for n in range(got):
                at, long = n * self.size, self.messages[n].moved
                yield bytes(self.view[at : at + min(long, self.size)])


class Wire(Bench):
    """`go(then, when, count)`: the ordinals that were hit, by what arrived."""

    def go(self, then, when, count):
        frame = bytes(roce())
        out, come = Many(len(frame) + 4), Many(_ROOM)
        passed, changed = set(), set()

        def gather():
            for got in come.receive(self.come):
                if got[6:12] == OURS and len(got) == len(frame) + 4:
                    (number,) = struct.unpack(">I", got[-4:])
                    (passed if got[:-4] == frame else changed).add(number)

        with acting(self.two_hosts, rule(when=when, then=then)) as made:
            with one_cpu():
                for first in range(0, count, _BATCH):
                    out.send(self.out, frame, range(first, min(first + _BATCH, count)))
                    gather()
            hits = made.hits()
            assert made.undo() == ()
        gather()
        hit = set(range(count)) - passed - changed if then == "drop" else changed
        assert (hits.seen, hits.hit) == (count, len(hit)), "the kernel counted what was seen"
        assert len(passed) == count - len(hit), "and nothing else was lost"
        return SimpleNamespace(count=count, hit=sorted(hit))


@pytest.fixture
def wire(two_hosts):
    """Two hosts and a rule between them."""
    with contextlib.closing(Wire(two_hosts)) as made:
        yield made


# ---- what the kernel does -----------------------------------------------------------------------


@pytest.mark.parametrize("then", ["drop", "ce", "corrupt"])
@pytest.mark.parametrize("share", ENOUGH)
def test_a_share_is_within_binomial_bounds_and_prefers_no_flow(wire, then, share):
    count, chance = ENOUGH[share], float(share.split()[0]) / 100

    got = wire.go(then, {"random": share, "seed": 9}, count)

    least, most = binomial_bounds(count, chance)
    assert least <= len(got.hit) <= most
    period = min(count, Schedule.parse({"random": share, "seed": 9}).pattern()[0])
    places = [ordinal for ordinal in got.hit if ordinal < period]
    assert abs(runs_z(places, period)) <= Z, "neither in bursts nor evenly spread"
    assert unfair(places, period) == {}


@pytest.mark.parametrize("then", ["drop", "ce"])
def test_bursts_are_as_long_and_as_many_as_their_model_says(wire, then):
    when = {"enter": "1 %", "leave": "20 %", "seed": 5}
    count = Schedule.parse(when).period

    got = wire.go(then, when, count)

    length, share = measured_bursts(got.hit, count)
    (mean, each), (lost, wide) = burst_bounds(0.01, 0.2, count)
    assert abs(length - mean) <= each
    assert abs(share - lost) <= wide


def measured_bursts(hit, count):
    """Mean length of what was hit in a row, and the share that was hit."""
    bursts = [len(list(run)) for _, run in groupby(enumerate(hit), lambda one: one[1] - one[0])]
    return sum(bursts) / len(bursts), len(hit) / count


# ---- what the bounds notice ---------------------------------------------------------------------


@pytest.mark.parametrize("share", ENOUGH)
@pytest.mark.parametrize("wrong", [0.8, 1.2])
def test_a_rate_that_is_wrong_by_a_fifth_is_out_of_bounds(wire, share, wrong):
    count, chance = ENOUGH[share], float(share.split()[0]) / 100

    got = wire.go("drop", {"random": f"{100 * chance * wrong:g} %", "seed": 9}, count)

    least, most = binomial_bounds(count, chance)
    assert not least <= len(got.hit) <= most


def test_over_many_seeds_as_few_patterns_are_unfair_as_chance_has_it():
    """One in a thousand of 400 seeds times seven moduli; the same for the runs."""
    drawn = [Schedule.parse({"random": "1 %", "seed": seed}).pattern()[1] for seed in range(400)]
    _, most = binomial_bounds(400 * 7, 0.001)

    assert sum(len(unfair(places, 10_000)) for places in drawn) <= most
    assert sum(abs(runs_z(places, 10_000)) > Z for places in drawn[:100]) <= 2


def test_an_even_pattern_is_known_by_the_flow_it_prefers():
    every = Schedule.parse({"every": 100}).ordinals(10_000)
    assert {2, 4, 5, 10} <= set(unfair(every, 10_000))


def test_a_pattern_in_bursts_is_known_by_its_runs():
    bursts = Schedule.parse({"enter": "0.5 %", "leave": "50 %", "seed": 2}).ordinals(10_000)
    assert runs_z(bursts, 10_000) < -Z


@pytest.mark.parametrize(("enter", "leave"), [("1.2 %", "20 %"), ("1 %", "24 %"), ("1 %", "16 %")])
def test_a_burst_model_that_is_wrong_by_a_fifth_is_out_of_bounds(enter, leave):
    schedule = Schedule.parse({"enter": enter, "leave": leave, "seed": 5})
    length, share = measured_bursts(schedule.ordinals(100_000), 100_000)
    (mean, each), (lost, wide) = burst_bounds(0.01, 0.2, 100_000)
    assert abs(length - mean) > each or abs(share - lost) > wide
