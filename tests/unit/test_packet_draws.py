"""What is drawn, by whose seed and how much of it; and the ends of what may be given."""

import random

import pytest

from chaos.change import PacketRule, Place
from chaos.errors import SpecError
from chaos.natives.detour import Detoured
from chaos.natives.tables import unbalanced
from chaos.packets import Psn, Rule, Schedule
from chaos.packets.when import When
from chaos.units import Duration

LAST = (1 << 24) - 1


# ---- sequence numbers are 24 bits, and come round ------------------------------------------------


def test_a_sequence_number_has_24_bits_and_no_more():
    assert Schedule.parse({"psn": LAST}) == Psn((LAST,))
    with pytest.raises(SpecError, match="0 to 16777215 expected, got 16777216"):
        Psn((LAST + 1,))


def test_numbers_that_come_round_are_each_chosen_once():
    """The last before 0 and 0 itself, and neither of them when they are sent again."""
    when = Schedule.parse(f"psn=0,{LAST}")
    psns = [LAST - 1, LAST, 0, 1, LAST, 0]
    assert when.chosen(psns) == (1, 2)


def test_a_range_of_sequence_numbers_has_64_at_most():
    assert len(Schedule.parse("psn=100-163").of) == 64
    with pytest.raises(SpecError, match="1 to 64 sequence numbers expected, got 100-164"):
        Schedule.parse("psn=100-164")


# ---- both states of a burst ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "good"), [("100 %", "0 %"), ("60 %", "0 %"), ("60 %", "5 %"), ("100 %", "5 %")]
)
def test_what_is_lost_is_what_both_states_lose(bad, good):
    """Half of the time in each. One period of one seed: a twentieth is three deviations or more."""
    when = Schedule.parse({"enter": "50 %", "leave": "50 %", "bad": bad, "good": good, "seed": 4})
    count = when.period
    want = (float(bad[:-2]) + float(good[:-2])) / 200
    assert len(when.ordinals(count)) / count == pytest.approx(want, rel=0.05)


# ---- a direction draws anew, and the end of a fault is a time that fits --------------------------


@pytest.mark.parametrize(
    "then",
    ["delay=10ms jitter=2ms seed=3", "corrupt=silent seed=3", "delay=10ms jitter=2ms", "drop"],
)
def test_what_an_action_draws_is_drawn_anew_for_each_direction(then):
    seeds = [getattr(Rule.parse({"then": then}).towards(at).then.how, "seed", 0) for at in (0, 1)]
    given = {"drop": (0, 0), "delay=10ms jitter=2ms": (2, 3)}
    assert tuple(seeds) == given.get(then, (6, 7))


def test_a_rule_may_end_with_its_fault():
    (span,) = When.parse("from=1s until=2s").spans(Duration.parse("2 s"), random.Random(1))
    assert (span.start_ns, span.end_ns) == (10**9, 2 * 10**9)


# ---- what was counted must add up ----------------------------------------------------------------


@pytest.mark.parametrize(("passed", "told"), [(1, True), (2, False), (3, True)])
def test_too_many_are_told_as_are_too_few(passed, told):
    rule = PacketRule(Place("h1", "eth1"), "railbreak_t", Rule())
    assert bool(unbalanced(rule, {"seen": 3, "hit": 1, "passed": passed})) is told


@pytest.mark.parametrize(
    ("counted", "told", "sentences"),
    [
        ((3, 1, 2), {}, []),
        ((3, 1, 2), {"taken": 1}, []),
        ((3, 1, 1), {"taken": 1}, ["3 packets seen, but 1 hit + 1 passed"]),
        (
            (3, 2, 1),
            {"taken": 1, "lost": 1},
            ["2 packets were led to the worker, 1 reached it (1 found its queue full)"],
        ),
        ((3, 1, 2), {"taken": 1, "unsent": 1}, ["1 packets could not be put back"]),
        ((3, 1, 2), {"taken": 1, "unfit": 1}, ["1 packets could not be rewritten, and went on"]),
    ],
)
def test_what_a_worker_cannot_account_for_is_told(counted, told, sentences):
    change = PacketRule(Place("h1", "eth1"), "railbreak_t", Rule.parse({"then": "delay=1ms"}))
    names = ("seen", "hit", "passed")
    made = Detoured(change, None, None, {}, dict(zip(names, counted, strict=True)))
    made.told = {"taken": 0, "lost": 0, "unsent": 0, "unfit": 0, **told} if told else {}
    assert [one.rpartition("ingress: ")[2] for one in made.trouble] == sentences
