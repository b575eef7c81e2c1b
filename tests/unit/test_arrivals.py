"""Faults that arrive at random: rates as written, and draws that are Poisson, seeded and even."""

import math
import random
from dataclasses import dataclass

import pytest

from chaos.arrivals import HOURS, MOST, PUBLISHED, Arrivals, Rate
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.timing import Range
from chaos.units import Duration
from faults.link_down import LinkDown
from faults.node_down import NodeDown
from faults.rank_stop import RankStop

S = 10**9
ROLES = {"host1": "host", "leaf1": "leaf", "leaf2": "leaf", "spine1": "spine", "spine2": "spine"}
CABLES = (
    ("host1:eth1", "leaf1:eth3"),
    ("leaf1:eth1", "spine1:eth1"),
    ("leaf1:eth2", "spine2:eth1"),
    ("leaf2:eth1", "spine1:eth2"),
    ("leaf2:eth2", "spine2:eth2"),
)
FABRIC = Fabric(
    "clos",
    {name: Node(name, role=role) for name, role in ROLES.items()},
    tuple(Link(Port(*a.split(":")), Port(*b.split(":"))) for a, b in CABLES),
)
LEAF_SPINE = Arrivals(
    LinkDown("leaf--spine"),
    "leaf--spine",
    Rate.parse("0.057 % per link-month"),
    compress=7e8,
    length=Range.parse("500 ms"),
)


@pytest.mark.parametrize(
    ("text", "per_hour", "of"),
    [
        ("0.040 per 1000 gpu-days", 0.040 / 1000 / 24, "gpu"),
        ("1.2 per 1,000 GPU-days", 1.2 / 1000 / 24, "gpu"),
        ("0.057 % per link-month", 0.00057 / HOURS["month"], "link"),
        ("0.57 per 1000 link-months", 0.00057 / HOURS["month"], "link"),
        ("3 per node-year", 3 / HOURS["year"], "node"),
        ("hpn-nic-link", 0.00057 / HOURS["month"], "link"),
        ("llama3-switch-cable", 0.040 / 1000 / 24, "gpu"),
    ],
)
def test_a_rate_is_read(text, per_hour, of):
    rate = Rate.parse(text)

    assert (rate.per_hour, rate.of) == (pytest.approx(per_hour, rel=1e-12), of)


def test_a_published_rate_says_who_published_it():
    for name, (written, source) in PUBLISHED.items():
        assert str(Rate.parse(name)) == f"{name} ({written}; {source})"


def test_the_published_rates_are_those_of_their_sources():
    """So many interruptions in 54 days on 16384 GPUs, to the digits that are given."""
    for name, many in (
        *(("llama3-switch-cable", 35), ("llama3-nic", 7), ("llama3-gpu", 148)),
        *(("llama3-hbm", 72), ("llama3-software", 54), ("llama3-any", 419)),
    ):
        per_1000_days = Rate.parse(name).per_hour * 24 * 1000
        assert per_1000_days == pytest.approx(1000 * many / 54 / 16384, rel=0.02)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.04", "a rate such as 0.040 per 1000 gpu-days expected"),
        ("0.04 per 1000 cpu-days", "of gpu, link, node"),
        ("0.04 per gpu-fortnight", "per hour, day, month, year"),
        ("0 per link-month", "a rate must be above 0"),
        ("hpn-nic-lnk", "did you mean hpn-nic-link"),
        (0.04, "a rate such as"),
    ],
)
def test_what_is_no_rate_is_refused(text, says):
    with pytest.raises(SpecError, match=says):
        Rate.parse(text)


def arrivals(**words):
    given = {
        "of": LinkDown("leaf--spine"), "over": "leaf--spine", "rate": Rate.parse("hpn-nic-link"),
        "compress": 1e9, "length": Range.parse("500 ms"),
    }  # fmt: skip
    return Arrivals(**{**given, **words})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"compress": 0.5}, "time is compressed 1 to 1e12 times, got 0.5"),
        ({"rate": Rate.parse("llama3-nic")}, "how many GPUs"),
        ({"population": 0}, "at least 1 expected, got 0"),
    ],
)
def test_arrivals_that_mean_nothing_are_refused(words, says):
    with pytest.raises(SpecError, match=says):
        arrivals(**words)


