"""What the embedded driver works out before it makes anything."""

import ipaddress
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.drivers import state
from chaos.drivers.audit import Interface, differences, rib_legs, shared_indexes
from chaos.drivers.netns import frr
from chaos.drivers.netns.frrconf import split
from chaos.drivers.netns.links import veth_pair, wire_ruleset
from chaos.drivers.netns.nodes import binds_of, environment, exec_lines, furnish, write_hosts
from chaos.drivers.netns.plan import FIRST_IFINDEX, make_plan
from chaos.drivers.ready import Expected, Leg, expectations, missing
from chaos.errors import FabricError, SpecError
from chaos.fabric import Fabric, Link, Node, Port

NET = ipaddress.ip_network("10.0.8.0/24")


def clos(spines=2, leaves=4, hosts=2, name="clos"):
    """Leaf-spine: `hosts` per leaf at eth3…, leaf eth1 to spine1, eth2 to spine2."""
    nodes = {f"spine{n}": Node(f"spine{n}", role="spine", runs="frr") for n in _to(spines)}
    nodes |= {f"leaf{n}": Node(f"leaf{n}", role="leaf", runs="frr") for n in _to(leaves)}
    links = [
        Link(Port(f"leaf{leaf}", f"eth{spine}"), Port(f"spine{spine}", f"eth{leaf}"))
        for leaf in _to(leaves)
        for spine in _to(spines)
    ]
    for number in _to(leaves * hosts):
        nodes[f"host{number}"] = Node(f"host{number}", role="host")
        leaf, port = (number - 1) // hosts + 1, (number - 1) % hosts + 1 + spines
        links.append(Link(Port(f"host{number}", "eth1"), Port(f"leaf{leaf}", f"eth{port}")))
    return Fabric(name, nodes, tuple(links))


def _to(last):
    return range(1, last + 1)


def indexes(plan):
    ends = [end for cable in plan.cables for end in cable.ends]
    return [index for end in ends for index in (end.ifindex, end.wire_ifindex)]


def test_every_interface_of_a_fabric_has_an_index_of_its_own():
    """T1: both ends of a veth pair with one index means late carrier events."""
    found = indexes(make_plan(clos()))

    assert len(found) == len(set(found)) == 64
    assert min(found) >= FIRST_IFINDEX, "low indexes are what namespaces hand out by themselves"


def test_every_node_has_a_hash_seed_of_its_own():
    """T4: equal seeds, or none, polarise."""
    plan = make_plan(clos())
    seeds = [sysctls["net.ipv4.fib_multipath_hash_seed"] for sysctls in plan.sysctls.values()]

    assert len(set(seeds)) == len(seeds) == 14
    assert "0" not in seeds


def test_the_same_file_gives_the_same_plan_and_another_lab_other_seeds():
    assert make_plan(clos()) == make_plan(clos())
    ours, theirs = make_plan(clos()), make_plan(clos(name="other"))
    key = "net.ipv4.fib_multipath_hash_seed"
    assert ours.sysctls["leaf1"][key] != theirs.sysctls["leaf1"][key]


def test_macs_are_distinct_and_the_files_own_win():
    fabric = clos()
    first = replace(fabric.links[0], macs=("02:00:00:00:00:01", ""))
    plan = make_plan(replace(fabric, links=(first, *fabric.links[1:])))
    macs = [end.mac for cable in plan.cables for end in cable.ends]

    assert macs[0] == "02:00:00:00:00:01"
    assert len(set(macs)) == len(macs)
    assert all(re.fullmatch(r"aa:c1:ab(:[0-9a-f]{2}){3}", mac) for mac in macs[1:])


