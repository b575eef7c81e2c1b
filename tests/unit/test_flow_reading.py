"""Gaps, events and rates out of records, without a packet sent."""

from dataclasses import replace

import pytest

from chaos.errors import SpecError
from chaos.fabric import Fabric, Node
from chaos.timeline import Moment, Windows
from chaos.units import Duration, Pps, Size
from probes.flow import Flow

MS = 1_000_000
BATCH = 100
DELAY_NS = 50_000


class Story:
    """Records of a flow at 1 kpps per source port, as a test tells it.

    `lost`, `refused` and `skipped` are slots; `late` maps slots to extra delay in ns; `again`
    lists slots that arrive twice.
    """

    def __init__(
        self, slots=3000, ports=1, lost=(), refused=(), skipped=(), late=(), again=(), held=()
    ):
        self.flow = Flow("a", "b", rate=Pps(1000.0 * ports), ports=ports)
        self.step = MS // ports
        lost, refused, skipped = set(lost), set(refused), set(skipped)
        late, held = dict(late), dict(held)
        self.sender = [{"ev": "ready", "t": 0, "n": 1}]
        self.receiver = [{"ev": "ready", "t": 0, "n": 1}]
        arrivals = []
        for first in range(0, slots, BATCH):
            numbers = range(first, first + BATCH)
            base = first * self.step
            at = [
                -1 if slot in skipped else self.sent(slot) + held.get(slot, 0) - base
                for slot in numbers
            ]
            no = [[slot, "ENETUNREACH"] for slot in numbers if slot in refused]
            facts = {"first": first, "at": at, "refused": no}
            self.sender.append({"ev": "sent", "t": base, "n": len(self.sender) + 1, **facts})
            for slot in numbers:
                if slot in lost | refused | skipped:
                    continue
                times = 2 if slot in again else 1
                came = self.sent(slot) + held.get(slot, 0) + DELAY_NS + late.get(slot, 0)
                arrivals += [(came + 10 * k, slot) for k in range(times)]
        arrivals.sort()
        self.end = slots * self.step
        received = 0
        for base in range(0, self.end + 300 * MS, 100 * MS):
            here = [(at, slot) for at, slot in arrivals if base <= at < base + 100 * MS]
            received += len(here)
            self.receiver.append(
                {
                    "ev": "got",
                    "t": base,
                    "n": len(self.receiver) + 1,
                    "until": base + 100 * MS,
                    "slots": [slot for _, slot in here],
                    "at": [at - base for at, _ in here],
                    "received": received,
                    "dropped": 0,
                    "buffer_errors": 0,
                    "clock_offset": 77,
                    "clock_error": 100,
                }
            )

    def sent(self, slot):
        return slot * self.step

    def records(self):
        return {"sender": self.sender, "receiver": self.receiver}

    def read(self):
        return self.flow.read(self.records())


def detected(readings):
    return [(e.name, e.at_ns) for e in readings.events]


def test_nothing_lost_is_no_span_and_no_event():
    readings = Story().read()
    assert (readings.spans, readings.events, readings.trouble) == ((), (), ())


def test_a_gap_runs_from_the_last_good_arrival_to_the_first_good_one_after():
    story = Story(lost=range(1000, 1200))
    (outage,) = story.read().spans
    assert (outage.start_ns, outage.end_ns) == (999 * MS + DELAY_NS, 1200 * MS + DELAY_NS)
    assert (outage.name, outage.element) == ("outage", "a->b")
    assert outage.facts == {"lost": 200, "refused": 0, "restored": True}


def test_the_detector_fires_at_the_third_missing_packet_and_restores_at_the_first_good_one():
    readings = Story(lost=range(1000, 1200)).read()
    assert detected(readings) == [
        ("flow.gap_started", 1002 * MS),
        ("flow.restored", 1200 * MS + DELAY_NS),
    ]
    assert readings.events[0].detector == "flow_gap"
    assert readings.events[0].facts["threshold_packets"] == 3


def test_two_packets_lost_are_a_loss_but_no_alarm():
    readings = Story(lost=(1000, 1001)).read()
    assert [span.name for span in readings.spans] == ["loss"]
    assert readings.events == ()


def test_what_the_network_did_in_calm_raises_the_threshold():
    """A packet that came 10 ms late without loss: 20 packets in a row must be missing now."""
    shaken = {"late": {500: 10 * MS}}
    assert Story(lost=range(1000, 1019), **shaken).read().events == ()
    (started, _) = Story(lost=range(1000, 1021), **shaken).read().events
    assert started.facts["threshold_packets"] == 20
    assert started.at_ns == 1019 * MS


