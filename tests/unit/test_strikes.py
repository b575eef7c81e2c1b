"""What falls in each storm: times as written, seeded draws, what is together, what cannot be."""

import asyncio
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaos import budget
from chaos.aim import Aimed
from chaos.arrivals import PUBLISHED
from chaos.collide import HEALING_NS, together
from chaos.errors import BlockedError, SpecError
from chaos.experiment import loads
from chaos.expose import LOOK_NS, look, overall
from chaos.fabric import Crossing, Stream
from chaos.judge import Verdict
from chaos.limits import Limits
from chaos.plan import lines
from chaos.record import Exposure, Record, Trial, from_json, to_json
from chaos.replay import again, recorded
from chaos.storm import Falling, place_processes
from chaos.strike import Strike, as_json
from chaos.strike import from_json as strike_from_json
from chaos.strikes import groups, storms
from chaos.timeline import now_ns
from chaos.timing import Timing, settle
from chaos.topology import load
from chaos.trial import _separate
from chaos.units import Duration
from faults.link_down import LinkDown
from faults.rank_kill import RankKill

CLOS = load("clos-2x4x8")
MS = 10**6
TEXT = """
promise: p
fabric: clos-2x4x8
FAULTS
probes:
  flow: {source: host1, target: host8}
  kernel_events: {}
phases: {storm: 4 s}
trials: 2
objectives: [{measure: flow_lost_packets, at_most: 9}]
"""
PAIR = """faults:
  - {link_down/first: {link: leaf1--spine1}, at: 200 ms, for: 1 s}
  - {link_down/second: {link: leaf4--spine2}, after: first, at: 50 ms, for: 700 ms}"""
RANDOM = """arrivals:
  of: {link_down: {mode: carrier}}
  over: leaf--spine
  rate: hpn-nic-link
  compress: 4e8
  for: {from: 300 ms, to: 600 ms}"""


def made(faults, **words):
    text = TEXT.replace("FAULTS", faults)
    return replace(loads(text, "e.yaml"), **words) if words else loads(text, "e.yaml")


def falls(faults, **words):
    """Per trial with a fault: the strikes."""
    return [s.strikes for slot, s in storms(made(faults, **words), CLOS) if not slot.placebo]