def test_the_files_sysctls_win_and_foreign_ones_are_left_out_with_a_word():
    node = Node("r", role="router", settings={"sysctls": {}})
    given = {"net.ipv4.fib_multipath_hash_policy": 0, "kernel.panic": 1}
    fabric = Fabric("f", {"r": replace(node, settings={"sysctls": given})})
    plan = make_plan(fabric)

    assert (
        make_plan(Fabric("f", {"r": node})).sysctls["r"]["net.ipv4.fib_multipath_hash_policy"]
        == "3"
    )
    assert plan.sysctls["r"]["net.ipv4.fib_multipath_hash_policy"] == "0"
    assert "kernel.panic" not in plan.sysctls["r"]
    assert plan.warnings == ("r: sysctls kernel.panic are not of the network; left as they are",)


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ([("a", "averylongname123"), ("b", "eth1")], "1 to 15 bytes without a slash"),
        ([("a", "eth1/1"), ("b", "eth1")], "1 to 15 bytes without a slash"),
        ([("a", "eth1"), ("a", "eth1")], "plugged in twice"),
        ([("br", "br"), ("a", "eth1")], "named like the bridge itself"),
    ],
)
def test_names_the_kernel_cannot_hold_are_refused(links, said):
    nodes = {name: Node(name, runs="bridge" if name == "br" else "shell") for name in ("a", "b")}
    nodes["br"] = Node("br", kind="bridge", runs="bridge")
    one, two = (Port(*end) for end in links)

    with pytest.raises(SpecError, match=said):
        make_plan(Fabric("f", nodes, (Link(one, two),)))


def test_an_unknown_port_is_refused_with_near_names():
    with pytest.raises(SpecError, match=r"no port 'leaf1:eth9'.*leaf1:eth"):
        make_plan(clos()).end(Port("leaf1", "eth9"))


def test_the_wires_ruleset_joins_both_directions_and_no_dummy():
    fabric = Fabric(
        "f",
        {"a": Node("a"), "b": Node("b")},
        (
            Link(Port("a", "eth1"), Port("b", "eth1")),
            Link(Port("a", "eth2"), Port("", ""), kind="dummy"),
        ),
    )
    text = wire_ruleset(make_plan(fabric).cables)

    assert re.findall(r"device (\w+) .*\n\s+fwd to (\w+)", text) == [
        ("w1a", "w1b"),
        ("w1b", "w1a"),
    ]
    assert "w2" not in text


def test_a_veth_message_names_both_indexes():
    end = make_plan(clos()).cables[0].ends[0]
    message = veth_pair(end, 9500, 7, 8)

    assert message.count(end.ifindex.to_bytes(4, "little")) == 1
    assert message.count(end.wire_ifindex.to_bytes(4, "little")) == 1


# ---- readiness ----------------------------------------------------------------------------------


def test_a_leaf_needs_every_spine_towards_far_hosts_and_a_spine_one_leaf():
    fabric = clos()
    found = expectations(fabric, {NET: [Port("host8", "eth1")]})

    assert {want.router: want.legs for want in found} == {
        "leaf1": 2,
        "leaf2": 2,
        "leaf3": 2,
        "leaf4": 1,
        "spine1": 1,
        "spine2": 1,
    }


def test_parallel_links_are_legs_too():
    nodes = {name: Node(name, runs="frr", role="router") for name in ("r1", "r2")}
    nodes |= {"h": Node("h", role="host")}
    links = tuple(Link(Port("r1", f"eth{n}"), Port("r2", f"eth{n}")) for n in (1, 2, 3))
    fabric = Fabric("f", nodes, (*links, Link(Port("h", "eth1"), Port("r2", "eth9"))))

    assert Expected("r1", NET, 3) in expectations(fabric, {NET: [Port("h", "eth1")]})


def test_separate_rails_stay_separate():
    """rail2's switch is only reachable through hosts, so it needs nothing of rail1."""
    nodes = {f"rail{n}": Node(f"rail{n}", runs="frr", role="rail") for n in (1, 2)}
    nodes |= {f"h{n}": Node(f"h{n}", role="host") for n in (1, 2)}
    links = tuple(
        Link(Port(f"h{host}", f"eth{rail}"), Port(f"rail{rail}", f"eth{host}"))
        for host in (1, 2)
        for rail in (1, 2)
    )
    found = expectations(Fabric("f", nodes, links), {NET: [Port("h1", "eth1")]})

    assert [want.router for want in found] == ["rail1"]


