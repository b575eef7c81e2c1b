"""Where only interfaces are reached, a queue asked for by name lies at the port that sends."""

from dataclasses import replace

import pytest

from chaos import drivers
from chaos.changes.queue import QUEUES
from chaos.errors import CapabilityError
from chaos.experiment import loads
from chaos.packets.action import Action
from chaos.packets.engines import ENGINES, At, choose
from chaos.plan import lines, matrix

THENS = {"netem": "delay=10ms", "htb": "rate=10Mbit/s"}
ALL = dict.fromkeys(ENGINES, "")


def with_logins(fabric):
    """The same, of machines that can be logged in to."""
    login = {"ssh": {"address": "192.0.2.1"}}
    nodes = {name: replace(node, settings=login) for name, node in fabric.nodes.items()}
    return replace(fabric, nodes=nodes)


@pytest.mark.parametrize("engine", QUEUES)
def test_by_name_it_is_there_and_by_itself_it_is_not_chosen(engine):
    then = Action.parse(THENS[engine])

    assert choose(then, At(False, ALL, sends=True), engine).name == engine
    assert choose(then, At(False, ALL, sends=True)).name == "nfqueue"
    with pytest.raises(CapabilityError, match="other inner end of a cable"):
        choose(then, At(False, ALL), engine)


def test_what_the_kernel_lacks_is_refused_with_what_does_it_where_it_receives():
    lacking = At(False, ALL | {"netem": "no sch_netem; load it"}, sends=True)

    with pytest.raises(CapabilityError) as refused:
        choose(Action.parse("delay=10ms"), lacking, "netem")

    assert str(refused.value) == (
        "delay=10ms by engine netem: no sch_netem; load it; "
        "or leave engine out, then nfqueue does it"
    )


@pytest.mark.parametrize("driver", ["containerlab", "ssh"])
@pytest.mark.parametrize("engine", QUEUES)
def test_a_plan_says_that_it_can_be_made_and_where(driver, engine):
    """Its place is the node's own port, and its table meets what leaves."""
    text = (
        "promise: p\nfabric: clos-2x4x8\nfault:\n  packet_fault: {link: leaf1--spine1, end: leaf1,"
        f' select: "dscp=8", then: "{THENS[engine]}", engine: {engine}}}\n'
        "probes: {flow: {source: host1, target: host8}}\n"
        "objectives: [{measure: flow_lost_packets, at_most: 1, because: b}]\n"
    )
    experiment, reach = loads(text), drivers.named(driver)
    fabric = with_logins(drivers.fabric("clos-2x4x8", driver))
    there = At(False, ALL, sends=reach.engines().sends)

    [(_, _, why)] = matrix(experiment, fabric, reach, there)
    told = "\n".join(lines(experiment, fabric, driver, there=there))

    assert why == ""
    assert "made as leaf1:eth1: " in told
    assert f"on all of dscp=8 at egress, by {engine}" in told
    assert "type filter hook egress device eth1" in told
    assert "do   [leaf1] " in told
    assert "eth1-far" not in told