def test_what_the_network_did_long_ago_is_forgotten():
    readings = Story(slots=4000, lost=range(3000, 3010), late={500: 10 * MS}).read()
    assert readings.events[0].facts["threshold_packets"] == 3


def test_a_pause_of_the_sender_raises_no_threshold_and_is_no_gap():
    held = {slot: max(0, 540 - slot) * MS for slot in range(500, 540)}  # 40 packets at once
    readings = Story(lost=range(1000, 1004), held=held).read()
    assert len(readings.spans) == 1
    assert readings.events[0].facts["threshold_packets"] == 3
    assert readings.extra["stalls"] == [[540 * MS, 41 * MS]]


def test_skipped_numbers_are_never_lost():
    readings = Story(skipped=range(1000, 1200)).read()
    assert (readings.spans, readings.events, readings.trouble) == ((), (), ())


def test_refused_numbers_are_outage_but_counted_apart():
    (outage,) = Story(refused=range(1000, 1200)).read().spans
    assert outage.facts == {"lost": 0, "refused": 200, "restored": True}


def test_an_outage_that_never_ends_is_open_to_the_end_of_what_was_heard():
    story = Story(lost=range(1000, 3000))
    readings = story.read()
    (outage,) = readings.spans
    assert not outage.facts["restored"]
    assert [event.name for event in readings.events] == ["flow.gap_started"]


def test_each_source_port_is_a_flow_of_its_own():
    story = Story(ports=4, slots=8000, lost=range(4002, 5002, 4))
    (outage,) = story.read().spans
    assert outage.element == "a->b#49154"
    assert outage.facts["lost"] == 250


def test_overtaken_and_repeated_packets_are_neither_lost_nor_gaps():
    story = Story(late={1000: 5 * MS // 2}, again=(2000, 2001))
    readings = story.read()
    assert readings.spans == ()
    assert len(readings.extra["flows"]["a->b"]["reordered"]) == 1
    assert len(readings.extra["duplicated"]) == 2


def test_arrival_rates_are_per_bin_and_hold_every_packet():
    story = Story(lost=range(1000, 1200))
    (series,) = story.read().series
    assert series.name == "arrived_pps"
    step = series.at_ns[1] - series.at_ns[0]
    assert step == 20 * MS  # 20 packets at 1 kpps
    rates = dict(zip(series.at_ns, series.values, strict=True))
    assert {rates[at] for at in rates if 1000 * MS <= at < 1200 * MS} == {0.0}
    assert sum(series.values) * step / 1e9 == pytest.approx(2800, abs=20)


def test_a_cut_of_a_longer_run_is_read_alike():
    """Only what both sides tell of counts: no packet is lost for want of its record."""
    story = Story(slots=6000, lost=range(3000, 3100))
    start, end = 1_950 * MS, 5_000 * MS
    cut = {
        name: [r for r in records if r["ev"] == "ready" or start <= r["t"] <= end]
        for name, records in story.records().items()
    }
    readings = story.flow.read(cut)
    assert readings.trouble == ()
    assert readings.spans == story.read().spans


def test_what_was_sent_before_the_receiver_listened_or_after_it_stopped_is_not_lost():
    story = Story()
    heard = [r for r in story.receiver[1:] if 500 * MS <= r["t"] < 2500 * MS]
    story.receiver[1:] = heard
    readings = story.read()
    assert (readings.spans, readings.trouble) == ((), ())


def test_a_packet_may_still_be_under_way_when_the_receiver_stops():
    """The last 100 ms of sends have had no time to arrive; nothing is said of them."""
    assert Story(slots=3200, lost=range(3120, 3200)).read().spans != ()
    story = Story(slots=3200, lost=range(3120, 3200))
    story.receiver[1:] = [r for r in story.receiver[1:] if r["t"] < 3200 * MS]
    assert story.read().spans == ()


def test_a_flow_that_never_arrived_is_trouble():
    story = Story(lost=range(3000))
    assert story.read().trouble == ("flow: no packet of a->b ever arrived",)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda s, r: s.pop(5),
            "flow: the sender's records lack numbers from 400",
        ),
        (
            lambda s, r: r.pop(5),
            "flow: the receiver told fewer packets than it counted",
        ),
        (lambda s, r: r.pop(-2), "flow: records of the receiver are missing"),
        (lambda s, r: s.pop(0), "flow: the sender never became ready"),
        (lambda s, r: r.pop(0), "flow: the receiver never became ready"),
        (
            lambda s, r: [b.update(dropped=9, buffer_errors=9) for b in r[9:]],
            "flow: the receiver's own buffer overflowed (9 packets); they would look like losses",
        ),
        (
            lambda s, r: [b.update(clock_offset=4_000_077) for b in r[9:]],
            "flow: the wall clock stepped by 4.0 ms during the trial",
        ),
        (
            lambda s, r: r.__delitem__(slice(12, None)),
            "flow: the receiver fell silent 1.8 s before the other side did",
        ),
        (
            lambda s, r: s.append({"ev": "end", "t": 1, "n": len(s) + 1, "slots": 7}),
            "flow: the sender counted 7 numbers and told 3000",
        ),
    ],
)
def test_what_makes_records_doubtful_is_a_sentence(spoil, sentence):
    story = Story()
    assert story.read().trouble == ()
    spoil(story.sender, story.receiver)
    assert sentence in story.read().trouble


