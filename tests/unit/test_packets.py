"""The packet language on paper: what is read, what is refused, what is pure, what is compiled."""

import json
import random

import pytest
import yaml
from jsonschema import Draft202012Validator

from chaos import fields
from chaos.change import PacketDrop, PacketRule, Place, from_json, to_json
from chaos.changes.queue import QUEUES, Queue
from chaos.drivers.ssh.places import moved, refusal
from chaos.errors import CapabilityError, SpecError
from chaos.fabric import Fabric, Link, Node, Port
from chaos.natives.netem import added
from chaos.packets import (
    Action,
    After,
    All,
    Bursts,
    Chance,
    Every,
    First,
    Numbers,
    Psn,
    Rule,
    Schedule,
    Selector,
    select,
)
from chaos.packets.engines import ENGINES, At, away, choose
from chaos.packets.nft import lines
from chaos.packets.schedule import KINDS, MOST
from chaos.plan import commands
from chaos.registry import FAULTS, build, load
from chaos.units import Percent

WIRE = Place("h1", "eth1", "wire")
FABRIC = Fabric(
    "f",
    {"h1": Node("h1"), "h2": Node("h2")},
    (Link(Port("h1", "eth1"), Port("h2", "eth1")),),
)

SELECTS = [
    "everything",
    "family=4 source=10.0.0.0/8,192.0.2.1/32 protocol=tcp dport=179",
    "source=10.0.0.1/32,2001:db8::/32 dscp=26,46 ecn=1-2",
    "sport=49152-50000 roce=true",
    "opcode=first,last,rc_send_only,17 dest_qp=17,20-30 psn=100-200 ack_request=true",
    "opcode=nak",
    "ack_request=false syndrome=96-98",
]
WHENS = [
    "all",
    "first=3",
    "after=200",
    "every=100",
    "every=100 offset=5",
    "every=7 offset=0",
    "random=1%",
    "random=0.1% seed=9",
    "psn=7",
    "psn=5,7,9",
    "enter=1% leave=20%",
    "enter=1% leave=20% bad=90% good=0.1% seed=4",
]
THENS = [
    *("drop", "ce", "bleach", "dscp=26", "dscp=0", "fecn", "becn", "corrupt", "duplicate"),
    *("delay=10ms", "delay=10ms jitter=2ms", "delay=5us jitter=5us shape=exponential seed=7"),
    *("reorder=3", "reorder=1 within=20ms", "rate=10Mbit/s", "rate=2.5kbit/s queue=1s"),
    *("corrupt=silent", "corrupt=silent seed=4", "forge=remote_access_error", "forge=98"),
    *("forge=rnr_nak", "forge=rnr_nak wait=1ms", "forge=cnp qp=42"),
]


# ---- one language, three forms ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Selector, text) for text in SELECTS),
        *((Schedule, text) for text in WHENS),
        *((Action, text) for text in THENS),
    ],
)
def test_a_line_a_mapping_and_json_are_the_same(kind, text):
    made = kind.parse(text)

    assert str(made) == text
    assert kind.parse(made.plain()) == made
    assert kind.parse(json.loads(json.dumps(made.plain()))) == made
    assert kind.parse(yaml.safe_load(yaml.safe_dump(made.plain()))) == made
    validator = Draft202012Validator(fields.schema(kind))
    validator.validate(text)
    validator.validate(made.plain())


def test_the_python_form_has_the_same_words():
    assert select(opcode=["first", "last"], dest_qp=17) == Selector.parse(
        "opcode=first,last dest_qp=0x11"
    )
    for python, text in (
        (First(3), "first=3"),
        (After(200), "after=200"),
        (Every(100, 5), "every=100 offset=5"),
        (Chance(Percent(1), 3), "random=1% seed=3"),
        (Psn((5, 7)), "psn=5,7"),
        (Bursts(Percent(1), Percent(20)), "enter=1% leave=20%"),
        (All(), "all"),
    ):
        assert Schedule.parse(text) == python
    assert Action.parse("dscp=af31") == Action("dscp", 26)


def test_every_kind_of_schedule_is_in_the_table_above():
    begun = {text.partition("=")[0] for text in WHENS}
    assert begun == {*KINDS, "all"}