@dataclass(frozen=True)
class Weather:
    name = "weather"


def test_a_fault_without_an_element_cannot_be_drawn():
    with pytest.raises(
        SpecError, match="fault weather has no link, node or rank that could be drawn"
    ):
        arrivals(of=Weather())


@pytest.mark.parametrize(
    ("of", "over", "found"),
    [
        (LinkDown("x"), "leaf--spine", 4),
        (LinkDown("x"), "host--leaf", 1),
        (LinkDown("x"), "links", 5),
        (LinkDown("x"), "leaf1--spine", 2),
        (NodeDown("x"), "spine", 2),
        (NodeDown("x"), "nodes", 5),
    ],
)
def test_what_may_be_struck(of, over, found):
    assert len(arrivals(of=of, over=over).elements(FABRIC)) == found


def test_what_is_not_there_cannot_be_struck():
    with pytest.raises(SpecError, match="no link 'leaf--spin' in fabric clos; did you mean"):
        arrivals(over="leaf--spin").elements(FABRIC)
    with pytest.raises(SpecError, match="no role or node 'tor' in fabric clos"):
        arrivals(of=NodeDown("x"), over="tor").elements(FABRIC)


RANKS = ("host1", "host1", "leaf1", "host1")


@pytest.mark.parametrize(
    ("over", "found"),
    [
        ("ranks", ("rank0", "rank1", "rank2", "rank3")),
        ("host1", ("rank0", "rank1", "rank3")),
        ("leaf", ("rank2",)),
        ("rank3", ("rank3",)),
    ],
)
def test_which_ranks_may_be_struck(over, found):
    stops = arrivals(of=RankStop(0), over=over, rate=Rate.parse("llama3-gpu"))

    assert stops.elements(FABRIC, RANKS) == found
    assert stops.struck(found[-1]) == RankStop(int(found[-1][4:]))


def test_a_rank_is_a_gpu():
    """Four of them, 0.167 in 1000 GPU-days, 1e9 s of the world in each of 3.5 s."""
    stops = arrivals(of=RankStop(0), over="ranks", rate=Rate.parse("llama3-gpu"))

    assert stops.expected(4 * S, FABRIC, RANKS) == pytest.approx(0.000167 * 4 * 3.5e9 / 86400)
    with pytest.raises(SpecError, match=r"^population: how many nodes"):
        arrivals(of=RankStop(0), over="ranks", rate=Rate.parse("rsc-1-node"))


def test_every_rank_is_struck_equally_often():
    stops = arrivals(of=RankStop(0), over="ranks", rate=Rate.parse("llama3-gpu"), compress=1e9)
    drawn = [
        one.element
        for seed in range(STORMS)
        for one in stops.draw(1 * S, FABRIC, random.Random(seed), RANKS)
    ]
    mean, spread = len(drawn) / 4, math.sqrt(len(drawn) * 3 / 16)

    assert len(drawn) > 1000
    for rank in range(4):
        assert abs(drawn.count(f"rank{rank}") - mean) < 4 * spread


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ("rank4", "no rank 'rank4' among the 4 of the job, .*did you mean rank"),
        ("spine1", "no rank 'spine1' among the 4 of the job, and none runs there"),
    ],
)
def test_a_rank_that_is_not_there_cannot_be_struck(over, says):
    stops = arrivals(of=RankStop(0), over=over, rate=Rate.parse("llama3-gpu"))
    with pytest.raises(SpecError, match=says):
        stops.elements(FABRIC, RANKS)


def test_the_number_expected_is_rate_times_elements_times_time():
    """4 links, 0.057 % a month, 7e8 s of the world in each second, in 3.5 of 4 seconds."""
    months = 3.5 * 7e8 / 3600 / HOURS["month"]

    assert LEAF_SPINE.expected(4 * S, FABRIC) == pytest.approx(4 * 0.00057 * months)
    gpus = arrivals(rate=Rate.parse("llama3-switch-cable"), population=16384, compress=130_000)
    days = 3.5 * 130_000 / 86400
    assert gpus.expected(4 * S, FABRIC) == pytest.approx(0.040 / 1000 * 16384 * days)


