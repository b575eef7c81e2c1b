"""Faults that overlap: what is of one is its own, and what may be of several is nobody's."""

from dataclasses import dataclass

import pytest

from chaos.apart import Felt, Struck, alone, detection, impact, struck_from, truth
from chaos.judge import Verdict, _judged
from chaos.measures import detection as plainly
from chaos.objectives import DetectedBy, UndetectedBy
from chaos.record import Trial
from chaos.timeline import Event, Measure, Moment, Readings, Span, Windows
from chaos.units import Duration

MS = 10**6


def ms(*times):
    return Moment(*(round(t * MS) for t in times)) if len(times) == 2 else ms(times[0], times[0])


def fault(label, start, end):
    return Struck(f"cut {label}", (f"{label}--x", f"{label}:eth1"), ms(start), ms(end), label)


def symptom(at, detector, blames=""):
    return Event(at * MS, "p", f"{detector}.lost", element=blames, detector=detector, blames=blames)


def felt(struck, *events, spans=()):
    return Felt(tuple(struck), tuple(sorted(events, key=lambda e: e.at_ns)), tuple(spans))


OVERLAP = (fault("a", 0, 1000), fault("b", 500, 1500))
SEQUENCE = (fault("a", 0, 1000), fault("b", 2000, 3000))
WINDOWS = Windows((-2000 * MS, -100 * MS), ms(0), ms(3000), 5000 * MS)


@pytest.mark.parametrize(
    ("struck", "event", "of"),
    [
        (OVERLAP, symptom(10, "flow_gap"), (0,)),
        (OVERLAP, symptom(510, "flow_gap"), (0, 1)),
        (OVERLAP, symptom(510, "carrier", "b:eth1"), (1,)),
        (OVERLAP, symptom(510, "carrier", "a:eth1"), (0,)),
        (OVERLAP, symptom(510, "carrier", "c:eth1"), (0, 1)),
        (OVERLAP, symptom(10, "carrier", "b:eth1"), (0,)),
        (SEQUENCE, symptom(2010, "flow_gap"), (1,)),
        (SEQUENCE, symptom(1500, "flow_gap"), (0,)),
    ],
    ids=["before the second", "both", "names the second", "names the first", "names neither",
         "names what is not broken yet", "apart", "the first's aftermath"],
)  # fmt: skip
def test_whose_a_symptom_is(struck, event, of):
    assert felt(struck, event).of(event) == of


@pytest.mark.parametrize(
    ("events", "spans", "says"),
    [
        ((), (), ""),
        ((symptom(1400, "bgp", "a:eth1"),), (), ""),
        ((symptom(1600, "bgp", "a:eth1"),), (), "bgp on a:eth1 spoke 400 ms before"),
        ((), (Span(900 * MS, 1400 * MS, "outage", "flow"),), ""),
        ((), (Span(900 * MS, 1700 * MS, "outage", "flow"),), "outage of flow was not over for"),
        ((), (Span(1990 * MS, 2300 * MS, "outage", "flow"),), ""),
        ((), (Span(1700 * MS, 2300 * MS, "outage", "flow"),), "outage of flow was not over for"),
    ],
    ids=["quiet", "a symptom long ago", "a symptom just before", "an outage long over",
         "an outage just over", "its own outage", "an outage that goes on"],
)  # fmt: skip
def test_a_fault_stands_apart_after_a_quiet_time(events, spans, says):
    assert felt(SEQUENCE, *events, spans=spans).echo(1).startswith(says)
    assert bool(felt(SEQUENCE, *events, spans=spans).echo(1)) is bool(says)


def test_a_fault_close_to_another_is_not_apart():
    near = (fault("a", 0, 1000), fault("b", 1300, 2000))

    assert felt(near).echo(1) == "cut a had just been healed"
    assert felt(OVERLAP).echo(1) == "cut a was in force"
    assert felt(OVERLAP).echo(0) == ""


def by_name(measures):
    return {one.name: one for one in measures}


def test_detection_of_the_storm_counts_from_the_first_fault():
    seen = felt(OVERLAP, symptom(10, "carrier", "a:eth1"), symptom(700, "flow_gap"))
    made = by_name(
        detection(seen, plainly(seen.events, WINDOWS, {"carrier", "flow_gap", "bfd"}), WINDOWS)
    )

    assert made["detection_carrier_ms"].value == pytest.approx(10)
    assert made["detection_first_ms"].value == pytest.approx(10)
    blurred = made["detection_flow_gap_ms"]
    assert (blurred.value, blurred.censored) == (None, True)
    assert blurred.note == "cannot be told apart: flow_gap could be of cut a or cut b"
    silent = made["detection_bfd_ms"]
    assert (silent.value, silent.censored) == (None, False)