def test_names_stand_for_their_numbers():
    assert select(dscp="ef", ecn="ect") == select(dscp=46, ecn="1-2")
    assert select(syndrome="rnr_nak").syndrome == Numbers(((32, 63), (160, 191)))
    assert 0x62 in select(syndrome="remote_access_error").syndrome


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "field", "sentence"),
    [
        ({"opcod": "first"}, ".opcod", r"select has no 'opcod'; did you mean opcode\?"),
        ({"opcode": "frist"}, ".opcode", r"no opcode or class 'frist'; did you mean first"),
        ({"opcode": 256}, ".opcode", r"0 to 255, got 256"),
        ({"opcode": []}, ".opcode", r"one at least expected, got an empty list"),
        ({"opcode": 1.5}, ".opcode", r"name, number or class expected, got 1\.5"),
        ({"dest_qp": 1 << 24}, ".dest_qp", r"0 to 16777215, got 16777216"),
        ({"psn": -1}, ".psn", r"a number, 0x11 or a range"),
        ({"psn": "200-100"}, ".psn", r"a range goes up, got 200-100"),
        ({"psn": []}, ".psn", r"one number at least"),
        ({"psn": True}, ".psn", r"a number, 0x11 or a range"),
        ({"dscp": 64}, ".dscp", r"0 to 63, got 64"),
        ({"dscp": "af44"}, ".dscp", r"or a name; did you mean"),
        ({"ecn": 4}, ".ecn", r"0 to 3, got 4"),
        ({"syndrome": "rnr"}, ".syndrome", r"or a name"),
        ({"syndrome": 300}, ".syndrome", r"0 to 255, got 300"),
        ({"sport": 65536}, ".sport", r"0 to 65535, got 65536"),
        ({"sport": 53}, ".protocol", r"ports are udp's or tcp's; give protocol"),
        ({"protocol": "sctp"}, ".protocol", r"udp or tcp expected, got 'sctp'"),
        ({"protocol": "tcp", "roce": True}, ".protocol", r"RoCEv2 is in udp, got tcp"),
        ({"dport": 53, "opcode": "ack"}, ".dport", r"RoCEv2 goes to port 4791, got 53"),
        ({"family": 5}, ".family", r"4 or 6 expected, got 5"),
        ({"family": 6, "source": "10.0.0.1"}, ".family", r"addresses of two families"),
        (
            {"source": "10.0.0.1", "destination": "2001:db8::1"},
            ".family",
            r"addresses of two families",
        ),
        ({"source": "10.0.0.300"}, ".source", r"an address or a prefix such as 10\.0\.0\.0/24"),
        ({"source": "10.0.0.1/24"}, ".source", r"has host bits set"),
        ({"source": 5}, ".source", r"an address or a prefix"),
        ({"ack_request": "perhaps"}, ".ack_request", r"true or false expected, got 'perhaps'"),
        ({"opcode": "send", "syndrome": "nak"}, ".syndrome", r"none of send has an AETH"),
        ({"opcode": "ack", "syndrome": "nak"}, ".syndrome", r"none of ack has an AETH"),
        ({"extension_header": "routing"}, ".extension_header", r"has no base from which to read"),
        ({"icrc": "bad"}, ".icrc", r"computes no CRC.* select by addresses"),
        ({"retransmission": True}, ".retransmission", r"does not remember.* when: \{psn: N\}"),
        ({"payload": "ff"}, ".payload", r"fixed offsets only"),
        ({"fragment": True}, ".fragment", r"never fragmented"),
        ("opcode", None, r"word=value expected, such as opcode=first dest_qp=17, got 'opcode'"),
        ("psn=1 psn=2", ".psn", r"psn is given twice"),
        (7, None, r"words expected, such as opcode=first"),
    ],
)
def test_a_selector_that_means_nothing_is_refused(words, field, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        Selector.parse(words)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("words", "field", "sentence"),
    [
        ({}, None, r"when needs one of all, first"),
        ("fist=3", ".fist", r"when has no 'fist'; did you mean first\?"),
        ({"first": 0}, ".first", r"1 to 4294967294 expected, got 0"),
        ({"first": "many"}, ".first", r"1 to 4294967294 expected, got 'many'"),
        ({"first": MOST}, ".first", r"1 to 4294967294 expected"),
        ({"after": True}, ".after", r"1 to 4294967294 expected, got True"),
        ({"every": 0}, ".every", r"1 to 4294967295 expected, got 0"),
        ({"every": 5, "offset": -1}, ".offset", r"0 to 4294967294 expected, got -1"),
        ({"every": 5, "seed": 1}, ".seed", r"when every has no 'seed'"),
        ({"first": 5, "after": 3}, ".after", r"first and after cannot both be"),
        ({"random": "0 %"}, ".random", r"0\.0001 % to 100 % expected, got 0 %"),
        ({"random": "101 %"}, ".random", r"0 to 100 %, got 101 %"),
        ({"random": "0.5001 %"}, ".random", r"above 0\.5 % a multiple of 0\.01 % expected"),
        ({"random": "1 %", "seed": -1}, ".seed", r"0 to \d+ expected, got -1"),
        ({"random": "1 %", "seed": "x"}, ".seed", r"0 to \d+ expected, got 'x'"),
        ({"psn": 1 << 24}, ".psn", r"0 to 16777215, got 16777216"),
        ({"psn": "0-100"}, ".psn", r"1 to 64 sequence numbers expected, got 0-100"),
        ({"enter": "1 %"}, ".leave", r"bursts need leave: the chance to end"),
        ({"enter": "0 %", "leave": "1 %"}, ".enter", r"0\.0001 % to 100 % expected, got 0 %"),
        ({"enter": "1 %", "leave": "1 %", "bad": "0 %"}, ".bad", r"above that of the good state"),
        ({"enter": "x", "leave": "1 %"}, ".enter", r"a share expected"),
        ([3], None, r"words expected, such as all, or first=3"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(words, field, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        Schedule.parse(words)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("words", "field", "sentence"),
    [
        ("dorp", ".dorp", r"then has no 'dorp'; did you mean drop\?"),
        ("delay", ".delay", r"delay needs a value, such as delay=10ms"),
        ({"delay": "0"}, ".delay", r"a time up to 10 s expected, got 0 ns"),
        ({"delay": "11 s"}, ".delay", r"a time up to 10 s expected, got 11 s"),
        ({"delay": 5}, ".delay", r"a time"),
        ({"delay": "1 ms", "jitter": "2 ms"}, ".jitter", r"at most the delay, 1 ms"),
        ({"delay": "1 ms", "shape": "norma"}, ".shape", r"no shape 'norma'; did you mean normal"),
        ({"delay": "1 ms", "within": "2 ms"}, ".within", r"then delay has no 'within'"),
        ({"jitter": "1 ms"}, None, r"then needs one of drop, ce"),
        ("reorder", ".reorder", r"reorder needs a value, such as reorder=3"),
        ({"reorder": 0}, ".reorder", r"1 to 10000 expected, got 0"),
        ({"reorder": 3, "within": "0"}, ".within", r"a time up to 10 s expected"),
        ({"rate": "1 bit/s"}, ".rate", r"1 kbit/s to 1000 Gbit/s expected, got 1 bit/s"),
        ({"rate": "fast"}, ".rate", r"a bit rate"),
        ({"corrupt": "loud"}, ".corrupt", r"corrupt alone, or corrupt=silent, expected"),
        ({"forge": "remote_error"}, ".forge", r"no answer 'remote_error'; did you mean"),
        ({"forge": 256}, ".forge", r"a syndrome must be 0 to 255, got 256"),
        ({"forge": "cnp"}, ".qp", r"needs qp: the queue pair of the sender"),
        ({"forge": "cnp", "qp": 1 << 24}, ".qp", r"0 to 16777215 expected"),
        ({"forge": "rnr_nak", "qp": 3}, ".qp", r"qp is for forge=cnp, not for rnr_nak"),
        ({"forge": 98, "wait": "1 ms"}, ".wait", r"wait is for forge=rnr_nak"),
        ({"forge": "rnr_nak", "wait": "1 s"}, None, r"at most 655\.36 ms, got 1 s"),
        ({"duplicate": 2}, ".duplicate", r"duplicate has no value, got 2"),
        ({"delay": "1 ms", "rate": "1 Mbit/s"}, ".rate", r"delay and rate cannot both be"),
        ({"dscp": 64}, ".dscp", r"0 to 63, got 64"),
        ({"dscp": "1-2"}, ".dscp", r"one code point expected, got 1-2"),
        ("dscp", ".dscp", r"dscp needs a value, such as dscp=af31"),
        ({"drop": 1}, ".drop", r"drop has no value, got 1; write `then: drop`"),
        ({"drop": None}, ".drop", r"drop has no value, got an empty one; write `then: drop`"),
        (3, None, r"words expected, such as drop"),
    ],
)
def test_an_action_that_is_not_there_is_refused(words, field, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        Action.parse(words)
    assert refused.value.field == field


def test_a_pattern_without_a_burst_is_refused_before_anything_is_done():
    with pytest.raises(SpecError, match=r"no burst begins within 1000000 packets"):
        Rule(when=Bursts(Percent(0.0001), Percent(100), seed=2)).nft("railbreak_t", "eth1")


def test_the_first_engine_that_can_do_it_does_it_and_says_why():
    here = At(True, {"nftables": "", "htb": "", "netem": "no sch_netem; load it", "worker": ""})
    made = {text: choose(Action.parse(text), here) for text in THENS}
    others = {text for text, engine in made.items() if engine.name != "nftables"}
    assert others == {text for text in THENS if "=" in text and "dscp" not in text}
    assert str(made["drop"]) == "nftables: it drops in the kernel, by itself"
    assert str(made["delay=10ms"]) == (
        "worker: nftables cannot hold a packet back; netem is not here: no sch_netem"
    )
    assert all(engine.why for engine in made.values())
    rates = {text: engine.name for text, engine in made.items() if "rate" in text}
    assert {text for text, name in rates.items() if name == "worker"} == {"rate=2.5kbit/s queue=1s"}
    assert set(rates.values()) == {"htb", "worker"}


def test_another_machine_does_the_same_by_another_engine():
    able = {"nftables": "", "netem": "", "htb": "", "worker": ""}
    delay, rate = Action.parse("delay=10ms jitter=1ms"), Action.parse("rate=1Mbit/s")
    assert choose(delay, able).name == "netem"
    assert choose(rate, At(True, able | {"htb": "no sch_htb; load it"})).name == "worker"
    unseeded = choose(delay, able | {"netem seed": "no seed before Linux 6.6"})
    assert unseeded.why.endswith("its draws differ from run to run: no seed before Linux 6.6")
    assert "draws" not in choose(Action.parse("delay=10ms"), able | {"netem seed": "none"}).why
    assert choose(delay, able, "worker").why == "it was asked for"


def test_where_no_engine_is_there_each_says_why_and_the_cure():
    bare = At(
        True,
        {"nftables": "", "netem": "no sch_netem; load it", "worker": "no taps; modprobe tun"},
    )
    with pytest.raises(CapabilityError) as refused:
        choose(Action.parse("delay=1ms"), bare)
    assert str(refused.value) == (
        "no engine here can do delay=1ms: nftables cannot hold a packet back; netem: no sch_netem; "
        "load it; worker: no taps; modprobe tun"
    )
    fast = Action.parse("rate=1Gbit/s")
    with pytest.raises(CapabilityError, match=r"nobody looked for htb here; .* carries 200 Mbit/s"):
        choose(fast, {"nftables": "", "worker": ""})


def test_an_engine_asked_for_that_is_not_there_is_refused_with_who_would():
    bare = {"nftables": "", "netem": "no sch_netem; load it", "worker": ""}
    with pytest.raises(CapabilityError) as refused:
        choose(Action.parse("delay=1ms"), bare, "netem")
    assert str(refused.value) == (
        "delay=1ms by engine netem: no sch_netem; load it; or leave engine out, then worker does it"
    )


@pytest.mark.parametrize(
    ("asked", "then", "sentence"),
    [
        ("tbf", "rate=1Mbit/s", "no engine 'tbf'; did you mean htb"),
        ("netem", "drop", "engine netem cannot do drop: netem does delay alone; .*: nftables"),
        ("worker", "ce", "cannot do ce: nftables does it without a process"),
        ("htb", "delay=1ms", "htb does rate alone; .* one that can: netem, nfqueue, worker"),
        ("worker", "rate=1Gbit/s", "carries 200 Mbit/s at most; .* one that can: htb"),
        ("htb", "rate=10kbit/s", "too late of what waits below 16 kbit/s; .* can: nfqueue, worker"),
        ("netem", "delay=2s", "so it holds a packet 1 s at most; .* can: nfqueue, worker"),
        ("netem", "delay=900ms jitter=101ms", "so it holds a packet 1 s at most"),
        ("netem", "delay=500ms jitter=51ms shape=exponential", "a packet 1 s at most"),
        ("nftables", "reorder=3", "nftables cannot hold a packet back"),
    ],
)
def test_an_engine_that_cannot_do_it_is_refused_on_paper(asked, then, sentence):
    load()
    words = {"link": "h1--h2", "then": then, "engine": asked}
    with pytest.raises(SpecError, match=sentence) as refused:
        build(FAULTS, "fault", "packet_fault", words)
    assert "engine" in refused.value.field


def test_what_needs_both_inner_ends_of_a_cable_is_refused_elsewhere_with_what_to_use():
    for text in THENS:
        why = away(Action.parse(text))
        assert bool(why) is ("duplicate" in text), text
        assert not why or "driver netns" in why
    load()
    words = {"link": "h1--h2", "end": "h1", "then": "duplicate"}
    (change,) = build(FAULTS, "fault", "packet_fault", words).changes(FABRIC)
    logged = {"ssh": {"address": "192.0.2.1"}}
    nodes = {name: Node(name, settings=logged) for name in ("h1", "h2")}
    assert "tc netem duplicate" in refusal(change, Fabric("f", nodes, FABRIC.links))


def test_where_only_a_receiver_is_reached_the_queue_does_what_a_cable_takes_a_worker_for():
    everything = dict.fromkeys(ENGINES, "")
    for text in THENS:
        then = Action.parse(text)
        cable, receiver = choose(then, At(True, everything)), choose(then, At(False, everything))
        own = then.how is None
        assert (cable.name == "nftables") is (receiver.name == "nftables") is own
        assert cable.name != "nfqueue"
        assert receiver.name in ("nftables", "nfqueue")
    delay = Action.parse("delay=1ms")
    for asked, across in (("worker", False), ("netem", False), ("nfqueue", True)):
        with pytest.raises(CapabilityError, match=f"by engine {asked}: it .*; use .*then .* does"):
            choose(delay, At(across, everything), asked)
    bare = At(False, everything | {"nfqueue": "no nfnetlink_queue; load it"})
    with pytest.raises(CapabilityError, match=r"hold a packet back; nfqueue: no .*; load it$"):
        choose(delay, bare)


@pytest.mark.parametrize(
    "then",
    ["rate=16kbit/s queue=1ns", "rate=1000Gbit/s queue=10s", "delay=1ns", "delay=1s", "delay=1ms"]
    + [f"delay=90ms jitter=90ms shape={one}" for one in ("uniform", "normal", "exponential")],
)
def test_the_limits_of_a_queue_fit_into_its_messages(then):
    action = Action.parse(then)
    assert choose(action).name in QUEUES
    queue = Queue.of(Rule(then=action), "railbreak_t")
    made = list(added(queue, 7))
    assert all(len(one) == int.from_bytes(one[:4], "little") for one in made)
    assert len(made) == 2
    assert all(-(1 << 15) <= one < 1 << 15 for one in queue.table())


@pytest.mark.parametrize(("engine", "then"), [("htb", "rate=1Gbit/s"), ("netem", "delay=1ms")])
def test_a_queue_that_is_asked_for_is_where_a_machine_sends(engine, then):
    """Not where packets arrive: nothing is held there by the kernel."""
    load()
    words = {"link": "h1--h2", "end": "h1", "then": then, "engine": engine}
    changes = build(FAULTS, "fault", "packet_fault", words).changes(FABRIC)
    nodes = {
        name: Node(name, settings={"ssh": {"address": "192.0.2.1"}} if name == "h1" else {})
        for name in ("h1", "h2")
    }
    fabric = Fabric("f", nodes, FABRIC.links)
    (real,) = moved(changes, fabric).changes
    assert real.place == Place("h1", "eth1")
    assert real.describe().endswith(f"on all of everything at egress, by {engine}")
    assert refusal(changes[0], fabric) == ""
    told = "\n".join(commands(real))
    assert "egress device eth1" in told
    assert "tc class add dev eth1 parent 7262:" in told
    other = build(FAULTS, "fault", "packet_fault", words | {"end": "h2"}).changes(FABRIC)
    assert "~wire is slowed where h2 sends, and h2 cannot be logged in" in refusal(other[0], fabric)


def test_the_dry_run_says_which_engine_and_why():
    change = PacketRule(WIRE, "railbreak_t", Rule.parse({"then": "delay=1ms"}))
    here = At(True, {"nftables": "", "netem": "no sch_netem; load it", "worker": ""})
    told = "\n".join(commands(change, there=here))
    assert "engine worker: nftables cannot hold a packet back; netem is not here" in told
    assert "flags owner" in told
    assert "-m chaos.packet_worker start" in told
    drop = "\n".join(commands(PacketRule(WIRE, "railbreak_t", Rule())))
    assert "engine nftables: it drops in the kernel, by itself" in drop
    assert "-m" not in drop
    none = commands(change, there={"nftables": ""})
    assert "not made: no engine here can do delay=1ms" in none[-1]
    unknown = "\n".join(commands(change))
    assert "where it has none, nfqueue or worker does it" in unknown
    queued = "\n".join(commands(change, there=At(False)))
    assert "engine nfqueue: nftables cannot hold a packet back" in queued
    assert "table inet railbreak_t" in queued
    assert "queue num N bypass" in queued
    assert '"across":""' in queued


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ({"then": "becn"}, "roce=true"),
        ({"then": "corrupt"}, "everything"),
        ({"then": "corrupt=silent"}, "opcode=data"),
        ({"then": "corrupt=silent", "select": "opcode=first dest_qp=3"}, "opcode=first dest_qp=3"),
        ({"then": "forge=rnr_nak"}, "opcode=ack syndrome=0-255"),
        ({"then": "forge=rnr_nak", "select": "opcode=read"}, "opcode=read syndrome=0-255"),
        ({"then": "forge=cnp qp=1"}, "opcode=data"),
        ({"then": "delay=1ms", "when": "psn=3"}, "roce=true"),
    ],
)
def test_an_action_on_roce_packets_means_no_others(words, meant):
    assert str(Rule.parse(words).meant) == meant
    Rule.parse(words).nft("t", "i", across="a", tap="t")


def test_an_answer_cannot_be_forged_where_there_is_none():
    with pytest.raises(SpecError, match="none of send has an AETH"):
        _ = Rule.parse({"then": "forge=rnr_nak", "select": "opcode=send"}).meant


@pytest.mark.parametrize("kind", ["delay", "dscp"])
def test_a_fault_names_the_field_of_a_refusal(kind):
    load()
    with pytest.raises(SpecError) as refused:
        build(FAULTS, "fault", "packet_fault", {"link": "a--b", "then": {kind: 99}})
    assert refused.value.field == f"then.{kind}"


# ---- schedules are pure -------------------------------------------------------------------------


def by_gates(schedule, count):
    """What counters like the kernel's let through; gates are the compiled form."""
    gates, chosen = schedule.gates(), []
    counters = [0] * len(gates)
    for ordinal in range(count):
        for at, gate in enumerate(gates):
            value, counters[at] = counters[at] % gate.period, counters[at] + 1
            if value not in gate.through:
                break
        else:
            chosen.append(ordinal)
    return tuple(chosen)


@pytest.mark.parametrize("text", [one for one in WHENS if not one.startswith("psn")])
def test_counters_do_what_the_definition_says(text):
    schedule = Schedule.parse(text)
    assert by_gates(schedule, 3000) == schedule.ordinals(3000)


def test_random_strides_and_offsets_agree_with_their_counters():
    rng = random.Random(3)
    for _ in range(200):
        schedule = Every(rng.randrange(1, 12), rng.choice((None, rng.randrange(40))))
        assert by_gates(schedule, 150) == schedule.ordinals(150), str(schedule)


@pytest.mark.parametrize(
    ("text", "ordinals"),
    [
        ("first=3", (0, 1, 2)),
        ("after=8", (8, 9)),
        ("every=4", (3, 7)),
        ("every=4 offset=0", (0, 4, 8)),
        ("every=4 offset=5", (5, 9)),
        ("every=1", tuple(range(10))),
        ("all", tuple(range(10))),
    ],
)
def test_ordinals_by_hand(text, ordinals):
    assert Schedule.parse(text).ordinals(10) == ordinals


def test_a_sequence_number_is_chosen_once():
    assert Psn((5, 7, 9)).chosen([5, 6, 7, 5, 7]) == (0, 2)
    with pytest.raises(SpecError, match=r"depends on the packets"):
        Psn((5,)).ordinals(3)


@pytest.mark.parametrize("kind", ["random=5% seed={}", "enter=2% leave=30% seed={}"])
def test_a_seed_is_all_that_a_draw_depends_on(kind):
    runs = [Schedule.parse(kind.format(seed)).ordinals(5000) for seed in (3, 3, 4)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert Schedule.parse(kind.format(3)).towards(0) != Schedule.parse(kind.format(3)).towards(1)


def test_what_is_not_drawn_is_the_same_in_both_directions():
    for text in ("all", "first=3", "psn=7"):
        assert Schedule.parse(text).towards(1) == Schedule.parse(text)


def test_a_random_share_is_that_of_packet_loss():
    """One pattern for both faults: same share and seed, same packets."""
    for share in (0.1, 1, 10, 99.99):
        drop = PacketDrop(WIRE, "railbreak_x", "", Percent(share).millionths, 7)
        assert drop.pattern() == Chance(Percent(share), 7).pattern()


def test_bursts_last_and_begin_as_their_chances_say():
    """Over a million packets, two thousand bursts: within four standard deviations of theory."""
    bursts = Bursts(Percent(0.2), Percent(25), seed=11)
    lost = bursts.gates()[0].through
    lengths = [high - low + 1 for low, high in lost.spans]

    assert bursts.period == 1_000_000
    assert sum(lengths) / len(lengths) == pytest.approx(4, rel=0.08)
    assert sum(lengths) / bursts.period == pytest.approx(0.002 / (0.002 + 0.25), rel=0.12)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("enter=0.1% leave=20%", 1_000_000),
        ("enter=5% leave=50%", 100_000),
        ("enter=20% leave=50%", 10_000),
    ],
)
def test_frequent_bursts_repeat_sooner_so_that_the_kernel_can_hold_them(text, period):
    bursts = Schedule.parse(text)
    assert bursts.period == period
    assert len(bursts.gates()[0].through.spans) < 6_000


# ---- compiling ----------------------------------------------------------------------------------


def matches_of(text, then="drop"):
    return lines(Selector.parse(text), Action.parse(then))


def test_a_line_has_no_more_than_it_needs():
    assert matches_of("everything") == ("",)
    assert matches_of("everything", "ce") == ("meta protocol ip", "meta protocol ip6")
    assert matches_of("protocol=udp") == ("meta l4proto udp",)
    assert matches_of("dest_qp=17") == (
        "meta l4proto udp @th,0,24 >= 0 udp dport 4791 @th,104,24 17",
    )
    assert matches_of("family=6 ecn=ce") == ("meta protocol ip6 ip6 ecn 3",)


def test_answers_are_looked_for_where_their_transport_has_them():
    """Reliable datagrams have four bytes in front of the AETH."""
    told = " | ".join(matches_of("opcode=nak"))
    assert "@th,64,8 17 @th,160,8 { 96-127, 224-255 }" in told
    assert "@th,64,8 81 @th,192,8 { 96-127, 224-255 }" in told


def test_the_text_counts_before_and_after_the_choice():
    text = Rule.parse({"when": "first=3"}).nft("railbreak_t", "eth1")
    order = ["counter name hit", "drop", "counter name seen", "numgen", "counter name passed"]
    assert [text.index(one) for one in order] == sorted(text.index(one) for one in order)


def test_a_rule_survives_a_journal_as_json():
    for number, select_text in enumerate(SELECTS):
        words = {"select": select_text, "when": WHENS[number], "then": THENS[3 * number]}
        change = PacketRule(WIRE, "railbreak_t", Rule.parse(words))
        assert from_json(json.loads(json.dumps(to_json(change)))) == change


def test_over_ssh_it_is_made_where_the_packets_arrive():
    load()
    fault = build(FAULTS, "fault", "packet_fault", {"link": "h1--h2", "end": "h1"})
    (change,) = moved(fault.changes(FABRIC), FABRIC).changes
    assert (change.kind, change.place) == ("packet_rule", Place("h2", "eth1"))