def test_a_missing_route_and_a_missing_leg_are_told_apart():
    wanted = [Expected("leaf1", NET, 2), Expected("leaf2", NET, 2)]
    fibs = {"leaf1": {NET: frozenset({Leg(7)})}, "leaf2": {}}

    absent, few = missing(wanted, fibs)

    assert absent == [wanted[1]]
    assert few == ["leaf1 has 1 of 2 legs to 10.0.8.0/24"]
    assert missing([Expected("leaf1", NET, 1)], fibs) == ([], [])


# ---- audit --------------------------------------------------------------------------------------

RIB = {
    "10.0.8.0/24": [
        {
            "selected": True,
            "protocol": "bgp",
            "nexthops": [
                {"fib": True, "interfaceName": "eth1"},
                {"fib": True, "interfaceName": "eth2"},
                {"interfaceName": "eth9"},
            ],
        },
        {"protocol": "static", "nexthops": [{"interfaceName": "eth3"}]},
    ],
    "10.0.1.0/24": [
        {"selected": True, "protocol": "connected", "nexthops": [{"fib": True}]},
    ],
}


def test_the_audit_compares_only_what_frr_says_it_installed():
    assert rib_legs(RIB) == {NET: ["eth1", "eth2"]}


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        ({NET: ["eth1", "eth2"]}, []),
        ({NET: ["eth1"]}, ["FRR believes in 2 legs (eth1, eth2), the kernel has 1 (eth1)"]),
        ({}, ["FRR believes in 2 legs (eth1, eth2), the kernel has 0"]),
    ],
    ids=["same", "a leg lost (T2)", "no route"],
)
def test_a_kernel_that_forwards_by_less_is_a_finding(kernel, said):
    found = differences("leaf1", {NET: ["eth1", "eth2"]}, kernel)

    assert found == [f"leaf1: 10.0.8.0/24: {sentence}" for sentence in said]


def test_a_shared_index_is_a_finding():
    pair = {7: Interface("eth1", "", 1500, 7), 8: Interface("eth2", "", 1500, 9)}

    assert [text.split()[0] for text in shared_indexes({"a": pair})] == ["a:eth1"]


# ---- FRR ----------------------------------------------------------------------------------------

CONF = """frr version 10.5.1
hostname r1
interface eth1
 ip address 10.0.0.1/24
 ip ospf area 0
!
router bgp 65000

 neighbor 10.0.0.2 remote-as 1
exit
ip route 0.0.0.0/0 10.0.0.9
line vty
"""


def test_an_integrated_file_is_cut_by_owner():
    found = split(CONF, ["zebra", "bgpd", "ospfd", "staticd"])

    common = "frr version 10.5.1\nhostname r1\n"
    assert found == {
        "zebra": common + "interface eth1\n ip address 10.0.0.1/24\n",
        "ospfd": common + "interface eth1\n ip ospf area 0\n",
        "bgpd": common + "router bgp 65000\n neighbor 10.0.0.2 remote-as 1\n",
        "staticd": common + "ip route 0.0.0.0/0 10.0.0.9\n",
    }


@pytest.mark.parametrize(
    "line",
    ["route-map x permit 10", "interface eth1\n ip pim", "neighbor 1.2.3.4 remote-as 1", "rubbish"],
)
def test_a_line_of_uncertain_owner_sends_the_whole_file_through_vtysh(line):
    assert split(CONF, ["zebra", "bgpd", "ospfd", "staticd"]) is not None
    assert split(CONF + line + "\n", ["zebra", "bgpd", "ospfd", "staticd"]) is None


def test_a_line_of_a_daemon_that_does_not_run_is_not_lost_silently():
    assert split(CONF, ["zebra", "bgpd", "staticd"]) is None


def router(tmp_path, **files):
    paths = {}
    for name, text in files.items():
        paths[name] = tmp_path / name
        paths[name].write_text(text)
    return frr.routing(Node("r1", runs="frr"), Fabric("f", {}), paths)


