"""Fifty ways to write an experiment wrongly: each refused before anything is touched, in one
sentence that names file, line and field, what was found, and what would be right.
"""

import pytest

from chaos import budget, drivers, plan
from chaos.errors import CapabilityError, RailbreakError
from chaos.experiment import loads
from chaos.preflight import be_able

USUAL = {
    "fabric": "clos-2x4x8",
    "fault": "{link_down: {link: in-use leaf--spine}}",
    "probes": "{flow: {source: host1, target: host8}}",
    "objectives": "[{measure: flow_lost_packets, at_most: 5, because: few}]",
}


def loss(words):
    return {"fault": f"{{packet_loss: {{link: in-use leaf--spine, {words}}}}}"}


def packets(words):
    return {"fault": f"{{packet_fault: {{link: in-use leaf--spine, {words}}}}}"}


MISUSES = {
    "a share above all": (loss("share: 101 %"), "share must be 0 to 100 %, got 101 %"),
    "a share of nothing": (loss("share: 0 %"), "at least 0.0001 %, got 0 %"),
    "a share below zero": (loss("share: -1 %"), "share must be 0 to 100 %, got -1 %"),
    "a share too small": (loss("share: 0.00001 %"), "at least 0.0001 %"),
    "a share too fine": (loss("share: 7.001 %"), "multiple of 0.01 %, got 7.001 %"),
    "a share in words": (loss("share: ten"), "such as 10 % .*got 'ten'"),
    "a second statement": (loss("share: 1 %, match: 'tcp; drop'"), "one nftables expression"),
    "a psn beyond its field": (packets("select: {psn: 16777216}"), "psn must be 0 to 16777215"),
    "a qp beyond its field": (packets("select: {dest_qp: 16777216}"), "dest_qp must be 0 to"),
    "an opcode misspelt": (packets("select: {opcode: sned}"), "did you mean send"),
    "a dscp beyond its field": (packets("select: {dscp: 64}"), "dscp must be 0 to 63, got 64"),
    "an ecn that is none": (packets("select: {ecn: maybe}"), "ce, ect, ect0, ect1, not-ect"),
    "a syndrome misspelt": (packets("select: {syndrome: nack}"), "did you mean nak"),
    "a port beyond its field": (packets("select: {protocol: udp, sport: 70000}"), "0 to 65535"),
    "a port of no protocol": (packets("select: {sport: 5}"), "give protocol"),
    "a family that is none": (packets("select: {family: 5}"), "4 or 6 expected, got 5"),
    "an address that is none": (packets("select: {source: 10.0.0.300}"), "such as 10.0.0.0/24"),
    "two families at once": (packets("select: {source: 10.0.0.1, family: 6}"), "two families"),
    "a protocol unknown": (packets("select: {protocol: icmp}"), "udp or tcp expected"),
    "roce in tcp": (packets("when: {psn: 5}, select: {protocol: tcp}"), "RoCEv2 is in udp"),
    "the first none": (packets("when: {first: 0}"), "1 to 4294967294 expected, got 0"),
    "one in none": (packets("when: {every: 0}"), "1 to 4294967295 expected, got 0"),
    "an offset below zero": (packets("when: {every: 3, offset: -1}"), "got -1"),
    "a random share above all": (packets("when: {random: 120 %}"), "0 to 100 %, got 120 %"),
    "a schedule misspelt": (packets("when: {frist: 3}"), "did you mean first"),
    "two schedules at once": (packets("when: {first: 3, every: 2}"), "cannot both be"),
    "a burst without an end": (packets("when: {enter: 1 %}"), "bursts need leave"),
    "a window beyond the storm": (
        packets("when: {first: 3, until: 10 s}"),
        r"packet_fault.when.until: .* at most expected, as long as the fault lasts, got 10 s",
    ),
    "a window that ends before it begins": (
        packets("when: {from: 300 ms, until: 200 ms}"),
        r"packet_fault.when.until: a time after from \(300 ms\) expected, got 200 ms",
    ),
    "turns that do not fit": (
        packets("when: {on: 100 ms, off: 900 ms, count: 50}"),
        "packet_fault.when.count: 50 turns of 1 s do not fit into",
    ),
    "turns too fast for packets": (
        packets("when: {frequency: 60 Hz}"),
        "packet_fault.when.frequency: at most 50 turns per second",
    ),
    "an action misspelt": (packets("then: dorp"), "did you mean drop"),
    "a code point too big": (packets("then: {dscp: 99}"), "dscp must be 0 to 63, got 99"),
    "an engine misspelt": (packets("then: drop, engine: nftabels"), "did you mean nftables"),
    "an engine that is none": (packets("then: drop, engine: tbf"), "no engine 'tbf'; did you mean"),
    "an engine that cannot do it": (
        packets("then: {delay: 1 ms}, engine: htb"),
        "engine htb cannot do delay=1ms: htb does rate alone; .* one that can: netem, ",
    ),
    "a rate beyond the worker's": (
        packets("then: {rate: 1 Gbit/s}, engine: worker"),
        "engine worker cannot do rate=1Gbit/s: a process per packet carries 200 Mbit/s at most",
    ),
    "a node misspelt in a link": (
        {"fault": "{link_down: {link: leaf1--spien1}}"},
        "no link 'leaf1--spien1' .*did you mean leaf1--spine1",
    ),
    "a link that is none": ({"fault": "{link_down: {link: leaf1--leaf2}}"}, "no link"),
    "an end of another link": (
        {"fault": "{link_down: {link: leaf1--spine1, end: leaf2}}"},
        "has no end 'leaf2'; did you mean leaf1",
    ),
    "a mode that is none": (
        {"fault": "{link_down: {link: leaf1--spine1, mode: off}}"},
        "it has admin, carrier, silent",
    ),
    "a fault misspelt": ({"fault": "{link_dwon: {link: leaf1--spine1}}"}, "did you mean link_down"),
    "a field misspelt": ({"fault": "{link_down: {lnik: leaf1--spine1}}"}, "did you mean link"),
    "a field missing": ({"fault": "{link_down: {}}"}, "link_down needs link"),
    "a flap too fast": (
        {"fault": "{link_flap: {link: leaf1--spine1, frequency: 200 Hz}}"},
        "at most 100 turns per second",
    ),
    "a flap without a rate": (
        {"fault": "{link_flap: {link: leaf1--spine1}}"},
        "either down and up, or frequency",
    ),
    "a flap of two rates": (
        {"fault": "{link_flap: {link: leaf1--spine1, frequency: 2 Hz, down: 1 s, up: 1 s}}"},
        "either down and up, or frequency",
    ),
    "a node that is none": ({"fault": "{node_down: {node: spine9}}"}, "did you mean spine"),
    "a rank without a job": ({"fault": "{rank_kill: {rank: 9}}"}, "exactly one collective job"),
    "a restart that no job does": (
        {"fault": "{rank_restart: {rank: 1}}", "probes": "{collective: {hosts: [host1, host2]}}"},
        "rank_restart needs a job in mode restart or regroup, and collective is in mode ride",
    ),
    "a rank below zero": ({"fault": "{rank_kill: {rank: -1}}"}, "counted from 0, got -1"),
    "a session of no port": (
        {"fault": "{bgp_down: {node: leaf1, neighbor: eth9}}"},
        "its ports: eth1, eth2, eth3, eth4",
    ),
    "a session of a host": (
        {"fault": "{bgp_down: {node: host1, neighbor: eth1}}"},
        "host1 runs no BGP .*name a router",
    ),
    "a node that nothing runs": (
        {"fault": "{node_stop: {node: spine1}}"},
        "driver netns cannot stop spine1.*node_down cuts it off",
    ),
    "a way to stop unknown": (
        {"fault": "{node_stop: {node: spine1, how: burn}}"},
        "it has pause, stop",
    ),
    "a NIC of no slot": (
        {"fault": "{nic_kill: {node: host1, mode: remove}}"},
        "host1:eth1 is an end of a veth pair and no PCI device: .*use mode: carrier or admin",
    ),
    "a way to lose a NIC unknown": (
        {"fault": "{nic_kill: {node: host1, mode: unbnid}}"},
        "did you mean unbind",
    ),
    "a pause nobody obeys": (
        {"fault": "{pfc_storm: {link: host1--leaf1, end: host1, speed: 100 Gbit/s}}"},
        "which honours no PFC: frames would be sent and nothing would stop",
    ),
    "a pause without an end": (
        {
            "fault": "{pfc_storm: {link: host1--leaf1, end: host1, speed: 100 Gbit/s, "
            "at_most: 10 m}}"
        },
        r"pfc_storm.at_most: .*a pause storm can stop a pod: .* 60 s at most, got 600 s",
    ),
    "a pause of a ninth class": (
        {
            "fault": "{pfc_storm: {link: host1--leaf1, end: host1, speed: 100 Gbit/s, "
            "priorities: [8]}}"
        },
        r"pfc_storm.priorities: .*of 0 to 7, each once, got \[8\]",
    ),
    "two that pause each other": (
        {"fault": "{pfc_storm: {link: host1--leaf1, end: both, speed: 100 Gbit/s}}"},
        r"pfc_storm.end: .*name the one that sends, host1 or leaf1",
    ),
    "one fault twice": (
        {"faults": "[{link_down: {link: leaf1--spine1}}, {link_down: {link: leaf1--spine1}}]"},
        "told apart",
    ),
    "a shaped port and a queue of a rule": (
        {
            "faults": "[{link_slow: {link: leaf1--spine1, end: leaf1, rate: 10 Mbit/s}}, "
            "{packet_fault: {link: leaf1--spine1, end: leaf1, then: {rate: 1 Mbit/s}}}]"
        },
        "cannot be told apart: both change the queues behind leaf1:eth1 .*engine: worker needs",
    ),
    "one budget exceeded": (
        {"fault": "{link_down: {link: host1--leaf1}}", "limits": "{hosts_isolated: 0}"},
        r"would isolate 1 host \(host1\); at most 0 allowed",
    ),
    "a limit in per cent": ({"limits": "{links: 0 %}"}, "a whole number expected, got '0 %'"),
    "a limit misspelt": ({"limits": "{hosts_isolatd: 0}"}, "did you mean hosts_isolated"),
    "a life too short": ({"max_life": "1 ms"}, "shorter than the storm"),
    "a storm too long": ({"phases": "{storm: 2 h}"}, "100 ms to 1 h, got 7200 s"),
    "no trial": ({"trials": "0"}, "1 to 10000 expected, got 0"),
    "a time without a unit": ({"phases": "{calm: 5}"}, "such as 250 ms .*got '5'"),
    "a node for a link": (
        {"fault": "{link_down: {link: leaf1}}"},
        "'leaf1' is a node and no link; it has host1--leaf1, host2--leaf1, leaf1--sp",
    ),
    "a blank within a value": (
        {"fault": "{packet_fault: {link: in-use, end: near, then: delay=5 ms}}"},
        "got 'ms'; no blank within a value: delay=5ms",
    ),
    "a word of a schedule that is none": (
        {"fault": "{packet_fault: {link: in-use, end: near, when: {share: 10 %}}}"},
        "when has no 'share'; it has .* random, seed, until",
    ),
    "a window that ends beyond the storm": (
        {"fault": "{packet_fault: {link: in-use, end: near, when: from=1s until=3s}}"},
        "1.5 s at most expected, .* got 3 s; a longer storm, or for, gives it more",
    ),
    "a share that could be a fraction": (
        {"fault": "{packet_loss: {link: in-use leaf--spine, end: near, share: 0.1}}"},
        "a share expected, 0.1 % or 10 %, got '0.1' without a unit",
    ),
    "a share in a rule that could be a fraction": (
        {"fault": "{packet_fault: {link: in-use, end: near, when: random=0.01}}"},
        "a share expected, 0.01 % or 1 %, got '0.01' without a unit",
    ),
    "a share without a unit": (
        {"limits": "{bisection_left: 50}"},
        "a share expected, such as 10 %, got '50' without a unit",
    ),
    "a rate without a unit": (
        {"probes": "{flow: {source: host1, target: host8, rate: 2}}"},
        r"such as 2 kpps \(units: pps, kpps, Mpps\), got '2' without a unit",
    ),
    "a bit rate without a unit": (
        {"fault": "{link_slow: {link: in-use, end: near, rate: 100}}"},
        "such as 100 Mbit/s .*got '100' without a unit",
    ),
    "a frequency without a unit": (
        {"fault": "{link_flap: {link: in-use, frequency: 5}}"},
        "such as 10 Hz .*got '5' without a unit",
    ),
    "a size without a unit": (
        {"fault": "{mtu_mismatch: {link: in-use, end: near, mtu: 1000}}"},
        r"such as 4 MiB \(units: B, .*got '1000' without a unit",
    ),
    "a target that is none": (
        {"probes": "{flow: {source: host1, target: host9}}"},
        "no node 'host9' .*did you mean host8",
    ),
    "a rate of no unit": (
        {"probes": "{flow: {source: host1, target: host8, rate: 1 Gpps}}"},
        "units: pps, kpps, Mpps",
    ),
    "a fabric misspelt": ({"fabric": "clos-2x4x9"}, "did you mean clos-2x4x8"),
    "a measure misspelt": (
        {"objectives": "[{measure: flow_lost_pakets, at_most: 1, because: few}]"},
        "did you mean flow_lost_packets",
    ),
    "a detector misspelt": (
        {"objectives": "[{detected_by: bdf, within: 1 s, because: soon}]"},
        "did you mean bfd",
    ),
}