def test_another_sockets_overflow_is_not_ours():
    """The namespace counts for all its sockets."""
    story = Story()
    for batch in story.receiver[9:]:
        batch["buffer_errors"] = 9
    assert story.read().trouble == ()


def test_a_wrong_checksum_is_no_overflow():
    """The socket counts both as drops; only its namespace's counter tells them apart."""
    story = Story()
    for batch in story.receiver[9:]:
        batch["dropped"] = 9
    assert story.read().trouble == ()


# ---- measures -----------------------------------------------------------------------------------


def windows(event=1000, heal=2000, end=2900, calm=100, width=0):
    return Windows(
        (calm * MS, event * MS),
        Moment(event * MS, event * MS + width),
        Moment(heal * MS, heal * MS + width),
        end * MS,
    )


def measured(story, spans=None):
    readings = story.read()
    found = story.flow.measures(readings, spans or windows())
    assert [m.name for m in found] == list(Flow.schema)
    return {m.name: m for m in found}


def test_nothing_lost_measures_zero_with_what_could_not_be_seen():
    found = measured(Story())
    assert found["flow_lost_packets"].value == 0
    longest = found["flow_outage_longest_ms"]
    assert (longest.value, longest.low, longest.high) == (0.0, 0.0, 1.0)
    assert found["flow_convergence_ms"].note == "forwarding never stopped"
    assert found["flow_loss_percent"].value == 0


def test_an_outage_has_three_lengths_that_agree():
    found = measured(Story(lost=range(1000, 1200)))
    longest = found["flow_outage_longest_ms"]
    assert (longest.low, longest.value, longest.high) == (199.0, 201.0, 201.0)
    assert found["flow_loss_derived_ms"].value == 200.0
    rate = found["flow_rate_derived_ms"]
    assert rate.value == pytest.approx(200, abs=20)
    assert rate.low <= 200 <= rate.high
    assert found["flow_loss_percent"].value == pytest.approx(20, rel=0.01)
    assert found["flow_outage_count"].value == 1


def test_longest_total_and_count_of_several_gaps():
    lost = [*range(1000, 1050), *range(1400, 1500), 1800]
    found = measured(Story(lost=lost))
    assert found["flow_outage_count"].value == 3
    assert found["flow_outage_longest_ms"].value == 101.0
    assert found["flow_outage_total_ms"].value == 51 + 101 + 2
    assert found["flow_lost_packets"].value == 151


def test_convergence_is_counted_from_the_event_and_needs_to_hold():
    """A first return that breaks again within 500 ms does not count (RFC 6412)."""
    story = Story(lost=[*range(1050, 1100), *range(1200, 1300)])
    found = measured(story)["flow_convergence_ms"]
    assert found.value == pytest.approx(300, abs=0.1)
    assert found.low <= 300 <= found.high
    impatient = Flow("a", "b", rate=Pps(1000.0), validation=Duration(50 * MS))
    (early,) = [
        m for m in impatient.measures(story.read(), windows()) if m.name == "flow_convergence_ms"
    ]
    assert early.value == pytest.approx(100, abs=0.1)


def test_uncertainty_of_the_event_widens_convergence():
    found = measured(Story(lost=range(1050, 1100)), windows(width=10 * MS))["flow_convergence_ms"]
    assert found.high - found.low >= 10


