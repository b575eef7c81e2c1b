"""Words of time of `when`: windows, trains, and what of them is refused."""

import random
from dataclasses import replace

import jsonschema
import pytest
import yaml

from chaos import document
from chaos.change import from_json, to_json
from chaos.collide import separate
from chaos.errors import SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.packets import Schedule, When
from chaos.packets.when import THROUGHOUT
from chaos.registry import FAULTS, build, load
from chaos.strike import as_json, strike
from chaos.strike import from_json as strike_from_json
from chaos.units import Duration

MS = 1_000_000
CABLE = Link(Port("a", "eth1"), Port("b", "eth1"))
FABRIC = Fabric("pair", {"a": Node("a"), "b": Node("b")}, (CABLE,))

FORMS = (
    *("all", "first=3", "after=200", "every=100 offset=5", "random=1% seed=3", "psn=5,7"),
    "enter=1% leave=20%",
)
TIMES = {
    "from=200ms": [(200, 2000)],
    "until=1.5s": [(0, 1500)],
    "from=200ms until=1.5s": [(200, 1500)],
    "on=100ms off=400ms": [(0, 100), (500, 600), (1000, 1100), (1500, 1600)],
    "on=100ms off=400ms count=2": [(0, 100), (500, 600)],
    "frequency=2Hz": [(0, 250), (500, 750), (1000, 1250), (1500, 1750)],
    "from=900ms frequency=2Hz": [(900, 1150), (1400, 1650)],
    "from=1s until=1.3s on=100ms off=100ms": [(1000, 1100), (1200, 1300)],
}


def spans(when, length="2 s", seed=1):
    made = when.spans(Duration.parse(length), random.Random(seed))
    return [(one.start_ns / MS, one.end_ns / MS) for one in made]


def packet_fault(when):
    load()
    return build(FAULTS, "fault", "packet_fault", {"link": "a--b", "end": "a", "when": when})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("time", TIMES)
def test_every_form_takes_every_time_and_is_written_as_it_is_read(form, time):
    """As one line, as a mapping, through a record; the schedule itself is untouched."""
    words = time if form == "all" else f"{form} {time}"
    when = When.parse(words)

    assert when.of == Schedule.parse(form)
    assert spans(when) == TIMES[time]
    assert When.parse(str(when)) == When.parse(when.plain()) == when
    jsonschema.validate(when.plain(), When.schema())
    one = strike(packet_fault(words), 0, 2000 * MS, random.Random(1))
    assert strike_from_json(as_json(one)) == one
    for change in one.fault.changes(FABRIC):
        assert from_json(to_json(change)) == change
        assert change.rule.when == when.of.towards(0)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_word_of_time_it_is_the_whole_storm(form):
    when = When.parse(form)

    assert spans(when) == [(0, 2000)]
    assert str(when) == str(Schedule.parse(form))
    assert when.plain() == Schedule.parse(form).plain()


def test_a_reader_of_yaml_1_1_makes_no_other_words_of_on_and_off():
    text = "{first: 3, on: 100 ms, off: 400 ms}"
    loose = yaml.safe_load(text)

    assert True in loose
    assert When.parse(loose) == When.parse(document.read(text, "f").value)
    assert When.parse(loose) == When.parse("first=3 on=100ms off=400ms")


def test_without_a_word_it_is_always():
    load()
    assert build(FAULTS, "fault", "packet_fault", {"link": "a--b"}).when == THROUGHOUT