def planned(changed):
    """Everything that is looked at before a fabric is touched."""
    parts = {**USUAL, **changed}
    if "faults" in parts:
        del parts["fault"]
    text = "".join(f"{name}: {value}\n" for name, value in {"promise": "p", **parts}.items())
    experiment = loads(text, "mine.yaml")
    fabric = drivers.fabric(experiment.fabric)
    experiment.check(fabric)
    be_able(experiment, fabric, drivers.named("netns"))
    budget.be_within(experiment, fabric, "namespace")


class Bare(drivers.named("netns")):  # type: ignore[misc]
    """A driver on a machine without queues and taps."""

    @classmethod
    def engines(cls):
        gone = "this kernel has no sch_netem; use one that has"
        return {"nftables": "", "netem": gone, "worker": "no taps; modprobe tun"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "then: {delay: 1 ms}, engine: netem",
            "delay=1ms .*by engine netem: this kernel has no sch_netem; use one that has",
        ),
        (
            "then: {delay: 1 ms}",
            "no engine here can do delay=1ms.*; netem: this kernel .*; worker: no taps; modprobe",
        ),
    ],
)
def test_an_engine_that_is_missing_is_refused_with_its_cure(words, said):
    text = "".join(f"{k}: {v}\n" for k, v in {"promise": "p", **USUAL, **packets(words)}.items())
    experiment = loads(text, "mine.yaml")
    with pytest.raises(CapabilityError, match=said) as refused:
        be_able(experiment, drivers.fabric(experiment.fabric), Bare)
    assert "\n" not in str(refused.value)
    able = {**Bare.engines(), "netem": ""}
    assert plan.matrix(experiment, drivers.fabric(experiment.fabric), Bare, able)[0][2] == ""


def test_the_usual_experiment_is_accepted():
    """Else every refusal below could be for another reason."""
    planned({})
    planned(loss("share: 1 %"))
    planned(packets("select: {opcode: send}, when: {first: 3}"))
    slow = "{link_slow: {link: leaf1--spine1, end: leaf1, rate: 10 Mbit/s}}"
    rated = "link: leaf1--spine1, end: leaf1, then: {rate: 1 Mbit/s}"
    for other in (f"{rated}, engine: worker", rated.replace("end: leaf1", "end: spine1")):
        planned({"faults": f"[{slow}, {{packet_fault: {{{other}}}}}]"})


def test_there_are_fifty():
    assert len(MISUSES) >= 50


@pytest.mark.parametrize(("changed", "said"), MISUSES.values(), ids=MISUSES.keys())
def test_it_is_refused_with_the_right_sentence(changed, said):
    with pytest.raises(RailbreakError, match=said) as refused:
        planned(changed)
    assert "\n" not in str(refused.value).strip()
    assert len(str(refused.value)) < 400