def test_zebra_never_uses_kernel_nexthop_groups(tmp_path):
    """T2, from the first line on, whatever the file says."""
    conf = {"frr.conf": CONF, "daemons": "bgpd=yes\nospfd=yes\n"}

    assert "no zebra nexthop kernel enable" in router(tmp_path, **conf).own["zebra"]


def test_the_daemons_file_says_what_runs(tmp_path):
    text = 'bgpd=yes\nospfd=no\nbgpd_options="  --daemon -A 127.0.0.1"\nvtysh_enable=yes\n'
    found = router(tmp_path, **{"frr.conf": "hostname x\n", "daemons": text})

    assert found.daemons == {"zebra": (), "bgpd": ("-A", "127.0.0.1"), "staticd": ()}


def test_without_a_daemons_file_the_configuration_says_it(tmp_path):
    found = router(tmp_path, **{"frr.conf": CONF + "bfd\n"})

    assert set(found.daemons) == {"zebra", "bgpd", "bfdd", "staticd"}


def test_kind_frr_names_its_daemons_in_the_topology_file():
    node = Node("r1", kind="frr", runs="frr", settings={"extras": {"frr": {"daemons": ["bgpd"]}}})

    assert set(frr.routing(node, Fabric("f", {}), {}).daemons) == {"zebra", "bgpd", "staticd"}


def test_the_startup_configuration_of_a_router_is_its_frr_conf():
    settings = {"startup-config": "/a/r.conf", "binds": ["/b:/c"]}

    assert binds_of(Node("r", kind="frr", settings=settings)) == [
        "/b:/c",
        "/a/r.conf:/etc/frr/frr.conf",
    ]
    assert binds_of(Node("r", kind="linux", settings=settings)) == ["/b:/c"]


def test_session_changes_are_logged_with_microseconds(tmp_path):
    found = router(tmp_path, **{"frr.conf": CONF, "daemons": "bgpd=yes\nospfd=yes\nbfdd=yes\n"})

    assert "router bgp 65000\n bgp log-neighbor-changes" in found.own["bgpd"]
    assert "debug bfd peer" in found.own["bfdd"]
    assert all("log timestamp precision 6\nlog stdout " in text for text in found.own.values())


def test_a_refused_line_is_quoted(tmp_path):
    check = "2026/11/25 01:39:07 BGP: [X] No such command on config line 6:  neighbour 1.2.3.4\n"
    (tmp_path / "frr.log").write_text("fine\n")
    frr.check_log("r1", tmp_path)
    (tmp_path / "frr.log").write_text(check)

    with pytest.raises(FabricError, match=r"r1: FRR refused .*'neighbour 1\.2\.3\.4'"):
        frr.check_log("r1", tmp_path)


# ---- nodes --------------------------------------------------------------------------------------


def test_exec_lines_are_split_like_a_shell_and_installers_left_out():
    said = []
    lines = ["ip link set 'eth1' up", "apk add iperf3", "ip link set 'eth1' up", "sh -c 'a b'"]
    node = Node("h", settings={"exec": lines})
    found = exec_lines(node, Fabric("f", {"h": node}), said.append)

    assert [line.argv for line in found] == [
        ("ip", "link", "set", "eth1", "up"),
        ("sh", "-c", "a b"),
    ]
    assert said == ["h: exec 'apk add iperf3' left out; programs come from this machine"]


def test_an_exec_line_that_cannot_be_split_is_refused_with_its_place():
    node = Node("h", settings={"exec": ["echo 'x"]})

    with pytest.raises(SpecError, match=r"lab\.yml: topology\.nodes\.h\.exec\.0: .*No closing"):
        exec_lines(node, Fabric("f", {"h": node}, source="lab.yml"), print)


def test_a_program_finds_containerlabs_variables():
    node = Node("h", labels={"graph-icon": "x"}, settings={"env": {"A": 1}})
    found = environment(node, Fabric("f", {"h": node}))

    assert (found["CLAB_INTFS"], found["CLAB_LABEL_GRAPH_ICON"], found["A"]) == ("0", "x", "1")