STORMS = 2000
#: Each bound below is 4 standard deviations of the count under the law that is claimed: each fails
#: by chance once in 15,000 tries of other seeds. The seeds are fixed, so it fails always or never.
SIGMAS = 4


@pytest.fixture(scope="module")
def drawn():
    """Arrivals of 2000 storms, a seed each."""
    return [LEAF_SPINE.draw(4 * S, FABRIC, random.Random(seed)) for seed in range(STORMS)]


def test_as_many_arrive_as_the_rate_says(drawn):
    """Poisson: total, its spread over storms, and the share of storms without any."""
    mean = LEAF_SPINE.expected(4 * S, FABRIC)
    counts = [len(one) for one in drawn]
    total = STORMS * mean
    assert abs(sum(counts) - total) < SIGMAS * math.sqrt(total)

    average = sum(counts) / STORMS
    spread = sum((n - average) ** 2 for n in counts) / (STORMS - 1) / average
    assert abs(spread - 1) < SIGMAS * math.sqrt(2 / STORMS), "of a Poisson law it is 1"

    empty = STORMS * math.exp(-mean)
    deviation = math.sqrt(empty * (1 - math.exp(-mean)))
    assert abs(counts.count(0) - empty) < SIGMAS * deviation


def test_they_arrive_at_any_time_and_on_any_element_alike(drawn):
    every = [arrival for one in drawn for arrival in one]
    n = len(every)
    for part in range(4):
        low, high = part * 3.5 * S / 4, (part + 1) * 3.5 * S / 4
        inside = sum(low <= one.at_ns < high for one in every)
        assert abs(inside - n / 4) < SIGMAS * math.sqrt(n * 3 / 16), f"quarter {part}"
    for name in LEAF_SPINE.elements(FABRIC):
        struck = sum(one.element == name for one in every)
        assert abs(struck - n / 4) < SIGMAS * math.sqrt(n * 3 / 16), name


def test_gaps_between_arrivals_are_exponential():
    """Their mean is 1 / rate, and as many are longer than the mean as exp(-1)."""
    often = arrivals(compress=1e9, length=Range.parse("1 ms"))
    times = [
        [one.at_ns for one in often.draw(4 * S, FABRIC, random.Random(seed))]
        for seed in range(STORMS)
    ]
    mean = (4 * S - 10**6) / often.expected(4 * S, FABRIC)
    first = [one[0] for one in times if one]
    longer = sum(at > mean for at in first) + sum(not one for one in times)
    share = math.exp(-1)
    assert abs(longer - STORMS * share) < SIGMAS * math.sqrt(STORMS * share * (1 - share))


def test_the_same_seed_draws_the_same():
    again = [LEAF_SPINE.draw(4 * S, FABRIC, random.Random(7)) for _ in range(2)]

    assert again[0] == again[1]
    assert again[0] != LEAF_SPINE.draw(4 * S, FABRIC, random.Random(8))


def test_each_lasts_as_long_as_it_says_and_ends_within_the_storm():
    ranged = arrivals(compress=1e9, length=Range.parse({"from": "200 ms", "to": "900 ms"}))
    for seed in range(200):
        for one in ranged.draw(4 * S, FABRIC, random.Random(seed)):
            assert Duration.parse("200 ms").ns <= one.until_ns - one.at_ns <= 9 * S // 10
            assert one.until_ns <= 4 * S


def test_more_than_can_be_held_are_refused():
    with pytest.raises(SpecError, match=f"more than {MOST} arrive in one storm"):
        arrivals(compress=1e12).draw(4 * S, FABRIC, random.Random(1))


def test_a_storm_that_is_too_short_is_refused():
    with pytest.raises(
        SpecError, match=r"one that lasts 500 ms does not fit into a storm of 0.4 s"
    ):
        LEAF_SPINE.draw(4 * S // 10, FABRIC, random.Random(1))