def test_what_only_the_heal_restored_is_censored_at_the_heal():
    found = measured(Story(lost=range(1000, 2001)))["flow_convergence_ms"]
    assert (found.value, found.censored) == (1000.0, True)
    assert found.note == "not restored for 500 ms before the fault was healed"


def test_constant_random_loss_never_converges():
    found = measured(Story(lost=range(1000, 2000, 10)))["flow_convergence_ms"]
    assert found.censored


def test_a_return_that_only_held_because_of_the_heal_is_no_convergence():
    """Back 300 ms before the heal: for all we know the next loss was 301 ms away."""
    assert measured(Story(lost=range(1000, 1700)))["flow_convergence_ms"].censored


def test_losses_are_laid_to_calm_fault_and_heal():
    lost = [500, *range(1000, 1010), *range(2100, 2105)]
    found = measured(Story(lost=lost))
    assert found["calm_lost_packets"].value == 1
    assert found["flow_lost_packets"].value == 10
    assert found["heal_lost_packets"].value == 5


def test_a_packet_in_flight_at_the_event_belongs_to_the_fault():
    """Sent 0.9 ms before the fault took effect, lost by it."""
    spans = replace(windows(), event=Moment(1000 * MS + 900_000, 1001 * MS))
    assert measured(Story(lost=range(1000, 1010)), spans)["flow_lost_packets"].value == 10


def test_an_outage_that_outlasts_the_observation_is_censored():
    found = measured(Story(lost=range(1000, 3000)))
    assert found["flow_outage_longest_ms"].censored
    assert found["flow_outage_total_ms"].censored
    assert found["flow_convergence_ms"].censored


def test_refused_packets_count_as_outage_and_loss_derived_time_but_not_as_lost():
    found = measured(Story(refused=range(1000, 1200)))
    assert found["flow_lost_packets"].value == 0
    assert found["flow_refused_packets"].value == 200
    assert found["flow_loss_derived_ms"].value == 200


def test_durations_are_those_of_the_worst_flow_and_counts_are_sums():
    lost = [*range(4001, 5001, 4), *range(4002, 4402, 4)]  # 250 of one flow, 100 of another
    found = measured(Story(ports=4, slots=12000, lost=lost))
    assert found["flow_lost_packets"].value == 350
    assert found["flow_outage_longest_ms"].value == 251.0
    assert found["flow_loss_derived_ms"].value == 250.0
    assert found["flow_outage_count"].value == 2
    assert found["flow_convergence_ms"].value == pytest.approx(250, abs=1)
    assert found["flow_outage_longest_ms"].n == 4


def test_oddities_count_only_under_the_fault():
    story = Story(late={500: 5 * MS // 2, 1500: 5 * MS // 2}, again=(600, 1600, 1601))
    found = measured(story)
    assert found["flow_reordered_packets"].value == 1
    assert found["flow_duplicated_packets"].value == 2


def test_a_window_in_which_nothing_was_offered_has_no_number():
    for measure in measured(Story(), windows(event=9000, heal=9500, end=9900)).values():
        assert (measure.value, measure.n) == (None, 0)
        assert measure.note == "no packet was sent from fault to heal"


# ---- the value ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"target": "a"}, "flow needs two nodes, got a twice"),
        ({"ports": 0}, "ports must be 1 to 256, got 0"),
        ({"rate": Pps(1e6)}, "rate must be at most 20 kpps (this sender's limit), got 1000 kpps"),
        ({"size": Size(8)}, "size must be 24 to 8900 bytes, got 8 B"),
    ],
)
def test_nonsense_is_refused_with_the_limit(fields, sentence):
    with pytest.raises(SpecError) as caught:
        Flow(**{"source": "a", "target": "b"} | fields)
    assert caught.value.reason == sentence


def test_a_node_without_address_is_refused_by_name():
    fabric = Fabric("f", {"a": Node("a"), "b": Node("b")})
    with pytest.raises(SpecError, match="b has no address that carries traffic; those with one: a"):
        Flow("a", "b").programs(fabric, {"a": "10.0.0.1"})


def test_streams_say_which_5_tuples_to_look_up():
    streams = Flow("a", "b", ports=2, roce=True).streams({"a": "10.0.0.1", "b": "10.0.0.2"}, {})
    assert [str(stream) for stream in streams] == [
        "a->b (udp 49152->4791)",
        "a->b (udp 49153->4791)",
    ]