def test_hosts_names_every_node(tmp_path):
    fabric = Fabric("lab", {})
    write_hosts(tmp_path, fabric, {"h1": "10.0.0.1"})

    assert "10.0.0.1 h1 clab-lab-h1\n" in (tmp_path / "hosts").read_text()


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("nothing.conf:/etc/frr/frr.conf", "nothing.conf does not exist"),
        ("frr.conf", "source:/target expected, got 'frr.conf'"),
        ("docker.sock:/var/run/docker.sock", "use driver containerlab"),
        ("frr.conf:/no/such/place", "/no/such/place is not among them"),
    ],
)
def test_a_bind_that_cannot_be_made_is_refused_with_its_place(tmp_path, bind, said):
    (tmp_path / "frr.conf").touch()
    (tmp_path / "docker.sock").touch()
    node = Node("r", settings={"binds": [bind]})
    fabric = Fabric("f", {"r": node}, source=str(tmp_path / "lab.clab.yml"))

    with pytest.raises(SpecError, match=said) as caught:
        furnish(node, fabric, tmp_path / "home")
    assert caught.value.field == "topology.nodes.r.binds"


# ---- state --------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RAILBREAK_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_copy_takes_the_next_name_and_a_chosen_name_is_not_shared(root):
    fabric = clos()
    names = [state.claim(fabric, None)[1].instance for _ in range(3)]

    assert names == ["clos", "clos-2", "clos-3"]
    with pytest.raises(FabricError, match="clos-2 is up already"):
        state.claim(fabric, "clos-2")
    assert sorted(item.name for item in root.iterdir()) == names, "claims leave nothing behind"


def test_an_instance_name_is_no_path(root):
    with pytest.raises(SpecError, match="instance name"):
        state.claim(clos(), "../x")


def test_the_fabric_comes_back_from_its_state(root):
    fabric = replace(clos(), source="/some/lab.clab.yml")
    folder, made = state.claim(fabric, None)

    assert state.read_state(folder) == made
    assert state.load_state("clos")[1].fabric == fabric


def test_what_a_dead_owner_left_is_stale_and_what_lingers_is_not(root):
    folder, made = state.claim(clos(), None)
    assert [item.stale for item in state.running()] == [False]

    replace(made, owner=state.Life(made.owner.pid, 1)).save(folder)  # that pid, another process
    assert [item.stale for item in state.running()] == [True]
    me = state.Life.of(os.getpid())
    replace(made, owner=state.Life(0, 0), linger=True, keeper=me).save(folder)
    assert [item.stale for item in state.running()] == [False]
    replace(made, keeper=state.Life(me.pid, 1)).save(folder)  # its namespaces are gone
    assert [item.stale for item in state.running()] == [True]

    assert state.reap() == ("clos",)
    assert list(root.iterdir()) == []


def test_an_instance_that_is_not_there_is_named_with_near_ones(root):
    state.claim(clos(), None)
    with pytest.raises(FabricError, match=r"no fabric 'clso' is up; did you mean clos\?"):
        state.load_state("clso")


def test_a_file_that_is_no_state_is_nobodys(root):
    Path(root, "junk").mkdir(parents=True)
    Path(root, "junk", "state.json").write_text("{")

    assert state.running() == ()


@pytest.mark.parametrize("given", [{}, {"net.ipv4.fib_multipath_hash_policy": 1}])
def test_ports_are_hashed_from_the_packet_itself(given):
    """Policy 1 would take the sender's socket hash where the packet still carries it."""
    node = Node("r", role="leaf", runs="frr", settings={"sysctls": given})
    sysctls = make_plan(Fabric("f", {"r": node})).sysctls["r"]

    for version in "46":
        assert sysctls[f"net.ipv{version}.fib_multipath_hash_policy"] == "3"
        assert sysctls[f"net.ipv{version}.fib_multipath_hash_fields"] == "55"