def test_faults_that_strike_at_one_instant_are_one_event():
    twins = (fault("a", 0, 1000), fault("b", 0, 1000))
    seen = felt(twins, symptom(20, "flow_gap"))
    made = by_name(detection(seen, plainly(seen.events, WINDOWS, {"flow_gap"}), WINDOWS))

    assert made["detection_flow_gap_ms"].value == pytest.approx(20)


def test_detection_of_a_later_fault_counts_from_its_own_instant():
    seen = felt(
        OVERLAP,
        symptom(10, "carrier", "a:eth1"),
        symptom(507, "carrier", "b:eth1"),
        symptom(700, "flow_gap"),
    )
    made = by_name(alone(seen, 1, WINDOWS, {"carrier", "flow_gap", "bfd"}))

    assert made["b_detection_carrier_ms"].value == pytest.approx(7)
    assert made["b_detection_flow_gap_ms"].censored
    assert made["b_detection_flow_gap_ms"].value is None
    assert made["b_detection_bfd_ms"].note == "saw nothing before healing"
    assert made["b_localisation_ms"].value == pytest.approx(7)
    assert made["b_localisation_right_percent"].value == 100


def test_a_name_that_both_share_names_neither():
    both = (fault("a", 0, 1000), Struck("cut b", ("b--x", "a:eth1"), ms(500), ms(1500), "b"))
    seen = felt(both, symptom(510, "carrier", "a:eth1"))
    made = by_name(alone(seen, 1, WINDOWS, {"carrier"}))

    for name in ("b_detection_carrier_ms", "b_localisation_ms", "b_localisation_right_percent"):
        assert (made[name].value, made[name].censored) == (None, True), name


def test_right_names_are_those_of_what_is_broken_by_then():
    seen = felt(OVERLAP)

    assert truth(seen, symptom(10, "carrier", "b:eth1")) == ("a--x", "a:eth1")
    assert truth(seen, symptom(510, "carrier", "b:eth1"))[2:] == ("b--x", "b:eth1")


@dataclass(frozen=True)
class Meter:
    """A probe that counts its events between fault and end."""

    def measures(self, readings, windows):
        inside = [e for e in readings.events if windows.event.earliest_ns <= e.at_ns]
        return (Measure("felt_count", float(len(inside))), Measure("other_ms", 1.0))


BEATS = Readings("meter", tuple(Event(at * MS, "meter", "beat") for at in range(0, 5000, 100)))


@pytest.mark.parametrize(
    ("struck", "at", "count", "why"),
    [
        (SEQUENCE, 0, 21, ""),
        (SEQUENCE, 1, 30, ""),
        (OVERLAP, 0, None, "cannot be told apart: cut b struck before it was healed"),
        (OVERLAP, 1, None, "cannot be told apart: cut a was in force"),
    ],
    ids=["the first, until the second", "the second, to the end", "cut short", "over another"],
)
def test_what_is_felt_of_one_fault_alone(struck, at, count, why):
    (found,) = impact(felt(struck), at, WINDOWS, Meter(), BEATS, ["felt_count"])

    assert (found.name, found.value) == (f"{struck[at].label}_felt_count", count)
    assert found.note == why


def test_strikes_that_never_came_are_not_counted():
    row = {"text": "cut a", "truth": ["a--x"], "event_ns": [1, 2], "heal_ns": [3, 4], "label": "a"}

    found = struck_from([{**row, "event_ns": None}, row])
    assert found == (Struck("cut a", ("a--x",), Moment(1, 2), Moment(3, 4), "a"),)


# ---- and what objectives make of it -------------------------------------------------------------


def trial(*measures):
    return Trial(1, False, 1, verdict="pass", measures=measures)


BLURRED = Measure("detection_bfd_ms", None, n=0, censored=True, note="cannot be told apart: x")
SILENT = Measure("detection_bfd_ms", None, n=0, note="saw nothing")
SEEN = Measure("detection_bfd_ms", 10.0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ((SEEN, SEEN), Verdict.PASS),
        ((SEEN, SILENT), Verdict.FAIL),
        ((SEEN, BLURRED), Verdict.INCONCLUSIVE),
        ((SILENT, BLURRED), Verdict.FAIL),
    ],
)
def test_a_detection_that_cannot_be_told_is_no_failure_and_no_pass(found, verdict):
    trials = [trial(one) for one in found]

    assert _judged(DetectedBy("bfd", Duration.parse("1 s")), trials, trials).verdict == verdict


@pytest.mark.parametrize(("found", "verdict"), [(SILENT, Verdict.PASS), (BLURRED, Verdict.FAIL)])
def test_what_cannot_be_told_apart_is_no_silence(found, verdict):
    trials = [trial(found)]

    assert _judged(UndetectedBy(("bfd",)), trials, trials).verdict == verdict