def test_jitter_is_seeded_bounded_and_stays_in_its_window():
    when = When.parse("random=1% from=1s until=9s frequency=10Hz jitter=40%")
    made = [spans(when, "10 s", seed) for seed in (1, 1, 2)]

    assert made[0] == made[1] != made[2]
    lengths = [end - start for start, end in made[0]]
    assert all(30 <= one <= 70 for one in lengths)
    assert max(lengths) - min(lengths) > 20
    assert made[0][0][0] == 1000
    assert made[0][-1][1] <= 9000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("from=3s until=1s", r"^\.until: a time after from \(3 s\) expected, got 1 s"),
        ("from=1s until=1s", r"^\.until: a time after from \(1 s\)"),
        ("first=3 untill=3s", r"^\.untill: when has no 'untill'; did you mean until"),
        ("all from=1s", r"^\.all: all has no value and stands alone; leave it out"),
        ({"all": True, "until": "1s"}, r"^\.all: all has no value and stands alone"),
        ("form=1s", r"^\.form: when has no 'form'; did you mean from"),
        ("first=3 offset=2 from=1s", r"^\.offset: when first has no 'offset'"),
        ("first=3 every=2 from=1s", r"^\.every: first and every cannot both be"),
        ("of=3 from=1s", r"^\.of: when has no 'of'"),
        ("random=1% share=2%", r"^\.share: when has no 'share'"),
        ("from=3", r"^\.from: a time expected, such as 250 ms .*got '3'"),
        ("on=1s", r"^\.on: either on and off, or frequency expected"),
        ("off=1s", r"^\.on: either on and off, or frequency expected"),
        ("on=1s off=1s frequency=1Hz", r"^\.on: either on and off, or frequency expected"),
        ("on=0 off=1s", r"^\.on: .*each with time on and off, got on 0 ns and off 1 s"),
        ("on=4ms off=5ms", r"^\.on: at most 50 turns per second expected"),
        ("frequency=51Hz", r"^\.frequency: at most 50 turns per second expected"),
        (
            "random=0.1% on=39ms off=60ms",
            r"^\.on: 39.96 ms in force at least expected, since a pat",
        ),
        ("random=0.1% frequency=20Hz", r"^\.frequency: .*a pattern of 999 stretches .*got 25 ms"),
        ("random=0.1% from=1s until=1.03s", r"^\.until: .*long to load, got 30 ms"),
        ("first=3 count=2", r"^\.count: turns need on and off, or frequency"),
        ("from=1s jitter=10%", r"^\.jitter: turns need on and off, or frequency"),
        ("on=1s off=1s count=1.5", r"^\.count: 0 to 1000000 expected, got '1.5'"),
        ("on=1s off=1s jitter=100%", r"^\.jitter: jitter must be below 100 %, got 100 %"),
    ],
)
def test_nonsense_is_refused_with_its_word(words, sentence):
    with pytest.raises(SpecError, match=sentence):
        When.parse(words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("until=3s", r"^when\.until: 2 s at most expected, as long as the fault lasts, got 3 s"),
        ("from=2s", r"^when\.from: less than 2 s expected, as long as the fault lasts, got 2 s"),
        ("frequency=1Hz count=3", r"^when\.count: 3 turns of 1 s do not fit into 2 s; 2 do"),
        ("from=1s frequency=1Hz count=2", r"^when\.count: 2 turns of 1 s do not fit into 1 s; 1"),
        ("until=1s on=1.1s off=1s", r"^when\.on: 1 turns of 2.1 s do not fit into 1 s; 0 do"),
    ],
)
def test_what_does_not_fit_into_the_fault_is_refused(words, sentence):
    fault = packet_fault(words)
    with pytest.raises(SpecError, match=sentence):
        fault.schedule(Duration.parse("2 s"), random.Random(1))


def test_one_rule_at_two_times_is_two_tables_and_can_be_told_apart():
    one, other, same = (
        packet_fault(f"first=3 {when}") for when in ("until=1s", "from=1s", "until=1s")
    )
    tables = [fault.changes(FABRIC)[0].table for fault in (one, other, same)]
    strikes = [strike(fault, 0, 2000 * MS, random.Random(1)) for fault in (one, other, same)]

    assert tables[0] == tables[2] != tables[1]
    assert separate(strikes[:2], FABRIC) == ((0, 1), ())
    with pytest.raises(SpecError, match="cannot be told apart"):
        separate([strikes[0], strikes[2]], FABRIC)
    assert replace(one, when=THROUGHOUT) != one