def test_times_are_as_written():
    for strikes in falls(PAIR):
        assert [(one.label, one.at_ns // MS, one.until_ns // MS) for one in strikes] == [
            ("first", 200, 1200), ("second", 1250, 1950),
        ]  # fmt: skip
        assert [[(s.start_ns // MS, s.end_ns // MS) for s in one.spans] for one in strikes] == [
            [(200, 1200)], [(1250, 1950)],
        ]  # fmt: skip


def test_a_fault_without_times_is_the_whole_storm():
    (first, *_) = falls("fault: {link_down: {link: leaf1--spine1}}")

    assert [(one.at_ns, one.until_ns, one.label) for one in first] == [(0, 4000 * MS, "")]


def test_a_fault_keeps_its_own_schedule_within_its_time():
    """Two flaps of 100 ms, from 1 s of the storm on."""
    flap = "link_flap: {link: leaf1--spine1, down: 100 ms, up: 100 ms, count: 2}"
    (first, *_) = falls(f"fault: {{{flap}, at: 1 s, for: 500 ms}}")

    spans = [(s.start_ns // MS, s.end_ns // MS) for s in first[0].spans]
    assert spans == [(1000, 1100), (1200, 1300)]


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (
            "fault: {link_down: {link: leaf1--spine1}, for: 5 s}",
            "e.yaml:4: fault.for: it ends 5 s into the storm, and the shortest storm lasts",
        ),
        (
            "fault: {link_down: {link: leaf1--spine1}, at: 4 s}",
            "e.yaml:4: fault.at: it begins 4 s into the storm, and the shortest storm lasts",
        ),
        (
            "fault: {link_down: {link: leaf1--spine1}, for: 0}",
            "e.yaml:4: fault.for: a fault that lasts no time breaks nothing",
        ),
        (
            "fault: {link_down: {link: leaf1--spine1}, from: 1 s}",
            "e.yaml:4: fault: one fault and its fields expected",
        ),
        (
            "fault: {link_down/Far: {link: leaf1--spine1}}",
            "fault.link_down/Far: a label is lower case letters and digits after /",
        ),
        (
            "faults:\n  - link_down: {link: leaf1--spine1}\n"
            "  - {link_down: {link: leaf2--spine1}, after: link_down}",
            "e.yaml:6: faults[1].after: link_down lasts until the storm ends; give it for",
        ),
        (
            "faults:\n  - {link_down: {link: leaf1--spine1}, for: 1 s}\n"
            "  - {link_down: {link: leaf2--spine1}, after: link_dwn}",
            "e.yaml:6: faults[1].after: no fault 'link_dwn' before this one; did you mean link_do",
        ),
        (
            "fault: {link_down: {link: leaf1--spine1}, after: x}",
            "e.yaml:4: fault.after: no fault 'x' before this one; it is the first",
        ),
        (
            "faults:\n  - {link_down/a: {link: leaf1--spine1}, for: 1 s}\n"
            "  - {link_down/a: {link: leaf2--spine1}}",
            "e.yaml:6: faults[1].link_down/a: the label a is that of faults[0]; take another",
        ),
        (
            "faults:\n  - {link_down/a: {link: leaf1--spine1}, for: 1 s}\n"
            "  - {link_down/b: {link: leaf2--spine1}, for: 1 s}\n"
            "  - {link_down: {link: leaf3--spine1}, after: link_down}",
            "e.yaml:7: faults[2].after: 2 faults before this one are called 'link_down'; label one",
        ),
        (
            "arrivals: {of: {link_down: {link: x}}, over: links, rate: hpn-tor, compress: 2, for: 1"
            "s}",
            "e.yaml:4: arrivals.of.link_down.link: link is drawn from over (links); leave it out",
        ),
        (
            "arrivals: {of: link_down, over: links, rate: hpn-tor, compress: 2}",
            "e.yaml:4: arrivals: arrivals need for",
        ),
        (
            "arrivals: {of: link_down, over: tor--spine, rate: hpn-tor, compress: 2, for: 1s}",
            "e.yaml:4: arrivals.over: no link 'tor--spine' in fabric clos-2x4x8",
        ),
        (
            "arrivals: {of: link_down, over: links, rate: hpn-tor, compress: 2, for: 4s}",
            "e.yaml:4: arrivals.for: one that lasts 4 s does not fit into a storm of 4 s",
        ),
        (
            "arrivals: {of: link_down, over: links, rate: hpn-tor, compress: 2, for: 1s}",
            "e.yaml:4: arrivals: nothing arrives in any of 2 trials",
        ),
        (
            "arrivals: {of: link_down, over: links, rate: hpn-tor, compress: 1e12, for: 1s}",
            "e.yaml:4: arrivals.compress: more than 16 arrive in one storm",
        ),
    ],
)
def test_what_cannot_be_is_refused(faults, says):
    with pytest.raises(SpecError) as refusal:
        lines(made(faults), CLOS)

    assert says in str(refusal.value)


COLLIDE = """faults:
  - {link_down: {link: ONE, mode: carrier}, for: 1 s}
  - {link_down: {link: TWO, mode: admin, end: leaf1}, at: AT, for: 1 s}"""


@pytest.mark.parametrize(
    ("one", "two", "at", "collide"),
    [
        ("leaf1--spine1", "leaf1--spine1", "500 ms", True),
        ("leaf1--spine1", "leaf1--spine1", "1.1 s", True),
        ("leaf1--spine1", "leaf1--spine1", "1.3 s", False),
        ("leaf1--spine1", "leaf1--spine2", "500 ms", False),
        ("in-use leaf1--spine", "in-use leaf1--spine", "500 ms", True),
        ("in-use leaf1--spine", "in-use leaf1--spine", "1.3 s", False),
        ("in-use leaf1--spine", "leaf1--spine1", "500 ms", False),
    ],
    ids=["same", "too close", "one after the other", "other link", "same words",
         "same words, after", "perhaps, told once traffic runs"],
)  # fmt: skip
def test_two_on_one_element_at_one_time_are_refused(one, two, at, collide):
    text = COLLIDE.replace("ONE", one).replace("TWO", two).replace("AT", at)
    if not collide:
        assert falls(text)
        return
    with pytest.raises(SpecError) as refusal:
        falls(text)
    assert "cannot be told apart: both change the state of leaf1" in str(refusal.value)


def test_a_node_and_its_link_cannot_be_told_apart():
    text = """faults:
  - {node_down: {node: spine1}}
  - {link_down: {link: leaf1--spine1}, at: 1 s, for: 1 s}"""
    with pytest.raises(SpecError, match=r"node_down\(node=spine1\) and link_down\(link=leaf1--spi"):
        falls(text)


def test_one_undo_of_two_faults_is_refused_and_two_tables_are_not():
    """Losses of one share on one port share their table; of two shares they have one each."""
    text = """faults:
  - {packet_loss: {link: leaf1--spine1, end: leaf1, share: 1 %}}
  - {packet_loss: {link: leaf1--spine1, end: leaf1, share: 1 %}, at: 1 s}"""
    with pytest.raises(SpecError, match="both change leaf1:eth1~wire: drop 1 %"):
        falls(text)
    assert falls(text.replace("share: 1 %}, at", "share: 2 %}, at"))


def test_an_arrival_on_what_is_broken_is_left_out_and_told():
    """Every leaf-spine link is struck at once by hand; whatever arrives finds it broken."""
    text = "faults:\n" + "".join(
        f"  - link_down: {{link: leaf{leaf}--spine{spine}}}\n"
        for leaf in (1, 2, 3, 4)
        for spine in (1, 2)
    )
    for slot, storm in storms(made(text + RANDOM), CLOS):
        if not slot.placebo:
            assert [one.origin for one in storm.strikes] == ["written"] * 8
            assert all(
                "left out: " in one and " changes the state of " in one for one in storm.left_out
            )
    assert any(storm.left_out for _, storm in storms(made(text + RANDOM), CLOS))


def test_the_same_seed_plans_the_same_and_another_does_not():
    plans = [storms(made(RANDOM, seed=seed, trials=5), CLOS) for seed in (3, 3, 4)]

    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_one_fault_more_does_not_move_the_others():
    """Each draws from a generator of its own."""
    fixed = "fault: {link_down: {link: host1--leaf1}, for: 200 ms}\n"
    alone = falls(RANDOM, trials=6)
    beside = falls(fixed + RANDOM, trials=6)

    drawn = [[one for one in strikes if one.origin == "arrival"] for strikes in beside]
    assert [list(one) for one in alone] == [one for one in drawn if one]


def test_a_trial_in_which_nothing_arrives_is_a_placebo():
    rare = RANDOM.replace("4e8", "5e7")
    planned = storms(made(rare, trials=12, placebos=0), CLOS)

    assert {slot.placebo for slot, _ in planned} == {True, False}
    for slot, storm in planned:
        assert slot.placebo is (not storm.strikes)


def test_the_plan_shows_every_strike():
    experiment = made(f"{PAIR}\n{RANDOM}", trials=3)
    told = "\n".join(lines(experiment, CLOS))

    for _, storm in storms(experiment, CLOS):
        for strike in storm.strikes:
            assert strike.text in told
    assert "200–1200 ms first: link_down(link=leaf1--spine1)" in told
    assert "hpn-nic-link (0.057 % per link-month; Alibaba HPN, SIGCOMM 2024" in told
    assert "1 s stands for 12.7 years" in told


def fault(at, until, link="leaf1--spine1"):
    return Strike(LinkDown(link), at, until, ())


@pytest.mark.parametrize(
    ("times", "sets"),
    [
        ([(0, 10)], ((0,),)),
        ([(0, 10), (20, 30)], ((0,), (1,))),
        ([(0, 10), (10, 30)], ((0, 1),)),
        ([(0, 10), (11, 30)], ((0, 1),)),
        ([(0, 10), (12, 30)], ((0,), (1,))),
        ([(0, 10), (5, 30), (20, 40)], ((0, 1), (1, 2))),
        ([(0, 40), (5, 10), (20, 30)], ((0, 1), (0, 2))),
        ([(0, 10), (0, 10), (0, 10)], ((0, 1, 2),)),
    ],
)
def test_what_is_in_force_together(times, sets):
    scaled = [fault(at * HEALING_NS, until * HEALING_NS) for at, until in times]

    assert together(scaled) == sets


LINKS = """faults:
  - {link_down: {link: leaf1--spine1}, for: 1 s}
  - {link_down: {link: leaf2--spine1}, at: AT, for: 1 s}"""


@pytest.mark.parametrize(("at", "out"), [("500 ms", 2), ("1 s", 2), ("1.9 s", 2), ("2.1 s", 1)])
def test_limits_count_what_is_broken_at_one_time(at, out):
    experiment = made(LINKS.replace("AT", at))
    worst = budget.worst(budget.meant(experiment, CLOS))

    assert worst.radius.links.out == out
    held = replace(experiment, limits=Limits.parse({"links": 1}))
    if out == 1:
        budget.be_within(held, CLOS, "namespace")
        return
    with pytest.raises(SpecError, match="would take out 2 links"):
        budget.be_within(held, CLOS, "namespace")


def test_groups_are_told_once():
    apart = PAIR.replace("at: 50 ms", "at: 2 s")

    assert len(groups(made(PAIR, trials=9), CLOS)) == 1
    assert len(groups(made(apart, trials=9), CLOS)) == 2


def test_settling_counts_from_the_end():
    ms = Duration.parse
    first = Timing(ms("100 ms"), ms("400 ms"), "", "a")
    chain = settle(["x", "y", "z"], [
        first, Timing(ms("20 ms"), ms("1 s"), "a", "b"), Timing(ms("0"), None, "y/b"),
    ])  # fmt: skip

    assert [one.at.ms for one in chain] == [100, 520, 1520]


def test_a_strike_is_made_again_from_its_json():
    text = PAIR + "\n  - {link_flap: {link: leaf2--spine1, frequency: 5 Hz, jitter: 20 %}}"
    text += (
        "\n  - packet_fault: {link: leaf3--spine1, end: leaf3, select: {opcode: nak, dscp: 26}, "
        "when: {first: 3}}"
    )
    for strikes in falls(text):
        assert tuple(strike_from_json(as_json(one)) for one in strikes) == strikes


def record_of(experiment):
    trials = tuple(
        Trial(
            slot.number,
            slot.placebo,
            slot.seed,
            verdict=Verdict.PASS,
            storm_ns=storm.length.ns,
            strikes=tuple(map(as_json, storm.strikes)),
            left_out=storm.left_out,
        )
        for slot, storm in storms(experiment, CLOS)
    )
    return Record({"name": experiment.name, "promise": "p"}, {}, experiment.seed, trials=trials)


def test_a_record_replays_what_fell():
    """Through JSON and back: the very same strikes, whatever seed the file has by now."""
    experiment = made(f"{PAIR}\n{RANDOM}", trials=4, seed=11)
    record = from_json(to_json(record_of(experiment)))
    later = again(replace(experiment, seed=1, trials=1, placebos=7), record)

    assert recorded(record, CLOS) == storms(experiment, CLOS)
    assert (later.seed, later.trials + later.placebos) == (11, 5)


def test_a_record_without_storms_or_of_another_experiment_is_refused():
    experiment = made(PAIR)
    record = record_of(experiment)
    old = replace(record, trials=(replace(record.trials[0], storm_ns=None),))

    with pytest.raises(SpecError, match="of the record tells no storm, so it is from before"):
        recorded(old, CLOS)
    with pytest.raises(SpecError, match="the record is of experiment 'e', not 'f'"):
        again(replace(experiment, name="f"), record)


# ---- once traffic has settled the words ---------------------------------------------------------


def falling(*strikes):
    return [Falling(one, Aimed(one.fault, one.fault.link, (), None)) for one in strikes]


GROUND = SimpleNamespace(driver=SimpleNamespace(fabric=CLOS))


def test_an_arrival_on_what_traffic_settled_is_left_out():
    """The plan could not know that `in-use` would mean the very link that was drawn."""
    written = fault(0, 1000 * MS)
    drawn = replace(fault(500 * MS, 900 * MS), origin="arrival")
    other = replace(fault(500 * MS, 900 * MS, "leaf2--spine1"), origin="arrival")

    kept, left = _separate(GROUND, falling(written, drawn, other))

    assert [one.strike for one in kept] == [written, other]
    assert left[0].startswith("left out: 500–900 ms link_down(link=leaf1--spine1); link_down(")


def test_two_written_ones_that_turn_out_to_be_one_element_block():
    with pytest.raises(BlockedError, match="cannot be told apart: both change the state of leaf1"):
        _separate(GROUND, falling(fault(0, 1000 * MS), fault(500 * MS, 1500 * MS)))


YES, NO, UNASKED = (True, "crossed"), (False, "not exposed: avoided"), (None, "of the job")


@pytest.mark.parametrize(
    ("origins", "met", "exposed"),
    [
        ("w", [YES], True),
        ("w", [NO], False),
        ("ww", [YES, NO], False),
        ("wa", [YES, NO], True),
        ("aa", [NO, YES], True),
        ("aa", [NO, NO], False),
        ("a", [NO], False),
        ("wa", [NO, YES], False),
        ("w", [UNASKED], None),
        ("wa", [UNASKED, NO], False),
    ],
)
def test_whether_a_storm_was_met(origins, met, exposed):
    """Every written fault must be; of those that arrived, one."""
    words = {"w": "written", "a": "arrival"}
    strikes = [replace(fault(0, 1), origin=words[letter]) for letter in origins]

    found, sentence = overall(strikes, met, Exposure(None, "of the job"))

    assert found is exposed
    assert exposed is not False or sentence.startswith("not exposed: ")


class Tracer:
    """Traffic that goes over spine1, and from the second look on over spine2."""

    def __init__(self):
        self.looks = 0

    async def crossings(self, stream):
        self.looks += 1
        spine = "spine1" if self.looks == 1 else "spine2"
        return (Crossing(CLOS.link(f"leaf1--{spine}"), "leaf1", spine),)


@dataclass(frozen=True)
class Talk:
    def streams(self, addresses, records):
        return (Stream("host1", "host8", "10.0.0.1", "10.0.0.8", 17, 1, 2),)


@pytest.mark.parametrize(("spine", "met"), [("spine1", False), ("spine2", True)])
def test_what_strikes_later_is_looked_for_just_before(spine, met):
    """Traffic has moved to the other spine since calm."""

    async def go():
        tracer = Tracer()
        await tracer.crossings(None)
        observer = SimpleNamespace(probes={"flow": Talk()}, records=lambda label: {})
        driver = SimpleNamespace(addresses=dict)
        experiment = SimpleNamespace(exposed="flow")
        ground = SimpleNamespace(
            tracer=tracer, observer=observer, driver=driver, experiment=experiment
        )
        link = CLOS.link(f"leaf1--{spine}").id
        aimed = Aimed(LinkDown(link), link, (), None)
        began = now_ns()
        found = await look(ground, aimed, began + LOOK_NS + 100 * MS)
        return found, now_ns() - began

    (exposed, sentence), took = asyncio.run(go())

    assert exposed is met
    assert sentence.startswith("the traffic crossed" if met else "not exposed: the traffic avoided")
    assert took >= 100 * MS


@pytest.mark.parametrize(
    ("homes", "says"),
    [
        ({}, "an experiment with the probe collective"),  # by hand
        ({"rank0": "host1", "rank1": "host2"}, "did you mean rank"),
    ],
)
def test_a_rank_that_is_not_there_is_refused_with_what_would_be_right(homes, says):
    changes = RankKill(7).changes(load("clos-2x4x8"))
    with pytest.raises(SpecError, match=f"no process 'rank7' to aim at; .*{says}"):
        place_processes(changes, homes)


def test_the_page_shows_what_is_read(tmp_path):
    """Every example of the page on several faults, the trace with its file."""
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    page = page.partition("## Several faults in one storm")[2].partition("\n## ")[0]
    examples = re.findall(r"```yaml\n(.*?)```", page, re.S)
    (table,) = re.findall(r"\n\n((?:    .*\n)+)\nTimes count from", page)
    (tmp_path / "faults.csv").write_text(table.replace("    ", ""))

    for example in examples:
        text = TEXT.replace("FAULTS", example)
        assert not loads(text, str(tmp_path / "e.yaml")).placebo
    assert [example.partition(":")[0] for example in examples] == ["faults", "arrivals", "trace"]
    for name, (rate, _) in PUBLISHED.items():
        assert f"| `{name}` | {rate}: " in page
