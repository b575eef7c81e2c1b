"""The plan of an experiment on machines: what is made, where, and in whose words."""

from dataclasses import replace

from chaos import cli, plan, topology
from chaos.change import LinkState, PacketDrop, Place
from chaos.drivers.ssh.written import written
from chaos.drivers.state import Life, State
from chaos.experiment import find
from chaos.fabric import Fabric, Link, Node, Port


def lab():
    """clos-2x4x8 as an inventory has it: leaf1 runs SONiC, every other node Linux."""
    fabric = topology.load("clos-2x4x8")
    nodes = {}
    for name, node in fabric.nodes.items():
        ssh = {"address": "192.0.2.1"}
        if name == "leaf1":
            ports = {f"eth{n}": f"Ethernet{4 * (n - 1)}" for n in range(1, 9)}
            ssh |= {"platform": "sonic", "ports": ports}
        nodes[name] = replace(node, settings={**node.settings, "ssh": ssh})
    return replace(fabric, name="lab", nodes=nodes)


def shown(fabric, name="local_link_down"):
    return "\n".join(plan.lines(find(name), fabric, "ssh"))


def test_a_plan_says_what_a_switch_is_told_and_nothing_that_ssh_does_not_do():
    told = shown(lab())

    assert "[wire facing" not in told
    assert "[leaf1, SONiC] sudo config interface shutdown Ethernet" in told
    assert "[leaf1, SONiC] sudo config interface startup Ethernet" in told
    assert "else [leaf1, SONiC] a script on it" in told
    assert "made as leaf1:eth" in told
    assert "[wire facing" in "\n".join(plan.lines(find("local_link_down"), lab(), "netns"))


def test_what_comes_to_the_same_is_written_once():
    """Both carriers of a cable: two are asked for, one end is set down."""
    nodes = {
        "h1": Node("h1", settings={"ssh": {"address": "a", "kernel": {"eth1": ["ens3", 4]}}}),
        "r1": Node(
            "r1", role="leaf", settings={"ssh": {"address": "a", "ports": {"eth1": "swp1"}}}
        ),
    }
    fabric = Fabric("f", nodes, (Link(Port("h1", "eth1"), Port("r1", "eth1")),))
    both = [LinkState(Place("h1", "eth1", "wire")), LinkState(Place("r1", "eth1", "wire"))]

    told = [line.strip() for line in written(both, fabric)]

    assert told[:3] == [
        "h1:eth1~wire: no carrier",
        "r1:eth1~wire: no carrier",
        "made as r1:eth1: admin down",
    ]
    assert [line for line in told if line.startswith("do ")] == [
        "do   [r1] ip link set dev swp1 down"
    ]
    lost = PacketDrop(Place("r1", "eth1", "wire"), "railbreak_t", "tcp dport 80")
    (done,) = [line.strip() for line in written([lost], fabric) if " do " in line]
    assert done.startswith("do   [h1] nft table netdev railbreak_t")
    assert "device ens3 " in done


def test_what_a_switch_cannot_do_is_said_at_its_place():
    fabric = lab()
    port = next(port for port in fabric.walk() if port.node == "leaf1")
    share = PacketDrop(Place.at(port), "railbreak_t", "udp dport 4791", 10_000)

    told = written([share], fabric)

    assert "not made: SONiC cannot drop 1 % of a flow" in told[-1]
    assert not any(" do " in line for line in told)


def test_after_an_attach_the_command_line_shows_it(tmp_path, monkeypatch, capsys):
    """`plan EXPERIMENT --on LAB` reads the instance's state; no machine is asked."""
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path))
    folder = tmp_path / "lab"
    folder.mkdir()
    known = State("lab", lab(), Life(), linger=True, ready=True, driver="ssh", owned=False)
    known.save(folder)
    monkeypatch.setattr("sys.argv", ["railbreak", "plan", "local_link_down", "--on", "lab"])

    cli.main()

    said = " ".join(capsys.readouterr().out.split())
    assert "[leaf1, SONiC] sudo config interface shutdown Ethernet" in said
    assert "[wire facing" not in said
